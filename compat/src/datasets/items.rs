//! Items of datasets (langfuse-api 14.3).

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use xtrace_model::text::{quote_big_integers, repair_json};
use xtrace_model::{ProjectId, json as rules, time};
use xtrace_store::datasets::{self, Dataset, Item, ItemQuery, NamedItem};
use xtrace_store::{Store, media};

use super::{missing, named, references};
use crate::Compat;
use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::body::{Issue, JsonBody, Object};
use crate::error::{CompatError, issue};
use crate::payload;
use crate::query::{Name, PathId, Query, iso, meta};

const ID_CHARS_MAX: usize = 255;

/// `GET /dataset-items`.
pub(crate) async fn list(
    State(compat): State<Compat>,
    Project(project): Project,
    query: Query,
    headers: HeaderMap,
) -> Result<Answer, CompatError> {
    let page = query.page()?;
    let said = |name: &str| query.text(name).filter(|text| !text.is_empty());
    let at = query.lenient_time("version")?;
    let at = at.map(|at| time::to_utc(time::last_printed_as(at)));
    let mut wanted = ItemQuery {
        source_trace_id: said("sourceTraceId").map(str::to_owned),
        source_observation_id: said("sourceObservationId").map(str::to_owned),
        at,
        ..ItemQuery::default()
    };
    match said("datasetName") {
        Some(name) => {
            let dataset = named(&compat.store, &project, &Name::of(name)).await?;
            wanted.dataset_id = Some(dataset.id);
        }
        None if at.is_some() => {
            return Err(CompatError::BadRequest(
                "datasetName is required when version parameter is provided".to_owned(),
            ));
        }
        None => {}
    }
    let found = datasets::items(&compat.store, &project, &wanted, page).await?;
    let meta = meta(page, found.total);
    let rows = views(&compat, &project, &headers, found.rows).await?;
    Ok(answer::page(rows, &meta))
}

fn no_such_item() -> CompatError {
    CompatError::NotFound("Dataset item not found".to_owned())
}

