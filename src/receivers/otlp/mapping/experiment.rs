//! The experiment that a span is part of (section 4.6): what Langfuse's SDKs say of a run over a dataset.

use serde_json::{Map, Value};
use xtrace_model::ids::{ID_BYTES_MAX, ID_CHARS_MAX};
use xtrace_model::text::{cut_bytes, cut_chars};
use xtrace_model::{json, time};

use super::attributes::{Attributes, to_text};

const PREFIX: &str = "langfuse.experiment.";
/// Members that are known, in the order that they are stored in.
const MEMBERS: [(&str, &str); 8] = [
    ("id", "id"),
    ("name", "name"),
    ("description", "description"),
    ("dataset.id", "datasetId"),
    ("item.id", "itemId"),
    ("item.version", "itemVersion"),
    ("item.expected_output", "itemExpectedOutput"),
    ("item.root_observation_id", "itemRootObservationId"),
];
/// Objects, told whole or member by member.
const OBJECTS: [(&str, &str); 2] = [("metadata", "metadata"), ("item.metadata", "itemMetadata")];

/// A JSON object as text; `None` for a span of no experiment.
pub(super) fn of(attributes: &Attributes) -> Option<String> {
    attributes.under(PREFIX).next()?;
    let get = |name: &str| attributes.text(&format!("{PREFIX}{name}"));
    let mut experiment = Map::new();
    for (name, member) in MEMBERS {
        let value = get(name).filter(|text| {
            // A version is the time that the item was valid at; anything else is none.
            name != "item.version" || time::parse_rfc3339(text).is_some()
        });
        if let Some(mut text) = value {
            if name == "id" {
                // It is in an index, which holds no long texts.
                let cut = cut_bytes(cut_chars(&text, ID_CHARS_MAX), ID_BYTES_MAX).len();
                text.truncate(cut);
            }
            experiment.insert(member.to_owned(), Value::String(text));
        }
    }
    for (name, member) in OBJECTS {
        if let Some(metadata) = object(attributes, &format!("{PREFIX}{name}")) {
            experiment.insert(member.to_owned(), metadata);
        }
    }
    experiment
        .contains_key("id")
        .then(|| json::storable(Value::Object(experiment)).to_string())
}

/// The object under a key, or the keys below it; values are texts.
fn object(attributes: &Attributes, key: &str) -> Option<Value> {
    let whole = attributes.get(key);
    if let Some(members) = whole.and_then(super::attributes::as_object) {
        return Some(Value::Object(members));
    }
    if let Some(scalar) = whole {
        return Some(serde_json::json!({ "metadata": scalar }));
    }
    let prefix = format!("{key}.");
    let members: Map<String, Value> = attributes
        .under(&prefix)
        .map(|(name, value)| (name.to_owned(), Value::String(to_text(value))))
        .collect();
    (!members.is_empty()).then_some(Value::Object(members))
}
