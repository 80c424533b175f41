//! `/prompts`: the paths of old.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::Value;
use xtrace_store::Store;
use xtrace_store::prompts::{self, Which};

use super::{PRODUCTION, PromptProject, add, body, is_production, view};
use crate::body::{JsonBody, Object};
use crate::error::{CompatError, issue};
use crate::query::Query;

/// `GET /prompts?name=&version=`: the one in production, or that version.
pub(crate) async fn find_v1(
    State(store): State<Store>,
    PromptProject(project): PromptProject,
    query: Query,
) -> Result<Json<Value>, CompatError> {
    let Some(name) = query.text("name") else {
        return Err(CompatError::Invalid(issue::missing(&["name"], "string")));
    };
    let which = match query.whole("version")? {
        Some(version) => Which::Version(i32::try_from(version).unwrap_or(i32::MAX)),
        None => Which::Label(PRODUCTION.to_owned()),
    };
    let found = prompts::find(&store, &project, name, &which).await?;
    let prompt = found.ok_or_else(|| CompatError::NotFound("Prompt not found".to_owned()))?;
    let mut shown = view(&project, &prompt);
    shown["isActive"] = is_production(&prompt).into();
    Ok(Json(shown))
}

/// `POST /prompts`: `isActive` stands for the label of production.
pub(crate) async fn create_v1(
    State(store): State<Store>,
    PromptProject(project): PromptProject,
    JsonBody(whole): JsonBody,
) -> Result<(StatusCode, Json<Value>), CompatError> {
    let members = Object::of_body(&whole)?;
    let is_active = members.truth("isActive").map_err(CompatError::Invalid)?;
    let Some(is_active) = is_active else {
        return Err(CompatError::Invalid(issue::missing(
            &["isActive"],
            "boolean",
        )));
    };
    let mut new = body::parse(members)?;
    if is_active {
        new.labels.push(PRODUCTION.to_owned());
    }
    let created = add(&store, &project, new).await?;
    let mut shown = view(&project, &created);
    shown["isActive"] = is_production(&created).into();
    Ok((StatusCode::CREATED, Json(shown)))
}
