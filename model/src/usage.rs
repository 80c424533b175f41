//! Usage (counts of tokens or other units) and costs (USD), both by kind of unit.
//! Rules: `langfuse-api` 5.7, `otel-mapping` U-8 and U-9; docs/mapping.md restates them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::text::without_nul;

/// Units by kind: `input`, `output`, `total`, `input_cached_tokens` and whatever was sent.
pub type Usage = BTreeMap<String, i64>;
/// USD by kind of unit.
pub type Costs = BTreeMap<String, f64>;

/// The greatest count of one kind: the last whole number that JavaScript and a float8 tell from its
/// neighbour. A thousand observations that all have it still add up within a bigint.
pub const COUNT_MAX: i64 = (1 << 53) - 1;
/// The greatest cost of one kind, in USD: sums of it stay finite.
pub const COST_MAX: f64 = 1e12;

/// Brings counts and the names of their kinds within what is stored.
pub(crate) fn bound(usage: &mut Usage) {
    for count in usage.values_mut() {
        *count = (*count).clamp(0, COUNT_MAX);
    }
    repair_kinds(usage);
}

/// Brings costs and the names of their kinds within what is stored.
pub(crate) fn bound_costs(costs: &mut Costs) {
    for cost in costs.values_mut() {
        *cost = bounded_cost(*cost);
    }
    repair_kinds(costs);
}

/// A cost within what is stored.
pub(crate) fn bounded_cost(cost: f64) -> f64 {
    if cost.is_nan() {
        0.0
    } else {
        cost.clamp(0.0, COST_MAX)
    }
}

fn repair_kinds<T>(units: &mut BTreeMap<String, T>) {
    if units.keys().any(|kind| kind.contains('\0')) {
        let kinds = std::mem::take(units).into_iter();
        *units = kinds
            .map(|(kind, units)| (without_nul(&kind).into_owned(), units))
            .collect();
    }
}

/// Adds the total where none was given: the sum of all kinds.
#[must_use]
pub fn with_total(mut usage: Usage) -> Usage {
    if !usage.is_empty() && !usage.contains_key("total") {
        let total = usage
            .values()
            .fold(0_i64, |sum, count| sum.saturating_add(*count));
        usage.insert("total".to_owned(), total);
    }
    usage
}

/// Adds the total where none was given and only input and output are known.
#[must_use]
pub fn with_total_cost(mut costs: Costs) -> Costs {
    let simple = costs.keys().all(|key| key == "input" || key == "output");
    if !costs.is_empty() && simple {
        costs.insert("total".to_owned(), costs.values().sum());
    }
    costs
}

/// A usage object as senders write it: OpenAI's two shapes are translated, and of any other
/// object the whole numbers from 0 are kept.
pub fn parse_usage(members: &Map<String, Value>) -> Usage {
    let translated = from_openai(members, "prompt_tokens", "completion_tokens")
        .or_else(|| from_openai(members, "input_tokens", "output_tokens"));
    translated.unwrap_or_else(|| {
        members
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), count(value)?)))
            .collect()
    })
}

/// A cost object: numbers from 0 are kept, numeric strings are parsed.
pub fn parse_costs(members: &Map<String, Value>) -> Costs {
    members
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), cost(value)?)))
        .collect()
}

/// One count: a whole number from 0, or a string that begins with one.
pub fn count(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => {
            let text = text.trim();
            let digits = text
                .find(|c: char| !c.is_ascii_digit())
                .map_or(text, |end| &text[..end]);
            digits.parse().ok()
        }
        _ => None,
    }
    .filter(|count| *count >= 0)
}

/// `5.0` is a whole number, `5.5` is none.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be whole and below 2^53"
    )]
    let whole = number as i64;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(whole)
}

/// One cost: a finite number from 0.
pub fn cost(value: &Value) -> Option<f64> {
    let cost = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    cost.filter(|cost: &f64| cost.is_finite() && *cost >= 0.0)
}

/// OpenAI's usage object, when it has exactly that shape. Details become kinds of their own and
/// are taken off input and output, so that kinds add up.
fn from_openai(members: &Map<String, Value>, input: &str, output: &str) -> Option<Usage> {
    let input_details = format!("{input}_details");
    let output_details = format!("{output}_details");
    let known = [
        input,
        output,
        "total_tokens",
        &input_details,
        &output_details,
    ];
    let exact = members.keys().all(|key| known.contains(&key.as_str()));
    let required = known[..3].iter().map(|key| count(members.get(*key)?));
    let required: Option<Vec<i64>> = required.collect();
    let (true, Some(counts)) = (exact, required) else {
        return None;
    };
    let mut usage = Usage::from([("total".to_owned(), counts[2])]);
    for (side, sum, details) in [
        ("input", counts[0], &input_details),
        ("output", counts[1], &output_details),
    ] {
        let mut rest = sum;
        for (key, value) in members
            .get(details)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if let Some(part) = count(value) {
                usage.insert(format!("{side}_{key}"), part);
                rest = rest.saturating_sub(part);
            }
        }
        usage.insert(side.to_owned(), rest.max(0));
    }
    Some(usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(sent: &Value, expected: &Value) {
        let usage = with_total(parse_usage(sent.as_object().unwrap()));
        assert_eq!(json!(usage), *expected);
    }

    #[test]
    fn openai_details_are_taken_off_the_sums() {
        check(
            &json!({"prompt_tokens": 100, "completion_tokens": 12, "total_tokens": 112,
                    "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": null}}),
            &json!({"input": 60, "input_cached_tokens": 40, "output": 12, "total": 112}),
        );
        check(
            &json!({"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}),
            &json!({"input": 5, "output": 2, "total": 7}),
        );
    }

    #[test]
    fn one_more_key_makes_it_a_plain_map() {
        check(
            &json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "foo": 1,
                    "prompt_tokens_details": {"cached_tokens": 1}}),
            &json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "foo": 1, "total": 7}),
        );
    }

    #[test]
    fn only_whole_numbers_from_zero_count() {
        check(
            &json!({"a": 0.1, "b": -1, "c": "12 tokens", "d": true, "e": {}, "f": 3.0, "g": null, "h": "x"}),
            &json!({"c": 12, "f": 3, "total": 15}),
        );
    }

    #[test]
    fn the_total_cost_is_known_only_for_input_and_output() {
        let costs = |value: Value| json!(with_total_cost(parse_costs(value.as_object().unwrap())));
        assert_eq!(
            costs(json!({"input": 0.1})),
            json!({"input": 0.1, "total": 0.1})
        );
        assert_eq!(costs(json!({"foo": 1, "bar": -1})), json!({"foo": 1.0}));
        assert_eq!(
            costs(json!({"input": "0.5", "total": 2})),
            json!({"input": 0.5, "total": 2.0})
        );
    }
}
