//! Attributes of a span, resource, scope or event as JSON, by key.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::hash::{Hash, Hasher};
use std::ops::Bound;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Number, Value};
use xtrace_model::json;
use xtrace_model::text::{cut_bytes, without_nul};
use xxhash_rust::xxh3::Xxh3Default;

use super::content_keys;
use crate::receivers::otlp::wire::{AnyValue, KeyValue};

/// Rule V-3: deeper parts become JSON text.
const DEPTH_MAX: usize = 32;
/// Rule V-10.
const KEY_BYTES_MAX: usize = 1 << 10;
const VALUE_BYTES_MAX: usize = 1 << 20;
const CONTENT_BYTES_MAX: usize = 16 << 20;
const COUNT_MAX: usize = 4096;
/// The attribute that lists the keys whose values were cut.
const TRUNCATED: &str = "xtrace.truncated";

/// Attributes by key; of duplicate keys the last wins (rule V-4).
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Attributes {
    values: BTreeMap<String, Value>,
    /// Which lengths the keys have, modulo 64: most look-ups are for keys that nobody sent, and
    /// most of those differ in length from all that were.
    lengths: u64,
    /// Attributes beyond the cap, not kept.
    pub(super) over_cap: u32,
}

impl Attributes {
    pub(super) fn new(pairs: Vec<KeyValue<'_>>) -> Self {
        let mut attributes = Self::default();
        let mut truncated = Vec::new();
        for pair in pairs {
            let key = cut_bytes(&without_nul(&pair.key), KEY_BYTES_MAX).to_owned();
            if attributes.values.len() >= COUNT_MAX && !attributes.values.contains_key(&key) {
                attributes.over_cap += 1;
                continue;
            }
            let mut value = to_json(pair.value, 0);
            if cut_value(&mut value, &key) {
                truncated.push(Value::String(key.clone()));
            }
            attributes.insert(key, value);
        }
        if !truncated.is_empty() {
            let count = truncated.len() as u64;
            metrics::counter!("xtrace_repaired_total", "what" => "cut").increment(count);
            attributes.insert(TRUNCATED.to_owned(), Value::Array(truncated));
        }
        attributes
    }

    /// Attributes read back from where they were stored.
    pub(super) fn restore(members: Map<String, Value>) -> Self {
        let mut attributes = Self::default();
        for (key, value) in members {
            attributes.insert(key, value);
        }
        attributes
    }

    fn insert(&mut self, key: String, value: Value) {
        self.lengths |= length_bit(&key);
        self.values.insert(key, value);
    }

    /// The value, unless it is absent, null or "".
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        if self.lengths & length_bit(key) == 0 {
            return None;
        }
        self.values.get(key).filter(|value| is_said(value))
    }

    /// The first of the keys that has a value.
    pub(super) fn first<'k>(&self, keys: &[&'k str]) -> Option<(&'k str, &Value)> {
        keys.iter().find_map(|key| Some((*key, self.get(key)?)))
    }

    /// The value as text; other types as JSON text (rule T-1).
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.get(key).map(to_text)
    }

    /// The first value of the keys as text.
    pub(super) fn first_text(&self, keys: &[&str]) -> Option<String> {
        self.first(keys).map(|(_, value)| to_text(value))
    }

    /// The value, if it is text.
    pub(super) fn str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// Whether the key has a value that says something; empty arrays and objects don't.
    pub(super) fn says(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| match value {
            Value::Array(items) => !items.is_empty(),
            Value::Object(members) => !members.is_empty(),
            _ => true,
        })
    }

    /// Whether the key was sent, even without a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Everything under a prefix, with what follows it.
    pub(super) fn under<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let range: Range<'a, String, Value> = self
            .values
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        range.map_while(move |(key, value)| Some((key.strip_prefix(prefix)?, value)))
    }

    /// All keys and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Tells versions of one thing apart by all that their attributes say.
    pub(super) fn content_hash(&self) -> u64 {
        let mut hasher = Xxh3Default::new();
        self.values.hash(&mut hasher);
        hasher.finish()
    }

    /// As a JSON object.
    pub(super) fn to_object(&self) -> Value {
        Value::Object(
            self.values
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        )
    }
}

fn length_bit(key: &str) -> u64 {
    1 << (key.len() % 64)
}

/// Whether a value says anything: not null, not "".
pub(super) fn is_said(value: &Value) -> bool {
    !matches!(value, Value::Null) && value.as_str() != Some("")
}

/// Text as it is, everything else as JSON text.
pub(super) fn to_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The object that a value is or that its text holds.
pub(super) fn as_object(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(members) => Some(members.clone()),
        Value::String(text) if text.trim_start().starts_with('{') => match json::parse(text)? {
            Value::Object(members) => Some(members),
            _ => None,
        },
        _ => None,
    }
}

