//! OTLP in JSON as the same request in protobuf, by the official types; and answers back.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use prost::Message;
use serde_json::{Value, json};

/// What a request is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
    Logs,
}

/// What requests to a path are of, if they are OTLP.
pub(super) fn signal(path: &str) -> Option<Signal> {
    match path {
        "/v1/traces" => Some(Signal::Traces),
        "/v1/metrics" => Some(Signal::Metrics),
        "/v1/logs" => Some(Signal::Logs),
        _ => None,
    }
}

/// The request in protobuf; none if protobuf can't say the same (odd ids or numbers).
pub(super) fn from_json(signal: Signal, json: &Value) -> Option<Vec<u8>> {
    json.as_object()?;
    Some(match signal {
        Signal::Traces => {
            let resource_spans = list(json, "resourceSpans", resource_spans)?;
            ExportTraceServiceRequest { resource_spans }.encode_to_vec()
        }
        Signal::Metrics => super::protobuf_metrics::from_json(json)?,
        Signal::Logs => {
            let resource_logs = list(json, "resourceLogs", resource_logs)?;
            ExportLogsServiceRequest { resource_logs }.encode_to_vec()
        }
    })
}

pub(super) fn list<T>(json: &Value, name: &str, each: fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    match json.get(name) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(items) => items.as_array()?.iter().map(each).collect(),
    }
}

pub(super) fn text(json: &Value, name: &str) -> Option<String> {
    match json.get(name) {
        None | Some(Value::Null) => Some(String::new()),
        Some(value) => value.as_str().map(str::to_owned),
    }
}

pub(super) fn number(json: &Value, name: &str) -> Option<u64> {
    match json.get(name) {
        None | Some(Value::Null) => Some(0),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
    }
}

pub(super) fn small(json: &Value, name: &str) -> Option<u32> {
    number(json, name)?.try_into().ok()
}

