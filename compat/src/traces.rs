//! Traces: lists of them, one whole, created as of old, deleted.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use xtrace_model::{Batch, ProjectId, TraceId};
use xtrace_store::filter::{Condition, Order, Test, TraceColumn};
use xtrace_store::traces::{self, Rollup, TraceOrder, TraceQuery, TraceView};
use xtrace_store::{ANSWER_BYTES_MAX, Store, deletion, observations, scores};

use crate::Compat;
use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::body::{JsonBody, Object};
use crate::error::{CompatError, issue};
use crate::fields::Fields;
use crate::observations::{Observation, Prices};
use crate::query::{PathId, Query, iso, meta};
use crate::scores::view::{Score, Version};
use crate::{filter, ingestion, payload};

/// What `metrics` and the lists answer when their group is left out.
const LEFT_OUT: f64 = -1.0;

/// A trace; lists hold ids of observations and scores, sessions none of what is computed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trace {
    id: String,
    project_id: String,
    name: Option<String>,
    timestamp: String,
    environment: String,
    tags: Vec<String>,
    bookmarked: bool,
    release: Option<String>,
    version: Option<String>,
    user_id: Option<String>,
    session_id: Option<String>,
    public: bool,
    input: Box<RawValue>,
    output: Box<RawValue>,
    metadata: Map<String, Value>,
    created_at: String,
    updated_at: String,
    external_id: Option<String>,
    #[serde(flatten)]
    parts: Option<Parts>,
}

/// What a trace is made of besides its row.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Parts {
    html_path: String,
    latency: f64,
    total_cost: f64,
    /// `GET /traces/{id}` holds whole ones instead, as its scores.
    #[serde(flatten)]
    ids: Option<Ids>,
}

#[derive(Serialize)]
struct Ids {
    observations: Vec<String>,
    scores: Vec<String>,
}

fn html_path(project: &ProjectId, view: &TraceView) -> String {
    format!("/project/{project}/traces/{}", view.id)
}

impl Trace {
    fn new(project: &ProjectId, view: TraceView, with_io: bool, parts: Option<Parts>) -> Self {
        let io = |text: Option<&str>| payload::value(text.filter(|_| with_io));
        let metadata = view.metadata.as_deref().filter(|_| with_io);
        Self {
            parts,
            input: io(view.input.as_deref()),
            output: io(view.output.as_deref()),
            metadata: payload::metadata(metadata, view.metadata_decoded),
            project_id: project.to_string(),
            id: view.id,
            name: view.name,
            timestamp: iso(view.ts),
            environment: view.environment,
            tags: view.tags,
            bookmarked: view.bookmarked.unwrap_or(false),
            release: view.release,
            version: view.version,
            user_id: view.user_id,
            session_id: view.session_id,
            public: view.public.unwrap_or(false),
            created_at: iso(view.created_at),
            updated_at: iso(view.updated_at),
            external_id: view.external_id,
        }
    }
}

/// `GET /traces`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    let fields = Fields::parse(query.text("fields"));
    let wanted = trace_query(&query, fields)?;
    let found = traces::list(&store, &project, &wanted).await?;
    let mut rollups = HashMap::new();
    if fields.observations || fields.metrics {
        let all = traces::rollups(&store, &project, &found.rows, &wanted.environments).await?;
        rollups.extend(
            all.into_iter()
                .map(|rollup| (rollup.trace_id.clone(), rollup)),
        );
    }
    let mut scores = HashMap::new();
    if fields.scores {
        scores = score_ids(&store, &project, &found.rows, &wanted.environments).await?;
    }
    let meta = meta(wanted.page, found.total);
    let rows = found.rows.into_iter().map(|view| {
        let rollup = rollups.remove(&view.id).unwrap_or_default();
        let scores = scores.remove(&view.id).unwrap_or_default();
        let mut parts = parts(&project, &view, fields, &rollup);
        let observations = if fields.observations {
            rollup.observation_ids
        } else {
            Vec::new()
        };
        parts.ids = Some(Ids {
            observations,
            scores,
        });
        Trace::new(&project, view, fields.io, Some(parts))
    });
    Ok(answer::page(rows, &meta))
}

