//! What the items of a dataset must look like: JSON Schemas.

use jsonschema::Validator;
use serde_json::Value;
use xtrace_model::json as rules;
use xtrace_store::datasets::{Dataset, Item, NamedItem};

use crate::error::CompatError;

/// Faults that an answer names at most.
const NAMED_MAX: usize = 10;

/// Whether a value is a schema.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    if !schema.is_object() {
        return Err("it is no object".to_owned());
    }
    compile(schema).map(|_| ())
}

fn compile(schema: &Value) -> Result<Validator, String> {
    // References to other documents are not followed: nothing is fetched for a stranger's schema.
    jsonschema::validator_for(schema).map_err(|error| error.to_string())
}

/// Holds an item against the schemas of its dataset.
pub(super) fn check_item(dataset: &Dataset, item: &Item) -> Result<(), CompatError> {
    match faults(dataset, item)? {
        faults if faults.is_empty() => Ok(()),
        faults => Err(CompatError::BadRequest(format!(
            "Dataset item validation failed: {}",
            faults.join("; ")
        ))),
    }
}

/// Holds all items against the schemas of their dataset.
pub(super) fn check_all(dataset: &Dataset, items: &[NamedItem]) -> Result<(), CompatError> {
    let mut broken = Vec::new();
    for NamedItem { item, .. } in items {
        let faults = faults(dataset, item)?;
        if !faults.is_empty() {
            broken.push(format!("{}: {}", item.id, faults.join("; ")));
        }
        if broken.len() >= NAMED_MAX {
            break;
        }
    }
    let count = match broken.len() {
        0 => return Ok(()),
        NAMED_MAX => "more than 10".to_owned(),
        count => count.to_string(),
    };
    Err(CompatError::BadRequest(format!(
        "Schema validation failed for {count} item(s). Details: {}",
        broken.join(" | ")
    )))
}

fn faults(dataset: &Dataset, item: &Item) -> Result<Vec<String>, CompatError> {
    let parts = [
        ("Input", &dataset.input_schema, &item.input),
        (
            "Expected output",
            &dataset.expected_output_schema,
            &item.expected_output,
        ),
    ];
    let mut faults = Vec::new();
    for (what, schema, value) in parts {
        let Some(schema) = schema.as_deref().and_then(rules::parse) else {
            continue;
        };
        let validator = compile(&schema).map_err(CompatError::BadRequest)?;
        let value = value.as_deref().and_then(rules::parse).unwrap_or_default();
        let found: Vec<String> = validator
            .iter_errors(&value)
            .take(NAMED_MAX)
            .map(|error| error.to_string())
            .collect();
        if !found.is_empty() {
            faults.push(format!("{what} validation failed: {}", found.join(", ")));
        }
    }
    Ok(faults)
}
