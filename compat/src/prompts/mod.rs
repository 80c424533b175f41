//! Prompts: created, read by label or version, moved between labels, deleted (langfuse-api 13).
//!
//! - `body`: what makes a version. `references`: prompts within prompts. `list`: names. `v1`: the old paths.

mod body;
mod list;
mod references;
mod v1;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use serde_json::{Value, json};
use xtrace_model::{AuthFailure, ProjectId};
use xtrace_store::Store;
use xtrace_store::prompts::{self, Prompt, Which};

use crate::auth::Project;
use crate::body::{JsonBody, Object};
use crate::error::{CompatError, issue};
use crate::payload;
use crate::query::{Name, PathPair, Query, iso};
pub(crate) use list::list;
pub(crate) use v1::{create_v1, find_v1};

/// The label that stands for a name without one.
const PRODUCTION: &str = "production";

/// The caller's project; these paths name the kind of their refusals.
pub(crate) struct PromptProject(ProjectId);

impl<S: Sync> FromRequestParts<S> for PromptProject {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        match Project::from_request_parts(parts, state).await {
            Ok(Project(project)) => Ok(Self(project)),
            Err(CompatError::Auth(AuthFailure::Insufficient)) => {
                let message = if parts.uri.path().starts_with("/api/public/v2/") {
                    let method: &Method = &parts.method;
                    format!(
                        "Access denied - need to use basic auth with secret key to {method} prompts"
                    )
                } else {
                    "Access denied: Bearer auth and org api keys are not allowed to access"
                        .to_owned()
                };
                Err(CompatError::Forbidden(message).into_response())
            }
            Err(error @ CompatError::Auth(AuthFailure::Unavailable)) => Err(error.into_response()),
            Err(error) => Err(error.into_named_response("UnauthorizedError")),
        }
    }
}

/// `POST /v2/prompts`.
pub(crate) async fn create(
    State(store): State<Store>,
    PromptProject(project): PromptProject,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Value>), CompatError> {
    let new = body::parse(Object::of_body(&body)?)?;
    let created = add(&store, &project, new).await?;
    Ok((StatusCode::CREATED, Json(view(&project, &created))))
}

/// Adds a version whose references all lead somewhere.
async fn add(
    store: &Store,
    project: &ProjectId,
    new: prompts::NewPrompt,
) -> Result<Prompt, CompatError> {
    let content = xtrace_model::json::parse(&new.prompt).unwrap_or_default();
    let root = references::Root {
        id: &new.id,
        name: &new.name,
        version: None,
    };
    let resolved = references::resolve(store, project, &root, &content).await?;
    resolved.map_err(CompatError::BadRequest)?;
    prompts::create(store, project, new, Utc::now())
        .await?
        .map_err(|_| {
            CompatError::BadRequest(
                "Previous versions have different prompt type. Create a new prompt with a different name."
                    .to_owned(),
            )
        })
}

/// `GET /v2/prompts/{name}`: what SDKs ask again and again.
pub(crate) async fn find(
    State(store): State<Store>,
    PromptProject(project): PromptProject,
    name: Name,
    query: Query,
) -> Result<Json<Value>, CompatError> {
    let which = which(&query)?.unwrap_or_else(|| Which::Label(PRODUCTION.to_owned()));
    let resolves = query.option("resolve", &["true", "false"])? != Some("false");
    let Some(prompt) = find_by(&store, &project, &name, &which).await? else {
        let with = match which {
            Which::Version(version) => format!("version {version}"),
            Which::Label(label) => format!("label '{label}'"),
        };
        let name = name.decoded();
        return Err(CompatError::NotFound(format!(
            "Prompt not found: '{name}' with {with}"
        )));
    };
    let mut shown = view(&project, &prompt);
    shown["isActive"] = is_production(&prompt).into();
    shown["resolutionGraph"] = Value::Null;
    if resolves {
        let root = references::Root {
            id: &prompt.id,
            name: &prompt.name,
            version: Some(prompt.version),
        };
        let resolved = references::resolve(&store, &project, &root, &shown["prompt"]).await?;
        if let Some(resolved) = resolved.map_err(CompatError::Conflict)? {
            shown["prompt"] = resolved.content;
            shown["resolutionGraph"] = resolved.graph;
        }
    }
    Ok(Json(shown))
}

