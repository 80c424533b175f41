//! Distributions added up: what was measured within a bucket of time, and its quantiles.
//! Source: OpenTelemetry's data model, "Histogram" and "ExponentialHistogram".

use std::collections::BTreeMap;
use std::ops::Add;
use std::sync::Arc;

use xtrace_model::metric::{Buckets, Distribution, Shape};

use super::powers::{Powers, base_of, indexed};

/// Buckets that an exponential histogram is made coarser to keep.
const BUCKETS_MAX: usize = 1024;

/// Sums of distributions; those of different shapes are brought to what they share.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Spread {
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    buckets: Option<Counts>,
}

#[derive(Debug, Clone, PartialEq)]
enum Counts {
    Explicit {
        bounds: Arc<[f64]>,
        counts: Vec<f64>,
    },
    Exponential {
        scale: i32,
        zero: f64,
        threshold: f64,
        positive: BTreeMap<i32, f64>,
        negative: BTreeMap<i32, f64>,
    },
}

/// What grew since the point before; `None` where it began anew, which fewer measurements tell. Buckets that
/// have changed meanwhile are compared in what both share.
pub(super) fn growth(before: &Distribution, now: &Distribution) -> Option<Distribution> {
    let shape = match (&before.shape, &now.shape) {
        (
            Shape::Explicit {
                bounds: old,
                counts: earlier,
            },
            Shape::Explicit { bounds, counts },
        ) if old == bounds && earlier.len() == counts.len() => Shape::Explicit {
            bounds: Arc::clone(bounds),
            counts: less(counts, earlier)?,
        },
        (
            Shape::Explicit {
                bounds: old,
                counts: earlier,
            },
            Shape::Explicit { bounds, counts },
        ) => {
            let common = in_both(old, bounds);
            let (earlier, now) = (
                coarser(old, earlier, &common, u64::saturating_add),
                coarser(bounds, counts, &common, u64::saturating_add),
            );
            let counts = now.iter().zip(earlier);
            let counts = counts.map(|(now, before)| now.saturating_sub(before));
            if common.is_empty() {
                unknown()
            } else {
                Shape::Explicit {
                    counts: counts.collect(),
                    bounds: common.into(),
                }
            }
        }
        (Shape::Exponential { .. }, Shape::Exponential { .. }) => {
            Powers::of(&now.shape).less(Powers::of(&before.shape))?
        }
        (Shape::Quantiles(_), Shape::Quantiles(now)) => Shape::Quantiles(now.clone()),
        _ => unknown(),
    };
    Some(Distribution {
        count: now.count.checked_sub(before.count)?,
        sum: now.sum.map(|sum| sum - before.sum.unwrap_or(0.0)),
        // Of all that was ever measured, not of what grew.
        min: None,
        max: None,
        shape,
    })
}

/// So much was measured, and nobody knows where it lies.
fn unknown() -> Shape {
    Shape::Explicit {
        bounds: [].into(),
        counts: Vec::new(),
    }
}

fn less(now: &[u64], before: &[u64]) -> Option<Vec<u64>> {
    now.iter()
        .zip(before)
        .map(|(now, before)| now.checked_sub(*before))
        .collect()
}

/// Bounds that both have, which are in ascending order.
fn in_both(one: &[f64], other: &[f64]) -> Vec<f64> {
    let mut others = other.iter().copied().peekable();
    let mut common = Vec::new();
    for bound in one {
        while others.next_if(|other| other < bound).is_some() {}
        common.extend(others.next_if(|other| other.total_cmp(bound).is_eq()));
    }
    common
}

impl Spread {
    pub(super) fn add(&mut self, one: &Distribution) {
        self.count += one.count as f64;
        self.sum += one.sum.unwrap_or(0.0);
        self.min = least(self.min, one.min);
        self.max = greatest(self.max, one.max);
        let Some(counts) = Counts::of(one) else {
            return;
        };
        self.buckets = Some(match self.buckets.take() {
            None => counts,
            Some(known) => known.with(counts),
        });
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = least(self.min, other.min);
        self.max = greatest(self.max, other.max);
        self.buckets = match (self.buckets.take(), other.buckets) {
            (Some(one), Some(other)) => Some(one.with(other)),
            (one, other) => one.or(other),
        };
    }

    /// A value that the fraction of measurements is not above; `None` if nothing was measured, or nobody knows.
    pub(super) fn quantile(&self, fraction: f64) -> Option<f64> {
        let found = self
            .buckets
            .as_ref()?
            .quantile(fraction, self.min, self.max)?;
        let found = self.min.map_or(found, |min| found.max(min));
        Some(self.max.map_or(found, |max| found.min(max)))
    }

