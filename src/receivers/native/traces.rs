//! `POST /v1/l/batch`: a trace and observations, all or none by their form. The endpoint has no
//! event time: parts merge in the order of their arrival.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use axum::Json;
use axum::extract::{Request, State};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use xtrace_model::json::{VALUE_BYTES, values_in};
use xtrace_model::observation::{Kind, Level};
use xtrace_model::register::{RANK_DERIVED, RANK_EXPLICIT};
use xtrace_model::usage::{self, Costs, Usage};
use xtrace_model::{
    Batch, Micros, Observation, ObservationId, ProjectId, Register, Stamp, Trace, TraceId, Tree,
    time, tree,
};

use super::Capped;
use crate::api::error::ApiError;
use crate::gateway::Gateway;
use crate::receivers::aside::aside;
use crate::receivers::body::ReadBody;
use crate::receivers::otlp::{cut, cut_tags};

const OBSERVATIONS_MAX: usize = 50_000;
/// More of them than a trace keeps, and no more than cost little.
const TAGS_MAX: usize = 10_000;
/// Values of a request that are held one by one: members of metadata and of usage.
const VALUES_MAX: usize = 500_000;

/// The request.
#[derive(Deserialize)]
struct TraceBatch {
    trace: Option<TraceItem>,
    #[serde(default)]
    observations: Capped<ObservationItem, OBSERVATIONS_MAX>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TraceItem {
    id: String,
    timestamp: Option<DateTime<Utc>>,
    name: Option<String>,
    user_id: Option<String>,
    #[serde(alias = "session_id")]
    session_id: Option<String>,
    release: Option<String>,
    version: Option<String>,
    input: Option<Box<RawValue>>,
    output: Option<Box<RawValue>>,
    metadata: Option<Box<RawValue>>,
    #[serde(default)]
    tags: Capped<String, TAGS_MAX>,
    public: Option<bool>,
    environment: Option<String>,
    external_id: Option<String>,
    bookmarked: Option<bool>,
    latency: Option<f64>,
    total_cost: Option<f64>,
    project_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObservationItem {
    id: String,
    trace_id: String,
    r#type: Option<String>,
    name: Option<String>,
    start_time: Option<DateTime<Utc>>,
    end_time: Option<DateTime<Utc>>,
    completion_start_time: Option<DateTime<Utc>>,
    model: Option<String>,
    model_id: Option<String>,
    model_parameters: Option<Box<RawValue>>,
    input: Option<Box<RawValue>>,
    output: Option<Box<RawValue>>,
    metadata: Option<Box<RawValue>>,
    usage: Option<Box<RawValue>>,
    usage_details: Option<Box<RawValue>>,
    cost_details: Option<Box<RawValue>>,
    level: Option<String>,
    status_message: Option<String>,
    version: Option<String>,
    parent_observation_id: Option<String>,
    prompt_id: Option<String>,
    prompt_name: Option<String>,
    prompt_version: Option<Box<RawValue>>,
    input_price: Option<f64>,
    output_price: Option<f64>,
    total_price: Option<f64>,
    calculated_input_cost: Option<f64>,
    calculated_output_cost: Option<f64>,
    calculated_total_cost: Option<f64>,
    latency: Option<f64>,
    time_to_first_token: Option<f64>,
    prompt_tokens: Option<i64>,
    completion_tokens: Option<i64>,
    total_tokens: Option<i64>,
    unit: Option<String>,
    environment: Option<String>,
    project_id: Option<String>,
}

/// What may still be held as values: a few bytes of a body become some hundred of memory.
struct Budget {
    values: usize,
}

impl Budget {
    /// Takes what a value is made of.
    fn hold(&mut self, value: Value) -> Result<Value, ApiError> {
        let left = self.values.checked_sub(values_in(&value));
        self.values = left.ok_or_else(|| {
            ApiError::TooLarge(format!(
                "the metadata and usage of a request may have {VALUES_MAX} values; send it in parts"
            ))
        })?;
        Ok(value)
    }

    /// A value that `jsonb` takes.
    fn value(&mut self, raw: &RawValue) -> Result<Value, ApiError> {
        self.hold(xtrace_model::json::parse_or_text(raw.get()))
    }

    /// An object; `path` is where it stands.
    fn members(
        &mut self,
        raw: Option<&RawValue>,
        path: impl FnOnce() -> String,
    ) -> Result<Map<String, Value>, ApiError> {
        let Some(raw) = raw else {
            return Ok(Map::new());
        };
        match xtrace_model::json::parse(raw.get()) {
            Some(value @ Value::Object(_)) => match self.hold(value)? {
                Value::Object(members) => Ok(members),
                _ => Ok(Map::new()),
            },
            _ => Err(ApiError::BadRequest(format!(
                "{}: expected an object of moderate size",
                path()
            ))),
        }
    }

    fn metadata(&mut self, raw: Option<&RawValue>, stamp: Stamp) -> Result<Tree, ApiError> {
        let value = raw.map(|raw| self.value(raw)).transpose()?;
        Ok(value
            .and_then(tree::as_metadata)
            .map_or_else(Tree::default, |value| Tree::new(value, stamp)))
    }
}

/// The objects of an observation that say what it used.
struct Used {
    usage: Map<String, Value>,
    usage_details: Map<String, Value>,
    cost_details: Map<String, Value>,
}

impl Used {
    fn of(item: &ObservationItem, index: usize, budget: &mut Budget) -> Result<Self, ApiError> {
        let mut members = |raw: &Option<Box<RawValue>>, name: &str| {
            budget.members(raw.as_deref(), || format!("observations[{index}].{name}"))
        };
        Ok(Self {
            usage: members(&item.usage, "usage")?,
            usage_details: members(&item.usage_details, "usageDetails")?,
            cost_details: members(&item.cost_details, "costDetails")?,
        })
    }
}

/// Takes a trace and observations: stores them, then answers.
pub async fn receive(
    State(gateway): State<Gateway>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let (caller, body) = super::caller_and_body(request, &gateway.body_limits).await?;
    let ReadBody { bytes, mut share } = body;
    let length = bytes.len();
    let decode = move || read(&bytes, caller.project);
    let batch = aside(length, decode).await.ok_or(ApiError::Fault)??;
    share.grow_to(batch.bytes).await?;
    super::check_refused(&gateway.writer.submit(batch).await?)?;
    Ok(super::stored())
}

/// Decodes a body that has just come.
pub(super) fn read(body: &[u8], project: ProjectId) -> Result<Batch, ApiError> {
    let received = Received::now();
    let mut batch = super::decode(body, |batch| into_batch(batch, project, received))?;
    batch.bytes += body.len();
    Ok(batch)
}

/// When a request came, and its place in the order of all requests.
#[derive(Clone, Copy)]
struct Received {
    micros: Micros,
    /// The time, but never less than that of a request before: a clock that jumps back must not make
    /// later updates lose.
    order: Micros,
    number: u64,
}

impl Received {
    /// Requests of one instant are told apart by their number.
    fn now() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        static LATEST: AtomicI64 = AtomicI64::new(0);
        let micros = time::from_utc(Utc::now());
        Self {
            micros,
            order: LATEST.fetch_max(micros, Ordering::Relaxed).max(micros),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn nanos(self) -> i64 {
        self.order.saturating_mul(1000)
    }

    /// Items of one request are told apart by their index.
    fn source(self, index: usize) -> u64 {
        (self.number << 20) + (index as u64 & 0xf_ffff)
    }

    /// The later arrival wins.
    fn latest(self, index: usize) -> Stamp {
        Stamp::latest(RANK_EXPLICIT, self.nanos(), self.source(index))
    }

    /// What another part of the request says, which anything sent for the field itself beats.
    fn derived(self, index: usize) -> Stamp {
        Stamp {
            rank: RANK_DERIVED,
            ..self.latest(index)
        }
    }

    /// The first arrival stays; what is `sent` beats what stands in for it.
    fn first(self, index: usize, sent: bool) -> Stamp {
        let rank = if sent { RANK_EXPLICIT } else { RANK_DERIVED };
        Stamp::earliest(rank, self.nanos(), self.source(index))
    }
}

fn into_batch(
    request: TraceBatch,
    project: ProjectId,
    received: Received,
) -> Result<Batch, ApiError> {
    let mut batch = Batch::new(project);
    let mut budget = Budget { values: VALUES_MAX };
    let environment = request.trace.as_ref().and_then(|trace| {
        let named = trace.environment.clone().filter(|name| !name.is_empty())?;
        Some((trace.id.clone(), named))
    });
    if let Some(item) = request.trace {
        let trace = into_trace(item, &batch.project, received, &mut budget)?;
        batch.bytes += 2000;
        batch.traces.push(trace);
    }
    for (index, item) in request.observations.0.into_iter().enumerate() {
        let used = Used::of(&item, index, &mut budget)?;
        let metadata = observation_metadata(&item, received.latest(index), &mut budget)?;
        let (trace, mut observation) =
            into_observation(item, index, (&batch.project, received), &used)?;
        observation.metadata = metadata;
        if let Some((trace, name)) = &environment
            && trace == observation.trace_id.as_str()
        {
            let derived = Register::new(name.clone(), received.derived(index));
            observation.environment.merge(derived);
        }
        batch.bytes += 3000;
        batch.traces.extend(trace);
        batch.observations.push(observation);
    }
    batch.bytes += (VALUES_MAX - budget.values) * VALUE_BYTES;
    Ok(batch)
}

fn into_trace(
    item: TraceItem,
    project: &ProjectId,
    received: Received,
    budget: &mut Budget,
) -> Result<Trace, ApiError> {
    check_project(item.project_id.as_deref(), project, "trace.projectId")?;
    let id = TraceId::parse(item.id)
        .map_err(|fault| ApiError::BadRequest(format!("trace.id {fault}")))?;
    let stamp = received.latest(0);
    let text = |text: Option<String>| Register::of(text, stamp);
    let mut trace = Trace::new(id);
    let timestamp = item.timestamp.map_or(received.micros, time::from_utc);
    trace.timestamp = Register::new(timestamp, received.first(0, item.timestamp.is_some()));
    trace.name = text(cut(item.name));
    trace.user_id = text(cut(item.user_id));
    trace.session_id = text(cut(item.session_id));
    trace.release = text(item.release);
    trace.version = text(item.version);
    let environment = item.environment.filter(|name| !name.is_empty());
    trace
        .environment
        .merge(Register::of(environment, received.first(0, true)));
    trace.external_id = text(item.external_id);
    trace.public = Register::of(item.public, stamp);
    trace.bookmarked = Register::of(item.bookmarked, stamp);
    trace.input = text(item.input.as_deref().and_then(payload));
    trace.output = text(item.output.as_deref().and_then(payload));
    trace.sent_latency = Register::of(item.latency, stamp);
    trace.sent_total_cost = Register::of(item.total_cost, stamp);
    trace.tags = cut_tags(item.tags.0);
    trace.metadata = budget.metadata(item.metadata.as_deref(), stamp)?;
    Ok(trace)
}

/// An observation, and what it says of a trace that nobody else names: its environment.
fn into_observation(
    item: ObservationItem,
    index: usize,
    (project, received): (&ProjectId, Received),
    used: &Used,
) -> Result<(Option<Trace>, Observation), ApiError> {
    let bad = |field: &str, fault: &str| {
        ApiError::BadRequest(format!("observations[{index}].{field} {fault}"))
    };
    check_project(
        item.project_id.as_deref(),
        project,
        "observations[].projectId",
    )?;
    let trace_id = TraceId::parse(item.trace_id.as_str())
        .map_err(|fault| bad("traceId", &fault.to_string()))?;
    let id =
        ObservationId::parse(item.id.as_str()).map_err(|fault| bad("id", &fault.to_string()))?;
    let kind = item.r#type.as_deref().map(|name| {
        Kind::parse(name).ok_or_else(|| {
            bad(
                "type",
                "must be one of the observation types, such as SPAN or GENERATION",
            )
        })
    });
    let level = item.level.as_deref().map(|name| {
        Level::parse(name).ok_or_else(|| bad("level", "must be DEBUG, DEFAULT, WARNING or ERROR"))
    });
    let stamp = received.latest(index);
    let text = |text: Option<String>| Register::of(text, stamp);
    let micros = |at: Option<DateTime<Utc>>| Register::of(at.map(time::from_utc), stamp);
    let mut observation = Observation::new(trace_id.clone(), id);
    let start = item.start_time.map_or(received.micros, time::from_utc);
    observation.start = Register::new(start, received.first(index, item.start_time.is_some()));
    observation.end = micros(item.end_time);
    observation.completion_start = micros(item.completion_start_time);
    observation
        .kind
        .merge(Register::of(kind.transpose()?, stamp));
    observation
        .level
        .merge(Register::of(level.transpose()?, stamp));
    observation.usage = Register::of(usage_of(&item, used), stamp);
    observation.sent_costs = Register::of(costs_of(&item, used), stamp);
    observation.sent = sent(&item, used, stamp);
    let prompt_version = item.prompt_version.as_deref().and_then(prompt_version);
    observation.prompt_version = Register::of(prompt_version, stamp);
    observation.prompt_name = text(item.prompt_name);
    observation.name = text(cut(item.name));
    observation.status_message = text(item.status_message);
    observation.version = text(item.version);
    observation.parent_id = text(item.parent_observation_id.filter(|id| !id.is_empty()));
    observation.model = text(cut(item.model));
    observation.model_parameters = text(item.model_parameters.as_deref().and_then(payload));
    observation.input = text(item.input.as_deref().and_then(payload));
    observation.output = text(item.output.as_deref().and_then(payload));
    let environment = item.environment.filter(|name| !name.is_empty());
    let trace = environment.as_ref().map(|name| {
        let mut trace = Trace::new(trace_id);
        trace
            .environment
            .merge(Register::new(name.clone(), received.first(index, false)));
        trace
    });
    observation
        .environment
        .merge(Register::of(environment, stamp));
    Ok((trace, observation))
}

/// Rows can only be written to the caller's own project.
fn check_project(
    named: Option<&str>,
    own: &ProjectId,
    field: &'static str,
) -> Result<(), ApiError> {
    match named {
        Some(other) if other != own.as_str() => Err(ApiError::Forbidden(field)),
        _ => Ok(()),
    }
}

/// A text as it is, any other value as JSON text; null and "" are nothing.
fn payload(raw: &RawValue) -> Option<String> {
    let raw = raw.get();
    if raw.starts_with('"') {
        return serde_json::from_str(raw)
            .ok()
            .filter(|text: &String| !text.is_empty());
    }
    (raw != "null").then(|| raw.to_owned())
}

/// Its metadata, to which a prompt's version that is no whole number is added.
fn observation_metadata(
    item: &ObservationItem,
    stamp: Stamp,
    budget: &mut Budget,
) -> Result<Tree, ApiError> {
    let mut metadata = budget.metadata(item.metadata.as_deref(), stamp)?;
    if let Some(version) = item.prompt_version.as_deref()
        && version.get() != "null"
        && prompt_version(version).is_none()
    {
        let version = budget.value(version)?;
        metadata.merge(Tree::new(json!({"promptVersion": version}), stamp));
    }
    Ok(metadata)
}

/// A prompt's version is a whole number, which may be text.
fn prompt_version(sent: &RawValue) -> Option<i32> {
    let number = sent.get().parse().ok();
    number.or_else(|| payload(sent)?.trim().parse().ok())
}

/// What a count is called within `usage`.
const SPELLINGS: [(&str, [&str; 4]); 3] = [
    (
        "input",
        ["input", "promptTokens", "prompt_tokens", "input_tokens"],
    ),
    (
        "output",
        [
            "output",
            "completionTokens",
            "completion_tokens",
            "output_tokens",
        ],
    ),
    (
        "total",
        ["total", "totalTokens", "total_tokens", "total_tokens"],
    ),
];

/// `usageDetails` over `usage` over the single counts.
fn usage_of(item: &ObservationItem, used: &Used) -> Option<Usage> {
    let mut found = Usage::new();
    let single = [
        ("input", item.prompt_tokens),
        ("output", item.completion_tokens),
        ("total", item.total_tokens),
    ];
    found.extend(
        single
            .into_iter()
            .filter_map(|(kind, count)| Some((kind.to_owned(), count?))),
    );
    for (kind, names) in SPELLINGS {
        let sent = names
            .iter()
            .find_map(|name| usage::count(used.usage.get(*name)?));
        found.extend(sent.map(|count| (kind.to_owned(), count)));
    }
    found.extend(usage::parse_usage(&used.usage_details));
    found.retain(|_, count| *count >= 0);
    (!found.is_empty()).then(|| usage::with_total(found))
}

/// `costDetails` over the costs within `usage` over the calculated ones that were sent.
fn costs_of(item: &ObservationItem, used: &Used) -> Option<Costs> {
    let calculated = [
        ("input", item.calculated_input_cost),
        ("output", item.calculated_output_cost),
        ("total", item.calculated_total_cost),
    ];
    let mut found: Costs = calculated
        .into_iter()
        .filter_map(|(kind, cost)| Some((kind.to_owned(), cost?)))
        .collect();
    let in_usage = [
        ("input", "inputCost"),
        ("output", "outputCost"),
        ("total", "totalCost"),
    ];
    for (kind, name) in in_usage {
        let sent = used.usage.get(name).and_then(usage::cost);
        found.extend(sent.map(|cost| (kind.to_owned(), cost)));
    }
    found.extend(usage::parse_costs(&used.cost_details));
    found.retain(|_, cost| cost.is_finite() && *cost >= 0.0);
    (!found.is_empty()).then(|| usage::with_total_cost(found))
}

/// Values that beat computed ones; the members are those of `xtrace_model::observation::Sent`.
fn sent(item: &ObservationItem, used: &Used, stamp: Stamp) -> Tree {
    let usage_unit = used.usage.get("unit").and_then(Value::as_str);
    let numbers = [
        ("latency", item.latency),
        ("timeToFirstToken", item.time_to_first_token),
        ("inputPrice", item.input_price),
        ("outputPrice", item.output_price),
        ("totalPrice", item.total_price),
    ];
    let texts = [
        ("unit", item.unit.as_deref().or(usage_unit)),
        ("modelId", item.model_id.as_deref()),
        ("promptId", item.prompt_id.as_deref()),
    ];
    let numbers = numbers
        .into_iter()
        .filter_map(|(name, number)| Some((name, json!(number?))));
    let texts = texts
        .into_iter()
        .filter_map(|(name, text)| Some((name, json!(text?))));
    let members: BTreeMap<&str, Value> = numbers.chain(texts).collect();
    if members.is_empty() {
        Tree::default()
    } else {
        Tree::new(json!(members), stamp)
    }
}
