//! `POST /v1/l/batch`: a trace and observations, all or none by their form. The endpoint has no
//! event time: parts merge in the order of their arrival.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use axum::Json;
use axum::extract::{Request, State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
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
    tags: Option<Vec<String>>,
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
    usage: Option<Members>,
    usage_details: Option<Members>,
    cost_details: Option<Members>,
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

/// An object of a size that can be held as values.
struct Members(Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        match xtrace_model::json::parse(raw.get()) {
            Some(Value::Object(members)) => Ok(Self(members)),
            _ => Err(serde::de::Error::custom(
                "expected an object of moderate size",
            )),
        }
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
    super::decode(body, |batch| into_batch(batch, project, received))
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
    let environment = request.trace.as_ref().and_then(|trace| {
        let named = trace.environment.clone().filter(|name| !name.is_empty())?;
        Some((trace.id.clone(), named))
    });
    if let Some(item) = request.trace {
        let trace = into_trace(item, &batch.project, received)?;
        batch.bytes += 2000 + text_bytes(&trace.input) + text_bytes(&trace.output);
        batch.traces.push(trace);
    }
    for (index, item) in request.observations.0.into_iter().enumerate() {
        let (trace, mut observation) = into_observation(item, index, &batch.project, received)?;
        if let Some((trace, name)) = &environment
            && trace == observation.trace_id.as_str()
        {
            let derived = Register::new(name.clone(), received.derived(index));
            observation.environment.merge(derived);
        }
        batch.bytes += 3000 + text_bytes(&observation.input) + text_bytes(&observation.output);
        batch.traces.extend(trace);
        batch.observations.push(observation);
    }
    Ok(batch)
}

fn text_bytes(register: &Register<String>) -> usize {
    register.text().map_or(0, str::len)
}

fn into_trace(item: TraceItem, project: &ProjectId, received: Received) -> Result<Trace, ApiError> {
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
    trace.tags = cut_tags(item.tags.unwrap_or_default());
    trace.metadata = metadata(item.metadata.as_deref(), stamp);
    Ok(trace)
}

/// An observation, and what it says of a trace that nobody else names: its environment.
fn into_observation(
    item: ObservationItem,
    index: usize,
    project: &ProjectId,
    received: Received,
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
    observation.usage = Register::of(usage_of(&item), stamp);
    observation.sent_costs = Register::of(costs_of(&item), stamp);
    observation.sent = sent(&item, stamp);
    let (prompt_version, odd_version) = prompt_version(item.prompt_version.as_deref());
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
    observation.metadata = metadata(item.metadata.as_deref(), stamp);
    if let Some(version) = odd_version {
        observation
            .metadata
            .merge(Tree::new(json!({"promptVersion": version}), stamp));
    }
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

fn metadata(raw: Option<&RawValue>, stamp: Stamp) -> Tree {
    let value = raw.map(|raw| xtrace_model::json::parse_or_text(raw.get()));
    value
        .and_then(tree::as_metadata)
        .map_or_else(Tree::default, |value| Tree::new(value, stamp))
}

/// A prompt's version is a whole number; anything else is kept as it came, beside.
fn prompt_version(sent: Option<&RawValue>) -> (Option<i32>, Option<Value>) {
    let sent = sent.map_or(Value::Null, |raw| {
        xtrace_model::json::parse_or_text(raw.get())
    });
    let number = match &sent {
        Value::Null => return (None, None),
        Value::Number(number) => number
            .as_i64()
            .and_then(|number| i32::try_from(number).ok()),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match number {
        Some(number) => (Some(number), None),
        None => (None, Some(sent)),
    }
}

/// `usageDetails` over `usage` over the single counts.
fn usage_of(item: &ObservationItem) -> Option<Usage> {
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
    if let Some(Members(usage)) = &item.usage {
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
        for (kind, names) in SPELLINGS {
            let sent = names
                .iter()
                .find_map(|name| usage::count(usage.get(*name)?));
            found.extend(sent.map(|count| (kind.to_owned(), count)));
        }
    }
    if let Some(Members(details)) = &item.usage_details {
        found.extend(usage::parse_usage(details));
    }
    found.retain(|_, count| *count >= 0);
    (!found.is_empty()).then(|| usage::with_total(found))
}

/// `costDetails` over the costs within `usage` over the calculated ones that were sent.
fn costs_of(item: &ObservationItem) -> Option<Costs> {
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
        let sent = item
            .usage
            .as_ref()
            .and_then(|usage| usage::cost(usage.0.get(name)?));
        found.extend(sent.map(|cost| (kind.to_owned(), cost)));
    }
    if let Some(Members(details)) = &item.cost_details {
        found.extend(usage::parse_costs(details));
    }
    found.retain(|_, cost| cost.is_finite() && *cost >= 0.0);
    (!found.is_empty()).then(|| usage::with_total_cost(found))
}

/// Values that beat computed ones; the members are those of `xtrace_model::observation::Sent`.
fn sent(item: &ObservationItem, stamp: Stamp) -> Tree {
    let usage_unit = item
        .usage
        .as_ref()
        .and_then(|usage| usage.0.get("unit"))
        .and_then(Value::as_str);
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
