//! What a trace's observations sum up to. It is always computed from all of them, in order of their
//! ids, so that it is the same to the last bit however they came.

use chrono::{DateTime, Utc};
use xtrace_model::observation::Level;
use xtrace_model::price::Priced;
use xtrace_model::{Observation, time};

use crate::stored::sum_like;

/// What one observation contributes.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(super) struct Part {
    pub(super) id: String,
    start_time: DateTime<Utc>,
    end_time: Option<DateTime<Utc>>,
    level: String,
    pub(super) input_usage: Option<i64>,
    pub(super) output_usage: Option<i64>,
    pub(super) total_usage: Option<i64>,
    pub(super) input_cost: Option<f64>,
    pub(super) output_cost: Option<f64>,
    pub(super) total_cost: Option<f64>,
}

/// The columns of [`Part`].
pub(super) const PART_COLUMNS: &str = "o.id, o.start_time, o.end_time, o.level, o.input_usage, \
    o.output_usage, o.total_usage, o.input_cost, o.output_cost, o.total_cost";

impl Part {
    pub(super) fn of(observation: &Observation, priced: &Priced) -> Self {
        let usage = observation.usage.get();
        let costs = Some(&priced.costs).filter(|costs| !costs.is_empty());
        Self {
            id: observation.id.as_str().to_owned(),
            start_time: time::to_utc(observation.begins()),
            end_time: observation.ends().map(time::to_utc),
            level: observation.level().name().to_owned(),
            input_usage: usage.and_then(|usage| sum_like(usage, "input")),
            output_usage: usage.and_then(|usage| sum_like(usage, "output")),
            total_usage: usage.and_then(|usage| usage.get("total").copied()),
            input_cost: costs.and_then(|costs| sum_like(costs, "input")),
            output_cost: costs.and_then(|costs| sum_like(costs, "output")),
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
        for (sum, units) in [
            (&mut self.input_usage, part.input_usage),
            (&mut self.output_usage, part.output_usage),
            (&mut self.total_usage, part.total_usage),
        ] {
            *sum = sum.saturating_add(units.unwrap_or(0));
        }
        self.input_cost += part.input_cost.unwrap_or(0.0);
        self.output_cost += part.output_cost.unwrap_or(0.0);
        if let Some(cost) = part.total_cost {
            self.total_cost = Some(self.total_cost.unwrap_or(0.0) + cost);
        }
    }

    /// Seconds from the first start to the last end; without any end, to the last start. Source:
    /// Langfuse's rule.
    pub(super) fn latency(&self) -> Option<f64> {
        let (first, last) = (self.first_start?, self.last_end.or(self.last_start)?);
        Some((last - first).num_microseconds()? as f64 / 1e6)
    }
}
