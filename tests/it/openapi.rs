//! `docs/openapi.yaml` says what the native API is; here it is held against the server.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Xtrace, answer};

/// The document; its YAML is plain enough to be read as what it is.
fn document() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.yaml");
    serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Example requests of an operation: query and body.
fn example(operation: &Value) -> (String, Option<Value>) {
    let parameters = operation["parameters"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let query: Vec<String> = parameters
        .iter()
        .filter(|parameter| parameter["required"] == true && parameter["in"] == "query")
        .map(|parameter| {
            format!(
                "{}={}",
                parameter["name"].as_str().unwrap(),
                parameter["example"].as_str().unwrap()
            )
        })
        .collect();
    let body = &operation["requestBody"]["content"]["application/json"]["example"];
    (query.join("&"), (!body.is_null()).then(|| body.clone()))
}

/// The schema of an answer.
fn schema<'a>(operation: &'a Value, status: &str, document: &'a Value) -> &'a Value {
    let response = &operation["responses"][status];
    let response = match response["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => response,
    };
    &response["content"]["application/json"]["schema"]
}

/// Whether a value has the members and types that a schema asks for.
fn fits(value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap();
        return fits(value, target, document);
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().map(|one| one.as_str().unwrap()).collect(),
        _ => return Ok(()),
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let whole = found == "number" && types.contains(&"integer");
    if !whole && !types.contains(&found) {
        return Err(format!("{value} is no {types:?}"));
    }
    if value.is_null() {
        return Ok(());
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        let name = required.as_str().unwrap();
        value
            .get(name)
            .ok_or_else(|| format!("{value} has no {name}"))?;
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            fits(value, member, document).map_err(|fault| format!("{name}: {fault}"))?;
        }
    }
    for item in value.as_array().into_iter().flatten() {
        fits(item, &schema["items"], document)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_documented() {
    let xtrace = Xtrace::start().await;
    let document = document();
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let (query, body) = example(operation);
            let method: Method = method.to_uppercase().parse().unwrap();
            let target = format!("{path}?{query}");
            let mut request = if operation["security"][0]["administrators"].is_array() {
                xtrace.administer(method.clone(), &target)
            } else {
                xtrace.request(method.clone(), &target)
            };
            if let Some(body) = &body {
                request = request.json(body);
            }
            let (status, answered) = answer(request).await;
            assert_eq!(status, 200, "{method} {path}: {answered}");
            fits(&answered, schema(operation, "200", &document), &document)
                .unwrap_or_else(|fault| panic!("{method} {path}: {fault}"));
            if operation["security"] != json!([]) {
                let url = format!("{}{path}?{query}", xtrace.url);
                let (status, refused) = answer(xtrace.http.request(method.clone(), url)).await;
                assert_eq!(status, 401, "{method} {path}");
                fits(&refused, schema(operation, "401", &document), &document)
                    .unwrap_or_else(|fault| panic!("{method} {path}: {fault}"));
            }
            operations += 1;
        }
    }
    assert!(
        operations >= 8,
        "only {operations} operations are documented"
    );
}