    /// What it holds in memory beside itself.
    pub(super) fn bytes(&self) -> usize {
        const OF_NODE: usize = 32;
        match &self.buckets {
            None => 0,
            Some(Counts::Explicit { bounds, counts }) => {
                (bounds.len() + counts.capacity()) * size_of::<f64>()
            }
            Some(Counts::Exponential {
                positive, negative, ..
            }) => (positive.len() + negative.len()) * OF_NODE,
        }
    }

    /// The ends of what was measured, as far as points or buckets tell.
    pub(super) fn ends(&self) -> (Option<f64>, Option<f64>) {
        let of_buckets = |fraction| self.buckets.as_ref()?.quantile(fraction, None, None);
        (
            self.min.or_else(|| of_buckets(0.0)),
            self.max.or_else(|| of_buckets(1.0)),
        )
    }
}

fn least(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.map_or(b, |a| Some(b.map_or(a, |b| a.min(b))))
}

fn greatest(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.map_or(b, |a| Some(b.map_or(a, |b| a.max(b))))
}

impl Counts {
    fn of(one: &Distribution) -> Option<Self> {
        let sums = |buckets: &Buckets| {
            let sums = indexed(buckets).filter(|(_, count)| *count > 0);
            sums.map(|(index, count)| (index, count as f64)).collect()
        };
        match &one.shape {
            Shape::Explicit { counts, .. } if counts.is_empty() => None,
            Shape::Explicit { bounds, counts } => Some(Self::Explicit {
                bounds: Arc::clone(bounds),
                counts: counts.iter().map(|count| *count as f64).collect(),
            }),
            Shape::Exponential {
                scale,
                zero_count,
                zero_threshold,
                positive,
                negative,
            } => Some(Self::Exponential {
                scale: *scale,
                zero: *zero_count as f64,
                threshold: *zero_threshold,
                positive: sums(positive),
                negative: sums(negative),
            }),
            Shape::Quantiles(_) => None,
        }
    }

