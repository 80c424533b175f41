//! In whose words a request is refused that no handler of a dialect gets to answer: one table from
//! paths to dialects, for unknown paths and methods, panics, and limits alike.

use std::panic::AssertUnwindSafe;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use crate::api::error::ApiError;
use crate::limits::Refusal;
use crate::receivers::otlp;
use crate::request_id;

/// Whom a request is meant for, by its path and type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dialect {
    Otlp(otlp::Transport),
    Langfuse,
    Native,
}

/// Native paths below prefixes of other dialects.
const NATIVE: [&str; 5] = [
    "/v1/l/batch",
    "/v1/metrics/batch",
    "/api/public/logs",
    "/api/public/metrics/names",
    "/api/public/metrics/query",
];

impl Dialect {
    pub(crate) fn of(request: &Request) -> Self {
        let path = request.uri().path();
        if otlp::is_grpc(request.headers()) {
            Self::Otlp(otlp::Transport::Grpc)
        } else if NATIVE.contains(&path) {
            Self::Native
        } else if let Some(transport) = otlp::transport_of(request) {
            Self::Otlp(transport)
        } else if path.starts_with("/api/public/") {
            Self::Langfuse
        } else {
            Self::Native
        }
    }

    /// The answer at a path that is none; `path` is named to people.
    fn not_found(self, path: &str) -> Response {
        match self {
            Self::Otlp(transport) => transport.not_found(),
            Self::Langfuse => xtrace_compat::not_found(),
            Self::Native => ApiError::NotFound(path.to_owned()).into_response(),
        }
    }

    /// The answer of a handler that panicked.
    fn fault(self) -> Response {
        match self {
            Self::Otlp(transport) => transport.fault(),
            Self::Langfuse => xtrace_compat::fault(),
            Self::Native => ApiError::Fault.into_response(),
        }
    }

    /// The answer to a caller who asks or sends too much.
    pub(crate) fn too_many_requests(self, refusal: Refusal) -> Response {
        let mut response = match self {
            Self::Otlp(transport) => transport.refused_outside(
                StatusCode::TOO_MANY_REQUESTS,
                "too much of this caller at once; send it again later".to_owned(),
            ),
            Self::Langfuse => {
                xtrace_compat::rate_limited(refusal.seconds(), refusal.limit, &refusal.reset_at())
            }
            Self::Native => ApiError::TooManyRequests(refusal).into_response(),
        };
        let seconds = HeaderValue::from(refusal.seconds());
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
        response
    }

    /// Any other refusal, in words that say why.
    pub(crate) fn refuse(self, status: StatusCode, message: &str) -> Response {
        match self {
            Self::Otlp(transport) => transport.refused_outside(status, message.to_owned()),
            Self::Langfuse => xtrace_compat::refused(status, message),
            Self::Native => ApiError::Outside(status, message.to_owned()).into_response(),
        }
    }
}

/// The answer at a path that is none.
pub async fn not_found(request: Request) -> Response {
    Dialect::of(&request).not_found(request.uri().path())
}

/// Middleware: a handler that panics is a fault, and still answers; and refusals that the framework
/// words, such as that of a method or of a path that is no UTF-8, are worded by the dialect instead.
pub async fn answer_faults(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let dialect = Dialect::of(&request);
    let outcome = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let Ok(response) = outcome else {
        let path = request_id::pattern(path.as_ref());
        tracing::error!(path, "a request met a panic");
        return dialect.fault();
    };
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_worded(&response) {
        return response;
    }
    let mut worded = dialect.refuse(status, plain(status));
    for name in [header::ALLOW, header::RETRY_AFTER] {
        if let Some(value) = response.headers().get(&name) {
            worded.headers_mut().insert(name, value.clone());
        }
    }
    worded
}

/// Whether a dialect has worded the answer: the framework's own words are plain text, or none.
fn is_worded(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| !value.as_bytes().starts_with(b"text/plain"))
}

fn plain(status: StatusCode) -> &'static str {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => "this endpoint does not take that method",
        StatusCode::BAD_REQUEST => "the path or the query can't be read",
        other => other.canonical_reason().unwrap_or("refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::post;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    async fn said(router: Router, request: Request) -> (StatusCode, String, String) {
        let layer = axum::middleware::from_fn(answer_faults);
        let response = router.layer(layer).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let grpc_status = parts.headers.get("grpc-status");
        let grpc_status = grpc_status.map_or("", |value| value.to_str().unwrap());
        let text = String::from_utf8_lossy(&body).into_owned();
        (parts.status, text, grpc_status.to_owned())
    }

    async fn panicking(path: &str, content_type: &str) -> (StatusCode, String, String) {
        let fault = async || -> &'static str { panic!("a test") };
        let request = Request::post(path).header(header::CONTENT_TYPE, content_type);
        let request = request.body(Body::empty()).unwrap();
        said(Router::new().fallback(fault), request).await
    }

    #[tokio::test]
    async fn a_panic_is_answered_in_the_dialect_of_its_request() {
        let (status, body, _) = panicking("/v1/traces", "application/json").await;
        assert_eq!(status, 500);
        assert!(body.starts_with("{\"code\":13,\"message\":"), "{body}");
        let (status, body, _) = panicking("/v1/traces", "application/x-protobuf").await;
        assert_eq!(
            (status.as_u16(), &body.as_bytes()[..2]),
            (500, &b"\x08\x0d"[..])
        );
        let (status, _, grpc_status) = panicking("/v1/traces", "application/grpc").await;
        assert_eq!((status.as_u16(), grpc_status.as_str()), (200, "13"));
        for path in ["/api/public/traces", "/api/public/metrics/daily"] {
            let (status, body, _) = panicking(path, "application/json").await;
            assert_eq!(status, 500);
            assert!(body.contains("\"error\""), "{body}");
        }
        for path in NATIVE {
            let (status, body, _) = panicking(path, "application/json").await;
            assert_eq!(status, 500);
            assert!(body.contains("INTERNAL_ERROR"), "{path} {body}");
        }
    }

    #[tokio::test]
    async fn what_the_framework_refuses_is_worded_by_the_dialect() {
        let router = || Router::new().fallback_service(post(async || ""));
        let request = Request::get("/v1/traces").body(Body::empty()).unwrap();
        let (status, body, _) = said(router(), request).await;
        assert_eq!(status, 405);
        assert!(body.starts_with("{\"code\":12,"), "{body}");
        let handler = async || (StatusCode::IM_A_TEAPOT, "plain");
        let router = Router::new().fallback(handler);
        let request = Request::get("/api/public/x").body(Body::empty()).unwrap();
        let (status, body, _) = said(router, request).await;
        assert_eq!(status, 418);
        assert!(body.contains("\"error\""), "{body}");
    }
}
