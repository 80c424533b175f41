//! The native formats: `POST /v1/l/batch` and `POST /v1/metrics/batch`.

mod metrics;
mod traces;

use std::borrow::Cow;

use axum::Json;
use axum::extract::Request;
use serde::Deserialize;
use serde_json::{Value, json};
use xtrace_model::capped::{Capped, TOO_MANY};
use xtrace_model::text::repair_json;
use xtrace_model::{Batch, Caller, ProjectId};
use xtrace_store::metrics::SeriesKey;
use xtrace_store::{Committed, Store};

use super::body::{self, Account, BodyLimits, ReadBody};
use crate::api::error::ApiError;
use crate::auth;

pub use metrics::receive as receive_metrics;
pub use traces::receive as receive_traces;

/// What a body of `/v1/l/batch` becomes, without a server around it; for the fuzzers.
#[doc(hidden)]
pub fn batch_of_traces(body: &[u8], project: &ProjectId) -> Option<Batch> {
    traces::read(body, project.clone()).ok()
}

/// The same for `/v1/metrics/batch`; a store that was never connected knows no series.
#[doc(hidden)]
pub fn batch_of_metrics(body: &[u8], project: &ProjectId, store: &Store) -> Option<Batch> {
    let known = store.known_series(SeriesKey::default(), project);
    metrics::decode(body, &known).ok()
}

/// The answer to everything that is stored.
fn stored() -> Json<Value> {
    Json(json!({"message": "Request Successful.", "data": null}))
}

/// The answer to a request of which some items are not.
fn stored_but(rejected: usize, reason: &str) -> Json<Value> {
    Json(
        json!({"message": "Request Successful.", "data": {"rejected": rejected, "reason": reason}}),
    )
}

/// Who calls, and the body; credentials are checked first.
async fn caller_and_body(
    request: Request,
    limits: &BodyLimits,
) -> Result<(Caller, ReadBody), ApiError> {
    let (parts, body) = request.into_parts();
    let caller = auth::caller(&parts.extensions).map_err(ApiError::Auth)?;
    let quota = limits.of(Account::Project(caller.project.clone()));
    Ok((caller, body::read(&parts.headers, body, &quota).await?))
}

/// Decodes JSON, repaired where only its text is at fault. An error names the path of the member.
fn decode<T>(
    body: &[u8],
    decoded: impl FnOnce(T) -> Result<Batch, ApiError>,
) -> Result<Batch, ApiError>
where
    T: for<'de> Deserialize<'de>,
{
    let text = text_of(body)?;
    match serde_json::from_str(&text) {
        Ok(value) => decoded(value),
        Err(_) => Err(explain::<T>(&text)),
    }
}

/// The text of a body, which must be an object: structures would also be read from arrays, member by member.
fn text_of(body: &[u8]) -> Result<Cow<'_, str>, ApiError> {
    let text = repair_json(body);
    if text.trim_start().starts_with('[') {
        return Err(ApiError::BadRequest(
            "the body must be a JSON object".to_owned(),
        ));
    }
    Ok(text)
}

/// Decodes once more, slower, to find out where the fault is.
fn explain<'a, T: Deserialize<'a>>(text: &'a str) -> ApiError {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let outcome: Result<T, _> = serde_path_to_error::deserialize(&mut deserializer);
    let (path, fault) = match outcome {
        Err(error) => (error.path().to_string(), error.into_inner().to_string()),
        Ok(_) => (
            ".".to_owned(),
            "trailing characters after the JSON value".to_owned(),
        ),
    };
    if fault.contains(TOO_MANY) {
        return ApiError::TooLarge(format!("{path}: {fault}; send it in parts"));
    }
    match path.as_str() {
        "." => ApiError::BadRequest(fault),
        path => ApiError::BadRequest(format!("{path}: {fault}")),
    }
}

/// The native formats have no word for "all but these".
fn check_refused(committed: &Committed) -> Result<(), ApiError> {
    if committed.refused.is_empty() {
        return Ok(());
    }
    let ids = committed.refused.join(", ");
    let ids = xtrace_model::text::cut_chars(&ids, 500);
    Err(ApiError::BadRequest(format!(
        "the database can't hold {ids} as sent; everything else of the request is stored"
    )))
}
