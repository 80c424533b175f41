//! What no other field holds of a span, as one JSON object: nothing of a span is lost.
//!
//! Shape: `{"attributes", "resource", "scope", "kind", "startTimeUnixNano", "endTimeUnixNano",
//! "status", "traceState", "flags", "events", "links", "dropped…Count", "schemaUrl…"}`, members
//! without a value left out.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::attributes::Attributes;
use super::content::Sides;
use super::content_keys;
use super::events::SpanEvents;
use super::{ScopeContext, metadata};
use crate::receivers::otlp::wire;

/// Tool definitions leave the attributes, for they have a field of their own.
const TOOL_KEYS: [&str; 2] = ["ai.prompt.tools", "gen_ai.tool.definitions"];
const TOOL_PREFIX: &str = "llm.tools.";

/// The span's attributes that no other field holds.
pub(super) fn attributes(attributes: &Attributes, sides: &Sides) -> Value {
    let sides = [&sides.input, &sides.output];
    let used: HashSet<&str> = sides
        .into_iter()
        .flatten()
        .flat_map(|side| &side.keys)
        .map(String::as_str)
        .collect();
    let left = attributes.iter().filter(|(key, value)| {
        !used.contains(key)
            && !content_keys::is_empty_content(key, value)
            && !metadata::is_source(key, attributes)
            && !TOOL_KEYS.contains(key)
            && !key.starts_with(TOOL_PREFIX)
    });
    Value::Object(
        left.map(|(key, value)| (key.to_owned(), value.clone()))
            .collect(),
    )
}

/// The tools that the model was offered, as JSON text (rule 1.13).
pub(super) fn tool_definitions(attributes: &Attributes) -> Option<String> {
    if let Some((_, value)) = attributes.first(&TOOL_KEYS) {
        let tools = match super::attributes::unfold(value) {
            Value::Array(items) => {
                Value::Array(items.iter().map(super::attributes::unfold).collect())
            }
            other => other,
        };
        return Some(tools.to_string());
    }
    let schemas = attributes
        .under(TOOL_PREFIX)
        .filter(|(key, _)| key.ends_with(".tool.json_schema"));
    let tools: Vec<Value> = schemas
        .map(|(_, schema)| super::attributes::unfold(schema))
        .collect();
    if !tools.is_empty() {
        return Some(Value::Array(tools).to_string());
    }
    let request = attributes
        .get("model_request_parameters")
        .and_then(super::attributes::as_object)?;
    let tools = request
        .get("function_tools")?
        .as_array()
        .filter(|tools| !tools.is_empty())?;
    Some(json!(tools).to_string())
}

/// Parts of a span that have been taken out of the wire form already.
pub(super) struct Rest<'a> {
    pub(super) attributes: Value,
    pub(super) over_cap: u32,
    pub(super) events: &'a SpanEvents,
}

/// Everything else as one JSON object.
pub(super) fn to_json(span: wire::Span<'_>, rest: Rest<'_>, context: &ScopeContext) -> Value {
    let mut json = Map::new();
    let mut put = |name: &str, value: Value| {
        json.insert(name.to_owned(), value);
    };
    put("attributes", rest.attributes);
    put("resource", context.resource.clone());
    put("scope", context.scope.clone());
    put("kind", span.kind.into());
    put(
        "startTimeUnixNano",
        span.start_time_unix_nano.to_string().into(),
    );
    put(
        "endTimeUnixNano",
        span.end_time_unix_nano.to_string().into(),
    );
    if span.status != wire::Status::default() {
        put(
            "status",
            json!({"code": span.status.code, "message": clean(&span.status.message)}),
        );
    }
    let texts = [
        ("traceState", &*span.trace_state),
        ("resourceSchemaUrl", &context.resource_schema_url),
        ("scopeSchemaUrl", &context.scope_schema_url),
    ];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        put(name, clean(text).into());
    }
    let numbers = [
        ("flags", span.flags),
        (
            "droppedAttributesCount",
            span.dropped_attributes_count.saturating_add(rest.over_cap),
        ),
        ("droppedEventsCount", span.dropped_events_count),
        ("droppedLinksCount", span.dropped_links_count),
        ("resourceDroppedAttributesCount", context.resource_dropped),
        ("scopeDroppedAttributesCount", context.scope_dropped),
    ];
    for (name, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
        put(name, number.into());
    }
    let events = rest.events.to_json();
    if !events.is_empty() {
        put("events", Value::Array(events));
    }
    if !span.links.is_empty() {
        put("links", span.links.into_iter().map(link).collect());
    }
    Value::Object(json)
}

fn link(link: wire::Link<'_>) -> Value {
    let attributes = Attributes::new(link.attributes);
    let mut json = json!({
        "traceId": link.trace_id.to_hex(),
        "spanId": link.span_id.to_hex(),
        "attributes": attributes.to_object(),
    });
    if !link.trace_state.is_empty() {
        json["traceState"] = clean(&link.trace_state).into();
    }
    let dropped = link
        .dropped_attributes_count
        .saturating_add(attributes.over_cap);
    for (name, number) in [("flags", link.flags), ("droppedAttributesCount", dropped)] {
        if number > 0 {
            json[name] = number.into();
        }
    }
    json
}

fn clean(text: &str) -> String {
    xtrace_model::text::without_nul(text).into_owned()
}
