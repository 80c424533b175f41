//! Conditions of a question: the grammar of lists, on the columns of a view.

use serde_json::Value;
use xtrace_store::analytics::{AnalyticsColumn, Version, View, fields};
use xtrace_store::filter::{Column, ColumnType, Condition, Test};

use crate::error::CompatError;
use crate::filter::{self, Item};

/// Reads `filters`; absent and null are none.
pub(super) fn parse(
    filters: &Value,
    view: View,
    version: Version,
) -> Result<Vec<Condition<AnalyticsColumn>>, CompatError> {
    if filters.is_null() {
        return Ok(Vec::new());
    }
    filter::parse_list(filters, &["query", "filters"], |item| {
        condition(item, view, version)
    })
}

fn condition(
    item: &Item<'_>,
    view: View,
    version: Version,
) -> Result<Option<Condition<AnalyticsColumn>>, CompatError> {
    let raw = item.parts()?;
    let Some(column) = fields::column(view, version, raw.column) else {
        let known: Vec<&str> = view.dimensions(version).map(|one| one.name).collect();
        return Err(CompatError::BadRequest(format!(
            "Invalid filter column {}. Must be one of {}, metadata",
            raw.column,
            known.join(", ")
        )));
    };
    let Some(test) = raw.test else {
        return Ok(None);
    };
    let test = fit(test, raw.kind, column.column_type())?;
    let key = item.key(raw.kind, column.column_type())?;
    Ok(Some(Condition { column, key, test }))
}

fn fit(test: Test, kind: &str, column_type: ColumnType) -> Result<Test, CompatError> {
    let (name, expected): (&str, &[&str]) = match column_type {
        ColumnType::Text => ("string", &["string", "stringOptions"]),
        ColumnType::Array => ("string[]", &["arrayOptions"]),
        ColumnType::Number => ("number", &["number"]),
        ColumnType::Time => ("date", &["datetime"]),
        ColumnType::Bool => ("boolean", &["boolean"]),
        _ if kind == "stringObject" || kind == "null" => return Ok(test),
        _ => {
            return Err(CompatError::BadRequest(format!(
                "Metadata filters require type 'stringObject', not '{kind}'."
            )));
        }
    };
    if kind == "null" || expected.contains(&kind) {
        return Ok(test);
    }
    let expected: Vec<String> = expected.iter().map(|one| format!("'{one}'")).collect();
    Err(CompatError::BadRequest(format!(
        "Filter type '{kind}' is not supported for dimension type '{name}'. Expected {}.",
        expected.join(" or ")
    )))
}
