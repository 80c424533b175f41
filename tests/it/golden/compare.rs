//! How what is found is compared with what is expected (the rules of `fixtures/README.md`).

use serde_json::Value;

/// Members whose values come from the clock.
const CLOCK: [&str; 2] = ["createdAt", "updatedAt"];

/// The value with times of the clock replaced by a word.
pub(super) fn without_clock(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(without_clock).collect()),
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(key, value)| {
                    let clock = CLOCK.contains(&key.as_str());
                    let value = if clock {
                        "<clock>".into()
                    } else {
                        without_clock(value)
                    };
                    (key, value)
                })
                .collect(),
        ),
        other => other,
    }
}

/// Where `found` is not as `expected` says. Only what is expected is looked at on the first two
/// levels (`response`, `traces` and the rows' fields); below, values must be equal.
pub(super) fn differences(expected: &Value, found: &Value) -> Vec<String> {
    let mut differences = Vec::new();
    for key in ["response", "traces", "observations", "scores", "series"] {
        if let Some(expected) = expected.get(key) {
            rows(
                key,
                expected,
                found.get(key).unwrap_or(&Value::Null),
                &mut differences,
            );
        }
    }
    for (key, expected) in expected.as_object().into_iter().flatten() {
        if key.contains(".http") {
            exact(
                key,
                expected,
                found.get(key).unwrap_or(&Value::Null),
                &mut differences,
            );
        }
    }
    if expected.as_object().is_none_or(serde_json::Map::is_empty) {
        differences
            .push("there is no expected.json; run with UPDATE_FIXTURES=1 and read it".to_owned());
    }
    differences
}

fn rows(path: &str, expected: &Value, found: &Value, differences: &mut Vec<String>) {
    let (Value::Array(expected), Value::Array(found)) = (expected, found) else {
        return fields(path, expected, found, differences);
    };
    if expected.len() != found.len() {
        let ids = |rows: &[Value]| {
            rows.iter()
                .map(|row| row["id"].to_string())
                .collect::<Vec<_>>()
        };
        differences.push(format!(
            "{path}: expected {:?}, found {:?}",
            ids(expected),
            ids(found)
        ));
    }
    for row in expected {
        // Rows whose ids are made here are told apart by their names.
        let key = if row.get("id").is_some() {
            "id"
        } else {
            "name"
        };
        let same = |other: &&Value| other[key] == row[key] && other["traceId"] == row["traceId"];
        if let Some(found) = found.iter().find(same) {
            fields(&format!("{path}[{}]", row["id"]), row, found, differences);
        }
    }
}

fn fields(path: &str, expected: &Value, found: &Value, differences: &mut Vec<String>) {
    // What was computed or defined is part of every row, if only by its absence.
    for key in ["computedCostDetails", "toolDefinitions"] {
        if expected.get(key).is_none() && found.get(key).is_some() {
            differences.push(format!("{path}.{key}: expected none, found {}", found[key]));
        }
    }
    for (key, expected) in expected.as_object().into_iter().flatten() {
        exact(
            &format!("{path}.{key}"),
            expected,
            found.get(key).unwrap_or(&Value::Null),
            differences,
        );
    }
}

fn exact(path: &str, expected: &Value, found: &Value, differences: &mut Vec<String>) {
    if !equal(expected, found) {
        differences.push(format!(
            "{path}:\n    expected {expected}\n    found    {found}"
        ));
    }
}

/// 1 equals 1.0; numbers may differ by 1e-12; `"<non-empty>"` is any text that is not empty.
fn equal(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) => {
            a == b
                || a.as_f64()
                    .zip(b.as_f64())
                    .is_some_and(|(a, b)| (a - b).abs() <= 1e-12 * a.abs().max(1.0))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (Value::String(a), Value::String(b)) if a == "<non-empty>" => !b.is_empty(),
        (a, b) => a == b,
    }
}
