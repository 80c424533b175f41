//! `GET /health` and `GET /ready`, open to all.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{TimeDelta, Utc};
use serde_json::json;
use xtrace_store::{Readiness, Store, recent};

use crate::query::Query;

/// The Langfuse version that we answer like; clients gate features on it.
const LANGFUSE_VERSION: &str = "4.16.0";

fn answer(status: StatusCode, text: &str) -> Response {
    (
        status,
        Json(json!({"status": text, "version": LANGFUSE_VERSION})),
    )
        .into_response()
}

/// `GET /health`.
pub(crate) async fn health(State(store): State<Store>, query: Query) -> Response {
    let asks = |name: &str| query.text(name) == Some("true");
    if asks("failIfDatabaseUnavailable") && store.readiness().await != Readiness::Ready {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "Database not available");
    }
    if asks("failIfNoRecentEvents") {
        let since = Utc::now() - TimeDelta::minutes(3);
        let failure = match recent::activity(&store, since).await {
            Ok(activity) if !activity.traces => "No traces within the last 3 minutes",
            Ok(activity) if !activity.observations => "No observations within the last 3 minutes",
            Ok(_) => return answer(StatusCode::OK, "OK"),
            Err(_) => "Couldn't fetch recent events",
        };
        return answer(StatusCode::SERVICE_UNAVAILABLE, failure);
    }
    answer(StatusCode::OK, "OK")
}

/// `GET /ready`.
pub(crate) async fn ready(State(store): State<Store>) -> Response {
    match store.readiness().await {
        Readiness::Ready => answer(StatusCode::OK, "OK"),
        Readiness::NotReady(reason) => answer(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}
