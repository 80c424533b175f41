//! Answers to OTLP exporters. Source: OTLP specification, "OTLP/HTTP Response".

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::error::OtlpError;
use super::grpc;
use super::mapping::Rejected;
use super::protobuf_out::{put_bytes_field, put_varint_field, status};

/// What a request holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    /// What its items are called, and the member of `partialSuccess` that counts them.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Traces => ("span", "rejectedSpans"),
            Self::Metrics => ("data point", "rejectedDataPoints"),
            Self::Logs => ("log record", "rejectedLogRecords"),
        }
    }
}

/// How a request came, and so how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Http(Encoding),
    Grpc,
}

impl Transport {
    /// The answer to a request whose items are stored, but for those that were rejected.
    pub(super) fn accepted(self, signal: Signal, rejected: &[Rejected], all: usize) -> Response {
        let message = (!rejected.is_empty()).then(|| rejection_message(signal, rejected, all));
        let partial = message.as_deref().map(|message| (rejected.len(), message));
        match self {
            Self::Http(encoding) => {
                encoding.respond(StatusCode::OK, encoding.export_response(signal, partial))
            }
            Self::Grpc => grpc::accepted(&Encoding::Protobuf.export_response(signal, partial)),
        }
    }

    /// A `google.rpc.Status`.
    pub(super) fn refused(self, error: &OtlpError) -> Response {
        match self {
            Self::Http(encoding) => encoding.refused(error),
            Self::Grpc => grpc::refused(error),
        }
    }
}

/// The encoding of a request, and so of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    /// By the media type alone; parameters such as a charset don't matter.
    pub(super) fn of(content_type: Option<&HeaderValue>) -> Option<Self> {
        let media_type = content_type?.to_str().ok()?.split(';').next()?.trim();
        if media_type.eq_ignore_ascii_case("application/x-protobuf") {
            Some(Self::Protobuf)
        } else if media_type.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else {
            None
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    fn respond(self, status: StatusCode, body: Vec<u8>) -> Response {
        let content_type = [(header::CONTENT_TYPE, self.media_type())];
        (status, content_type, Body::from(body)).into_response()
    }

    /// An `Export…ServiceResponse`; those of all signals are alike.
    fn export_response(self, signal: Signal, partial: Option<(usize, &str)>) -> Vec<u8> {
        match (self, partial) {
            (Self::Protobuf, None) => Vec::new(),
            (Self::Json, None) => b"{}".to_vec(),
            (Self::Protobuf, Some((rejected, message))) => {
                let mut partial = Vec::new();
                put_varint_field(&mut partial, 1, rejected as u64);
                put_bytes_field(&mut partial, 2, message.as_bytes());
                let mut response = Vec::new();
                put_bytes_field(&mut response, 1, &partial);
                response
            }
            // int64 is a string in proto3's JSON.
            (Self::Json, Some((rejected, message))) => json!({"partialSuccess": {
                signal.words().1: rejected.to_string(), "errorMessage": message,
            }})
            .to_string()
            .into_bytes(),
        }
    }

    fn refused(self, error: &OtlpError) -> Response {
        let (http_status, code) = error.status();
        let message = error.to_string();
        let body = match self {
            Self::Protobuf => status(code, &message),
            Self::Json => json!({"code": code, "message": message})
                .to_string()
                .into_bytes(),
        };
        let mut response = self.respond(http_status, body);
        let headers = response.headers_mut();
        if http_status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"xtrace\""),
            );
        }
        if http_status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
        }
        if let Some(seconds) = error.retry_after() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Equal causes together, each with one example; at most 1 KiB.
fn rejection_message(signal: Signal, rejected: &[Rejected], all: usize) -> String {
    let (item, _) = signal.words();
    let mut causes: Vec<(&str, usize, &Rejected)> = Vec::new();
    for one in rejected {
        match causes.iter_mut().find(|(reason, ..)| *reason == one.reason) {
            Some((_, count, _)) => *count += 1,
            None => causes.push((one.reason, 1, one)),
        }
    }
    let cause = |(reason, count, first): &(&str, usize, &Rejected)| {
        let Rejected { span, scope, .. } = first;
        format!("{count} x {reason}, first: {item} \"{span}\" of scope \"{scope}\"")
    };
    let causes: Vec<String> = causes.iter().map(cause).collect();
    let mut message = format!(
        "{} of {all} {item}(s) rejected: {}",
        rejected.len(),
        causes.join("; ")
    );
    if rejected.len() == all
        && rejected
            .iter()
            .all(|one| one.reason == "spanId:absent" || one.reason == "traceId:absent")
    {
        message.push_str(" (no span has ids: is this a logs export?)");
    }
    xtrace_model::text::cut_bytes(&message, 1024).to_owned()
}
