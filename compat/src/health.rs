//! `GET /health` and `GET /ready`, open to all but for what a project does.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::{TimeDelta, Utc};
use serde_json::json;
use xtrace_model::{AuthFailure, Authentication, Caller, ProjectId};
use xtrace_store::{Readiness, Store, recent};

use crate::error::CompatError;
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

/// `GET /health`. Whether events came is a matter of those who sent them: it is answered to a project for itself,
/// and to administrators for all.
pub(crate) async fn health(
    State(store): State<Store>,
    caller: Option<Extension<Authentication>>,
    query: Query,
) -> Result<Response, CompatError> {
    let asks = |name: &str| query.text(name) == Some("true");
    if asks("failIfDatabaseUnavailable") && store.readiness().await != Readiness::Ready {
        return Ok(answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "Database not available",
        ));
    }
    let failure = if asks("failIfNoRecentEvents") {
        let caller = caller.map_or(Err(AuthFailure::Missing), |Extension(found)| found);
        let caller = caller.map_err(CompatError::Auth)?;
        if !(caller.scopes.admin || caller.scopes.read) {
            return Err(CompatError::Auth(AuthFailure::Insufficient));
        }
        silence_of(&store, &caller).await
    } else {
        None
    };
    Ok(failure.map_or_else(
        || answer(StatusCode::OK, "OK"),
        |failure| answer(StatusCode::SERVICE_UNAVAILABLE, failure),
    ))
}

/// What did not come of late.
async fn silence_of(store: &Store, caller: &Caller) -> Option<&'static str> {
    let project: Option<&ProjectId> = (!caller.scopes.admin).then_some(&caller.project);
    let since = Utc::now() - TimeDelta::minutes(3);
    match recent::activity(store, project, since).await {
        Ok(activity) if !activity.traces => Some("No traces within the last 3 minutes"),
        Ok(activity) if !activity.observations => Some("No observations within the last 3 minutes"),
        Ok(_) => None,
        Err(_) => Some("Couldn't fetch recent events"),
    }
}

/// `GET /ready`.
pub(crate) async fn ready(State(store): State<Store>) -> Response {
    match store.readiness().await {
        Readiness::Ready => answer(StatusCode::OK, "OK"),
        Readiness::NotReady(reason) => answer(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}
