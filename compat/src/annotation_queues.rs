//! Annotation queues, their items, and who is assigned (langfuse-api 15.5).

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use xtrace_model::{ProjectId, ids};
use xtrace_store::annotation_queues::{self, Item, Queue};
use xtrace_store::{Store, score_configs};

use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::body::{Issue, JsonBody, Object};
use crate::error::{CompatError, issue};
use crate::query::{PathId, PathPair, Query, iso, meta};

const TYPES: [&str; 3] = ["TRACE", "OBSERVATION", "SESSION"];
const STATES: [&str; 2] = ["PENDING", "COMPLETED"];

/// `GET /annotation-queues`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    query.only(&["page", "limit"])?;
    let page = query.page()?;
    let found = annotation_queues::list(&store, &project, page).await?;
    let meta = meta(page, found.total);
    let rows = found.rows.into_iter().map(|row| view(&row));
    Ok(answer::page(rows, &meta))
}

/// `POST /annotation-queues`.
pub(crate) async fn create(
    State(store): State<Store>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let queue = parse(Object::of_body(&body)?).map_err(CompatError::Invalid)?;
    let known = score_configs::find(&store, &project, &queue.score_config_ids).await?;
    let is_known = |id: &String| known.iter().any(|config| config.id == *id);
    if !queue.score_config_ids.iter().all(is_known) {
        return Err(CompatError::BadRequest(
            "At least one of the score config IDs cannot be found for the given project."
                .to_owned(),
        ));
    }
    match annotation_queues::add(&store, &project, &queue).await? {
        Ok(()) => Ok(Json(view(&queue))),
        Err(_) => Err(CompatError::BadRequest(
            "A queue with this name already exists.".to_owned(),
        )),
    }
}

fn parse(body: Object<'_>) -> Result<Queue, Issue> {
    let body = body.only(&["name", "description", "scoreConfigIds"])?;
    let now = Utc::now();
    let score_config_ids = body.texts("scoreConfigIds")?;
    let mut ids = score_config_ids.ok_or_else(|| issue::missing(&["scoreConfigIds"], "array"))?;
    ids.dedup();
    if ids.is_empty() {
        let message = "At least 1 score config must be selected";
        return Err(issue::custom(&[json!("scoreConfigIds")], message));
    }
    Ok(Queue {
        id: uuid::Uuid::new_v4().to_string(),
        name: body.required_text("name", 1)?,
        description: body.text("description")?,
        score_config_ids: ids,
        created_at: now,
        updated_at: now,
    })
}

/// `GET /annotation-queues/{id}`.
pub(crate) async fn find(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
) -> Result<Json<Value>, CompatError> {
    Ok(Json(view(&queue(&store, &project, &id).await?)))
}

async fn queue(store: &Store, project: &ProjectId, id: &str) -> Result<Queue, CompatError> {
    let found = annotation_queues::find(store, project, id).await?;
    found.ok_or_else(|| CompatError::NotFound("Annotation queue not found".to_owned()))
}

/// `GET /annotation-queues/{id}/items`.
pub(crate) async fn items(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
    query: Query,
) -> Result<Answer, CompatError> {
    query.only(&["page", "limit", "status"])?;
    let page = query.page()?;
    let status = query.option("status", &STATES)?;
    let queue = queue(&store, &project, &id).await?;
    let found = annotation_queues::items(&store, &project, &queue.id, status, page).await?;
    let meta = meta(page, found.total);
    let rows = found.rows.into_iter().map(|row| item_view(&row));
    Ok(answer::page(rows, &meta))
}

/// `POST /annotation-queues/{id}/items`: the thing itself need not exist yet.
pub(crate) async fn add_item(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let parse = |body: Object<'_>| {
        let body = body.only(&["objectId", "objectType", "status"])?;
        let object_type = body.option("objectType", &TYPES)?;
        let object_type = object_type.ok_or_else(|| issue::not_an_option("objectType", &TYPES))?;
        let object_id = body.required_text("objectId", 0)?;
        if let Err(fault) = ids::check(&object_id) {
            return Err(issue::custom(&[json!("objectId")], &fault.to_string()));
        }
        Ok((object_id, object_type, body.option("status", &STATES)?))
    };
    let (object_id, object_type, status) =
        parse(Object::of_body(&body)?).map_err(CompatError::Invalid)?;
    let queue = queue(&store, &project, &id).await?;
    let now = Utc::now();
    let mut item = Item {
        id: uuid::Uuid::new_v4().to_string(),
        queue_id: queue.id,
        object_type: object_type.to_owned(),
        object_id,
        status: "PENDING".to_owned(),
        completed_at: None,
        created_at: now,
        updated_at: now,
    };
    set_status(&mut item, status, now);
    annotation_queues::put_item(&store, &project, &item).await?;
    Ok(Json(item_view(&item)))
}

