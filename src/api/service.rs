//! Whether the service lives and is ready, and what it limits.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use xtrace_model::Authentication;

use super::error::ApiError;
use crate::gateway::Gateway;
use crate::health::Report;

/// `GET /healthz`: the process lives, with or without its database.
pub async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /readyz`: requests will be served, or why not. What is not as it should be, but keeps nobody from
/// being served, is listed as degraded.
pub async fn readyz(State(gateway): State<Gateway>) -> Response {
    let Report { fault, degraded } = gateway.health.report().await;
    let mut body = match &fault {
        None => json!({"status": "ready"}),
        Some(reason) => json!({"status": "not ready", "reason": reason}),
    };
    if !degraded.is_empty() {
        body["degraded"] = json!(degraded);
    }
    if fault.is_none() {
        return Json(body).into_response();
    }
    let status = StatusCode::SERVICE_UNAVAILABLE;
    (status, [("retry-after", "2")], Json(body)).into_response()
}

/// `GET /api/internal/rate_limit_stats`: reads let through and refused; of the caller's credential, or of
/// all for administrators.
pub async fn rate_limit_stats(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Authentication>,
) -> Result<Json<Value>, ApiError> {
    let caller = caller.map_err(ApiError::Auth)?;
    let of = (!caller.scopes.admin).then_some(caller.credential.as_str());
    Ok(Json(json!({"data": gateway.read_limiter.counts(of)})))
}