    fn with(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Explicit { bounds, mut counts },
                Self::Explicit {
                    bounds: of_other,
                    counts: others,
                },
            ) => {
                if bounds == of_other {
                    (counts.iter_mut().zip(others)).for_each(|(count, other)| *count += other);
                    return Self::Explicit { bounds, counts };
                }
                let common = in_both(&bounds, &of_other);
                let mut coarse = coarser(&bounds, &counts, &common, Add::add);
                let others = coarser(&of_other, &others, &common, Add::add);
                (coarse.iter_mut().zip(others)).for_each(|(count, other)| *count += other);
                Self::Explicit {
                    bounds: common.into(),
                    counts: coarse,
                }
            }
            (one @ Self::Exponential { .. }, other @ Self::Exponential { .. }) => {
                let scale = one.scale().min(other.scale());
                one.at_scale(scale).added(other.at_scale(scale)).bounded()
            }
            (Self::Explicit { bounds, counts }, other)
            | (other, Self::Explicit { bounds, counts }) => {
                let approximate = other.in_bounds(&bounds);
                Self::Explicit { bounds, counts }.with(approximate)
            }
        }
    }

    fn scale(&self) -> i32 {
        match self {
            Self::Exponential { scale, .. } => *scale,
            Self::Explicit { .. } => 0,
        }
    }

    /// The same in buckets `2^n` times as wide.
    fn at_scale(self, wanted: i32) -> Self {
        let Self::Exponential {
            scale,
            zero,
            threshold,
            positive,
            negative,
        } = self
        else {
            return self;
        };
        let by = scale.saturating_sub(wanted).clamp(0, 31);
        if by == 0 {
            return Self::Exponential {
                scale,
                zero,
                threshold,
                positive,
                negative,
            };
        }
        let wide = |buckets: BTreeMap<i32, f64>| {
            let mut wide = BTreeMap::new();
            for (index, count) in buckets {
                *wide.entry(index >> by).or_insert(0.0) += count;
            }
            wide
        };
        Self::Exponential {
            scale: scale - by,
            zero,
            threshold,
            positive: wide(positive),
            negative: wide(negative),
        }
    }

    fn added(self, other: Self) -> Self {
        let (
            Self::Exponential {
                scale,
                mut zero,
                mut threshold,
                mut positive,
                mut negative,
            },
            Self::Exponential {
                zero: more,
                threshold: wider,
                positive: above,
                negative: below,
                ..
            },
        ) = (self, other)
        else {
            unreachable!("both are exponential")
        };
        zero += more;
        threshold = threshold.max(wider);
        for (buckets, others) in [(&mut positive, above), (&mut negative, below)] {
            for (index, count) in others {
                *buckets.entry(index).or_insert(0.0) += count;
            }
        }
        Self::Exponential {
            scale,
            zero,
            threshold,
            positive,
            negative,
        }
    }

    fn bounded(mut self) -> Self {
        loop {
            let Self::Exponential {
                scale,
                positive,
                negative,
                ..
            } = &self
            else {
                return self;
            };
            if positive.len() + negative.len() <= BUCKETS_MAX {
                return self;
            }
            let coarser = scale - 1;
            self = self.at_scale(coarser);
        }
    }

    /// Exponential buckets in explicit bounds; each where its middle lies.
    fn in_bounds(self, bounds: &Arc<[f64]>) -> Self {
        let mut counts = vec![0.0; bounds.len() + 1];
        for (low, high, count) in self.intervals(None, None) {
            let middle = f64::midpoint(low, high);
            counts[bounds.partition_point(|bound| *bound < middle)] += count;
        }
        Self::Explicit {
            bounds: Arc::clone(bounds),
            counts,
        }
    }

    /// Lower and upper end and count of each bucket with any, ascending.
    fn intervals(&self, min: Option<f64>, max: Option<f64>) -> Vec<(f64, f64, f64)> {
        match self {
            Self::Explicit { bounds, counts } => {
                let end = |at: usize| bounds.get(at).copied();
                let lowest = end(0).map_or(0.0, |bound| min.unwrap_or(bound.min(0.0)));
                let highest = bounds.last().copied();
                let highest = max.or(highest).unwrap_or_default();
                let interval = |(at, count): (usize, &f64)| {
                    let low = at.checked_sub(1).and_then(end).unwrap_or(lowest);
                    (low, end(at).unwrap_or(highest).max(low), *count)
                };
                let all = counts.iter().enumerate().map(interval);
                all.filter(|(.., count)| *count > 0.0).collect()
            }
            Self::Exponential {
                scale,
                zero,
                threshold,
                positive,
                negative,
            } => {
                let base = base_of(*scale);
                let power = |index: i32| base.powi(index);
                let below = negative.iter().rev();
                let below = below.map(|(index, count)| (-power(index + 1), -power(*index), *count));
                let about_zero = (*zero > 0.0).then_some((-threshold, *threshold, *zero));
                let above = positive.iter();
                let above = above.map(|(index, count)| (power(*index), power(index + 1), *count));
                below.chain(about_zero).chain(above).collect()
            }
        }
    }

    fn quantile(&self, fraction: f64, min: Option<f64>, max: Option<f64>) -> Option<f64> {
        let intervals = self.intervals(min, max);
        let rank = fraction * intervals.iter().map(|(.., count)| count).sum::<f64>();
        let mut before = 0.0;
        for (low, high, count) in &intervals {
            if before + count >= rank {
                let part = ((rank - before) / count).clamp(0.0, 1.0);
                let is_exponential = matches!(self, Self::Exponential { .. });
                return Some(match (is_exponential, *low, *high) {
                    // About zero.
                    (true, low, high) if low <= 0.0 && high >= 0.0 => 0.0,
                    // The buckets grow by a factor, so do the values within.
                    (true, low, high) => low * (high / low).powf(part),
                    (false, low, high) => low + (high - low) * part,
                });
            }
            before += count;
        }
        intervals.last().map(|(_, high, _)| *high)
    }
}

