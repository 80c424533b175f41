//! What log records tell of their span, as a part of its observation (section 7.2). Records fill what
//! the span itself leaves empty: their stamps are below those of any span.

use std::hash::Hash;

use serde_json::{Map, Value, json};
use xtrace_model::observation::Level;
use xtrace_model::register::{RANK_DERIVED, RANK_TRUE_ROOT};
use xtrace_model::{
    Micros, Observation, ObservationId, Register, Stamp, Trace, TraceId, json as rules,
};

use super::attributes::{Attributes, to_text, unfold};
use super::content::Content;
use super::context::Source;
use super::conventions::{input_messages, output_messages};
use super::events::{self, CHOICE, DETAILS};
use super::{leftovers, model, usage};

/// Names of the records that have content.
pub(in crate::receivers::otlp) const CONTENT_EVENTS: [&str; 8] = [
    "gen_ai.system.message",
    "gen_ai.user.message",
    "gen_ai.assistant.message",
    "gen_ai.tool.message",
    CHOICE,
    DETAILS,
    "exception",
    "gen_ai.client.operation.exception",
];

/// Whether a record of this name has content.
pub(super) fn is_content(event_name: &str) -> bool {
    CONTENT_EVENTS.contains(&event_name)
}

/// A record as it is stored.
#[derive(Debug)]
pub(in crate::receivers::otlp) struct StoredRecord {
    pub(in crate::receivers::otlp) id: String,
    pub(in crate::receivers::otlp) event_name: String,
    pub(in crate::receivers::otlp) time_unix_nano: u64,
    pub(in crate::receivers::otlp) observed_time_unix_nano: u64,
    pub(in crate::receivers::otlp) body: Value,
    pub(in crate::receivers::otlp) attributes: Map<String, Value>,
}

/// The observation that records are of, as it is stored.
#[derive(Debug)]
pub(in crate::receivers::otlp) struct StoredSpan {
    pub(in crate::receivers::otlp) trace_id: TraceId,
    pub(in crate::receivers::otlp) id: ObservationId,
    pub(in crate::receivers::otlp) start: Micros,
    pub(in crate::receivers::otlp) has_parent: bool,
    /// How strongly it stands for its trace if it has one.
    pub(in crate::receivers::otlp) root_rank: Option<i32>,
    pub(in crate::receivers::otlp) level: Level,
    /// What no other field holds of a span, as it was stored; null for observations that came
    /// another way.
    pub(in crate::receivers::otlp) otel: Value,
}

/// The part of the observation, and of its trace if the span stands for it, that all records of the
/// span make together.
pub(in crate::receivers::otlp) fn supplement(
    span: &StoredSpan,
    records: Vec<StoredRecord>,
) -> (Observation, Option<Trace>) {
    let told = Told::of(records);
    let stamp = told.stamp();
    let mut part = Observation::new(span.trace_id.clone(), span.id.clone());
    // It is known already, and the earliest wins: this changes nothing.
    part.start = Register::new(span.start, Stamp::earliest(RANK_DERIVED, i64::MAX, 0));
    part.input = Register::of(told.input.clone(), stamp);
    part.output = Register::of(told.output.clone(), stamp);
    if let Some(details) = &told.details {
        let source = Source::default();
        part.model = Register::of(model::name(details), stamp);
        part.model_parameters = Register::of(model::parameters(details, &source), stamp);
        part.tool_definitions = Register::of(leftovers::tool_definitions(details), stamp);
        let usage = usage::of(details, &source);
        part.usage = Register::of(Some(usage).filter(|usage| !usage.is_empty()), stamp);
    }
    if span.level == Level::Error {
        part.status_message = Register::of(told.exception.clone(), stamp);
    }
    (part, trace(span, &told))
}

/// Implicit values of the trace, as the span itself would give them (section 4.3).
fn trace(span: &StoredSpan, told: &Told) -> Option<Trace> {
    let rank = if span.has_parent {
        u8::try_from(span.root_rank?).ok()?
    } else {
        RANK_TRUE_ROOT
    };
    let nanos = span.otel.get("startTimeUnixNano")?.as_str()?;
    let start: i64 = nanos.parse().unwrap_or(0);
    let order = u64::from_str_radix(span.id.as_str(), 16).unwrap_or(0);
    // Of equal begin as the span's own values, and an earlier version than any of them.
    let version = i64::MIN.saturating_add(told.count);
    let stamp = Stamp::earliest(rank, start, order).of_version(version, told.hash);
    let mut trace = Trace::new(span.trace_id.clone());
    trace.input = Register::of(told.input.clone(), stamp);
    trace.output = Register::of(told.output.clone(), stamp);
    Some(trace)
}

