//! Buckets of time, and the value of each.

use std::collections::BTreeMap;

use xtrace_model::metric::{Distribution, Nanos};

use super::SECOND;
use crate::metrics::growth::Grown;
use crate::metrics::query::{Aggregation, BUCKETS_MAX, MetricsQuery};
use crate::metrics::spread::Spread;

/// The range, and how it is cut into buckets.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) from: Nanos,
    pub(super) to: Nanos,
    pub(super) step: Nanos,
}

impl Window {
    pub(super) fn contains(&self, at: Nanos) -> bool {
        (self.from..=self.to).contains(&at)
    }

    /// When the bucket of a moment begins.
    pub(super) fn bucket_of(&self, at: Nanos) -> Nanos {
        at.div_euclid(self.step).saturating_mul(self.step)
    }

    /// Whether a moment lies in the bucket that begins then.
    pub(super) fn is_in_bucket(&self, begins: Nanos, at: Nanos) -> bool {
        begins <= at && at.saturating_sub(begins) < self.step
    }

    /// The bucket that begins then, as far as it is within the range.
    pub(super) fn bucket(self, begins: Nanos) -> Self {
        Self {
            from: self.from.max(begins),
            to: self.to.min(begins.saturating_add(self.step)),
            step: self.step,
        }
    }
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) latest: Nanos,
    pub(super) buckets: BTreeMap<Nanos, Bucket>,
    pub(super) truncated: bool,
}

impl Group {
    /// Adds to a bucket, if that is among the newest; answers bytes that it held before and holds now.
    pub(super) fn add(&mut self, begins: Nanos, more: Bucket) -> (usize, usize) {
        self.latest = self.latest.max(more.last.0);
        if let Some(bucket) = self.buckets.get_mut(&begins) {
            let before = bucket.bytes();
            bucket.merge(more);
            return (before, bucket.bytes());
        }
        let mut before = 0;
        if self.buckets.len() >= BUCKETS_MAX {
            self.truncated = true;
            match self.buckets.first_entry() {
                Some(oldest) if *oldest.key() < begins => before = oldest.remove().bytes(),
                _ => return (0, 0),
            }
        }
        let after = more.bytes();
        self.buckets.insert(begins, more);
        (before, after)
    }
}

/// What lies in a bucket of time.
pub(super) struct Bucket {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    grown: f64,
    /// When that began which grew.
    since: Nanos,
    last: (Nanos, f64),
    /// Kept for percentiles only.
    pub(super) values: Vec<f64>,
    spread: Option<Spread>,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            count: 0,
            sum: 0.0,
            min: 0.0,
            max: 0.0,
            grown: 0.0,
            since: Nanos::MAX,
            last: (0, 0.0),
            values: Vec::new(),
            spread: None,
        }
    }
}

impl Bucket {
    pub(super) fn of_distribution(at: Nanos, grown: Option<Grown<Distribution>>) -> Self {
        let mut spread = Spread::default();
        let mut bucket = Self {
            count: 1,
            last: (at, f64::NAN),
            ..Self::default()
        };
        if let Some(Grown { by, since }) = &grown {
            spread.add(by);
            bucket.last.1 = by.sum.unwrap_or(f64::NAN) / by.count as f64;
            bucket.since = *since;
        }
        bucket.spread = Some(spread);
        bucket
    }

    pub(super) fn add(&mut self, at: Nanos, value: f64) {
        if self.count == 0 {
            (self.min, self.max) = (value, value);
        }
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.last = (at, value);
        self.count += 1;
        self.sum += value;
    }

    pub(super) fn grow(&mut self, grown: Option<Grown<f64>>) {
        if let Some(Grown { by, since }) = grown {
            self.grown += by;
            self.since = self.since.min(since);
        }
    }

    fn merge(&mut self, more: Self) {
        self.min = self.min.min(more.min);
        self.max = self.max.max(more.max);
        self.count += more.count;
        self.sum += more.sum;
        self.grown += more.grown;
        self.since = self.since.min(more.since);
        if more.last.0 >= self.last.0 && !more.last.1.is_nan() || self.last.1.is_nan() {
            self.last = more.last;
        }
        self.values.extend(more.values);
        if let Some(spread) = more.spread {
            self.spread.get_or_insert_default().merge(spread);
        }
    }

    /// What it holds in memory.
    fn bytes(&self) -> usize {
        let spread = self.spread.as_ref().map_or(0, Spread::bytes);
        size_of::<Self>() + self.values.capacity() * size_of::<f64>() + spread
    }

