//! From OTLP log records to ours: nothing of one is lost, and none is refused.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use xtrace_model::text::without_nul;
use xtrace_model::{Batch, LogRecord, Micros, ObservationId, ProjectId, Score, TraceId, json};
use xxhash_rust::xxh3::Xxh3Default;

use super::attributes::{Attributes, to_json};
use super::context::ScopeContext;
use super::evaluation::{self, Judged};
use super::{Mapped, Sender, each_item, log_content, trace_fields};
use crate::receivers::otlp::wire::{self, Export};

/// Attributes that named an event before records had a field for it.
const EVENT_NAME_KEYS: [&str; 2] = ["event.name", "event_name"];

/// Maps a request. `received` stands in for times that nobody sent.
pub(in crate::receivers::otlp) fn map_logs(
    export: Export<'_, wire::LogRecord<'_>>,
    project: ProjectId,
    sender: &Sender,
    received: Micros,
) -> Mapped {
    let mut batch = Batch::new(project);
    let mut alike = HashMap::new();
    each_item(export, sender, received, |record, resource, context| {
        let (record, attributes) = map_record(record, context, &mut alike);
        batch.bytes += footprint(&record);
        batch
            .scores
            .extend(score(&record, &attributes, resource, received));
        batch.logs.push(record);
    });
    Mapped {
        batch,
        rejected: Vec::new(),
    }
}

/// What has no column of its own; what all records of a scope share is JSON text already.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rest<'a> {
    resource: &'a RawValue,
    scope: &'a RawValue,
    time_unix_nano: String,
    observed_time_unix_nano: String,
    flags: u32,
    dropped_attributes_count: u32,
    resource_dropped_attributes_count: u32,
    scope_dropped_attributes_count: u32,
    resource_schema_url: &'a str,
    scope_schema_url: &'a str,
}

/// `alike` counts records of this request that are the same to the last bit: each is kept, and sent
/// again they are the same ones.
fn map_record(
    record: wire::LogRecord<'_>,
    context: &ScopeContext,
    alike: &mut HashMap<u128, u32>,
) -> (LogRecord, Attributes) {
    let attributes = Attributes::new(record.attributes);
    let said = |text: &str| Some(without_nul(text).into_owned()).filter(|text| !text.is_empty());
    let rest = Rest {
        resource: &context.resource,
        scope: &context.scope,
        time_unix_nano: record.time_unix_nano.to_string(),
        observed_time_unix_nano: record.observed_time_unix_nano.to_string(),
        flags: record.flags,
        dropped_attributes_count: record
            .dropped_attributes_count
            .saturating_add(attributes.over_cap),
        resource_dropped_attributes_count: context.resource_dropped,
        scope_dropped_attributes_count: context.scope_dropped,
        resource_schema_url: &without_nul(&context.resource_schema_url),
        scope_schema_url: &without_nul(&context.scope_schema_url),
    };
    let time = micros(record.time_unix_nano);
    let observed = micros(record.observed_time_unix_nano);
    // Ids that are none are dropped, the record is kept; a span's id says nothing without its trace's.
    let trace_id = record.trace_id.to_hex();
    let trace_id = trace_id.and_then(|id| TraceId::parse(id).ok());
    let span_id = record.span_id.to_hex().filter(|_| trace_id.is_some());
    let event_name = said(&record.event_name).or_else(|| attributes.first_text(&EVENT_NAME_KEYS));
    let mut mapped = LogRecord {
        id: String::new(),
        time: time.or(observed).unwrap_or(context.received),
        observed,
        severity: record.severity_number,
        severity_text: said(&record.severity_text),
        event_name,
        body: body(record.body),
        trace_id,
        span_id: span_id.and_then(|id| ObservationId::parse(id).ok()),
        sent_unix_nano: match record.time_unix_nano {
            0 => record.observed_time_unix_nano,
            sent => sent,
        },
        has_content: false,
        attributes: json::storable(attributes.to_object()).to_string(),
        rest: serde_json::to_string(&rest).expect("texts, numbers and JSON serialise"),
    };
    let digest = digest(&mapped);
    let count = alike.entry(digest).or_default();
    mapped.id = format!("{:032x}", digest.wrapping_add(u128::from(*count)));
    *count += 1;
    mapped.has_content = mapped.span_id.is_some()
        && mapped
            .event_name
            .as_deref()
            .is_some_and(log_content::is_content);
    (mapped, attributes)
}

/// The score that a record tells, if it is an evaluation of a span.
fn score(
    record: &LogRecord,
    attributes: &Attributes,
    resource: &Attributes,
    received: Micros,
) -> Option<Score> {
    let trace = record.trace_id.as_ref()?;
    if record.event_name.as_deref() != Some(evaluation::EVENT) {
        return None;
    }
    let environment = trace_fields::environment(attributes, resource);
    let judged = Judged {
        trace,
        span: record.span_id.as_ref(),
        time_unix_nano: record.sent_unix_nano,
        received,
        environment: environment.as_deref(),
    };
    evaluation::of_event(attributes, judged)
}

/// JSON text; none for a record without a body.
fn body(body: wire::AnyValue<'_>) -> Option<String> {
    match to_json(body, 0) {
        Value::Null => None,
        body => Some(json::storable(body).to_string()),
    }
}

fn micros(nanos: u64) -> Option<Micros> {
    i64::try_from(nanos / 1000).ok().filter(|_| nanos > 0)
}

/// Of everything that was sent, and nothing that was not.
fn digest(record: &LogRecord) -> u128 {
    let severity = record.severity.to_string();
    let parts = [
        Some(severity.as_str()),
        record.severity_text.as_deref(),
        record.event_name.as_deref(),
        record.body.as_deref(),
        record.trace_id.as_ref().map(TraceId::as_str),
        record.span_id.as_ref().map(ObservationId::as_str),
        Some(&record.attributes),
        Some(&record.rest),
    ];
    let mut hasher = Xxh3Default::new();
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            hasher.update(b"\0");
        }
        hasher.update(part.unwrap_or_default().as_bytes());
    }
    hasher.digest128()
}

/// Bytes that a record holds: its texts, and a round sum for the rest.
fn footprint(record: &LogRecord) -> usize {
    500 + record.body.as_deref().map_or(0, str::len) + record.attributes.len() + record.rest.len()
}
