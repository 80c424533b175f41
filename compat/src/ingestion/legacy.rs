//! `/spans`, `/generations`, `/events`: one event a request, as the first clients sent them (langfuse-api 5.8).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use xtrace_model::ProjectId;

use super::Parts;
use super::event::Event;
use crate::Compat;
use crate::auth::Project;
use crate::body::{JsonBody, Object};
use crate::error::CompatError;

/// What these paths called things, and what batches call them.
const RENAMED: [(&str, &str); 4] = [
    ("spanId", "id"),
    ("generationId", "id"),
    ("prompt", "input"),
    ("completion", "output"),
];

/// `POST /spans`.
pub(crate) async fn create_span(
    State(compat): State<Compat>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Response, CompatError> {
    take(&compat, project, "span-create", &body).await
}

/// `PATCH /spans`.
pub(crate) async fn update_span(
    State(compat): State<Compat>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Response, CompatError> {
    take(&compat, project, "span-update", &body).await
}

/// `POST /generations`.
pub(crate) async fn create_generation(
    State(compat): State<Compat>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Response, CompatError> {
    take(&compat, project, "generation-create", &body).await
}

/// `PATCH /generations`.
pub(crate) async fn update_generation(
    State(compat): State<Compat>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Response, CompatError> {
    take(&compat, project, "generation-update", &body).await
}

/// `POST /events`.
pub(crate) async fn create_event(
    State(compat): State<Compat>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Response, CompatError> {
    take(&compat, project, "event-create", &body).await
}

/// The request as an event that happens now.
async fn take(
    compat: &Compat,
    project: ProjectId,
    kind: &str,
    body: &Value,
) -> Result<Response, CompatError> {
    let mut members: Map<String, Value> = Object::of_body(body)?.members().clone();
    for (old, new) in RENAMED {
        if let Some(value) = members.remove(old) {
            members.entry(new).or_insert(value);
        }
    }
    if members.get("id").is_none_or(Value::is_null) {
        members.insert("id".to_owned(), uuid::Uuid::new_v4().to_string().into());
    }
    let id = members["id"].clone();
    let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    let event = json!({"id": uuid::Uuid::new_v4().to_string(), "timestamp": timestamp, "type": kind,
        "body": members});
    let mut parts = Parts::new(project);
    let taken = match Event::parse(&event) {
        Ok(event) => parts.take(&event),
        Err((_, issue)) => Err(issue),
    };
    if let Err(issue) = taken {
        let body = json!({"message": issue["message"], "error": [issue]});
        return Ok((StatusCode::BAD_REQUEST, Json(body)).into_response());
    }
    let (batch, homes) = parts.into_batch(compat).await?;
    let committed = compat.writer.submit(batch).await?;
    homes.settle(compat).await?;
    if committed.refused.is_empty() {
        return Ok(Json(json!({ "id": id })).into_response());
    }
    Err(CompatError::BadRequest(
        "A value of it can't be stored".to_owned(),
    ))
}
