//! JSON values that Postgres' `jsonb` can hold, within bounded memory.

use serde_json::Value;

use crate::text::without_nul;

/// More values than this in one document are kept as text: a parsed value costs some hundred
/// bytes of memory, its text may cost two.
const NODES_MAX: usize = 200_000;
/// Deeper documents are kept as text. Readers end at 128 levels, and what is stored or answered has a document
/// within others.
pub const DEPTH_MAX: usize = 120;
/// `jsonb` numbers are Postgres numerics, which end at 131,072 digits.
const NUMBER_CHARS_MAX: usize = 1_000;
const EXPONENT_MAX: u64 = 1_000;

/// Parses JSON text; none if it is no JSON, or too deep or too large to be held as values.
pub fn parse(text: &str) -> Option<Value> {
    let nodes = text
        .bytes()
        .filter(|byte| matches!(byte, b',' | b'[' | b'{'))
        .count();
    if nodes > NODES_MAX {
        None
    } else {
        let value = serde_json::from_str(text).ok();
        value.filter(|value| !is_deeper(value, DEPTH_MAX))
    }
}

/// Whether arrays and objects lie more than so many levels within each other.
pub fn is_deeper(value: &Value, levels: usize) -> bool {
    match (value, levels) {
        (Value::Array(_) | Value::Object(_), 0) => true,
        (Value::Array(items), _) => items.iter().any(|item| is_deeper(item, levels - 1)),
        (Value::Object(members), _) => members.values().any(|item| is_deeper(item, levels - 1)),
        _ => false,
    }
}

/// How many values a value is made of, itself included: each is held in some hundred bytes of memory.
pub fn values_in(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(values_in).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(values_in).sum::<usize>(),
        _ => 1,
    }
}

/// What [`values_in`] counts costs in memory, each by estimate.
pub const VALUE_BYTES: usize = 200;

/// Parses JSON text into a value that `jsonb` takes; what [`parse`] can't stays a string, so that
/// nothing is lost.
pub fn parse_or_text(text: &str) -> Value {
    parse(text).map_or_else(|| Value::String(without_nul(text).into_owned()), storable)
}

/// The value with every number and every text in a form that `jsonb` takes.
pub fn storable(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => {
            Value::String(without_nul(&text).into_owned())
        }
        Value::Number(number) if !is_numeric(number.as_str()) => Value::String(number.to_string()),
        Value::Array(items) => Value::Array(items.into_iter().map(storable).collect()),
        Value::Object(members) => members
            .into_iter()
            .map(|(key, value)| (without_nul(&key).into_owned(), storable(value)))
            .collect(),
        other => other,
    }
}

fn is_numeric(number: &str) -> bool {
    let exponent = number
        .find(['e', 'E'])
        .map_or(Ok(0), |at| number[at + 1..].parse::<i64>());
    number.len() <= NUMBER_CHARS_MAX
        && exponent.is_ok_and(|exponent| exponent.unsigned_abs() <= EXPONENT_MAX)
}

/// Whether text is JSON, without building it.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_jsonb_refuses_becomes_text() {
        let check = |text: &str, expected: Value| assert_eq!(parse_or_text(text), expected);
        check(
            r#"{"a\u0000":"b\u0000"}"#,
            json!({"a\u{fffd}": "b\u{fffd}"}),
        );
        check("[1e400000]", json!(["1e+400000"]));
        // The least exponent that is a number has no counterpart without a sign.
        for exponent in ["-9223372036854775808", "+9223372036854775808", "-1001"] {
            let number = format!("1e{exponent}");
            check(&format!("[{number}]"), json!([number]));
        }
        check("not json", json!("not json"));
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        check(&deep, json!(deep.clone()));
        let wide = format!("[{}0]", "0,".repeat(NODES_MAX));
        check(&wide, json!(wide.clone()));
    }

    #[test]
    fn big_numbers_are_kept_as_sent() {
        let text = r#"{"n":12345678901234567890123}"#;
        assert_eq!(parse_or_text(text).to_string(), text);
    }
}
