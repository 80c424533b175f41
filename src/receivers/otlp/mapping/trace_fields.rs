//! What a span says of its trace: explicit attributes on any span, implicit values of a root.

use std::collections::BTreeSet;

use serde_json::Value;
use xtrace_model::environment;
use xtrace_model::text::cut_chars;

use super::attributes::{Attributes, to_text};
use super::conventions::RULES;

/// Rule V-10.
pub(super) const NAME_CHARS_MAX: usize = 1000;
const TAG_CHARS_MAX: usize = 200;
const TAGS_MAX: usize = 100;

/// How strongly a span stands for its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootClass {
    /// It has no parent.
    TrueRoot,
    /// Its parent is known never to be exported.
    AsRoot,
    /// It is the first exported span below foreign ones.
    AppRoot,
    /// It is an inner span.
    Inner,
}

impl RootClass {
    pub(super) fn of(attributes: &Attributes, has_parent: bool) -> Self {
        if !has_parent {
            Self::TrueRoot
        } else if is_true(attributes, "langfuse.internal.as_root") {
            Self::AsRoot
        } else if is_true(attributes, "langfuse.internal.is_app_root") {
            Self::AppRoot
        } else {
            Self::Inner
        }
    }
}

pub(super) fn name(attributes: &Attributes) -> Option<String> {
    cut(attributes.text("langfuse.trace.name"))
}

pub(super) fn user_id(attributes: &Attributes) -> Option<String> {
    cut(attributes.first_text(&RULES.users))
}

pub(super) fn session_id(attributes: &Attributes) -> Option<String> {
    cut(attributes.first_text(&RULES.sessions))
}

/// Attributes that name the environment.
pub(super) const ENVIRONMENT_KEYS: [&str; 3] = [
    "langfuse.environment",
    "deployment.environment.name",
    "deployment.environment",
];

/// Section 5: each key on the span or record, then on the resource; none if nobody names one.
pub(super) fn environment(attributes: &Attributes, resource: &Attributes) -> Option<String> {
    let mut named = ENVIRONMENT_KEYS
        .iter()
        .filter_map(|key| attributes.text(key).or_else(|| resource.text(key)));
    named.next().map(|name| environment::normalise(&name))
}

/// Spans can only say that a trace is public.
pub(super) fn public(attributes: &Attributes) -> Option<bool> {
    let keys = ["langfuse.trace.public", "langfuse.public"];
    keys.iter()
        .any(|key| is_true(attributes, key))
        .then_some(true)
}

/// Rule V-6: an array, a JSON array as text, comma-separated text, or one tag.
pub(super) fn tags(attributes: &Attributes) -> BTreeSet<String> {
    let Some((_, value)) = attributes.first(&RULES.tags) else {
        return BTreeSet::new();
    };
    let tags: Vec<String> = match value {
        Value::Array(items) => items.iter().map(to_text).collect(),
        Value::String(text) if text.starts_with('[') => {
            let parsed = xtrace_model::json::parse(text);
            let items = parsed
                .as_ref()
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            items.iter().map(to_text).collect()
        }
        Value::String(text) => text.split(',').map(|tag| tag.trim().to_owned()).collect(),
        _ => Vec::new(),
    };
    cut_tags(tags)
}

/// Tags without empty ones, each and all cut to their limits.
pub(crate) fn cut_tags(tags: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let said = tags.into_iter().filter(|tag| !tag.is_empty());
    let tags: BTreeSet<String> = said
        .map(|tag| cut_chars(&tag, TAG_CHARS_MAX).to_owned())
        .collect();
    tags.into_iter().take(TAGS_MAX).collect()
}

/// Text cut to what names may be long.
pub(crate) fn cut(text: Option<String>) -> Option<String> {
    text.map(|text| cut_chars(&text, NAME_CHARS_MAX).to_owned())
}

/// Rule V-7.
fn is_true(attributes: &Attributes, key: &str) -> bool {
    match attributes.get(key) {
        Some(Value::Bool(truth)) => *truth,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}