/// The value that a text holds if it is a JSON object or array, else the value itself.
pub(super) fn unfold(value: &Value) -> Value {
    let Value::String(text) = value else {
        return value.clone();
    };
    let parsed = match text.trim_start().as_bytes().first() {
        Some(b'{' | b'[') => json::parse(text),
        _ => None,
    };
    parsed.unwrap_or_else(|| value.clone())
}

pub(super) fn to_json(value: AnyValue<'_>, depth: usize) -> Value {
    match value {
        AnyValue::Null => Value::Null,
        AnyValue::Text(text) => Value::String(without_nul(&text).into_owned()),
        AnyValue::Bool(truth) => Value::Bool(truth),
        AnyValue::Int(number) => Value::Number(number.into()),
        AnyValue::Double(number) => double(number),
        AnyValue::Bytes(bytes) => Value::String(BASE64_STANDARD.encode(bytes)),
        AnyValue::Array(items) => {
            let items = items
                .into_iter()
                .map(|item| to_json(item, depth + 1))
                .collect();
            folded_at_depth(Value::Array(items), depth)
        }
        AnyValue::Map(members) => {
            let member = |pair: KeyValue<'_>| {
                (
                    without_nul(&pair.key).into_owned(),
                    to_json(pair.value, depth + 1),
                )
            };
            folded_at_depth(
                Value::Object(members.into_iter().map(member).collect()),
                depth,
            )
        }
    }
}

fn folded_at_depth(value: Value, depth: usize) -> Value {
    if depth == DEPTH_MAX {
        Value::String(value.to_string())
    } else {
        value
    }
}

/// JSON has no NaN and no infinities; OTLP's own names for them stand in.
fn double(number: f64) -> Value {
    let name = if number.is_nan() {
        "NaN"
    } else if number.is_sign_positive() {
        "Infinity"
    } else {
        "-Infinity"
    };
    Number::from_f64(number).map_or_else(|| Value::String(name.to_owned()), Value::Number)
}

/// How long the value of a key may be.
fn value_bytes_max(key: &str) -> usize {
    if content_keys::is_content_key(key) {
        CONTENT_BYTES_MAX
    } else {
        VALUE_BYTES_MAX
    }
}

/// Cuts a value to the cap of its key; tells whether it had to.
fn cut_value(value: &mut Value, key: &str) -> bool {
    // Looking for the key's cap costs more than all else here, and hardly any value needs it.
    let is_long = |bytes: usize| bytes > VALUE_BYTES_MAX && bytes > value_bytes_max(key);
    let text = match value {
        Value::String(text) if is_long(text.len()) => std::mem::take(text),
        Value::Array(_) | Value::Object(_) => {
            let text = value.to_string();
            if !is_long(text.len()) {
                return false;
            }
            text
        }
        _ => return false,
    };
    let bytes_max = value_bytes_max(key);
    let marked = format!(
        "{}[truncated: {} bytes]",
        cut_bytes(&text, bytes_max),
        text.len()
    );
    *value = Value::String(marked);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::borrow::Cow;

    fn pair<'a>(key: &'a str, value: AnyValue<'a>) -> KeyValue<'a> {
        KeyValue {
            key: Cow::Borrowed(key),
            value,
        }
    }

    #[test]
    fn values_become_json() {
        let check = |value: AnyValue<'static>, expected: Value| {
            assert_eq!(
                Attributes::new(vec![pair("k", value)]).to_object(),
                json!({"k": expected})
            );
        };
        check(AnyValue::Double(f64::NAN), json!("NaN"));
        check(AnyValue::Double(f64::NEG_INFINITY), json!("-Infinity"));
        check(AnyValue::Int(i64::MIN), json!(i64::MIN));
        check(AnyValue::Bytes(Cow::Borrowed(&[0, 1, 254])), json!("AAH+"));
        check(AnyValue::Text("a\0b".into()), json!("a\u{fffd}b"));
        check(
            AnyValue::Map(vec![
                pair("a", AnyValue::Int(1)),
                pair("a", AnyValue::Int(2)),
            ]),
            json!({"a": 2}),
        );
        check(AnyValue::Null, Value::Null);
    }

    #[test]
    fn deep_values_become_text_at_depth_32() {
        let deep = (0..40).fold(AnyValue::Int(1), |inner, _| AnyValue::Array(vec![inner]));
        let value = Attributes::new(vec![pair("k", deep)])
            .to_object()
            .to_string();
        assert!(value.contains(r#"["[[["#), "{value}");
    }

    #[test]
    fn long_values_are_cut_and_listed() {
        let long = "é".repeat(VALUE_BYTES_MAX);
        let pairs = vec![
            pair("k", AnyValue::Text(long.as_str().into())),
            pair("input.value", AnyValue::Text(long.as_str().into())),
        ];
        let attributes = Attributes::new(pairs);
        assert!(
            attributes
                .str("k")
                .unwrap()
                .ends_with("é[truncated: 2097152 bytes]")
        );
        assert_eq!(attributes.str("input.value").unwrap(), long);
        assert_eq!(attributes.get(TRUNCATED), Some(&json!(["k"])));
    }
}
