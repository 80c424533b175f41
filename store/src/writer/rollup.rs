//! What a trace's observations sum up to. It is always computed from all of them, in order of their
//! ids, so that it is the same to the last bit however they came.

use std::collections::BTreeMap;
use std::ops::Add;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use xtrace_model::observation::Level;
use xtrace_model::price::Priced;
use xtrace_model::{Observation, time};

use super::durations::Durations;
use crate::stored::sum_like;

/// What one observation contributes.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(super) struct Part {
    pub(super) id: String,
    start_time: DateTime<Utc>,
    end_time: Option<DateTime<Utc>>,
    completion_start_time: Option<DateTime<Utc>>,
    level: String,
    environment: String,
    model: Option<String>,
    pub(super) input_usage: Option<i64>,
    pub(super) output_usage: Option<i64>,
    pub(super) total_usage: Option<i64>,
    pub(super) input_cost: Option<f64>,
    pub(super) output_cost: Option<f64>,
    pub(super) total_cost: Option<f64>,
}

/// The columns of [`Part`].
pub(super) const PART_COLUMNS: &str = "o.id, o.start_time, o.end_time, o.completion_start_time, o.level, o.environment, \
    o.model, o.input_usage, o.output_usage, o.total_usage, o.input_cost, o.output_cost, o.total_cost";

impl Part {
    pub(super) fn of(observation: &Observation, priced: &Priced) -> Self {
        let usage = observation.usage.get();
        let costs = Some(&priced.costs).filter(|costs| !costs.is_empty());
        Self {
            id: observation.id.as_str().to_owned(),
            start_time: time::to_utc(observation.begins()),
            end_time: observation.ends().map(time::to_utc),
            completion_start_time: observation.completion_start.copied().map(time::to_utc),
            level: observation.level().name().to_owned(),
            environment: observation.environment().to_owned(),
            model: observation.model.text().map(str::to_owned),
            input_usage: usage.and_then(|usage| sum_like(usage, "input", i64::saturating_add)),
            output_usage: usage.and_then(|usage| sum_like(usage, "output", i64::saturating_add)),
            total_usage: usage.and_then(|usage| usage.get("total").copied()),
            input_cost: costs.and_then(|costs| sum_like(costs, "input", f64::add)),
            output_cost: costs.and_then(|costs| sum_like(costs, "output", f64::add)),
            total_cost: costs.and_then(|costs| costs.get("total").copied()),
        }
    }
}

/// The sums. A trace without observations has a rollup of zeros.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rollup {
    /// The least start.
    pub(super) first_start: Option<DateTime<Utc>>,
    /// The greatest start.
    pub(super) last_start: Option<DateTime<Utc>>,
    /// The greatest end.
    pub(super) last_end: Option<DateTime<Utc>>,
    /// How many observations have each level, by rising severity.
    pub(super) levels: [i32; Level::NAMES.len()],
    pub(super) input_usage: i64,
    pub(super) output_usage: i64,
    pub(super) total_usage: i64,
    pub(super) input_cost: f64,
    pub(super) output_cost: f64,
    /// None when no observation has a cost.
    pub(super) total_cost: Option<f64>,
    usage: BTreeMap<UsageKey, Usage>,
}

/// What usage is told apart by: the day (UTC) that observations start on, environment, model.
type UsageKey = (NaiveDate, String, Option<String>);

/// What observations of one key used.
#[derive(Debug, Clone, Default, PartialEq)]
struct Usage {
    observations: i64,
    input: i64,
    output: i64,
    total: i64,
    cost: f64,
    latency: Durations,
    first_token: Durations,
}

/// An entry of the column `usage`.
#[derive(Serialize)]
struct UsageEntry<'a> {
    date: NaiveDate,
    environment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    observations: i64,
    #[serde(skip_serializing_if = "is_zero")]
    input: i64,
    #[serde(skip_serializing_if = "is_zero")]
    output: i64,
    #[serde(skip_serializing_if = "is_zero")]
    total: i64,
    #[serde(skip_serializing_if = "is_free")]
    cost: f64,
    #[serde(skip_serializing_if = "Durations::is_empty")]
    latency: &'a Durations,
    #[serde(skip_serializing_if = "Durations::is_empty")]
    first_token: &'a Durations,
}

impl<'a> UsageEntry<'a> {
    fn of(((date, environment, model), usage): (&'a UsageKey, &'a Usage)) -> Self {
        Self {
            date: *date,
            environment,
            model: model.as_deref(),
            observations: usage.observations,
            input: usage.input,
            output: usage.output,
            total: usage.total,
            cost: usage.cost,
            latency: &usage.latency,
            first_token: &usage.first_token,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(units: &i64) -> bool {
    *units == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_free(cost: &f64) -> bool {
    *cost == 0.0
}

impl Rollup {
    /// Sums up parts, which must be sorted by id.
    pub(super) fn of<'a>(parts: impl Iterator<Item = &'a Part>) -> Self {
        let mut rollup = Self::default();
        parts.for_each(|part| rollup.add(part));
        rollup
    }

    fn add(&mut self, part: &Part) {
        let first = self.first_start.unwrap_or(part.start_time);
        self.first_start = Some(first.min(part.start_time));
        self.last_start = self.last_start.max(Some(part.start_time));
        self.last_end = self.last_end.max(part.end_time);
        let level = Level::parse(&part.level).unwrap_or(Level::Default);
        self.levels[level as usize] += 1;
        let key = (
            part.start_time.date_naive(),
            part.environment.clone(),
            part.model.clone(),
        );
        let usage = self.usage.entry(key).or_default();
        usage.observations += 1;
        usage.cost += part.total_cost.unwrap_or(0.0);
        for (durations, end) in [
            (&mut usage.latency, part.end_time),
            (&mut usage.first_token, part.completion_start_time),
        ] {
            if let Some(micros) = end.and_then(|end| (end - part.start_time).num_microseconds()) {
                durations.add(micros);
            }
        }
        for (sum, of_model, units) in [
            (&mut self.input_usage, &mut usage.input, part.input_usage),
            (&mut self.output_usage, &mut usage.output, part.output_usage),
            (&mut self.total_usage, &mut usage.total, part.total_usage),
        ] {
            *sum = sum.saturating_add(units.unwrap_or(0));
            *of_model = of_model.saturating_add(units.unwrap_or(0));
        }
        self.input_cost += part.input_cost.unwrap_or(0.0);
        self.output_cost += part.output_cost.unwrap_or(0.0);
        if let Some(cost) = part.total_cost {
            self.total_cost = Some(self.total_cost.unwrap_or(0.0) + cost);
        }
    }

    /// The column `usage`, as JSON text.
    pub(super) fn usage(&self) -> String {
        let entries: Vec<_> = self.usage.iter().map(UsageEntry::of).collect();
        serde_json::to_string(&entries).expect("numbers and texts serialise")
    }

    /// Seconds from the first start to the last end; without any end, to the last start. Source:
    /// Langfuse's rule.
    pub(super) fn latency(&self) -> Option<f64> {
        let (first, last) = (self.first_start?, self.last_end.or(self.last_start)?);
        Some((last - first).num_microseconds()? as f64 / 1e6)
    }
}
