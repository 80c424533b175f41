//! Genkit keeps a call's input, output, configuration and usage in two JSON texts. What each of them
//! means is all here; rules O-NAME 2, 1.7 row 2, 1.9, 1.10 and U-2 in docs/mapping.md.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use xtrace_model::usage;

use super::attributes::{Attributes, as_object, unfold};

/// Genkit's instrumentation scope.
pub(super) const SCOPE: &str = "genkit-tracer";
pub(super) const INPUT: &str = "genkit:input";
pub(super) const OUTPUT: &str = "genkit:output";
/// What kind of action a span is.
pub(super) const SUBTYPE: &str = "genkit:metadata:subtype";

/// The messages of a model's input, or the whole input of anything else.
pub(super) fn input(attributes: &Attributes) -> Option<Value> {
    part_or_whole(attributes, INPUT, "messages")
}

/// The message that a model answered, or the whole output of anything else.
pub(super) fn output(attributes: &Attributes) -> Option<Value> {
    part_or_whole(attributes, OUTPUT, "message")
}

fn part_or_whole(attributes: &Attributes, key: &str, part: &str) -> Option<Value> {
    let whole = unfold(attributes.get(key)?);
    let part = whole.get(part).filter(|part| !part.is_null()).cloned();
    Some(part.unwrap_or(whole))
}

/// The name of the action is the model's, if the action is one.
pub(super) fn model(attributes: &Attributes) -> Option<String> {
    attributes
        .text("genkit:name")
        .filter(|_| attributes.str(SUBTYPE) == Some("model"))
}

/// What the model was configured with.
pub(super) fn parameters(attributes: &Attributes) -> Option<Map<String, Value>> {
    let of = |key: &str, path: &[&str]| {
        let mut value = Value::Object(as_object(attributes.get(key)?)?);
        for member in path {
            value = value.get_mut(*member)?.take();
        }
        as_object(&value)
    };
    of(INPUT, &["config"]).or_else(|| of(OUTPUT, &["request", "config"]))
}

/// Rule U-2: units by their names here; thoughts are a part of the output, zeros are left out.
pub(super) fn usage(attributes: &Attributes) -> Option<BTreeMap<String, i64>> {
    let output = as_object(attributes.get(OUTPUT)?)?;
    let sent = output.get("usage")?;
    let count = |name: &str| sent.get(name).and_then(usage::count).unwrap_or(0);
    let thoughts = count("thoughtsTokens");
    let units = [
        ("input", count("inputTokens")),
        ("output", (count("outputTokens") - thoughts).max(0)),
        ("total", count("totalTokens")),
        ("output_reasoning", thoughts),
    ];
    let units = units.into_iter().filter(|(_, units)| *units > 0);
    let units: BTreeMap<String, i64> = units
        .map(|(name, units)| (name.to_owned(), units))
        .collect();
    (!units.is_empty()).then_some(units)
}
