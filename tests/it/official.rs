//! Every successful answer of the facade, in whatever test it comes, has the members and types that
//! Langfuse's official spec says. `scripts/langfuse-answers` writes them down anew from a newer spec.

use std::sync::LazyLock;

use jsonschema::Validator;
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

const ANSWERS: &str = include_str!("../../fixtures/langfuse-paths/answers.json");

/// Where the spec is wrong: Langfuse itself answers otherwise, and its SDKs live with that.
const OVERRIDES: [(&str, &str); 1] = [
    // Many scores at once, as Python SDK 5 sends them.
    (
        "/answers/POST ~1api~1public~1scores",
        r##"{"anyOf": [{"$ref": "#/$defs/CreateScoreResponse"},
                       {"type": "object", "required": ["message"]},
                       {"type": "object", "required": ["accepted", "rejected", "errors"]}]}"##,
    ),
];

struct Operation {
    method: String,
    segments: Vec<String>,
    schema: Validator,
}

impl Operation {
    /// How many segments are said in so many words; none if the path is another one.
    fn likeness(&self, method: &Method, path: &str) -> Option<usize> {
        let segments: Vec<&str> = path.split('/').collect();
        let fits = |(own, one): (&String, &&str)| own.starts_with('{') || own == one;
        let is_it = self.method == method.as_str()
            && self.segments.len() == segments.len()
            && self.segments.iter().zip(&segments).all(fits);
        let words = self.segments.iter().filter(|own| !own.starts_with('{'));
        is_it.then(|| words.count())
    }
}

static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    let mut document: Value = serde_json::from_str(ANSWERS).unwrap();
    for (pointer, schema) in OVERRIDES {
        let place = document.pointer_mut(pointer);
        *place.unwrap_or_else(|| panic!("{pointer} is not in the spec")) =
            serde_json::from_str(schema).unwrap();
    }
    let answers: Map<String, Value> = document["answers"].as_object().unwrap().clone();
    let operation = |(name, schema): (&String, &Value)| {
        let (method, path) = name.split_once(' ').unwrap();
        let schema = json!({"allOf": [schema], "$defs": document["$defs"]});
        Operation {
            method: method.to_owned(),
            segments: path.split('/').map(str::to_owned).collect(),
            schema: jsonschema::draft202012::new(&schema).unwrap(),
        }
    };
    answers.iter().map(operation).collect()
});

/// Holds an answer against the spec; paths that it doesn't have are nobody's business.
pub(crate) fn check(method: &Method, path: &str, status: StatusCode, body: &Value) {
    if !status.is_success() || !path.starts_with("/api/public/") {
        return;
    }
    let likeness = |operation: &&Operation| operation.likeness(method, path);
    let found = OPERATIONS
        .iter()
        .filter(|operation| likeness(operation).is_some())
        .max_by_key(likeness);
    let Some(operation) = found else {
        return;
    };
    let faults: Vec<String> = operation
        .schema
        .iter_errors(body)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect();
    assert!(
        faults.is_empty(),
        "{method} {path} is not what the spec says:\n{}\n{body}",
        faults.join("\n")
    );
}

#[test]
#[should_panic(expected = "\"traceId\" is a required property")]
fn an_answer_without_a_member_is_noticed() {
    let observation = json!({"data": [{"id": "o"}], "meta": {}});
    let path = "/api/public/observations";
    check(&Method::GET, path, StatusCode::OK, &observation);
}
