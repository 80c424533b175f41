//! Metadata: which attributes are metadata of the observation, of its trace, of its resource.

use serde_json::{Map, Value, json};
use xtrace_model::text::repair_json;

use super::Source;
use super::attributes::Attributes;

/// Whose metadata is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Domain {
    Observation,
    Trace,
}

impl Domain {
    fn prefix(self) -> &'static str {
        match self {
            Self::Observation => "langfuse.observation.metadata",
            Self::Trace => "langfuse.trace.metadata",
        }
    }
}

/// The older spelling, which means both domains.
const LEGACY: &str = "langfuse.metadata";
const VERCEL: &str = "ai.telemetry.metadata.";
/// Of the Vercel prefix these name trace fields or the prompt, and are no metadata.
const VERCEL_FIELDS: [&str; 4] = ["userId", "sessionId", "tags", "langfusePrompt"];
/// Prefixes of other conventions, and the key that OpenInference uses.
const TRACELOOP: &str = "traceloop.association.properties.";
const LANGSMITH: &str = "langsmith.metadata.";
const OPENINFERENCE: &str = "metadata";

/// Metadata that the attributes carry for a domain, lowest priority first: other conventions, the
/// Vercel prefix, the legacy spelling, the domain's own object, its own dotted keys.
pub(super) fn of(attributes: &Attributes, domain: Domain, source: &Source) -> Map<String, Value> {
    let mut metadata = Map::new();
    if domain == Domain::Observation {
        other_conventions(attributes, &mut metadata);
    }
    let own = domain.prefix();
    let object = attributes.first(&[own, LEGACY]).map(|(_, value)| value);
    for (key, value) in object
        .map(|value| members(value, source))
        .unwrap_or_default()
    {
        metadata.insert(key, value);
    }
    for (key, value) in attributes
        .under(VERCEL)
        .filter(|(key, _)| !VERCEL_FIELDS.contains(key))
    {
        metadata.insert(key.to_owned(), value.clone());
    }
    for prefix in [LEGACY, own] {
        for (key, value) in attributes.under(prefix) {
            if let Some(key) = key.strip_prefix('.') {
                metadata.insert(key.to_owned(), decoded(value, source));
            }
        }
    }
    metadata
}

fn other_conventions(attributes: &Attributes, metadata: &mut Map<String, Value>) {
    if attributes.has("openinference.span.kind")
        && let Some(object) = attributes
            .get(OPENINFERENCE)
            .and_then(super::attributes::as_object)
    {
        metadata.extend(object);
    }
    for prefix in [TRACELOOP, LANGSMITH] {
        metadata.extend(
            attributes
                .under(prefix)
                .map(|(key, value)| (key.to_owned(), value.clone())),
        );
    }
}

/// An object's members; any other value is metadata under the key "metadata" (rule M-1).
fn members(value: &Value, source: &Source) -> Map<String, Value> {
    let value = match value {
        Value::String(text) => parse(text).unwrap_or_else(|| value.clone()),
        other => other.clone(),
    };
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(key, value)| (key, decoded(&value, source)))
            .collect(),
        Value::Null => Map::new(),
        other => Map::from_iter([("metadata".to_owned(), other)]),
    }
}

/// JSON text as a value; text within it is repaired like any other.
fn parse(text: &str) -> Option<Value> {
    xtrace_model::json::parse(&repair_json(text.as_bytes()))
}

/// Rule M-10: the Python SDK from 5 on writes every value as JSON text, strings too.
fn decoded(value: &Value, source: &Source) -> Value {
    match value {
        Value::String(text) if source.encodes_metadata() => {
            parse(text).unwrap_or_else(|| json!(text))
        }
        other => other.clone(),
    }
}

/// Whether an attribute is metadata (or internal to an SDK), and so leaves the attributes.
pub(super) fn is_source(key: &str, attributes: &Attributes) -> bool {
    const PREFIXES: [&str; 5] = [
        "langfuse.observation.metadata",
        "langfuse.trace.metadata",
        LEGACY,
        TRACELOOP,
        LANGSMITH,
    ];
    let under = |prefix: &str| {
        key.strip_prefix(prefix)
            .is_some_and(|rest| prefix.ends_with('.') || rest.is_empty() || rest.starts_with('.'))
    };
    PREFIXES.iter().any(|prefix| under(prefix))
        || key.starts_with(VERCEL)
        || key.starts_with("langfuse.internal.")
        || (key == OPENINFERENCE && attributes.has("openinference.span.kind"))
}
