//! A name for every request: echoed or made, on the response and on every log line.

use axum::extract::{MatchedPath, Request};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use crate::self_metrics::method_name;

const HEADER: &str = "x-request-id";

/// Middleware: names the request and logs its outcome.
pub async fn name_requests(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let id = sent_id(&request).unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let method = method_name(request.method());
    // A path may hold a link's token, an id or a name that people wrote: only its pattern is logged.
    let path = pattern(path.as_ref());
    let span = tracing::info_span!("request", id = %id);
    let began = std::time::Instant::now();
    let mut response = async {
        let response = next.run(request).await;
        let status = response.status().as_u16();
        let duration_ms = began.elapsed().as_millis();
        if response.status().is_server_error() {
            tracing::warn!(method, path, status, duration_ms, "failed");
        } else {
            tracing::debug!(method, path, status, duration_ms, "answered");
        }
        response
    }
    .instrument(span)
    .await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, id);
    }
    response
}

/// What logs call a path: the pattern of its route, or `none`.
pub(crate) fn pattern(path: Option<&MatchedPath>) -> &str {
    path.map_or("none", MatchedPath::as_str)
}

/// The id that the client chose: 1 to 128 visible ASCII characters.
fn sent_id(request: &Request) -> Option<String> {
    let id = request.headers().get(HEADER)?.to_str().ok()?;
    let fits = (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| id.to_owned())
}