/// `GET /dataset-items/{id}`: archived ones too.
pub(crate) async fn find(
    State(compat): State<Compat>,
    Project(project): Project,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Json<Value>, CompatError> {
    let item = datasets::item(&compat.store, &project, &id, None).await?;
    let item = item.ok_or_else(no_such_item)?;
    one_view(&compat, &project, &headers, item).await
}

/// `DELETE /dataset-items/{id}`.
pub(crate) async fn delete(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
) -> Result<Json<Value>, CompatError> {
    if datasets::delete_item(&store, &project, &id, Utc::now()).await? {
        return Ok(Json(
            json!({"message": "Dataset item successfully deleted"}),
        ));
    }
    Err(no_such_item())
}

/// `POST /dataset-items`: new, or changed if the id is known; what is not named stays.
pub(crate) async fn create(
    State(compat): State<Compat>,
    Project(project): Project,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let body = Object::of_body(&body)?;
    let store = &compat.store;
    let sent = Sent::parse(body).map_err(CompatError::Invalid)?;
    let dataset = datasets::find(store, &project, &sent.dataset_name).await?;
    let dataset = dataset.ok_or_else(missing)?;
    let mut known = None;
    if let Some(id) = &sent.id {
        known = datasets::item(store, &project, id, None).await?;
    } else if sent.input.is_none() {
        return Err(CompatError::BadRequest(
            "Dataset item validation failed: Dataset item input cannot be null".to_owned(),
        ));
    }
    let known = known.map(|known| known.item);
    if let Some(other) = known
        .as_ref()
        .filter(|known| known.dataset_id != dataset.id)
    {
        return Err(CompatError::Conflict(format!(
            "Dataset item id {} already exists in another dataset (id {}) in this project; ids are unique within a project",
            other.id, other.dataset_id
        )));
    }
    let item = sent.onto(known.as_ref(), &dataset, Utc::now());
    let schemas = &compat.schemas;
    schemas.check_item(&project, &dataset, &item).await?;
    check_media(store, &project, &item).await?;
    if known.as_ref().is_none_or(|known| {
        Item {
            valid_from: known.valid_from,
            ..item.clone()
        } != *known
    }) {
        datasets::put_item(store, &project, &item).await?;
    }
    let named = NamedItem {
        item,
        dataset_name: dataset.name,
    };
    one_view(&compat, &project, &headers, named).await
}

async fn check_media(store: &Store, project: &ProjectId, item: &Item) -> Result<(), CompatError> {
    let references = references::of_item(item);
    if references.is_empty() {
        return Ok(());
    }
    if references.len() > references::REFERENCES_MAX {
        return Err(CompatError::BadRequest(format!(
            "A dataset item references media at most {} times",
            references::REFERENCES_MAX
        )));
    }
    let ids: Vec<String> = references.into_iter().map(|one| one.media_id).collect();
    let known = media::find(store, project, &ids).await?;
    let is_unknown = |id: &&String| !known.iter().any(|media| media.id == **id);
    let unknown: Vec<&str> = ids.iter().filter(is_unknown).map(String::as_str).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(CompatError::BadRequest(format!(
        "Dataset item references unknown media: {}",
        unknown.join(", ")
    )))
}

/// What was sent of an item.
struct Sent {
    dataset_name: String,
    id: Option<String>,
    input: Option<String>,
    expected_output: Option<String>,
    metadata: Option<String>,
    source_trace_id: Option<String>,
    source_observation_id: Option<String>,
    status: Option<&'static str>,
}

impl Sent {
    fn parse(body: Object<'_>) -> Result<Self, Issue> {
        let id = body.text("id")?;
        if let Some(id) = &id {
            match id.chars().count() {
                0 => return Err(issue::short("id", 1)),
                chars if chars > ID_CHARS_MAX => return Err(issue::long("id", ID_CHARS_MAX)),
                _ => {}
            }
        }
        Ok(Self {
            dataset_name: body.required_text("datasetName", 0)?,
            id,
            input: content(body.get("input")),
            expected_output: content(body.get("expectedOutput")),
            metadata: content(body.get("metadata")),
            source_trace_id: body.text("sourceTraceId")?,
            source_observation_id: body.text("sourceObservationId")?,
            status: body.option("status", &["ACTIVE", "ARCHIVED"])?,
        })
    }

    fn onto(self, known: Option<&Item>, dataset: &Dataset, now: DateTime<Utc>) -> Item {
        let keep = |sent: Option<String>, of: fn(&Item) -> &Option<String>| {
            sent.or_else(|| known.and_then(|known| of(known).clone()))
        };
        let status = known.map_or("ACTIVE", |known| known.status.as_str());
        Item {
            id: self.id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            dataset_id: dataset.id.clone(),
            status: self.status.unwrap_or(status).to_owned(),
            input: keep(self.input, |known| &known.input),
            expected_output: keep(self.expected_output, |known| &known.expected_output),
            metadata: keep(self.metadata, |known| &known.metadata),
            source_trace_id: keep(self.source_trace_id, |known| &known.source_trace_id),
            source_observation_id: keep(self.source_observation_id, |known| {
                &known.source_observation_id
            }),
            created_at: known.map_or(now, |known| known.created_at),
            valid_from: now,
        }
    }
}

/// A value as JSON text. A text that holds JSON is that JSON; control characters go.
fn content(value: Option<&Value>) -> Option<String> {
    let value = value?;
    let cleaned = |text: &str| -> String {
        let keeps = |char: &char| !char.is_control() || matches!(char, '\t' | '\n' | '\r');
        text.chars().filter(keeps).collect()
    };
    let json = match value {
        Value::String(text) => {
            let text = cleaned(text);
            let parsed = rules::parse(&repair_json(text.as_bytes()));
            let parsed = parsed.filter(|_| !text.is_empty());
            if text.is_empty() || parsed.as_ref().is_some_and(Value::is_null) {
                return None;
            }
            match parsed {
                Some(parsed) => {
                    quote_big_integers(&rules::storable(parsed).to_string()).into_owned()
                }
                None => Value::String(text).to_string(),
            }
        }
        other => rules::storable(other.clone()).to_string(),
    };
    Some(json)
}

async fn one_view(
    compat: &Compat,
    project: &ProjectId,
    headers: &HeaderMap,
    item: NamedItem,
) -> Result<Json<Value>, CompatError> {
    let mut shown = views(compat, project, headers, vec![item]).await?;
    Ok(Json(shown.next().unwrap_or_default()))
}

/// Items as they are shown, with the media that they refer to.
pub(super) async fn views(
    compat: &Compat,
    project: &ProjectId,
    headers: &HeaderMap,
    items: Vec<NamedItem>,
) -> Result<impl Iterator<Item = Value>, CompatError> {
    let plain: Vec<&Item> = items.iter().map(|named| &named.item).collect();
    let media = references::views(compat, project, headers, &plain).await?;
    let shown = |text: Option<String>| text.as_deref().map(payload::stored);
    let view = move |(NamedItem { item, dataset_name }, media): (NamedItem, Vec<Value>)| {
        json!({
            "id": item.id,
            "datasetId": item.dataset_id,
            "datasetName": dataset_name,
            "status": item.status,
            "input": shown(item.input),
            "expectedOutput": shown(item.expected_output),
            "metadata": shown(item.metadata),
            "sourceTraceId": item.source_trace_id,
            "sourceObservationId": item.source_observation_id,
            "createdAt": iso(item.created_at),
            "updatedAt": iso(item.valid_from),
            "version": iso(item.valid_from),
            "mediaReferences": media,
        })
    };
    Ok(items.into_iter().zip(media).map(view))
}
