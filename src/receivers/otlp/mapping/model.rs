//! The model's name and parameters.

use serde_json::{Map, Value};

use xtrace_model::text::cut_chars;

use super::Source;
use super::attributes::{Attributes, as_object};
use super::conventions::{RULES, genkit, vercel};
use super::trace_fields::NAME_CHARS_MAX;

/// Rule U-0: spans of whole agents carry the sums of their children's usage; counting both would
/// double the cost, so these have no model, usage or cost of their own.
pub(super) fn is_sum_of_children(attributes: &Attributes) -> bool {
    matches!(
        attributes.str("gen_ai.operation.name"),
        Some("invoke_agent" | "agent_step")
    )
}

/// The model's name.
pub(super) fn name(attributes: &Attributes) -> Option<String> {
    if is_sum_of_children(attributes) {
        return None;
    }
    attributes
        .first_text(&RULES.models)
        .map(|name| name.trim_matches('"').to_owned())
        .or_else(|| genkit::model(attributes))
        .map(|name| cut_chars(&name, NAME_CHARS_MAX).to_owned())
}

/// The model's parameters as JSON text, none if there are none.
pub(super) fn parameters(attributes: &Attributes, source: &Source) -> Option<String> {
    let explicit = attributes
        .get("langfuse.observation.model.parameters")
        .and_then(as_object);
    let parameters = if source.scope_name() == Some(vercel::SCOPE) {
        let mut parameters = vercel::parameters(attributes);
        parameters.extend(explicit.unwrap_or_default());
        parameters
    } else {
        explicit
            .or_else(|| {
                (source.scope_name() == Some(genkit::SCOPE))
                    .then(|| genkit::parameters(attributes))
                    .flatten()
            })
            .or_else(|| {
                attributes
                    .get("llm.invocation_parameters")
                    .and_then(as_object)
            })
            .or_else(|| attributes.get("model_config").and_then(as_object))
            .unwrap_or_else(|| request_parameters(attributes))
    };
    let plain: Map<String, Value> = parameters
        .into_iter()
        .map(|(key, value)| (key, plain(value)))
        .collect();
    (!plain.is_empty()).then(|| Value::Object(plain).to_string())
}

/// Texts and numbers stay, everything else becomes JSON text.
fn plain(value: Value) -> Value {
    match value {
        Value::String(_) | Value::Number(_) => value,
        other => Value::String(other.to_string()),
    }
}

fn request_parameters(attributes: &Attributes) -> Map<String, Value> {
    const PREFIXES: [&str; 3] = [
        "gen_ai.request.",
        "llm.invocation_parameters.",
        "gen_ai.openai.request.",
    ];
    const FLAT: [&str; 4] = [
        "llm.top_k",
        "llm.frequency_penalty",
        "llm.presence_penalty",
        "llm.chat.stop_sequences",
    ];
    let prefixed = PREFIXES.iter().flat_map(|prefix| attributes.under(prefix));
    let mut parameters: Map<String, Value> = prefixed
        .filter(|(key, value)| *key != "model" && !value.is_null())
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect();
    for key in FLAT {
        if let (Some(value), Some((_, name))) = (attributes.get(key), key.rsplit_once('.')) {
            parameters.entry(name).or_insert_with(|| value.clone());
        }
    }
    parameters
}
