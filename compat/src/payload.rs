//! Stored texts as JSON values: what is JSON is handed on as it was sent, all else is a string.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use xtrace_model::json::{self, is_json};
use xtrace_model::text::quote_big_integers;

/// Input or output; none is null.
pub(crate) fn value(text: Option<&str>) -> Box<RawValue> {
    match text {
        None => raw("null".to_owned()),
        Some(text) => parsed_or_string(text),
    }
}

fn parsed_or_string(text: &str) -> Box<RawValue> {
    if is_json(text) {
        raw(quote_big_integers(text.trim()).into_owned())
    } else {
        string(text)
    }
}

fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).unwrap_or_else(|_| string(""))
}

fn string(text: &str) -> Box<RawValue> {
    to_raw_value(text).expect("a text serialises")
}

/// Metadata: an object, `{}` when there is none. Strings that hold JSON are parsed, unless the
/// sender already had them decoded.
pub(crate) fn metadata(json: Option<&str>, decoded: bool) -> Map<String, Value> {
    let members: Map<String, Value> = json
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let shown = |value: Value| match value {
        Value::String(text) if !decoded => match json::parse(&text) {
            // What no reader can hold as a number stays text.
            Some(Value::Number(number)) if !number.as_f64().is_some_and(f64::is_finite) => {
                Value::String(text)
            }
            Some(parsed) => with_quoted_integers(parsed),
            None => Value::String(text),
        },
        other => with_quoted_integers(other),
    };
    members
        .into_iter()
        .map(|(key, value)| (key, shown(value)))
        .collect()
}

/// Metadata that may be any JSON: what is no object stands under the key "metadata".
pub(crate) fn metadata_of_any(json: Option<&str>) -> Map<String, Value> {
    match json.and_then(json::parse) {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(_)) => metadata(json, true),
        Some(other) => Map::from_iter([("metadata".to_owned(), with_quoted_integers(other))]),
    }
}

/// JSON that was stored as it was sent.
pub(crate) fn stored(json: &str) -> Value {
    json::parse(json)
        .map(with_quoted_integers)
        .unwrap_or_default()
}

fn with_quoted_integers(value: Value) -> Value {
    match &value {
        Value::Number(number) => match quote_big_integers(number.as_str()) {
            std::borrow::Cow::Borrowed(_) => value,
            std::borrow::Cow::Owned(_) => Value::String(number.as_str().to_owned()),
        },
        Value::Array(_) | Value::Object(_) => {
            let text = value.to_string();
            serde_json::from_str(&quote_big_integers(&text)).unwrap_or(value)
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_text_is_parsed_and_the_rest_are_strings() {
        let check = |text: Option<&str>, expected: &str| assert_eq!(value(text).get(), expected);
        check(None, "null");
        check(Some("hello"), "\"hello\"");
        check(Some("{\"a\": 1}"), "{\"a\": 1}");
        check(Some("42"), "42");
        check(Some("1983516295378495150"), "\"1983516295378495150\"");
        check(Some("say \"hi\""), r#""say \"hi\"""#);
        check(Some("NaN"), "\"NaN\"");
    }

    #[test]
    fn metadata_strings_are_parsed_unless_they_are_final() {
        let stored = r#"{"a":"{\"foo\":\"bar\"}","n":"123","big":1983516295378495150,"t":"x"}"#;
        let parsed = json!({"a": {"foo": "bar"}, "n": 123, "big": "1983516295378495150", "t": "x"});
        assert_eq!(Value::Object(metadata(Some(stored), false)), parsed);
        assert_eq!(metadata(Some(r#"{"n":"123"}"#), true)["n"], json!("123"));
        assert_eq!(metadata(None, false), Map::new());
    }
}
