//! Every path of every dialect. Handlers are named where their path is; nothing is decided here.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tower_http::cors::CorsLayer;
use xtrace_compat::Compat;

use crate::api::error::ApiError;
use crate::api::{erasures, logs, metrics, service};
use crate::gateway::Gateway;
use crate::receivers::{langfuse, native, otlp};
use crate::{
    auth, browsers, cors, dialect, limits, patience, proxies, reads, request_id, self_metrics,
};

/// The whole service, gRPC included.
pub fn router(gateway: Gateway, cors: CorsLayer) -> Router {
    let native_reads = Router::new()
        .route("/api/public/metrics/names", get(metrics::names))
        .route("/api/public/metrics/query", get(metrics::query))
        .route("/api/public/logs", get(logs::list))
        .route("/metrics", get(self_metrics::show))
        .route(
            "/api/internal/rate_limit_stats",
            get(service::rate_limit_stats),
        )
        .route("/api/internal/erasures", get(erasures::list))
        .layer(from_fn(patience::end_handlers));
    let native = Router::new()
        .route("/v1/l/batch", post(native::receive_traces))
        .route("/v1/metrics/batch", post(native::receive_metrics))
        .merge(native_reads)
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed });
    let compat = Compat::new(
        gateway.store.clone(),
        gateway.writer.clone(),
        gateway.media.clone(),
    );
    let langfuse = xtrace_compat::router(compat.clone())
        .layer(from_fn(patience::end_handlers))
        .layer(from_fn_with_state(gateway.clone(), langfuse::read_body))
        .merge(xtrace_compat::links(compat))
        .layer(cors::of_any_page())
        .layer(from_fn(cors::say_no_content));
    let protected = otlp_over_http("/api/public/otel", &cors)
        .merge(otlp_over_http("", &cors))
        .merge(otlp_over_grpc())
        .merge(native)
        .with_state(gateway.clone())
        .merge(langfuse);
    finish(protected, gateway)
}

/// What the listener of `OTLP_HTTP_ADDR` answers.
pub fn otlp_http_router(gateway: Gateway, cors: CorsLayer) -> Router {
    finish(
        otlp_over_http("", &cors).with_state(gateway.clone()),
        gateway,
    )
}

/// What the listener of `OTLP_GRPC_ADDR` answers.
pub fn otlp_grpc_router(gateway: Gateway) -> Router {
    finish(otlp_over_grpc().with_state(gateway.clone()), gateway)
}

/// OTLP under a mount; browsers send it too.
fn otlp_over_http(mount: &str, cors: &CorsLayer) -> Router<Gateway> {
    Router::new()
        .route(&format!("{mount}/v1/traces"), post(otlp::traces_over_http))
        .route(
            &format!("{mount}/v1/metrics"),
            post(otlp::metrics_over_http),
        )
        .route(&format!("{mount}/v1/logs"), post(otlp::logs_over_http))
        .method_not_allowed_fallback(otlp::method_not_allowed)
        .layer(cors.clone())
}

fn otlp_over_grpc() -> Router<Gateway> {
    Router::new()
        .route(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            post(otlp::traces_over_grpc),
        )
        .route(
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            post(otlp::metrics_over_grpc),
        )
        .route(
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            post(otlp::logs_over_grpc),
        )
}

/// Adds what every listener has: open paths, and what happens around every handler.
fn finish(protected: Router, gateway: Gateway) -> Router {
    let open = Router::new()
        .route("/healthz", get(service::healthz))
        .route("/readyz", get(service::readyz))
        .with_state(gateway.clone());
    let protected = protected
        .fallback(dialect::not_found)
        .layer(from_fn_with_state(gateway.clone(), reads::bound_reads))
        .layer(from_fn_with_state(gateway.clone(), limits::limit_reads))
        .layer(from_fn_with_state(gateway.clone(), auth::authenticate))
        .layer(from_fn(browsers::refuse_foreign_forms))
        .layer(from_fn_with_state(gateway, proxies::find_client));
    open.merge(protected)
        // Receivers have limits of their own, before and after decompression.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(dialect::answer_faults))
        .layer(from_fn(browsers::guard_answers))
        .layer(from_fn(self_metrics::time_requests))
        .layer(from_fn(request_id::name_requests))
}

/// What the listener of `METRICS_ADDR` answers.
pub fn metrics_router(gateway: Gateway) -> Router {
    Router::new()
        .route("/metrics", get(self_metrics::show_open))
        .fallback(dialect::not_found)
        .with_state(gateway)
        .layer(from_fn(dialect::answer_faults))
        .layer(from_fn(browsers::guard_answers))
}