fn parts(project: &ProjectId, view: &TraceView, fields: Fields, rollup: &Rollup) -> Parts {
    let latency = view.sent_latency.or(rollup.latency).unwrap_or(0.0);
    let total_cost = view.sent_total_cost.or(rollup.total_cost).unwrap_or(0.0);
    Parts {
        html_path: html_path(project, view),
        latency: if fields.metrics { latency } else { LEFT_OUT },
        total_cost: if fields.metrics { total_cost } else { LEFT_OUT },
        ids: None,
    }
}

async fn score_ids(
    store: &Store,
    project: &ProjectId,
    traces: &[TraceView],
    environments: &[String],
) -> Result<HashMap<String, Vec<String>>, CompatError> {
    let ids: Vec<String> = traces.iter().map(|trace| trace.id.clone()).collect();
    let mut by_trace: HashMap<String, Vec<String>> = HashMap::new();
    for score in scores::of_traces(store, project, &ids, environments).await? {
        if let Some(trace) = score.trace_id {
            by_trace.entry(trace).or_default().push(score.id);
        }
    }
    Ok(by_trace)
}

fn trace_query(query: &Query, fields: Fields) -> Result<TraceQuery, CompatError> {
    let page = query.page()?;
    let (order, ascending) = order_by(query.text("orderBy"))?;
    let environments = query.list("environment");
    let mut simple = trace_conditions(query);
    simple.extend(time_conditions(query)?);
    let equal = [
        ("name", TraceColumn::Name),
        ("sessionId", TraceColumn::SessionId),
        ("version", TraceColumn::Version),
        ("release", TraceColumn::Release),
    ];
    for (name, column) in equal {
        simple.extend(query.text(name).map(|text| Condition::equals(column, text)));
    }
    if !environments.is_empty() {
        let test = Test::OneOf(environments.clone(), false);
        simple.push(Condition::new(TraceColumn::Environment, test));
    }
    let conditions = filter::with_simple(filter::parse(query)?, simple);
    Ok(TraceQuery {
        conditions,
        environments,
        order,
        ascending,
        with_io: fields.io,
        page,
    })
}

/// Parameters that lists of traces share with `metrics/daily`.
pub(crate) fn trace_conditions(query: &Query) -> Vec<Condition<TraceColumn>> {
    let mut conditions = Vec::new();
    let user = query
        .text("userId")
        .map(|user| Condition::equals(TraceColumn::UserId, user));
    conditions.extend(user);
    let tags = query.list("tags");
    if !tags.is_empty() {
        conditions.push(Condition::new(TraceColumn::Tags, Test::ContainsAll(tags)));
    }
    conditions
}

/// The conditions that `fromTimestamp` and `toTimestamp` stand for.
fn time_conditions(query: &Query) -> Result<Vec<Condition<TraceColumn>>, CompatError> {
    let range = [
        ("fromTimestamp", Order::AtLeast),
        ("toTimestamp", Order::Less),
    ];
    let mut conditions = Vec::new();
    for (name, order) in range {
        let time = query.time(name)?;
        conditions.extend(
            time.map(|time| Condition::new(TraceColumn::Timestamp, Test::Time(order, time))),
        );
    }
    Ok(conditions)
}

/// `<column>.<asc|desc>`; newest first without.
fn order_by(text: Option<&str>) -> Result<(TraceOrder, bool), CompatError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok((TraceOrder::Timestamp, false));
    };
    let (column, direction) = text.rsplit_once('.').unwrap_or((text, ""));
    let order = TraceOrder::parse(column)
        .ok_or_else(|| CompatError::BadRequest(format!("Invalid order by column: {column}")))?;
    match direction.to_ascii_lowercase().as_str() {
        "asc" => Ok((order, true)),
        "desc" => Ok((order, false)),
        _ => Err(CompatError::BadRequest(format!(
            "Invalid order by direction: {text}; use {column}.asc or {column}.desc"
        ))),
    }
}

