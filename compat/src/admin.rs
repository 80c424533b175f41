//! Projects and their keys, for callers who administer all of them (langfuse-api 16).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::Utc;
use serde_json::{Map, Value, json};
use xtrace_model::caller::Scopes;
use xtrace_model::{ProjectId, json as rules, time};
use xtrace_store::keys::{self, ApiKeySummary, NewKey};
use xtrace_store::projects::{self, NameTaken, Project as StoredProject};
use xtrace_store::{Store, erasure};

use crate::auth::Admin;
use crate::body::{JsonBody, Object};
use crate::error::CompatError;
use crate::query::{PathId, PathPair, iso};

const NAME_CHARS: std::ops::RangeInclusive<usize> = 3..=60;
const KEY_CHARS_MAX: usize = 200;
/// What is stored is a fast hash, which is right for secrets that nobody can guess.
const SECRET_CHARS_MIN: usize = 32;

fn bad(message: impl Into<String>) -> CompatError {
    CompatError::BadRequest(message.into())
}

async fn stored(store: &Store, id: &str) -> Result<(ProjectId, StoredProject), CompatError> {
    let missing = || CompatError::NotFound("Project not found".to_owned());
    let id = ProjectId::parse(id).map_err(|_| missing())?;
    let found = projects::find(store, &id).await?;
    Ok((id, found.ok_or_else(missing)?))
}

/// `GET /organizations/projects`.
pub(crate) async fn list_projects(
    State(store): State<Store>,
    _: Admin,
) -> Result<Json<Value>, CompatError> {
    let all = projects::all(&store).await?;
    let view = |project: &StoredProject| {
        json!({
            "id": project.id,
            "name": project.name,
            "metadata": project.metadata,
            "createdAt": iso(project.created_at),
            "updatedAt": iso(project.updated_at),
        })
    };
    let all: Vec<Value> = all.iter().map(view).collect();
    Ok(Json(json!({ "projects": all })))
}

/// `POST /projects`.
pub(crate) async fn create_project(
    State(store): State<Store>,
    _: Admin,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Value>), CompatError> {
    let now = Utc::now();
    let project = StoredProject {
        id: uuid::Uuid::new_v4().to_string(),
        name: String::new(),
        metadata: json!({}),
        created_at: now,
        updated_at: now,
        traces_retention_days: None,
        metrics_retention_days: None,
    };
    let project = changed(project, Object::of_body(&body)?)?;
    written(projects::add(&store, &project).await?)?;
    Ok((StatusCode::CREATED, Json(view(&project))))
}

/// `PUT /projects/{id}`.
pub(crate) async fn update_project(
    State(store): State<Store>,
    _: Admin,
    PathId(id): PathId,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let (_, mut project) = stored(&store, &id).await?;
    project.updated_at = Utc::now();
    let project = changed(project, Object::of_body(&body)?)?;
    written(projects::put(&store, &project).await?)?;
    Ok(Json(view(&project)))
}

/// The project as the body wants it.
fn changed(mut project: StoredProject, body: Object<'_>) -> Result<StoredProject, CompatError> {
    let name = body
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .trim();
    if !NAME_CHARS.contains(&name.chars().count()) {
        return Err(bad("Invalid project name. It must have 3 to 60 characters"));
    }
    name.clone_into(&mut project.name);
    retention(body, "retention", &mut project.traces_retention_days)?;
    retention(
        body,
        "metricsRetention",
        &mut project.metrics_retention_days,
    )?;
    if let Some(sent) = body.sent("metadata") {
        project.metadata = Value::Object(metadata(sent)?);
    }
    Ok(project)
}

fn written(outcome: Result<(), NameTaken>) -> Result<(), CompatError> {
    let taken = |_| CompatError::Conflict("A project with this name already exists".to_owned());
    outcome.map_err(taken)
}

/// Days to keep, if they were sent; 0 is as long as the service keeps.
fn retention(body: Object<'_>, name: &str, days: &mut Option<i32>) -> Result<(), CompatError> {
    const DAYS: std::ops::RangeInclusive<i64> = 3..=36_500;
    let Some(sent) = body.get(name) else {
        return Ok(());
    };
    *days = match sent.as_i64() {
        Some(0) => None,
        Some(number) if DAYS.contains(&number) => i32::try_from(number).ok(),
        _ => {
            return Err(bad(format!(
                "Invalid retention value. `{name}` must be 0, for what the service keeps, or 3 to 36500 days"
            )));
        }
    };
    Ok(())
}

/// An object, or the text of one.
fn metadata(sent: &Value) -> Result<Map<String, Value>, CompatError> {
    let parsed = match sent {
        Value::String(text) => rules::parse(text).unwrap_or_default(),
        other => rules::storable(other.clone()),
    };
    match parsed {
        Value::Object(members) => Ok(members),
        _ => Err(bad("Invalid metadata. It must be a valid JSON object")),
    }
}