/// Looks a name up as it came, then decoded once more: some clients encode it twice.
async fn find_by(
    store: &Store,
    project: &ProjectId,
    name: &Name,
    which: &Which,
) -> Result<Option<Prompt>, CompatError> {
    for name in name.readings() {
        if let Some(found) = prompts::find(store, project, &name, which).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// `version` or `label`, not both.
fn which(query: &Query) -> Result<Option<Which>, CompatError> {
    let version = query.whole("version")?;
    let label = query.text("label");
    match (version, label) {
        (Some(_), Some(_)) => Err(CompatError::BadRequest(
            "Cannot specify both version and label".to_owned(),
        )),
        (Some(version), None) => Ok(Some(Which::Version(
            i32::try_from(version).unwrap_or(i32::MAX),
        ))),
        (None, Some(label)) => Ok(Some(Which::Label(label.to_owned()))),
        (None, None) => Ok(None),
    }
}

/// `PATCH /v2/prompts/{name}/versions/{version}`: labels are added, never taken away.
pub(crate) async fn add_labels(
    State(store): State<Store>,
    Project(project): Project,
    PathPair(name, version): PathPair,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let labels = Object::of_body(&body)?.texts("newLabels");
    let labels = labels.map_err(CompatError::Invalid)?;
    let labels =
        labels.ok_or_else(|| CompatError::Invalid(issue::missing(&["newLabels"], "array")))?;
    if labels.iter().any(|label| label == prompts::LATEST) {
        let message = "Label 'latest' is always assigned to the latest prompt version";
        let issue = issue::custom(&[json!("newLabels")], message);
        return Err(CompatError::Invalid(issue));
    }
    let number: i32 = version
        .parse()
        .map_err(|_| CompatError::Invalid(issue::not_a_number("promptVersion")))?;
    let now = Utc::now();
    for name in name.readings() {
        let place = (name.as_str(), number);
        if let Some(changed) =
            prompts::add_labels(&store, &project, place, labels.clone(), now).await?
        {
            return Ok(Json(view(&project, &changed)));
        }
    }
    let name = name.decoded();
    Err(CompatError::NotFound(format!(
        "Prompt '{name}' version {version} not found in project"
    )))
}

/// `DELETE /v2/prompts/{name}`.
pub(crate) async fn delete(
    State(store): State<Store>,
    PromptProject(project): PromptProject,
    name: Name,
    query: Query,
) -> Result<StatusCode, CompatError> {
    let which = which(&query)?;
    let is_meant = |prompt: &Prompt| match &which {
        None => true,
        Some(Which::Version(version)) => prompt.version == *version,
        Some(Which::Label(label)) => prompt.labels.contains(label),
    };
    for name in name.readings() {
        let all = prompts::versions(&store, &project, &name).await?;
        let (going, staying): (Vec<Prompt>, Vec<Prompt>) = all.into_iter().partition(is_meant);
        if going.is_empty() {
            continue;
        }
        let needed = references::needed(&store, &project, &name, &going, &staying).await?;
        if !needed.is_empty() {
            return Err(CompatError::BadRequest(format!(
                "Other prompts are depending on prompt versions you are trying to delete:\n\n{}\n\nPlease delete the dependent prompts first.",
                needed.join("\n")
            )));
        }
        let versions: Vec<i32> = going.iter().map(|prompt| prompt.version).collect();
        prompts::delete(&store, &project, &name, &versions).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(CompatError::NotFound("Prompt not found".to_owned()))
}

fn is_production(prompt: &Prompt) -> bool {
    prompt.labels.iter().any(|label| label == PRODUCTION)
}

fn view(project: &ProjectId, prompt: &Prompt) -> Value {
    json!({
        "id": prompt.id,
        "projectId": project.as_str(),
        "createdAt": iso(prompt.created_at),
        "updatedAt": iso(prompt.updated_at),
        "createdBy": "API",
        "name": prompt.name,
        "version": prompt.version,
        "type": prompt.r#type,
        "prompt": payload::stored(&prompt.prompt),
        "config": payload::stored(&prompt.config),
        "labels": prompt.labels,
        "tags": prompt.tags,
        "commitMessage": prompt.commit_message,
        "isActive": null,
    })
}
