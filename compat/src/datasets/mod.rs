//! Datasets in their two versions (langfuse-api 14.2).
//!
//! - `items`: what they hold. `schema`: what items must look like, `work`: what that may cost.
//!   `references`: media within items.
//!   `runs`, `run_items`: what came of them.

pub(crate) mod items;
mod references;
pub(crate) mod run_items;
pub(crate) mod runs;
pub(crate) mod schema;
mod work;

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use chrono::Utc;
use serde_json::{Value, json};
use xtrace_model::{ProjectId, json as rules};
use xtrace_store::datasets::{self, Dataset};
use xtrace_store::{Store, dataset_runs};

use crate::Compat;
use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::body::{Issue, JsonBody, Object};
use crate::error::{CompatError, issue};
use crate::payload;
use crate::query::{Name, Query, iso, meta};

/// `POST /v2/datasets`: its name is its key, and what is not named stays.
pub(crate) async fn create(
    State(compat): State<Compat>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let dataset = put(&compat, &project, Object::of_body(&body)?).await?;
    Ok(Json(view(&project, &dataset)))
}

/// `POST /datasets`: the same, with the lists that version 1 has.
pub(crate) async fn create_v1(
    State(compat): State<Compat>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let dataset = put(&compat, &project, Object::of_body(&body)?).await?;
    let mut shown = view(&project, &dataset);
    shown["items"] = json!([]);
    shown["runs"] = json!([]);
    Ok(Json(shown))
}

async fn put(
    compat: &Compat,
    project: &ProjectId,
    body: Object<'_>,
) -> Result<Dataset, CompatError> {
    let store = &compat.store;
    let name = body
        .required_text("name", 1)
        .map_err(CompatError::Invalid)?;
    let known = datasets::find(store, project, &name).await?;
    let is_known = known.is_some();
    let now = Utc::now();
    let mut dataset = known.unwrap_or_else(|| Dataset {
        id: uuid::Uuid::new_v4().to_string(),
        name,
        description: None,
        metadata: None,
        input_schema: None,
        expected_output_schema: None,
        created_at: now,
        updated_at: now,
    });
    change(&mut dataset, body).map_err(CompatError::Invalid)?;
    dataset.updated_at = now;
    let has_schema = check_schemas(compat, project, &dataset, body).await?;
    if is_known && has_schema {
        let items = datasets::all_items(store, project, &dataset.id).await?;
        compat.schemas.check_all(project, &dataset, items).await?;
    }
    Ok(datasets::put(store, project, &dataset).await?)
}

/// Whether schemas were sent, which are schemas then.
async fn check_schemas(
    compat: &Compat,
    project: &ProjectId,
    dataset: &Dataset,
    body: Object<'_>,
) -> Result<bool, CompatError> {
    let schemas = [
        ("inputSchema", &dataset.input_schema),
        ("expectedOutputSchema", &dataset.expected_output_schema),
    ];
    let mut has_schema = false;
    for (name, schema) in schemas {
        let Some(schema) = schema.clone().filter(|_| body.get(name).is_some()) else {
            continue;
        };
        let checked = compat.schemas.check(project, schema).await?;
        checked.map_err(|fault| {
            let message = format!("Invalid JSON Schema: {fault}");
            CompatError::Invalid(issue::custom(&[json!(name)], &message))
        })?;
        has_schema = true;
    }
    Ok(has_schema)
}

fn change(dataset: &mut Dataset, body: Object<'_>) -> Result<(), Issue> {
    let text = |value: &Value| rules::storable(value.clone()).to_string();
    if let Some(description) = body.text("description")? {
        dataset.description = Some(description);
    }
    if let Some(metadata) = body.get("metadata") {
        dataset.metadata = Some(text(metadata));
    }
    let schemas = [
        ("inputSchema", &mut dataset.input_schema),
        ("expectedOutputSchema", &mut dataset.expected_output_schema),
    ];
    for (name, stored) in schemas {
        match body.sent(name) {
            None => {}
            Some(Value::Null) => *stored = None,
            Some(sent) => *stored = Some(text(sent)),
        }
    }
    Ok(())
}

/// `GET /v2/datasets`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    let page = query.page()?;
    let found = datasets::list(&store, &project, page).await?;
    let meta = meta(page, found.total);
    let rows = found.rows.into_iter().map(|row| view(&project, &row));
    Ok(answer::page(rows, &meta))
}

/// `GET /datasets`: with the ids of items and the names of runs.
pub(crate) async fn list_v1(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    let page = query.page()?;
    let found = datasets::list(&store, &project, page).await?;
    let ids: Vec<String> = found.rows.iter().map(|row| row.id.clone()).collect();
    let mut items = by_dataset(datasets::item_ids(&store, &project, &ids).await?);
    let mut runs = by_dataset(dataset_runs::names(&store, &project, &ids).await?);
    let meta = meta(page, found.total);
    let rows = found.rows.into_iter().map(|row| {
        let mut shown = view(&project, &row);
        shown["items"] = items.remove(&row.id).unwrap_or_default().into();
        shown["runs"] = runs.remove(&row.id).unwrap_or_default().into();
        shown
    });
    Ok(answer::page(rows, &meta))
}

fn by_dataset(pairs: Vec<(String, String)>) -> HashMap<String, Vec<String>> {
    let mut lists: HashMap<String, Vec<String>> = HashMap::new();
    for (dataset, value) in pairs {
        lists.entry(dataset).or_default().push(value);
    }
    lists
}

/// `GET /v2/datasets/{name}`.
pub(crate) async fn find(
    State(store): State<Store>,
    Project(project): Project,
    name: Name,
) -> Result<Json<Value>, CompatError> {
    let dataset = named(&store, &project, &name).await?;
    Ok(Json(view(&project, &dataset)))
}

/// `GET /datasets/{name}`: with its items and the names of its runs.
pub(crate) async fn find_v1(
    State(compat): State<Compat>,
    Project(project): Project,
    name: Name,
    headers: HeaderMap,
) -> Result<Answer, CompatError> {
    let dataset = named(&compat.store, &project, &name).await?;
    let items = datasets::all_items(&compat.store, &project, &dataset.id).await?;
    let runs =
        dataset_runs::names(&compat.store, &project, std::slice::from_ref(&dataset.id)).await?;
    let runs = runs.into_iter().map(|(_, name)| name);
    let items = items::views(&compat, &project, &headers, items).await?;
    Ok(Answer::of(&view(&project, &dataset))
        .list("items", items)
        .list("runs", runs))
}

/// The dataset that a path names.
async fn named(store: &Store, project: &ProjectId, name: &Name) -> Result<Dataset, CompatError> {
    for name in name.readings() {
        if let Some(found) = datasets::find(store, project, &name).await? {
            return Ok(found);
        }
    }
    Err(missing())
}

fn missing() -> CompatError {
    CompatError::NotFound("Dataset not found".to_owned())
}

fn view(project: &ProjectId, dataset: &Dataset) -> Value {
    let shown = |text: &Option<String>| text.as_deref().map(payload::stored);
    json!({
        "id": dataset.id,
        "projectId": project.as_str(),
        "name": dataset.name,
        "description": dataset.description,
        "metadata": shown(&dataset.metadata),
        "inputSchema": shown(&dataset.input_schema),
        "expectedOutputSchema": shown(&dataset.expected_output_schema),
        "createdAt": iso(dataset.created_at),
        "updatedAt": iso(dataset.updated_at),
    })
}
