//! Handlers end: whatever a database that has fallen silent does not answer, a client gets an answer.
//!
//! Readers' statements and writers' transactions have deadlines of their own. This is the outermost one, for what
//! is written in a few statements at once: no order of them may keep a client, its memory and a connection for ever.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::dialect::Dialect;
use crate::retry;

/// Longer than any statement of a request may run, and its turn before it: 60 s for one that writes.
const HANDLER_MAX: Duration = Duration::from_mins(2);

/// Middleware, for handlers whose body is read before they run.
pub async fn end_handlers(request: Request, next: Next) -> Response {
    end_after(HANDLER_MAX, request, next).await
}

async fn end_after(limit: Duration, request: Request, next: Next) -> Response {
    let dialect = Dialect::of(&request);
    if let Ok(response) = tokio::time::timeout(limit, next.run(request)).await {
        return response;
    }
    tracing::warn!("a request was given up, since the database did not answer");
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut response = dialect.refuse(status, "the database does not answer; send it again later");
    if let Some(seconds) = retry::after(status, None) {
        let seconds = HeaderValue::from(seconds);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use tower::ServiceExt;

    #[tokio::test]
    async fn what_does_not_end_is_answered_in_the_dialect_of_its_path() {
        let short = Duration::from_millis(20);
        let silent = async || -> &'static str { std::future::pending().await };
        for (path, code) in [("/api/public/comments", 503), ("/api/public/logs", 503)] {
            let router = Router::new()
                .fallback(silent)
                .layer(from_fn(move |request, next| {
                    end_after(short, request, next)
                }));
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = router.oneshot(request).await.unwrap();
            assert_eq!(response.status(), code, "{path}");
            assert_eq!(response.headers()[header::RETRY_AFTER], "2", "{path}");
        }
    }
}
