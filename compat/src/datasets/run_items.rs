//! What came of an item in a run (langfuse-api 14.4).

use axum::Json;
use axum::extract::State;
use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};
use xtrace_model::{Micros, ProjectId, json as rules, time};
use xtrace_store::dataset_runs::{self, Run, RunItem};
use xtrace_store::datasets::{self, NamedItem};
use xtrace_store::{Store, observations};

use super::runs::run_id;
use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::body::{Issue, JsonBody, Object};
use crate::error::{CompatError, issue};
use crate::filter;
use crate::query::{Query, iso, meta};

const NAMES: [&str; 8] = [
    "runName",
    "runDescription",
    "metadata",
    "datasetItemId",
    "traceId",
    "observationId",
    "datasetVersion",
    "createdAt",
];

/// What was sent.
struct Sent {
    run_name: String,
    description: Option<String>,
    metadata: Option<Value>,
    item_id: String,
    trace_id: Option<String>,
    observation_id: Option<String>,
    version: Option<Micros>,
    created_at: Option<Micros>,
}

impl Sent {
    fn parse(body: Object<'_>) -> Result<Self, Issue> {
        let body = body.only(&NAMES)?;
        let said = |name: &str| Ok::<_, Issue>(body.text(name)?.filter(|id| !id.is_empty()));
        let time = |name: &str| match body.text(name)? {
            None => Ok(None),
            Some(text) => match filter::lenient_time(&text) {
                Some(time) => Ok(Some(time)),
                None => Err(issue::not_a_time(name)),
            },
        };
        Ok(Self {
            run_name: body.required_text("runName", 1)?,
            description: body.text("runDescription")?,
            metadata: body.get("metadata").cloned().map(rules::storable),
            item_id: body.required_text("datasetItemId", 0)?,
            trace_id: said("traceId")?,
            observation_id: said("observationId")?,
            version: time("datasetVersion")?,
            created_at: time("createdAt")?,
        })
    }

    /// What a new run keeps: an object, with the version of the dataset if one was meant.
    fn run_metadata(&self) -> Option<String> {
        let mut metadata = match self.metadata.clone() {
            None => json!({}),
            Some(object @ Value::Object(_)) => object,
            Some(other) => json!({"metadata": other}),
        };
        if let Some(version) = self.version {
            let version = time::to_utc(version).to_rfc3339_opts(SecondsFormat::Millis, true);
            metadata["dataset_version"] = version.into();
        }
        let is_empty = metadata.as_object().is_some_and(serde_json::Map::is_empty);
        (!is_empty).then(|| metadata.to_string())
    }
}

/// `POST /dataset-run-items`: the run is made with its first item.
pub(crate) async fn create(
    State(store): State<Store>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let sent = Sent::parse(Object::of_body(&body)?).map_err(CompatError::Invalid)?;
    if sent.trace_id.is_none() && sent.observation_id.is_none() {
        return Err(CompatError::BadRequest(
            "observationId or traceId must be provided".to_owned(),
        ));
    }
    let at = sent.version.map(time::last_printed_as).map(time::to_utc);
    let item = datasets::item(&store, &project, &sent.item_id, at).await?;
    let item = item.filter(|named| named.item.status == "ACTIVE");
    let NamedItem { item, .. } =
        item.ok_or_else(|| CompatError::NotFound("Dataset item not found".to_owned()))?;
    let trace_id = trace(&store, &project, &sent).await?;
    let now = Utc::now();
    let created_at = sent.created_at.map_or(now, time::to_utc);
    let run = Run {
        id: run_id(&project, &item.dataset_id, &sent.run_name),
        dataset_id: item.dataset_id,
        description: sent.description.clone(),
        metadata: sent.run_metadata(),
        name: sent.run_name,
        created_at,
        updated_at: created_at,
    };
    let run_item = RunItem {
        id: uuid::Uuid::new_v4().to_string(),
        run_id: run.id.clone(),
        item_id: sent.item_id,
        trace_id,
        observation_id: sent.observation_id,
        created_at,
        updated_at: created_at,
    };
    dataset_runs::add_item(&store, &project, &run, &run_item).await?;
    Ok(Json(view(&run_item, &run.name)))
}

/// The trace that is named, or that of the observation.
async fn trace(store: &Store, project: &ProjectId, sent: &Sent) -> Result<String, CompatError> {
    match (&sent.trace_id, &sent.observation_id) {
        (Some(trace), _) => Ok(trace.clone()),
        (None, observation) => {
            let id = observation.as_deref().unwrap_or_default();
            let found = observations::find(store, project, id).await?;
            let found =
                found.ok_or_else(|| CompatError::NotFound("Observation not found".to_owned()))?;
            Ok(found.trace_id)
        }
    }
}

/// `GET /dataset-run-items`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    let page = query.page()?;
    let required = |name: &str| {
        let missing = || CompatError::Invalid(issue::missing(&[name], "string"));
        query.text(name).ok_or_else(missing)
    };
    let (dataset_id, name) = (required("datasetId")?, required("runName")?);
    let id = run_id(&project, dataset_id, name);
    let run = dataset_runs::find(&store, &project, &id)
        .await?
        .ok_or_else(|| {
            CompatError::NotFound(
                "Dataset run not found for the given project and dataset id".to_owned(),
            )
        })?;
    let found = dataset_runs::items(&store, &project, &run.id, page).await?;
    let meta = meta(page, found.total);
    let rows = found.rows.into_iter().map(|item| view(&item, &run.name));
    Ok(answer::page(rows, &meta))
}

pub(super) fn view(item: &RunItem, run_name: &str) -> Value {
    json!({
        "id": item.id,
        "datasetRunId": item.run_id,
        "datasetRunName": run_name,
        "datasetItemId": item.item_id,
        "traceId": item.trace_id,
        "observationId": item.observation_id,
        "createdAt": iso(item.created_at),
        "updatedAt": iso(item.updated_at),
    })
}