/// Counts of explicit buckets in fewer bounds, each of which was one before.
fn coarser<T: Copy + Default>(
    bounds: &[f64],
    counts: &[T],
    common: &[f64],
    add: impl Fn(T, T) -> T,
) -> Vec<T> {
    let mut coarse = vec![T::default(); common.len() + 1];
    let mut place = 0;
    for (at, count) in counts.iter().enumerate() {
        match bounds.get(at) {
            Some(bound) => {
                while common.get(place).is_some_and(|known| known < bound) {
                    place += 1;
                }
            }
            None => place = common.len(),
        }
        coarse[place] = add(coarse[place], *count);
    }
    coarse
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explicit(bounds: &[f64], counts: &[u64]) -> Distribution {
        Distribution {
            count: counts.iter().sum(),
            sum: Some(1.0),
            min: None,
            max: None,
            shape: Shape::Explicit {
                bounds: bounds.into(),
                counts: counts.to_vec(),
            },
        }
    }

    fn exponential(scale: i32, offset: i32, counts: &[u64]) -> Distribution {
        Distribution {
            count: counts.iter().sum(),
            sum: None,
            min: None,
            max: None,
            shape: Shape::Exponential {
                scale,
                zero_count: 0,
                zero_threshold: 0.0,
                positive: Buckets {
                    offset,
                    counts: counts.to_vec(),
                },
                negative: Buckets::default(),
            },
        }
    }

    fn close(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!(
            (found - expected).abs() < 1e-9 * expected.abs().max(1.0),
            "{found} {expected}"
        );
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut spread = Spread::default();
        spread.add(&explicit(&[1.0, 2.0, 4.0], &[0, 10, 10, 0]));
        close(spread.quantile(0.25), 1.5);
        close(spread.quantile(0.5), 2.0);
        close(spread.quantile(0.75), 3.0);
        close(spread.quantile(1.0), 4.0);
        // The last bucket has no end but the greatest value.
        let mut open = explicit(&[1.0], &[0, 4]);
        (open.min, open.max) = (Some(2.0), Some(9.0));
        let mut spread = Spread::default();
        spread.add(&open);
        close(spread.quantile(1.0), 9.0);
        close(spread.quantile(0.0), 2.0);
        assert_eq!(Spread::default().quantile(0.5), None);
    }

    #[test]
    fn exponential_buckets_grow_by_a_factor() {
        // Base 2: (1, 2], (2, 4].
        let mut spread = Spread::default();
        spread.add(&exponential(0, 0, &[2, 2]));
        close(spread.quantile(0.5), 2.0);
        close(spread.quantile(0.75), 2.0 * 2.0_f64.sqrt());
        // Base sqrt(2), brought to base 2.
        spread.add(&exponential(1, 2, &[1, 3]));
        close(spread.quantile(1.0), 4.0);
        close(spread.quantile(0.25), 2.0);
    }

    /// What is about zero widens, and takes buckets in.
    #[test]
    fn buckets_that_became_zero_are_no_reset() {
        let widened = |zero: u64, threshold: f64, offset: i32, counts: &[u64]| {
            let mut one = exponential(0, offset, counts);
            one.count += zero;
            if let Shape::Exponential {
                zero_count,
                zero_threshold,
                ..
            } = &mut one.shape
            {
                (*zero_count, *zero_threshold) = (zero, threshold);
            }
            one
        };
        let before = widened(0, 0.0, 0, &[1001, 1000]);
        let now = widened(1002, 2.0, 1, &[1000]);
        let grown = growth(&before, &now).unwrap();
        assert_eq!(grown.count, 1);
        let Shape::Exponential {
            zero_count,
            positive,
            ..
        } = grown.shape
        else {
            panic!("{grown:?}")
        };
        assert_eq!((zero_count, positive.counts.iter().sum::<u64>()), (1, 0));
    }

    #[test]
    fn different_bounds_meet_in_what_they_share() {
        let mut spread = Spread::default();
        spread.add(&explicit(&[1.0, 2.0, 4.0], &[1, 1, 1, 1]));
        spread.add(&explicit(&[1.0, 3.0, 4.0], &[1, 1, 1, 1]));
        let expected = Counts::Explicit {
            bounds: [1.0, 4.0].into(),
            counts: vec![2.0, 4.0, 2.0],
        };
        assert_eq!(spread.buckets, Some(expected));
    }

    #[test]
    fn growth_is_what_came_since_unless_it_began_anew() {
        let (before, now) = (explicit(&[1.0], &[1, 2]), explicit(&[1.0], &[1, 5]));
        let grown = growth(&before, &now).unwrap();
        assert_eq!((grown.count, grown.sum), (3, Some(0.0)));
        assert_eq!(growth(&now, &before), None);
        // With the same bounds, fewer in any bucket tell it too.
        assert_eq!(growth(&before, &explicit(&[1.0], &[0, 9])), None);
        // What can't be compared has grown all the same.
        let grown = growth(&explicit(&[2.0], &[1, 2]), &now).unwrap();
        assert_eq!((grown.count, grown.shape), (3, unknown()));
        let (before, now) = (
            explicit(&[1.0, 2.0, 4.0], &[1, 1, 1, 1]),
            explicit(&[1.0, 3.0, 4.0], &[2, 1, 2, 1]),
        );
        let expected = Shape::Explicit {
            bounds: [1.0, 4.0].into(),
            counts: vec![1, 1, 0],
        };
        let grown = growth(&before, &now).unwrap();
        assert_eq!((grown.count, grown.shape), (2, expected));
        // A coarser histogram still holds what was in the finer one.
        let grown = growth(&exponential(1, 0, &[1, 1]), &exponential(0, 0, &[5])).unwrap();
        assert_eq!(
            (grown.count, grown.shape),
            (3, exponential(0, 0, &[3]).shape)
        );
        // So does a finer one.
        let grown = growth(&exponential(0, 0, &[2]), &exponential(1, 0, &[2, 3])).unwrap();
        assert_eq!(
            (grown.count, grown.shape),
            (3, exponential(0, 0, &[3]).shape)
        );
    }
}
