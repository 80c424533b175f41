//! Which web pages may send: SDKs in browsers ask before they do.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// How long a browser may remember the answer.
const MAX_AGE: Duration = Duration::from_hours(2);

/// Lets pages of some origins send, or of all (`*`). Credentials are in headers, never in cookies, so
/// a page can't use those of its reader.
pub fn layer(origins: &[HeaderValue]) -> CorsLayer {
    let origins = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(MAX_AGE)
}

/// Langfuse's paths are open to every page: its browser SDK sends scores with a public key.
pub fn of_any_page() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::PATCH,
            Method::POST,
            Method::DELETE,
        ])
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(MAX_AGE)
}

/// Middleware: answers to browsers that ask first have no body, and say so (204), as Langfuse's do.
pub async fn say_no_content(request: Request, next: Next) -> Response {
    let asks = request.method() == Method::OPTIONS;
    let mut answer = next.run(request).await;
    if asks && answer.status() == StatusCode::OK {
        *answer.status_mut() = StatusCode::NO_CONTENT;
        answer.headers_mut().remove(header::CONTENT_LENGTH);
    }
    answer
}