/// What the records of a span say together.
struct Told {
    input: Option<String>,
    output: Option<String>,
    /// Attributes of the last record that describes the whole inference.
    details: Option<Attributes>,
    exception: Option<String>,
    count: i64,
    hash: u64,
}

impl Told {
    fn of(mut records: Vec<StoredRecord>) -> Self {
        records.sort_by(|one, other| {
            let key =
                |record: &StoredRecord| (record.time_unix_nano, record.observed_time_unix_nano);
            key(one)
                .cmp(&key(other))
                .then_with(|| one.id.cmp(&other.id))
        });
        let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
        let mut told = Self {
            input: None,
            output: None,
            details: None,
            exception: None,
            count: i64::try_from(records.len()).unwrap_or(i64::MAX),
            hash: 0,
        };
        let (mut messages, mut choices) = (Vec::new(), Vec::new());
        for record in records {
            record.id.hash(&mut hasher);
            let body = unfold(&record.body);
            let attributes = Attributes::restore(record.attributes);
            if let Some(role) = events::role_of(&record.event_name) {
                messages.push(message(role, body, &attributes));
            } else if record.event_name == CHOICE {
                choices.push(choice(body, &attributes));
            } else if record.event_name == DETAILS {
                told.take_details(attributes);
            } else {
                told.exception = events::exception(&attributes).or(told.exception);
            }
        }
        told.hash = hasher.digest();
        told.fill(messages, choices);
        told
    }

    /// Of several such records the last that has a side tells it.
    fn take_details(&mut self, attributes: Attributes) {
        let text = |content: Content| content.text;
        self.input = input_messages(&attributes).map(text).or(self.input.take());
        self.output = output_messages(&attributes)
            .map(text)
            .or(self.output.take());
        self.details = Some(attributes);
    }

    /// Records of single messages tell what no record of the whole inference does.
    fn fill(&mut self, messages: Vec<Value>, mut choices: Vec<(i64, Value)>) {
        let text = |value: Value| rules::storable(value).to_string();
        if self.input.is_none() && !messages.is_empty() {
            self.input = Some(text(Value::Array(messages)));
        }
        if self.output.is_some() || choices.is_empty() {
            return;
        }
        choices.sort_by_key(|(index, _)| *index);
        let mut choices: Vec<Value> = choices.into_iter().map(|(_, choice)| choice).collect();
        self.output = match choices.len() {
            1 => choices.pop().map(text),
            _ => Some(text(Value::Array(choices))),
        };
    }

    /// More records beat fewer, which they include.
    fn stamp(&self) -> Stamp {
        Stamp::latest(RANK_DERIVED, self.count, 0).of_version(0, self.hash)
    }
}

/// A message that was sent to the model (rules L-3 and L-6).
fn message(role: &str, body: Value, attributes: &Attributes) -> Value {
    let mut message = json!({ "role": role });
    match body {
        Value::Object(members) => {
            for (key, value) in members {
                message[key] = value;
            }
        }
        Value::Null => {
            if let Some(content) = attributes.get("content") {
                message["content"] = unfold(content);
            }
        }
        content => message["content"] = content,
    }
    message
}

/// What the model chose to say, with its place among the choices.
fn choice(body: Value, attributes: &Attributes) -> (i64, Value) {
    let mut choice = json!({ "role": "assistant" });
    let Value::Object(mut body) = body else {
        return (0, message("assistant", body, attributes));
    };
    let index = body.get("index").and_then(Value::as_i64).unwrap_or(0);
    match body.remove("message").map(|message| unfold(&message)) {
        Some(Value::Object(members)) => {
            for (key, value) in members {
                choice[key] = value;
            }
        }
        Some(Value::Null) | None => {}
        Some(content) => choice["content"] = Value::String(to_text(&content)),
    }
    for member in ["content", "tool_calls", "finish_reason"] {
        if let Some(value) = body.remove(member) {
            choice[member] = value;
        }
    }
    (index, choice)
}
