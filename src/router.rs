//! Every path of every dialect. Handlers are named where their path is; nothing is decided here.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::api::error::ApiError;
use crate::api::{metrics, service};
use crate::gateway::Gateway;
use crate::receivers::{native, otlp};
use crate::{auth, limits, request_id, self_metrics};

/// The whole service.
pub fn router(gateway: Gateway) -> Router {
    let open = Router::new()
        .route("/healthz", get(service::healthz))
        .route("/readyz", get(service::readyz))
        .with_state(gateway.clone());

    let otlp = Router::new()
        .route("/v1/traces", post(otlp::receive_traces))
        .route("/api/public/otel/v1/traces", post(otlp::receive_traces))
        .method_not_allowed_fallback(otlp::method_not_allowed)
        .with_state(gateway.clone());

    let native = Router::new()
        .route("/v1/l/batch", post(native::receive_traces))
        .route("/v1/metrics/batch", post(native::receive_metrics))
        .route("/api/public/metrics/names", get(metrics::names))
        .route("/api/public/metrics/query", get(metrics::query))
        .route("/metrics", get(self_metrics::show))
        .route(
            "/api/internal/rate_limit_stats",
            get(service::rate_limit_stats),
        )
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .with_state(gateway.clone());

    let langfuse = xtrace_compat::router(gateway.store.clone());

    let protected = otlp
        .merge(native)
        .merge(langfuse)
        .fallback(not_found)
        .layer(from_fn_with_state(gateway.clone(), limits::limit_reads))
        .layer(from_fn_with_state(gateway, auth::authenticate));

    open.merge(protected)
        // Receivers have limits of their own, before and after decompression.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(self_metrics::time_requests))
        .layer(from_fn(request_id::name_requests))
}

/// What the listener of `METRICS_ADDR` answers.
pub fn metrics_router(gateway: Gateway) -> Router {
    Router::new()
        .route("/metrics", get(self_metrics::show_open))
        .with_state(gateway)
}

/// Unknown paths answer in the shape of the dialect that they look like.
async fn not_found(request: Request) -> Response {
    if let Some(answer) = otlp::not_found(&request) {
        return answer;
    }
    let path = request.uri().path();
    if path.starts_with("/api/public/") {
        return xtrace_compat::not_found();
    }
    ApiError::NotFound(path.to_owned()).into_response()
}
