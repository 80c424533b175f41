//! What no other field holds of a span, as one JSON object: nothing of a span is lost.
//!
//! Shape: `{"attributes", "resource", "scope", "kind", "startTimeUnixNano", "endTimeUnixNano",
//! "status", "traceState", "flags", "events", "links", "dropped…Count", "schemaUrl…"}`, members
//! without a value left out.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use xtrace_model::text::without_nul;

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
pub(super) struct LeftAttributes<'a> {
    attributes: &'a Attributes,
    used: HashSet<&'a str>,
}

impl<'a> LeftAttributes<'a> {
    pub(super) fn of(attributes: &'a Attributes, sides: &'a Sides) -> Self {
        let sides = [&sides.input, &sides.output].into_iter().flatten();
        let used = sides.flat_map(|side| &side.keys).map(String::as_str);
        Self {
            attributes,
            used: used.collect(),
        }
    }

    fn holds(&self, key: &str, value: &Value) -> bool {
        !self.used.contains(key)
            && !content_keys::is_empty_content(key, value)
            && !metadata::is_source(key, self.attributes)
            && !TOOL_KEYS.contains(&key)
            && !key.starts_with(TOOL_PREFIX)
    }
}

impl Serialize for LeftAttributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.attributes
                .iter()
                .filter(|(key, value)| self.holds(key, value)),
        )
    }
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
    pub(super) attributes: LeftAttributes<'a>,
    pub(super) over_cap: u32,
    pub(super) events: &'a SpanEvents,
}

/// The object; what all spans of a scope share is JSON text already.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Everything<'a> {
    attributes: LeftAttributes<'a>,
    resource: &'a RawValue,
    scope: &'a RawValue,
    kind: i32,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_state: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    resource_schema_url: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    scope_schema_url: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    flags: u32,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_attributes_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_events_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_links_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    resource_dropped_attributes_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    scope_dropped_attributes_count: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<Value>,
}

#[derive(Serialize)]
struct Status<'a> {
    code: i32,
    message: Cow<'a, str>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Everything else as one JSON object.
pub(super) fn to_json(span: wire::Span<'_>, rest: Rest<'_>, context: &ScopeContext) -> String {
    let status = (span.status != wire::Status::default()).then(|| Status {
        code: span.status.code,
        message: without_nul(&span.status.message),
    });
    let everything = Everything {
        attributes: rest.attributes,
        resource: &context.resource,
        scope: &context.scope,
        kind: span.kind,
        start_time_unix_nano: span.start_time_unix_nano.to_string(),
        end_time_unix_nano: span.end_time_unix_nano.to_string(),
        status,
        trace_state: without_nul(&span.trace_state),
        resource_schema_url: without_nul(&context.resource_schema_url),
        scope_schema_url: without_nul(&context.scope_schema_url),
        flags: span.flags,
        dropped_attributes_count: span.dropped_attributes_count.saturating_add(rest.over_cap),
        dropped_events_count: span.dropped_events_count,
        dropped_links_count: span.dropped_links_count,
        resource_dropped_attributes_count: context.resource_dropped,
        scope_dropped_attributes_count: context.scope_dropped,
        events: rest.events.to_json(),
        links: span.links.into_iter().map(link).collect(),
    };
    serde_json::to_string(&everything).expect("texts, numbers and JSON serialise")
}

fn link(link: wire::Link<'_>) -> Value {
    let attributes = Attributes::new(link.attributes);
    let mut json = json!({
        "traceId": link.trace_id.to_hex(),
        "spanId": link.span_id.to_hex(),
        "attributes": attributes.to_object(),
    });
    if !link.trace_state.is_empty() {
        json["traceState"] = without_nul(&link.trace_state).into();
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
