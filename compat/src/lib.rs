//! The Langfuse public API on top of xtrace's store. `README.md` beside this crate lists what is
//! served and where it differs.

mod auth;
mod daily;
mod error;
mod fields;
mod filter;
mod health;
mod observations;
mod payload;
mod projects;
mod query;
mod scores;
mod traces;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use xtrace_store::Store;

use error::CompatError;

/// Every path of the dialect. Requests carry an `xtrace_model::Authentication` in their extensions.
pub fn router(store: Store) -> Router {
    Router::new()
        .route("/api/public/health", get(health::health))
        .route("/api/public/ready", get(health::ready))
        .route("/api/public/projects", get(projects::list))
        .route("/api/public/traces", get(traces::list))
        .route("/api/public/traces/{trace_id}", get(traces::find))
        .route("/api/public/observations", get(observations::list))
        .route(
            "/api/public/observations/{observation_id}",
            get(observations::find),
        )
        .route("/api/public/metrics/daily", get(daily::list))
        .method_not_allowed_fallback(|| async { CompatError::MethodNotAllowed })
        .with_state(store)
}

/// The answer to a path that the dialect does not have.
pub fn not_found() -> Response {
    CompatError::NoSuchEndpoint.into_response()
}

/// The answer of a handler that panicked.
pub fn fault() -> Response {
    CompatError::Fault.into_response()
}

/// The answer to a caller who reads too often.
pub fn rate_limited(retry_after_s: u64, limit: u32, reset_at: &str) -> Response {
    CompatError::RateLimited {
        retry_after_s,
        limit,
        reset_at: reset_at.to_owned(),
    }
    .into_response()
}