/// `GET /traces/{id}`.
pub(crate) async fn find(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
    query: Query,
) -> Result<Answer, CompatError> {
    let fields = Fields::parse(query.text("fields"));
    let missing =
        || CompatError::NotFound(format!("Trace {id} not found within authorized project"));
    let trace_id = TraceId::parse(id.as_str()).map_err(|_| missing())?;
    let view = traces::find(&store, &project, &trace_id)
        .await?
        .ok_or_else(missing)?;
    let one = std::slice::from_ref(&view);
    let mut rollup = Rollup::default();
    if fields.metrics {
        let found = traces::rollups(&store, &project, one, &[]).await?.pop();
        rollup = found.unwrap_or_default();
    }
    let mut all = Vec::new();
    if fields.observations {
        refuse_huge(&store, &project, &view).await?;
        all = observations::of_trace(&store, &project, &view).await?;
    }
    let mut scores = Vec::new();
    if fields.scores {
        let ids = std::slice::from_ref(&view.id);
        scores = scores::of_traces(&store, &project, ids, &[]).await?;
    }
    let book = store.price_book(&project).await?;
    let prices = Prices {
        book: &book,
        unknown: Some(0.0),
    };
    let parts = parts(&project, &view, fields, &rollup);
    let observation = |view| Observation::new(&project, view, prices);
    let score = |score| Score::new(&project, score, Version::V1);
    Ok(
        Answer::of(&Trace::new(&project, view, fields.io, Some(parts)))
            .list("observations", all.into_iter().map(observation))
            .list("scores", scores.into_iter().map(score)),
    )
}

/// A trace as sessions show it: its row alone.
pub(crate) fn bare(project: &ProjectId, view: TraceView) -> Trace {
    Trace::new(project, view, true, None)
}

/// `POST /traces`: one trace, as of old.
pub(crate) async fn create(
    State(compat): State<Compat>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let trace = ingestion::trace_of(Object::of_body(&body)?, &body);
    let trace = trace.map_err(CompatError::Invalid)?;
    let id = trace.id.as_str().to_owned();
    let mut batch = Batch::new(project);
    batch.bytes = 2000 + body.to_string().len();
    batch.traces.push(trace);
    compat.writer.submit(batch).await?;
    Ok(Json(json!({ "id": id })))
}

/// `DELETE /traces/{id}`.
pub(crate) async fn delete(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
) -> Result<Json<Value>, CompatError> {
    deletion::delete_traces(&store, &project, &[id]).await?;
    Ok(Json(json!({"message": "Trace deleted successfully"})))
}

/// `DELETE /traces`: those that the body names.
pub(crate) async fn delete_all(
    State(store): State<Store>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let body = Object::of_body(&body)?.only(&["traceIds"]);
    let ids = body.and_then(|body| body.texts("traceIds"));
    let ids = ids.map_err(CompatError::Invalid)?;
    let ids = ids.unwrap_or_default();
    if ids.is_empty() {
        let path = [json!("traceIds")];
        let issue = issue::custom(&path, "At least 1 traceId is required.");
        return Err(CompatError::Invalid(issue));
    }
    deletion::delete_traces(&store, &project, &ids).await?;
    Ok(Json(json!({"message": "Traces deleted successfully"})))
}

async fn refuse_huge(
    store: &Store,
    project: &ProjectId,
    view: &TraceView,
) -> Result<(), CompatError> {
    let bytes = observations::payload_bytes(store, project, view).await?;
    if usize::try_from(bytes).is_ok_and(|bytes| bytes <= ANSWER_BYTES_MAX) {
        return Ok(());
    }
    Err(CompatError::TooLarge(format!(
        "Observations in trace are too large: {:.2}MB exceeds limit of 80.00MB",
        bytes as f64 / 1e6
    )))
}
