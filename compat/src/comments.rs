//! Comments (langfuse-api 15.4).

use axum::Json;
use axum::extract::State;
use chrono::Utc;
use serde_json::{Value, json};
use xtrace_model::ProjectId;
use xtrace_store::Store;
use xtrace_store::comments::{self, Comment, Commented};

use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::body::{Issue, JsonBody, Object};
use crate::error::{CompatError, issue};
use crate::query::{PathId, Query, iso, meta};

const CONTENT_CHARS_MAX: usize = 5000;
const TYPES: [&str; 4] = ["TRACE", "OBSERVATION", "SESSION", "PROMPT"];

/// `GET /comments`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    query.only(&["page", "limit", "objectType", "objectId", "authorUserId"])?;
    let page = query.page()?;
    let object_type = query.option("objectType", &TYPES)?;
    let object_id = query.text("objectId");
    if object_id.is_some() && object_type.is_none() {
        let message = "objectType is required when objectId is provided";
        return Err(CompatError::Invalid(issue::custom(
            &[json!("objectType")],
            message,
        )));
    }
    if query.text("authorUserId").is_some() {
        // Comments have no authors here.
        return Ok(answer::page([] as [Value; 0], &meta(page, 0)));
    }
    let found = comments::list(&store, &project, object_type, object_id, page).await?;
    let meta = meta(page, found.total);
    let rows = found.rows.into_iter().map(|row| view(&project, &row));
    Ok(answer::page(rows, &meta))
}

/// `GET /comments/{id}`.
pub(crate) async fn find(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
) -> Result<Json<Value>, CompatError> {
    let found = comments::find(&store, &project, &id).await?;
    let comment = found.ok_or_else(|| {
        CompatError::NotFound("Comment not found within authorized project".to_owned())
    })?;
    Ok(Json(view(&project, &comment)))
}

/// `POST /comments`.
pub(crate) async fn create(
    State(store): State<Store>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let body = Object::of_body(&body)?;
    let comment = parse(body).map_err(CompatError::Invalid)?;
    if body.get("authorUserId").is_some() {
        return Err(CompatError::BadRequest(
            "authorUserId is not a member of this organization; leave it out".to_owned(),
        ));
    }
    let (kind, id) = (comment.object_type.as_str(), comment.object_id.as_str());
    let commented = match kind {
        "TRACE" => Commented::Trace,
        "OBSERVATION" => Commented::Observation,
        "SESSION" => Commented::Session,
        _ => Commented::Prompt,
    };
    if !comments::object_exists(&store, &project, commented, id).await? {
        return Err(CompatError::NotFound(format!(
            "Reference object, {kind}: {id} not found. Skipping creating comment."
        )));
    }
    comments::add(&store, &project, &comment).await?;
    Ok(Json(json!({"id": comment.id})))
}

fn parse(body: Object<'_>) -> Result<Comment, Issue> {
    let body = body.only(&[
        "projectId",
        "objectType",
        "objectId",
        "content",
        "authorUserId",
    ])?;
    body.required_text("projectId", 0)?;
    let object_type = body.option("objectType", &TYPES)?;
    let object_type = object_type.ok_or_else(|| issue::not_an_option("objectType", &TYPES))?;
    let object_id = body.required_text("objectId", 0)?;
    let content = body.required_text("content", 0)?.trim().to_owned();
    match content.chars().count() {
        0 => return Err(issue::short("content", 1)),
        chars if chars > CONTENT_CHARS_MAX => {
            return Err(issue::long("content", CONTENT_CHARS_MAX));
        }
        _ => {}
    }
    body.text("authorUserId")?;
    let now = Utc::now();
    Ok(Comment {
        id: uuid::Uuid::new_v4().to_string(),
        object_type: object_type.to_owned(),
        object_id,
        content,
        created_at: now,
        updated_at: now,
    })
}

fn view(project: &ProjectId, comment: &Comment) -> Value {
    json!({
        "id": comment.id,
        "projectId": project.as_str(),
        "createdAt": iso(comment.created_at),
        "updatedAt": iso(comment.updated_at),
        "objectType": comment.object_type,
        "objectId": comment.object_id,
        "content": comment.content,
        "authorUserId": null,
    })
}
