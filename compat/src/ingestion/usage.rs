//! Usage and costs of a generation (langfuse-api 5.7).

use serde_json::Value;
use xtrace_model::usage::{self, Costs, Usage};

use crate::body::{Issue, Object};
use crate::error::issue;

const UNITS: [&str; 6] = [
    "CHARACTERS",
    "TOKENS",
    "MILLISECONDS",
    "SECONDS",
    "IMAGES",
    "REQUESTS",
];

/// What `usage`, `usageDetails` and `costDetails` say together; empty maps are none.
pub(super) fn of(body: Object<'_>) -> Result<(Option<Usage>, Option<Costs>), Issue> {
    let (sent, mut costs) = match body.object("usage")? {
        Some(object) => old_usage(object)?,
        None => (Usage::new(), Costs::new()),
    };
    let details = body.object("usageDetails")?;
    let details = details.map(|object| usage::parse_usage(object.members()));
    let details = details.unwrap_or_default();
    let mut units = sent;
    if details.is_empty() {
        add_total(&mut units);
    }
    units.extend(details);
    if let Some(object) = body.object("costDetails")? {
        costs.extend(usage::parse_costs(object.members()));
    }
    let units = Some(units).filter(|units| !units.is_empty());
    let costs = Some(costs).filter(|costs| !costs.is_empty());
    Ok((
        units.map(usage::with_total),
        costs.map(usage::with_total_cost),
    ))
}

/// Without details the total is the sum of input and output.
fn add_total(units: &mut Usage) {
    let of = |kind: &str| units.get(kind).copied().unwrap_or(0);
    let sum = of("input").saturating_add(of("output"));
    if !units.is_empty() {
        units.entry("total".to_owned()).or_insert(sum);
    }
}

/// The deprecated object, in OpenAI's words or in Langfuse's own; only the latter has costs.
fn old_usage(object: Object<'_>) -> Result<(Usage, Costs), Issue> {
    const OPENAI: [(&str, &str); 3] = [
        ("promptTokens", "input"),
        ("completionTokens", "output"),
        ("totalTokens", "total"),
    ];
    const OWN: [(&str, &str); 3] = [("input", "input"), ("output", "output"), ("total", "total")];
    const COSTS: [(&str, &str); 3] = [
        ("inputCost", "input"),
        ("outputCost", "output"),
        ("totalCost", "total"),
    ];
    let is_openai = OPENAI.iter().any(|(name, _)| object.sent(name).is_some());
    let names = if is_openai { OPENAI } else { OWN };
    let mut units = Usage::new();
    for (name, kind) in names {
        if let Some(count) = whole(object, name)? {
            units.insert(kind.to_owned(), count);
        }
    }
    let mut costs = Costs::new();
    if !is_openai {
        object.option("unit", &UNITS)?;
        for (name, kind) in COSTS {
            let cost = object.number(name)?.filter(|cost| *cost >= 0.0);
            costs.extend(cost.map(|cost| (kind.to_owned(), cost)));
        }
    }
    Ok((units, costs))
}

/// A whole number from 0; anything else but null fails the event.
fn whole(object: Object<'_>, name: &str) -> Result<Option<i64>, Issue> {
    match object.get(name) {
        Some(Value::Number(number)) if number.as_i64().is_none() => Err(issue::not_whole(name)),
        _ => Ok(object.whole(name)?.filter(|count| *count >= 0)),
    }
}
