//! What a trace's observations sum up to, the same to the last bit however they came. Of a small trace it is
//! computed from all of them, in order of their ids. A large one would cost its square that way: its sums are
//! exact, so that changes are added and taken away; see ADR 14.

use std::ops::Add;

use chrono::{DateTime, Utc};
use xtrace_model::observation::Level;
use xtrace_model::price::Priced;
use xtrace_model::{Observation, time};

use super::exact::Exact;
use super::sums::Doubt;
use super::usage::Usage;
use crate::stored::sum_like;

/// A trace of more observations is large.
pub(super) const SMALL_MAX: i64 = 1000;

/// What one observation contributes.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(super) struct Part {
    pub(super) id: String,
    pub(super) start_time: DateTime<Utc>,
    pub(super) end_time: Option<DateTime<Utc>>,
    pub(super) completion_start_time: Option<DateTime<Utc>>,
    level: String,
    pub(super) environment: String,
    pub(super) model: Option<String>,
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
/// Those of them that are not columns of a document.
pub(super) const COMPUTED_COLUMNS: &str =
    "o.input_usage, o.output_usage, o.total_usage, o.input_cost, o.output_cost, o.total_cost";

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

    fn level(&self) -> usize {
        Level::parse(&self.level).unwrap_or(Level::Default) as usize
    }
}

/// The sums. A trace without observations has a rollup of zeros.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rollup {
    /// The least start. Of a large trace it may be too early while there is a doubt, and so on.
    pub(super) first_start: Option<DateTime<Utc>>,
    /// The greatest start.
    pub(super) last_start: Option<DateTime<Utc>>,
    /// The greatest end.
    pub(super) last_end: Option<DateTime<Utc>>,
    /// How many observations have each level, by rising severity.
    pub(super) levels: [i32; Level::NAMES.len()],
    pub(super) usage: Usage,
    pub(super) input_cost: Cost,
    pub(super) output_cost: Cost,
    pub(super) total_cost: Cost,
    /// Observations that have a cost.
    pub(super) priced: i64,
    /// Whether the three times above may be those of observations that moved.
    pub(super) doubt: Option<Doubt>,
}

/// A sum of costs: as floats in order of the observations, for small traces, and exact.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cost {
    float: f64,
    pub(super) exact: Exact,
}

impl Cost {
    fn add(&mut self, cost: Option<f64>) {
        self.float += cost.unwrap_or(0.0);
        self.exact += Exact::of(cost.unwrap_or(0.0));
    }

    fn take(&mut self, cost: Option<f64>) {
        self.exact -= Exact::of(cost.unwrap_or(0.0));
    }
}

impl Rollup {
    /// Sums up parts, which must be sorted by id.
    pub(super) fn of<'a>(parts: impl Iterator<Item = &'a Part>) -> Self {
        let mut rollup = Self::default();
        parts.for_each(|part| rollup.add(part));
        rollup.settle();
        rollup
    }

    /// Adds a part. [`Self::settle`] follows when all were added.
    pub(super) fn add(&mut self, part: &Part) {
        let first = self.first_start.unwrap_or(part.start_time);
        self.first_start = Some(first.min(part.start_time));
        self.last_start = self.last_start.max(Some(part.start_time));
        self.last_end = self.last_end.max(part.end_time);
        self.levels[part.level()] += 1;
        self.usage.add(part);
        self.input_cost.add(part.input_cost);
        self.output_cost.add(part.output_cost);
        self.total_cost.add(part.total_cost);
        self.priced += i64::from(part.total_cost.is_some());
        if let Some(doubt) = &mut self.doubt {
            doubt.add(part);
        }
    }

    /// Puts a part of a large trace in the place of another, which was added before.
    pub(super) fn replace(&mut self, old: &Part, new: &Part, now: DateTime<Utc>) {
        self.levels[old.level()] -= 1;
        self.usage.take(old);
        self.input_cost.take(old.input_cost);
        self.output_cost.take(old.output_cost);
        self.total_cost.take(old.total_cost);
        self.priced -= i64::from(old.total_cost.is_some());
        let (start, end) = (Some(old.start_time), old.end_time);
        let is_first = start == self.first_start && new.start_time > old.start_time;
        let is_last = start == self.last_start && new.start_time < old.start_time;
        let is_last_end = end.is_some() && end == self.last_end && new.end_time < end;
        self.add(new);
        // While somebody looks for the right times, any time that goes may be one that was found.
        let is_other = new.start_time != old.start_time || new.end_time < end;
        if is_first || is_last || is_last_end || self.doubt.is_some() && is_other {
            self.doubt = Some(Doubt::after(self.doubt.as_ref(), now));
        }
    }

    /// Brings a large trace into its form.
    pub(super) fn settle(&mut self) {
        if self.is_large() {
            self.usage.bound();
        }
    }

    pub(super) fn observations(&self) -> i64 {
        self.levels.iter().copied().map(i64::from).sum()
    }

    pub(super) fn is_large(&self) -> bool {
        self.observations() > SMALL_MAX
    }

    /// Tokens: input, output, total. Beyond the greatest integer they are that one.
    pub(super) fn tokens(&self) -> [i64; 3] {
        self.usage.tokens().map(|sum| {
            let bounded = sum.clamp(i64::MIN.into(), i64::MAX.into());
            i64::try_from(bounded).unwrap_or(i64::MAX)
        })
    }

    /// Costs: input, output, and total, which is none when no observation has a cost.
    pub(super) fn costs(&self) -> (f64, f64, Option<f64>) {
        let total = Cost {
            exact: self.usage.exact_cost(),
            ..self.total_cost
        };
        let shown = |cost: Cost| {
            if self.is_large() {
                cost.exact.to_f64()
            } else {
                cost.float
            }
        };
        let total = (self.priced > 0).then(|| shown(total));
        (shown(self.input_cost), shown(self.output_cost), total)
    }

    /// Seconds from the first start to the last end; without any end, to the last start. Source:
    /// Langfuse's rule.
    pub(super) fn latency(&self) -> Option<f64> {
        let (first, last) = (self.first_start?, self.last_end.or(self.last_start)?);
        Some((last - first).num_microseconds()? as f64 / 1e6)
    }
}
