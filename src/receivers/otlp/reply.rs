//! Answers to OTLP exporters. Source: OTLP specification, "OTLP/HTTP Response".

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use xtrace_model::AuthFailure;
use xtrace_store::StoreError;

use super::mapping::Rejected;
use super::wire::DecodeError;
use crate::receivers::body::BodyError;

/// The encoding of a request, and so of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
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
}

/// The answer to a request whose spans are stored, but for those that were rejected.
pub(super) fn accepted(encoding: Encoding, rejected: &[Rejected], all: usize) -> Response {
    if rejected.is_empty() {
        let empty = match encoding {
            Encoding::Protobuf => Vec::new(),
            Encoding::Json => b"{}".to_vec(),
        };
        return encoding.respond(StatusCode::OK, empty);
    }
    let message = rejection_message(rejected, all);
    let body = match encoding {
        Encoding::Protobuf => {
            let mut partial = Vec::new();
            put_varint_field(&mut partial, 1, rejected.len() as u64);
            put_bytes_field(&mut partial, 2, message.as_bytes());
            let mut response = Vec::new();
            put_bytes_field(&mut response, 1, &partial);
            response
        }
        // int64 is a string in proto3's JSON.
        Encoding::Json => json!({"partialSuccess": {
            "rejectedSpans": rejected.len().to_string(), "errorMessage": message,
        }})
        .to_string()
        .into_bytes(),
    };
    encoding.respond(StatusCode::OK, body)
}

/// Equal causes together, each with one example; at most 1 KiB.
fn rejection_message(rejected: &[Rejected], all: usize) -> String {
    let mut causes: Vec<(&str, usize, &Rejected)> = Vec::new();
    for one in rejected {
        match causes.iter_mut().find(|(reason, ..)| *reason == one.reason) {
            Some((_, count, _)) => *count += 1,
            None => causes.push((one.reason, 1, one)),
        }
    }
    let cause = |(reason, count, first): &(&str, usize, &Rejected)| {
        let Rejected { span, scope, .. } = first;
        format!("{count} x {reason}, first: span \"{span}\" of scope \"{scope}\"")
    };
    let causes: Vec<String> = causes.iter().map(cause).collect();
    let mut message = format!(
        "{} of {all} span(s) rejected: {}",
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

/// Why a request is refused as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum OtlpError {
    #[error("{}", auth_message(*.0))]
    Auth(AuthFailure),
    #[error("no such endpoint; OTLP exporters post to /v1/traces")]
    NoSuchEndpoint,
    #[error("this endpoint takes POST only")]
    Method,
    #[error("Content-Type must be application/x-protobuf or application/json")]
    ContentType,
    #[error("{0}")]
    IngestionVersion(String),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn auth_message(failure: AuthFailure) -> &'static str {
    match failure {
        AuthFailure::Missing => "no authorization header; send Basic public:secret or Bearer token",
        AuthFailure::Scheme | AuthFailure::Malformed => "the authorization header is malformed",
        AuthFailure::UnknownKeyPair | AuthFailure::UnknownToken => "unknown credentials",
        AuthFailure::ScoresOnly => "a public key alone may only write scores",
        AuthFailure::Unavailable => "the database is unavailable; try again",
    }
}

impl OtlpError {
    /// HTTP status and the number of the gRPC status.
    fn status(&self) -> (StatusCode, u8) {
        match self {
            Self::Auth(AuthFailure::ScoresOnly) => (StatusCode::FORBIDDEN, 7),
            Self::Auth(AuthFailure::Unavailable) => (StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::Auth(_) => (StatusCode::UNAUTHORIZED, 16),
            Self::NoSuchEndpoint => (StatusCode::NOT_FOUND, 12),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, 12),
            Self::ContentType | Self::Body(BodyError::Encoding) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, 3)
            }
            Self::Body(BodyError::TooLarge { .. }) | Self::Decode(DecodeError::TooMany(_)) => {
                (StatusCode::PAYLOAD_TOO_LARGE, 3)
            }
            Self::Body(BodyError::Overloaded) => (StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::Body(BodyError::Corrupt | BodyError::Broken)
            | Self::Decode(DecodeError::Protobuf(_) | DecodeError::Json(_))
            | Self::IngestionVersion(_)
            | Self::Store(StoreError::Refused(_)) => (StatusCode::BAD_REQUEST, 3),
            Self::Store(StoreError::Overloaded { .. }) => (StatusCode::TOO_MANY_REQUESTS, 8),
            Self::Store(StoreError::Unavailable(_) | StoreError::Timeout) => {
                (StatusCode::SERVICE_UNAVAILABLE, 14)
            }
            // Clients drop what gets a 500; rows that were not committed must come again.
            Self::Store(StoreError::Internal(_)) => (StatusCode::SERVICE_UNAVAILABLE, 13),
        }
    }

    /// A `google.rpc.Status` in the request's encoding.
    pub(super) fn respond(&self, encoding: Encoding) -> Response {
        let (status, code) = self.status();
        let message = self.to_string();
        let body = match encoding {
            Encoding::Protobuf => {
                let mut body = Vec::new();
                put_varint_field(&mut body, 1, u64::from(code));
                put_bytes_field(&mut body, 2, message.as_bytes());
                body
            }
            Encoding::Json => json!({"code": code, "message": message})
                .to_string()
                .into_bytes(),
        };
        let mut response = encoding.respond(status, body);
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"xtrace\""),
            );
        }
        if let Some(seconds) = crate::retry::after(status, self.retry_after()) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }

    fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Self::Store(StoreError::Overloaded { retry_after }) => Some(*retry_after),
            _ => None,
        }
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

fn put_varint_field(bytes: &mut Vec<u8>, number: u8, value: u64) {
    bytes.push(number << 3);
    put_varint(bytes, value);
}

fn put_bytes_field(bytes: &mut Vec<u8>, number: u8, value: &[u8]) {
    bytes.push(number << 3 | 2);
    put_varint(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}