pub(super) fn id(json: &Value, name: &str) -> Option<Vec<u8>> {
    let text = text(json, name)?;
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

pub(super) fn resource(json: &Value) -> Option<Resource> {
    let resource = json.get("resource").cloned().unwrap_or_default();
    Some(Resource {
        attributes: list(&resource, "attributes", key_value)?,
        dropped_attributes_count: small(&resource, "droppedAttributesCount")?,
        ..Resource::default()
    })
}

pub(super) fn scope(json: &Value) -> Option<InstrumentationScope> {
    let scope = json.get("scope").cloned().unwrap_or_default();
    Some(InstrumentationScope {
        name: text(&scope, "name")?,
        version: text(&scope, "version")?,
        attributes: list(&scope, "attributes", key_value)?,
        dropped_attributes_count: small(&scope, "droppedAttributesCount")?,
    })
}

fn resource_logs(json: &Value) -> Option<ResourceLogs> {
    Some(ResourceLogs {
        resource: Some(resource(json)?),
        scope_logs: list(json, "scopeLogs", scope_logs)?,
        schema_url: text(json, "schemaUrl")?,
    })
}

fn scope_logs(json: &Value) -> Option<ScopeLogs> {
    Some(ScopeLogs {
        scope: Some(scope(json)?),
        log_records: list(json, "logRecords", log_record)?,
        schema_url: text(json, "schemaUrl")?,
    })
}

fn log_record(json: &Value) -> Option<LogRecord> {
    Some(LogRecord {
        time_unix_nano: number(json, "timeUnixNano")?,
        observed_time_unix_nano: number(json, "observedTimeUnixNano")?,
        severity_number: small(json, "severityNumber")?.cast_signed(),
        severity_text: text(json, "severityText")?,
        body: match json.get("body") {
            Some(body) => Some(any_value(body)?),
            None => None,
        },
        attributes: list(json, "attributes", key_value)?,
        dropped_attributes_count: small(json, "droppedAttributesCount")?,
        flags: small(json, "flags")?,
        trace_id: id(json, "traceId")?,
        span_id: id(json, "spanId")?,
        event_name: text(json, "eventName")?,
    })
}

fn resource_spans(json: &Value) -> Option<ResourceSpans> {
    Some(ResourceSpans {
        resource: Some(resource(json)?),
        scope_spans: list(json, "scopeSpans", scope_spans)?,
        schema_url: text(json, "schemaUrl")?,
    })
}

fn scope_spans(json: &Value) -> Option<ScopeSpans> {
    Some(ScopeSpans {
        scope: Some(scope(json)?),
        spans: list(json, "spans", one_span)?,
        schema_url: text(json, "schemaUrl")?,
    })
}

fn one_span(json: &Value) -> Option<Span> {
    let status = json.get("status").cloned().unwrap_or_default();
    Some(Span {
        trace_id: id(json, "traceId")?,
        span_id: id(json, "spanId")?,
        parent_span_id: id(json, "parentSpanId")?,
        trace_state: text(json, "traceState")?,
        flags: small(json, "flags")?,
        name: text(json, "name")?,
        kind: small(json, "kind")?.cast_signed(),
        start_time_unix_nano: number(json, "startTimeUnixNano")?,
        end_time_unix_nano: number(json, "endTimeUnixNano")?,
        attributes: list(json, "attributes", key_value)?,
        dropped_attributes_count: small(json, "droppedAttributesCount")?,
        events: list(json, "events", event)?,
        dropped_events_count: small(json, "droppedEventsCount")?,
        links: list(json, "links", link)?,
        dropped_links_count: small(json, "droppedLinksCount")?,
        status: Some(Status {
            message: text(&status, "message")?,
            code: small(&status, "code")?.cast_signed(),
        }),
    })
}

fn event(json: &Value) -> Option<span::Event> {
    Some(span::Event {
        time_unix_nano: number(json, "timeUnixNano")?,
        name: text(json, "name")?,
        attributes: list(json, "attributes", key_value)?,
        dropped_attributes_count: small(json, "droppedAttributesCount")?,
    })
}

fn link(json: &Value) -> Option<span::Link> {
    Some(span::Link {
        trace_id: id(json, "traceId")?,
        span_id: id(json, "spanId")?,
        trace_state: text(json, "traceState")?,
        attributes: list(json, "attributes", key_value)?,
        dropped_attributes_count: small(json, "droppedAttributesCount")?,
        flags: small(json, "flags")?,
    })
}

pub(super) fn key_value(json: &Value) -> Option<KeyValue> {
    let value = json
        .get("value")
        .map_or(Some(AnyValue::default()), any_value)?;
    Some(KeyValue {
        key: text(json, "key")?,
        value: Some(value),
        ..KeyValue::default()
    })
}

fn any_value(json: &Value) -> Option<AnyValue> {
    use any_value::Value as Kind;
    let Some((name, value)) = json.as_object()?.iter().next() else {
        return Some(AnyValue::default());
    };
    let kind = match name.as_str() {
        "stringValue" => Kind::StringValue(value.as_str()?.to_owned()),
        "boolValue" => Kind::BoolValue(value.as_bool()?),
        "intValue" => Kind::IntValue(match value {
            Value::String(text) => text.parse().ok()?,
            other => other.as_i64()?,
        }),
        "doubleValue" => Kind::DoubleValue(value.as_f64()?),
        "arrayValue" => Kind::ArrayValue(ArrayValue {
            values: list(value, "values", any_value)?,
        }),
        "kvlistValue" => Kind::KvlistValue(KeyValueList {
            values: list(value, "values", key_value)?,
        }),
        "bytesValue" => {
            use base64::Engine;
            Kind::BytesValue(
                base64::prelude::BASE64_STANDARD
                    .decode(value.as_str()?)
                    .ok()?,
            )
        }
        _ => return None,
    };
    Some(AnyValue { value: Some(kind) })
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// An answer in protobuf as it would be in JSON.
pub(super) fn answer_to_json(path: &str, status: u16, bytes: &[u8]) -> Value {
    if status != 200 {
        let status = RpcStatus::decode(bytes).unwrap();
        return json!({"code": status.code, "message": status.message});
    }
    // Answers of all signals are alike but for this member's name.
    let rejected = match signal(path) {
        Some(Signal::Metrics) => "rejectedDataPoints",
        Some(Signal::Logs) => "rejectedLogRecords",
        _ => "rejectedSpans",
    };
    match ExportTraceServiceResponse::decode(bytes)
        .unwrap()
        .partial_success
    {
        None => json!({}),
        Some(partial) => json!({"partialSuccess": {
            rejected: partial.rejected_spans.to_string(),
            "errorMessage": partial.error_message,
        }}),
    }
}