/// `DELETE /projects/{id}`: from the answer on its keys open nothing and nothing is stored for it; its rows go
/// after that. To ask for it again while they do is no fault.
pub(crate) async fn delete_project(
    State(store): State<Store>,
    Admin(caller): Admin,
    PathId(id): PathId,
) -> Result<(StatusCode, Json<Value>), CompatError> {
    let missing = || CompatError::NotFound("Project not found".to_owned());
    let id = ProjectId::parse(&id).map_err(|_| missing())?;
    if id == caller.project {
        return Err(bad(
            "This project is the one of the credentials that were sent; use those of another one",
        ));
    }
    if !erasure::ask(&store, &id, Utc::now()).await? {
        return Err(missing());
    }
    let message = "Project deletion has been initiated and is being processed asynchronously";
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({"success": true, "message": message})),
    ))
}

fn view(project: &StoredProject) -> Value {
    json!({
        "id": project.id,
        "name": project.name,
        "organization": {"id": "xtrace", "name": "xtrace"},
        "metadata": project.metadata,
    })
}

/// `GET /projects/{id}/apiKeys`.
pub(crate) async fn list_keys(
    State(store): State<Store>,
    _: Admin,
    PathId(id): PathId,
) -> Result<Json<Value>, CompatError> {
    let (id, _) = stored(&store, &id).await?;
    let all = keys::list(&store, Some(&id)).await?;
    let all: Vec<Value> = all.iter().map(key_view).collect();
    Ok(Json(json!({ "apiKeys": all })))
}

/// `GET /organizations/apiKeys`: those that administer.
pub(crate) async fn list_admin_keys(
    State(store): State<Store>,
    _: Admin,
) -> Result<Json<Value>, CompatError> {
    let all = keys::list(&store, None).await?;
    let is_admin = |key: &&ApiKeySummary| key.scopes.iter().any(|scope| scope == "admin");
    let all: Vec<Value> = all.iter().filter(is_admin).map(key_view).collect();
    Ok(Json(json!({ "apiKeys": all })))
}

/// `POST /projects/{id}/apiKeys`: the secret is in this answer and nowhere else.
pub(crate) async fn create_key(
    State(store): State<Store>,
    _: Admin,
    PathId(id): PathId,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Value>), CompatError> {
    let (id, _) = stored(&store, &id).await?;
    let key = parse_key(Object::of_body(&body)?)?;
    let Ok(summary) = keys::add(&store, &id, &key, Utc::now()).await? else {
        return Err(CompatError::Conflict(
            "An API key with this public key already exists".to_owned(),
        ));
    };
    let mut shown = key_view(&summary);
    shown["secretKey"] = key.secret_key.into();
    Ok((StatusCode::CREATED, Json(shown)))
}

fn parse_key(body: Object<'_>) -> Result<NewKey, CompatError> {
    let text = |name: &str| body.text(name).map_err(CompatError::Invalid);
    let name = match (text("name")?, text("note")?) {
        (Some(_), Some(_)) => return Err(bad("Send either name or note, not both")),
        (name, note) => name.or(note),
    };
    let (public_key, secret_key) = match (text("publicKey")?, text("secretKey")?) {
        (None, None) => keys::fresh_pair(),
        (Some(public), Some(secret)) => (public, secret),
        _ => {
            return Err(bad(
                "Both publicKey and secretKey must be provided together",
            ));
        }
    };
    for (key, prefix, what) in [
        (&public_key, "pk-lf-", "publicKey"),
        (&secret_key, "sk-lf-", "secretKey"),
    ] {
        if !key.starts_with(prefix) {
            return Err(bad(format!("{what} must start with {prefix}")));
        }
        let is_plain = key
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b':');
        if !is_plain || key.len() > KEY_CHARS_MAX || key.len() == prefix.len() {
            return Err(bad(format!(
                "{what} must have up to {KEY_CHARS_MAX} visible ASCII characters without colons"
            )));
        }
    }
    if secret_key.len() < SECRET_CHARS_MIN {
        return Err(bad(format!(
            "secretKey must have {SECRET_CHARS_MIN} characters or more; send none, and one is made"
        )));
    }
    let scopes = body.texts("scopes").map_err(CompatError::Invalid)?;
    let scopes = match scopes {
        None => Scopes::of_keys(),
        Some(names) => Scopes::parse(&names)
            .ok_or_else(|| bad("scopes must be some of read, write, scores, admin"))?,
    };
    let expires_at = body.time("expiresAt").map_err(CompatError::Invalid)?;
    Ok(NewKey {
        public_key,
        secret_key,
        name,
        scopes,
        expires_at: expires_at.map(time::to_utc),
    })
}

/// `DELETE /projects/{id}/apiKeys/{key}`.
pub(crate) async fn delete_key(
    State(store): State<Store>,
    _: Admin,
    PathPair(project, key): PathPair,
) -> Result<Json<Value>, CompatError> {
    let (id, _) = stored(&store, project.decoded()).await?;
    if keys::revoke(&store, Some(&id), &key).await? {
        return Ok(Json(json!({"success": true})));
    }
    Err(CompatError::NotFound("API key not found".to_owned()))
}

fn key_view(key: &ApiKeySummary) -> Value {
    json!({
        "id": key.id,
        "createdAt": iso(key.created_at),
        "expiresAt": key.expires_at.map(iso),
        "lastUsedAt": null,
        "note": key.name,
        "name": key.name,
        "publicKey": key.public_key,
        "displaySecretKey": key.display_secret,
        "scopes": key.scopes,
    })
}
