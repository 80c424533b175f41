//! Whether the service lives and is ready, and what it limits.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use xtrace_model::Authentication;
use xtrace_store::Readiness;

use super::error::ApiError;
use crate::gateway::Gateway;

/// `GET /healthz`: the process lives, with or without its database.
pub async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /readyz`: requests will be served, or why not.
pub async fn readyz(State(gateway): State<Gateway>) -> Response {
    match gateway.store.readiness().await {
        Readiness::Ready => Json(json!({"status": "ready"})).into_response(),
        Readiness::NotReady(reason) => {
            let body = json!({"status": "not ready", "reason": reason});
            (
                StatusCode::SERVICE_UNAVAILABLE,
                [("retry-after", "2")],
                Json(body),
            )
                .into_response()
        }
    }
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
