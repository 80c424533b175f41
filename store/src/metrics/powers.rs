//! Buckets of exponential histograms, compared and brought to what they share.
//! Source: OpenTelemetry's data model, "ExponentialHistogram" and "Zero Count and Zero Threshold".

use std::collections::BTreeMap;

use xtrace_model::metric::{Buckets, Shape};

/// What bucket bounds of a scale are powers of.
pub(super) fn base_of(scale: i32) -> f64 {
    2.0_f64.powf(2.0_f64.powi(-scale))
}

/// Counts with their indexes, ascending.
pub(super) fn indexed(buckets: &Buckets) -> impl DoubleEndedIterator<Item = (i32, u64)> {
    let counts = buckets.counts.iter().enumerate();
    counts.map(|(at, count)| {
        let at = i32::try_from(at).unwrap_or(i32::MAX);
        (buckets.offset.saturating_add(at), *count)
    })
}

/// Buckets that hold any, by their indexes.
#[derive(Debug, Default)]
pub(super) struct Powers {
    scale: i32,
    zero: u64,
    threshold: f64,
    positive: BTreeMap<i32, u64>,
    negative: BTreeMap<i32, u64>,
}

impl Powers {
    /// Of an exponential histogram; of any other there are none.
    pub(super) fn of(shape: &Shape) -> Self {
        let counted =
            |buckets: &Buckets| indexed(buckets).filter(|(_, count)| *count > 0).collect();
        match shape {
            Shape::Exponential {
                scale,
                zero_count,
                zero_threshold,
                positive,
                negative,
            } => Self {
                scale: *scale,
                zero: *zero_count,
                threshold: *zero_threshold,
                positive: counted(positive),
                negative: counted(negative),
            },
            Shape::Explicit { .. } | Shape::Quantiles(_) => Self::default(),
        }
    }

    /// What grew since then; `None` where the same buckets hold fewer.
    pub(super) fn less(mut self, mut before: Self) -> Option<Shape> {
        let is_same =
            self.scale == before.scale && self.threshold.total_cmp(&before.threshold).is_eq();
        let scale = self.scale.min(before.scale);
        self.widen(scale);
        before.widen(scale);
        let threshold = self.threshold.max(before.threshold);
        before.absorb(threshold, &self);
        self.absorb(threshold, &before);
        let less = |now: u64, before: u64| match now.checked_sub(before) {
            None if is_same => None,
            rest => Some(rest.unwrap_or_default()),
        };
        let buckets = |now: &BTreeMap<i32, u64>, before: &BTreeMap<i32, u64>| {
            let is_gone = |(index, _): (&i32, &u64)| !now.contains_key(index);
            if is_same && before.iter().any(is_gone) {
                return None;
            }
            let grown = now.iter().map(|(index, count)| {
                let before = before.get(index).copied().unwrap_or_default();
                Some((*index, less(*count, before)?))
            });
            grown.collect::<Option<BTreeMap<i32, u64>>>().map(dense)
        };
        Some(Shape::Exponential {
            scale,
            zero_count: less(self.zero, before.zero)?,
            zero_threshold: threshold,
            positive: buckets(&self.positive, &before.positive)?,
            negative: buckets(&self.negative, &before.negative)?,
        })
    }

    /// Buckets as wide as those of a coarser scale.
    fn widen(&mut self, scale: i32) {
        let by = self.scale.saturating_sub(scale).clamp(0, 31);
        if by == 0 {
            return;
        }
        for buckets in [&mut self.positive, &mut self.negative] {
            let mut wide = BTreeMap::new();
            for (index, count) in std::mem::take(buckets) {
                let sum = wide.entry(index >> by).or_insert(0_u64);
                *sum = sum.saturating_add(count);
            }
            *buckets = wide;
        }
        self.scale = scale;
    }

    /// Counts what a wider threshold takes in as zero. A bucket that the threshold lies in is taken in unless the
    /// other histogram still has it.
    fn absorb(&mut self, threshold: f64, other: &Self) {
        if self.threshold >= threshold {
            return;
        }
        let base = base_of(self.scale);
        let mut taken = 0_u64;
        for (buckets, others) in [
            (&mut self.positive, &other.positive),
            (&mut self.negative, &other.negative),
        ] {
            buckets.retain(|index, count| {
                let (low, high) = (base.powi(*index), base.powi(index.saturating_add(1)));
                let is_within = high <= threshold * (1.0 + 1e-9)
                    || low < threshold && !others.contains_key(index);
                if is_within {
                    taken = taken.saturating_add(*count);
                }
                !is_within
            });
        }
        self.zero = self.zero.saturating_add(taken);
        self.threshold = threshold;
    }
}

/// Consecutive buckets again.
fn dense(counts: BTreeMap<i32, u64>) -> Buckets {
    let (Some((first, _)), Some((last, _))) = (counts.first_key_value(), counts.last_key_value())
    else {
        return Buckets::default();
    };
    let offset = *first;
    let length = usize::try_from(i64::from(*last) - i64::from(offset) + 1).unwrap_or_default();
    let mut all = vec![0; length];
    for (index, count) in counts {
        let place = usize::try_from(i64::from(index) - i64::from(offset)).unwrap_or_default();
        if let Some(kept) = all.get_mut(place) {
            *kept = count;
        }
    }
    Buckets {
        offset,
        counts: all,
    }
}