    /// `covered` is the part of the bucket that is within the range.
    pub(super) fn value(&mut self, query: &MetricsQuery, covered: Window) -> Option<f64> {
        let seconds = self.seconds(covered);
        let value = match &self.spread {
            Some(spread) => self.of_spread(spread, query, seconds)?,
            None => self.of_numbers(query, seconds)?,
        };
        value.is_finite().then_some(value)
    }

    /// What a rate is by: the step, or less where the range begins or ends within it. What grew there may have
    /// begun before; then it is by the time that it took.
    fn seconds(&self, covered: Window) -> f64 {
        let of_range = covered.to.saturating_sub(covered.from);
        let of_points = self.last.0.saturating_sub(self.since.min(self.last.0));
        let least = SECOND.min(covered.step);
        let time = of_range.max(of_points).clamp(least, covered.step);
        // A range ends with the last nanosecond of a microsecond.
        (time / 1000) as f64 / 1e6
    }

    fn of_numbers(&mut self, query: &MetricsQuery, seconds: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        Some(match query.aggregation {
            Aggregation::Avg => self.sum / self.count as f64,
            Aggregation::Max => self.max,
            Aggregation::Min => self.min,
            Aggregation::Sum => self.sum,
            Aggregation::Last => self.last.1,
            Aggregation::Count => self.count as f64,
            Aggregation::Rate => self.grown / seconds,
            Aggregation::Increase => self.grown,
            percentile => between(&mut self.values, percentile.fraction()?),
        })
    }

    fn of_spread(&self, spread: &Spread, query: &MetricsQuery, seconds: f64) -> Option<f64> {
        let has_any = spread.count > 0.0;
        match query.aggregation {
            Aggregation::Avg => has_any.then_some(spread.sum / spread.count),
            Aggregation::Min => spread.ends().0,
            Aggregation::Max => spread.ends().1,
            Aggregation::Sum => Some(spread.sum),
            Aggregation::Last => has_any.then_some(self.last.1),
            Aggregation::Count | Aggregation::Increase => Some(spread.count),
            Aggregation::Rate => Some(spread.count / seconds),
            percentile => {
                let fraction = percentile.fraction()?;
                let told = self.values.iter().copied().max_by(f64::total_cmp);
                spread.quantile(fraction).or(told)
            }
        }
    }
}

/// Between the two values that the fraction lies between, which are found without sorting all others.
fn between(values: &mut [f64], fraction: f64) -> f64 {
    let place = fraction * (values.len() - 1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the list"
    )]
    let low = place as usize;
    let (_, low, above) = values.select_nth_unstable_by(low, f64::total_cmp);
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(*low);
    *low + (high - *low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter that grows by two a second, of which there is a point every five seconds.
    #[test]
    fn a_bucket_that_is_covered_in_part_has_the_rate_of_that_part() {
        let rate = |from: i64, to: i64| {
            let window = Window {
                from: from * SECOND,
                to: to * SECOND,
                step: 60 * SECOND,
            };
            let mut bucket = Bucket::default();
            for at in (60..120).step_by(5).filter(|at| (from..=to).contains(at)) {
                let (by, since) = (10.0, (at - 5) * SECOND);
                bucket.add(at * SECOND, 2.0 * at as f64);
                bucket.grow(Some(Grown { by, since }));
            }
            bucket.grown / bucket.seconds(window.bucket(60 * SECOND))
        };
        let close = |found: f64| assert!((found - 2.0).abs() < 0.4, "{found}");
        close(rate(0, 300));
        // The range ends within the bucket: early, where all that grew began before, and later.
        close(rate(0, 61));
        close(rate(0, 90));
        // It begins within.
        close(rate(100, 300));
    }

    #[test]
    fn percentiles_lie_between_the_two_values_next_to_them() {
        let check = |values: &[f64], fraction: f64, expected: f64| {
            let found = between(&mut values.to_vec(), fraction);
            assert!((found - expected).abs() < 1e-9, "{values:?}: {found}");
        };
        check(&[7.0], 0.95, 7.0);
        check(&[5.0, 1.0, 4.0, 2.0, 3.0], 0.5, 3.0);
        check(&[4.0, 1.0, 3.0, 2.0], 0.5, 2.5);
        check(&[10.0, 0.0], 0.9, 9.0);
        check(&[2.0, 2.0, 1.0], 1.0, 2.0);
    }
}
