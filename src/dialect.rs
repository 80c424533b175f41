//! In whose words a request is refused that no handler of a dialect gets to answer.

use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use crate::api::error::ApiError;
use crate::receivers::otlp;

/// Whom a request is meant for, by its path and type.
enum Dialect {
    Otlp(otlp::Transport),
    Langfuse,
    Native,
}

impl Dialect {
    fn of(request: &Request) -> Self {
        if let Some(transport) = otlp::transport_of(request) {
            Self::Otlp(transport)
        } else if request.uri().path().starts_with("/api/public/") {
            Self::Langfuse
        } else {
            Self::Native
        }
    }
}

/// The answer at a path that is none.
pub async fn not_found(request: Request) -> Response {
    match Dialect::of(&request) {
        Dialect::Otlp(transport) => transport.not_found(),
        Dialect::Langfuse => xtrace_compat::not_found(),
        Dialect::Native => ApiError::NotFound(request.uri().path().to_owned()).into_response(),
    }
}

/// Middleware: a handler that panics is a fault, and still answers.
pub async fn answer_faults(request: Request, next: Next) -> Response {
    let dialect = Dialect::of(&request);
    let uri = request.uri().clone();
    let outcome = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    outcome.unwrap_or_else(|_| {
        tracing::error!(path = uri.path(), "a request met a panic");
        match dialect {
            Dialect::Otlp(transport) => transport.fault(),
            Dialect::Langfuse => xtrace_compat::fault(),
            Dialect::Native => ApiError::Fault.into_response(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::http::{StatusCode, header};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    async fn panicking(path: &str, content_type: &str) -> (StatusCode, String, String) {
        let fault = async || -> &'static str { panic!("a test") };
        let router = Router::new()
            .fallback(fault)
            .layer(axum::middleware::from_fn(answer_faults));
        let request = Request::post(path).header(header::CONTENT_TYPE, content_type);
        let request = request.body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let grpc_status = parts.headers.get("grpc-status");
        let grpc_status = grpc_status.map_or("", |value| value.to_str().unwrap());
        let text = String::from_utf8_lossy(&body).into_owned();
        (parts.status, text, grpc_status.to_owned())
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
        let (status, body, _) = panicking("/api/public/traces", "application/json").await;
        assert_eq!(status, 500);
        assert!(body.contains("\"error\""), "{body}");
        let (status, body, _) = panicking("/v1/l/batch", "text/plain").await;
        assert_eq!(status, 500);
        assert!(body.contains("INTERNAL_ERROR"), "{body}");
    }
}
