//! `GET /api/internal/erasures`: which projects were deleted, or are being, and how many rows went.

use axum::Json;
use axum::extract::{Extension, State};
use serde_json::{Value, json};
use xtrace_model::{AuthFailure, Authentication};
use xtrace_store::erasure;

use super::error::ApiError;
use crate::gateway::Gateway;

/// `GET /api/internal/erasures`, for administrators.
pub async fn list(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Authentication>,
) -> Result<Json<Value>, ApiError> {
    if !caller.map_err(ApiError::Auth)?.scopes.admin {
        return Err(ApiError::Auth(AuthFailure::Insufficient));
    }
    let all = erasure::list(&gateway.store).await?;
    let view = |erasure: erasure::Erasure| {
        json!({
            "id": erasure.id,
            "name": erasure.name,
            "askedAt": erasure.asked_at,
            "finishedAt": erasure.finished_at,
            "deleted": erasure.counts,
        })
    };
    let all: Vec<Value> = all.into_iter().map(view).collect();
    Ok(Json(json!({"data": all})))
}
