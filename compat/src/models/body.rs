//! The body that makes a model.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use xtrace_model::ids;
use xtrace_model::price::{Model, OWN_PATTERN_CHARS_MAX, PriceListError};
use xtrace_model::{json as rules, time};
use xtrace_store::models::ProjectModel;

use super::tiers;
use crate::body::{Issue, Object};
use crate::error::{CompatError, issue};
use crate::filter;

const UNITS: [&str; 6] = [
    "TOKENS",
    "CHARACTERS",
    "MILLISECONDS",
    "SECONDS",
    "IMAGES",
    "REQUESTS",
];

/// Reads a model, which will have that id.
pub(super) fn parse(
    body: Object<'_>,
    id: String,
    created_at: DateTime<Utc>,
) -> Result<ProjectModel, CompatError> {
    let model = parse_members(body, id, created_at).map_err(CompatError::Invalid)?;
    // What can't be matched here must not be stored: it is read with every write.
    let entry = json!({"id": model.id, "modelName": model.model_name, "matchPattern": model.match_pattern,
        "pricingTiers": rules::parse(&model.pricing_tiers)});
    let parsed = serde_json::from_value::<Model>(entry).map_err(PriceListError::from);
    parsed
        .and_then(|mut model| model.prepare_own())
        .map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            CompatError::BadRequest(format!(
                "matchPattern is not a valid regex pattern (Postgres): {}",
                cause.unwrap_or_else(|| error.to_string())
            ))
        })?;
    Ok(model)
}

fn parse_members(
    body: Object<'_>,
    id: String,
    created_at: DateTime<Utc>,
) -> Result<ProjectModel, Issue> {
    let model_name = body.required_text("modelName", 1)?;
    if let Err(fault) = ids::check(&model_name) {
        return Err(issue::custom(&[json!("modelName")], &fault.to_string()));
    }
    let match_pattern = body.required_text("matchPattern", 1)?;
    if match_pattern.chars().count() > OWN_PATTERN_CHARS_MAX {
        return Err(issue::long("matchPattern", OWN_PATTERN_CHARS_MAX));
    }
    let start_date = match body.text("startDate")? {
        None => None,
        Some(text) => {
            let time = filter::lenient_time(&text);
            Some(time::to_utc(
                time.ok_or_else(|| issue::not_a_time("startDate"))?,
            ))
        }
    };
    let unit = body.option("unit", &UNITS)?.unwrap_or("TOKENS");
    let tokenizer_id = body.option("tokenizerId", &["openai", "claude"])?;
    let config = body.get("tokenizerConfig").cloned();
    let tiers = tiers(body, &id)?;
    Ok(ProjectModel {
        id,
        model_name,
        match_pattern,
        start_date,
        unit: unit.to_owned(),
        tokenizer_id: tokenizer_id.map(str::to_owned),
        tokenizer_config: config.map(|config| rules::storable(config).to_string()),
        pricing_tiers: tiers.to_string(),
        created_at,
    })
}

/// Tiers as they were sent, or one of flat prices.
fn tiers(body: Object<'_>, id: &str) -> Result<Value, Issue> {
    let price = |name: &str| match body.number(name)? {
        Some(price) if price < 0.0 => Err(issue::too_small(name, 0)),
        price => Ok(price),
    };
    let flat = [
        ("input", price("inputPrice")?),
        ("output", price("outputPrice")?),
        ("total", price("totalPrice")?),
    ];
    let has_flat = flat.iter().any(|(_, price)| price.is_some());
    let sent = body.get("pricingTiers");
    if has_flat == sent.is_some() {
        let message = "Must provide either flat prices (inputPrice, outputPrice, totalPrice) or pricingTiers, but not both";
        return Err(issue::of_whole(message));
    }
    if let Some(sent) = sent {
        return tiers::parse(sent, id);
    }
    if flat[2].1.is_some() && (flat[0].1.is_some() || flat[1].1.is_some()) {
        return Err(issue::of_whole(
            "If totalPrice is set, inputPrice and outputPrice must not be set",
        ));
    }
    let prices = flat
        .into_iter()
        .filter_map(|(kind, price)| Some((kind.to_owned(), json!(price?))));
    let prices: serde_json::Map<String, Value> = prices.collect();
    Ok(
        json!([{"id": format!("{id}_tier_default"), "name": "Standard", "isDefault": true, "priority": 0,
        "conditions": [], "prices": prices}]),
    )
}
