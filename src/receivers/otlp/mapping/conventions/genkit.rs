//! Genkit keeps a call's input, output, configuration and usage in two JSON texts. What each of them
//! means is all here; rules O-NAME 2, 1.7 row 2, 1.9, 1.10 and U-2 in docs/mapping.md.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use xtrace_model::observation::Kind::{Embedding, Evaluator, Generation, Retriever, Tool};
use xtrace_model::usage;

use super::super::attributes::{Attributes, as_object, unfold};
use super::super::content::{self, Content, From, Gate};
use super::{Convention, KindRule, extractor};

/// Genkit's instrumentation scope.
pub(in super::super) const SCOPE: &str = "genkit-tracer";
const INPUT: &str = "genkit:input";
const OUTPUT: &str = "genkit:output";
/// What kind of action a span is.
const SUBTYPE: &str = "genkit:metadata:subtype";

pub(super) const CONVENTION: Convention = Convention {
    kinds: &[(
        40,
        KindRule::Value(
            SUBTYPE,
            &[
                ("model", Generation),
                ("background-model", Generation),
                ("embedder", Embedding),
                ("tool", Tool),
                ("tool.v2", Tool),
                ("retriever", Retriever),
                ("evaluator", Evaluator),
            ],
        ),
    )],
    content: &[(
        20,
        extractor(
            Gate::TerminalScope(SCOPE),
            From::Function(input),
            From::Function(output),
        ),
    )],
    content_keys: &[INPUT, OUTPUT],
    ..Convention::NONE
};

/// The messages of a model's input, or the whole input of anything else.
fn input(span: &content::Span<'_>) -> Option<Content> {
    part_or_whole(span, INPUT, "messages")
}

/// The message that a model answered, or the whole output of anything else.
fn output(span: &content::Span<'_>) -> Option<Content> {
    part_or_whole(span, OUTPUT, "message")
}

fn part_or_whole(span: &content::Span<'_>, key: &str, part: &str) -> Option<Content> {
    let whole = unfold(span.attributes.get(key)?);
    let part = whole.get(part).filter(|part| !part.is_null());
    Some(Content::new(part.unwrap_or(&whole), vec![key.to_owned()]))
}

/// The name of the action is the model's, if the action is one.
pub(in super::super) fn model(attributes: &Attributes) -> Option<String> {
    attributes
        .text("genkit:name")
        .filter(|_| attributes.str(SUBTYPE) == Some("model"))
}

/// What the model was configured with.
pub(in super::super) fn parameters(attributes: &Attributes) -> Option<Map<String, Value>> {
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
pub(in super::super) fn usage(attributes: &Attributes) -> Option<BTreeMap<String, i64>> {
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
