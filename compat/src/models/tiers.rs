//! Tiers: prices that hold under conditions, and one tier that holds without any.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::body::{ITEMS_MAX, Issue, Object, few};
use crate::error::issue;

const TIER_NAME_CHARS_MAX: usize = 100;
const PATTERN_CHARS_MAX: usize = 200;
const PRIORITY_MAX: i64 = 999;
const OPERATORS: [&str; 6] = ["gt", "gte", "lt", "lte", "eq", "neq"];

fn fault(message: impl AsRef<str>) -> Issue {
    issue::custom(&[json!("pricingTiers")], message.as_ref())
}

/// Reads tiers of the model of that id.
pub(super) fn parse(sent: &Value, model_id: &str) -> Result<Value, Issue> {
    let Value::Array(sent) = sent else {
        return Err(issue::wrong_type(&["pricingTiers"], "array", sent));
    };
    let tiers = few(sent, &[json!("pricingTiers")])?
        .iter()
        .map(|tier| parse_tier(tier, model_id));
    let tiers = tiers.collect::<Result<Vec<Value>, Issue>>()?;
    check_default(&tiers)?;
    let unique = |name: &str| {
        let values: BTreeSet<String> = tiers.iter().map(|tier| tier[name].to_string()).collect();
        values.len() == tiers.len()
    };
    if !unique("priority") {
        return Err(fault(
            "Pricing tier priorities must be unique within a model",
        ));
    }
    if !unique("name") {
        return Err(fault("Pricing tier names must be unique within a model"));
    }
    check_kinds(&tiers)?;
    Ok(tiers.into())
}

fn parse_tier(sent: &Value, model_id: &str) -> Result<Value, Issue> {
    let tier = Object::of(sent, "pricingTiers")?;
    let name = tier.required_text("name", 0)?.trim().to_owned();
    match name.chars().count() {
        0 => return Err(fault("Pricing tier names have 1 to 100 characters")),
        chars if chars > TIER_NAME_CHARS_MAX => {
            return Err(fault("Pricing tier names have 1 to 100 characters"));
        }
        _ => {}
    }
    let is_default = tier.truth("isDefault")?.unwrap_or(false);
    let priority = tier.whole("priority")?;
    let priority = priority.filter(|priority| (0..=PRIORITY_MAX).contains(priority));
    let priority =
        priority.ok_or_else(|| fault("Pricing tier priorities are whole numbers from 0 to 999"))?;
    let conditions = match tier.get("conditions") {
        None => Vec::new(),
        Some(Value::Array(items)) => {
            let items = few(items, &[json!("pricingTiers"), json!("conditions")])?;
            items.iter().map(condition).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(issue::wrong_type(&["pricingTiers"], "array", other)),
    };
    let id = if is_default {
        format!("{model_id}_tier_default")
    } else {
        uuid::Uuid::new_v4().to_string()
    };
    Ok(
        json!({"id": id, "name": name, "isDefault": is_default, "priority": priority,
        "conditions": conditions, "prices": prices(tier)?}),
    )
}

fn prices(tier: Object<'_>) -> Result<Map<String, Value>, Issue> {
    let prices = tier
        .object("prices")?
        .map(|prices| prices.members().clone())
        .unwrap_or_default();
    if prices.len() > ITEMS_MAX {
        return Err(fault(format!(
            "A pricing tier has at most {ITEMS_MAX} prices"
        )));
    }
    let is_price = |price: &Value| {
        price
            .as_f64()
            .is_some_and(|price| price.is_finite() && price >= 0.0)
    };
    if prices.is_empty() || !prices.values().all(is_price) {
        return Err(fault(
            "Each pricing tier must have at least one price; prices are numbers from 0",
        ));
    }
    Ok(prices)
}

/// A sum of usage compared with a number, or an attribute that is one of some values.
fn condition(sent: &Value) -> Result<Value, Issue> {
    let condition = Object::of(sent, "pricingTiers")?;
    if condition.get("usageDetailPattern").is_some() {
        let condition =
            condition.only(&["usageDetailPattern", "operator", "value", "caseSensitive"])?;
        let pattern = condition.required_text("usageDetailPattern", 1)?;
        let is_regex =
            pattern.chars().count() <= PATTERN_CHARS_MAX && regex::Regex::new(&pattern).is_ok();
        if !is_regex {
            return Err(fault(
                "usageDetailPattern must be a valid and safe regex of 1 to 200 characters",
            ));
        }
        let operator = condition.option("operator", &OPERATORS)?;
        let operator = operator.ok_or_else(|| issue::not_an_option("operator", &OPERATORS))?;
        let value = condition.number("value")?;
        let value = value.ok_or_else(|| issue::missing(&["value"], "number"))?;
        let case_sensitive = condition.truth("caseSensitive")?.unwrap_or(false);
        return Ok(
            json!({"usageDetailPattern": pattern, "operator": operator, "value": value,
            "caseSensitive": case_sensitive}),
        );
    }
    let condition = condition.only(&["source", "key", "operator", "values"])?;
    let source = condition.option("source", &["model_parameters", "metadata"])?;
    let key = condition.text("key")?.filter(|key| !key.is_empty());
    let values = condition
        .texts("values")?
        .filter(|values| !values.is_empty() && values.iter().all(|value| !value.is_empty()));
    let operator = condition.option("operator", &["in"])?;
    match (source, key, operator, values) {
        (Some(source), Some(key), Some(operator), Some(values)) => {
            Ok(json!({"source": source, "key": key, "operator": operator, "values": values}))
        }
        _ => Err(fault(
            "A condition has usageDetailPattern, operator and value, or source, key, operator \"in\" and non-empty values",
        )),
    }
}

fn check_default(tiers: &[Value]) -> Result<(), Issue> {
    let is_default = |tier: &&Value| tier["isDefault"] == true;
    match tiers.iter().filter(is_default).count() {
        0 => return Err(fault("Exactly one pricing tier must have isDefault: true")),
        1 => {}
        count => {
            return Err(fault(format!(
                "Only one pricing tier can have isDefault: true, found {count}"
            )));
        }
    }
    for tier in tiers {
        let conditions = tier["conditions"].as_array().map_or(0, Vec::len);
        if tier["isDefault"] != true {
            if conditions == 0 {
                return Err(fault(
                    "Non-default pricing tiers must have at least one condition",
                ));
            }
        } else if tier["priority"] != 0 {
            return Err(fault("The default pricing tier must have priority: 0"));
        } else if conditions > 0 {
            return Err(fault(
                "The default pricing tier must have an empty conditions array",
            ));
        }
    }
    Ok(())
}

/// All tiers price the same kinds of usage.
fn check_kinds(tiers: &[Value]) -> Result<(), Issue> {
    let kinds = |tier: &Value| -> BTreeSet<String> {
        let prices = tier["prices"].as_object();
        prices
            .map(|prices| prices.keys().cloned().collect())
            .unwrap_or_default()
    };
    let list = |kinds: &BTreeSet<String>| kinds.iter().cloned().collect::<Vec<_>>().join(", ");
    let default = tiers.iter().find(|tier| tier["isDefault"] == true);
    let expected = default.map(kinds).unwrap_or_default();
    for tier in tiers {
        let found = kinds(tier);
        if found != expected {
            return Err(fault(format!(
                "All pricing tiers must have the same usage keys as the default tier. Expected: [{}], Got: [{}]",
                list(&expected),
                list(&found)
            )));
        }
    }
    Ok(())
}