/// When a thing was looked at stays, even if it is to be looked at again.
fn set_status(item: &mut Item, status: Option<&str>, now: DateTime<Utc>) {
    if let Some(status) = status {
        status.clone_into(&mut item.status);
    }
    if status == Some("COMPLETED") {
        item.completed_at = Some(now);
    }
}

async fn stored_item(
    store: &Store,
    project: &ProjectId,
    queue_id: &str,
    id: &str,
) -> Result<Item, CompatError> {
    let queue = queue(store, project, queue_id).await?;
    let found = annotation_queues::item(store, project, &queue.id, id).await?;
    found.ok_or_else(|| CompatError::NotFound("Annotation queue item not found".to_owned()))
}

/// `GET /annotation-queues/{id}/items/{item}`.
pub(crate) async fn find_item(
    State(store): State<Store>,
    Project(project): Project,
    PathPair(queue_id, id): PathPair,
) -> Result<Json<Value>, CompatError> {
    let item = stored_item(&store, &project, queue_id.decoded(), &id).await?;
    Ok(Json(item_view(&item)))
}

/// `PATCH /annotation-queues/{id}/items/{item}`.
pub(crate) async fn update_item(
    State(store): State<Store>,
    Project(project): Project,
    PathPair(queue_id, id): PathPair,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let body = Object::of_body(&body)?.only(&["status"]);
    let status = body.and_then(|body| body.option("status", &STATES));
    let status = status.map_err(CompatError::Invalid)?;
    let mut item = stored_item(&store, &project, queue_id.decoded(), &id).await?;
    item.updated_at = Utc::now();
    let now = item.updated_at;
    set_status(&mut item, status, now);
    annotation_queues::put_item(&store, &project, &item).await?;
    Ok(Json(item_view(&item)))
}

/// `DELETE /annotation-queues/{id}/items/{item}`.
pub(crate) async fn delete_item(
    State(store): State<Store>,
    Project(project): Project,
    PathPair(queue_id, id): PathPair,
) -> Result<Json<Value>, CompatError> {
    let item = stored_item(&store, &project, queue_id.decoded(), &id).await?;
    annotation_queues::delete_item(&store, &project, &item.queue_id, &item.id).await?;
    let message = "Annotation queue item deleted successfully";
    Ok(Json(json!({"success": true, "message": message})))
}

/// `POST /annotation-queues/{id}/assignments`: there are no accounts, so nobody can be assigned.
pub(crate) async fn assign(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    check_user(&store, &project, &id, &body).await?;
    Err(CompatError::NotFound(
        "User not found or not authorized for this project".to_owned(),
    ))
}

/// `DELETE /annotation-queues/{id}/assignments`: nobody is assigned, so it is done.
pub(crate) async fn unassign(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    check_user(&store, &project, &id, &body).await?;
    Ok(Json(json!({"success": true})))
}

async fn check_user(
    store: &Store,
    project: &ProjectId,
    queue_id: &str,
    body: &Value,
) -> Result<(), CompatError> {
    let body = Object::of_body(body)?.only(&["userId"]);
    body.and_then(|body| body.required_text("userId", 0))
        .map_err(CompatError::Invalid)?;
    queue(store, project, queue_id).await?;
    Ok(())
}

fn view(queue: &Queue) -> Value {
    json!({
        "id": queue.id,
        "name": queue.name,
        "description": queue.description,
        "scoreConfigIds": queue.score_config_ids,
        "createdAt": iso(queue.created_at),
        "updatedAt": iso(queue.updated_at),
    })
}

fn item_view(item: &Item) -> Value {
    json!({
        "id": item.id,
        "queueId": item.queue_id,
        "objectId": item.object_id,
        "objectType": item.object_type,
        "status": item.status,
        "completedAt": item.completed_at.map(iso),
        "createdAt": iso(item.created_at),
        "updatedAt": iso(item.updated_at),
    })
}
