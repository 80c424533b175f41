//! Parts of distributions, each as if it were a series of its own.

use xtrace_model::metric::{Distribution, Kind, MetricPoint, PointValue, Shape, Temporality};

use crate::metrics::powers::{base_of, indexed};
use crate::metrics::series::Found;

/// What of a point is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::metrics) enum View {
    /// The number, or the whole distribution.
    Value,
    /// The parts of a distribution, each as if it were a series of its own.
    Count,
    Sum,
    Min,
    Max,
    /// How many are not above each bound, which is the label `le`.
    Bucket,
    /// What the sender says of each quantile, which is the label `quantile`.
    Quantile,
}

impl View {
    /// By the word behind a metric's name.
    pub(in crate::metrics) fn parse(part: &str) -> Option<Self> {
        Some(match part {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "min" => Self::Min,
            "max" => Self::Max,
            "bucket" => Self::Bucket,
            "quantile" => Self::Quantile,
            _ => return None,
        })
    }

    /// The label that it adds.
    pub(in crate::metrics) fn label(self) -> Option<&'static str> {
        match self {
            Self::Bucket => Some("le"),
            Self::Quantile => Some("quantile"),
            _ => None,
        }
    }

    /// A series of distributions as it is looked at.
    pub(super) fn as_numbers(self, series: &Found) -> Found {
        let mut numbers = series.clone();
        let grows = match self {
            Self::Value => return numbers,
            Self::Count | Self::Sum | Self::Bucket => true,
            Self::Min | Self::Max | Self::Quantile => false,
        };
        numbers.kind = if grows { Kind::Sum } else { Kind::Gauge };
        numbers.is_monotonic = grows;
        if grows && numbers.temporality == Temporality::None {
            numbers.temporality = Temporality::Cumulative;
        }
        numbers
    }

    /// The one number that it looks at.
    pub(super) fn part(self, one: &Distribution) -> Option<PointValue> {
        let number = match self {
            Self::Count => return Some(whole(one.count)),
            Self::Sum => one.sum,
            Self::Min => one.min,
            Self::Max => one.max,
            Self::Value | Self::Bucket | Self::Quantile => None,
        };
        number.map(PointValue::Double)
    }

    /// The many numbers that it looks at, by what tells them apart.
    pub(super) fn parts(self, point: &MetricPoint) -> Vec<(f64, PointValue)> {
        let Some(one) = point.value.distribution() else {
            return Vec::new();
        };
        match (self, &one.shape) {
            (Self::Quantile, Shape::Quantiles(quantiles)) => {
                let values = quantiles.iter();
                values
                    .map(|(quantile, value)| (*quantile, PointValue::Double(*value)))
                    .collect()
            }
            (Self::Bucket, shape) => up_to_bounds(shape, one.count),
            _ => Vec::new(),
        }
    }
}

/// The label's value.
pub(super) fn text_of(end: f64) -> String {
    if end == f64::INFINITY {
        "+Inf".to_owned()
    } else {
        end.to_string()
    }
}

/// Exact as long as it can be.
fn whole(count: u64) -> PointValue {
    i64::try_from(count).map_or(PointValue::Double(count as f64), PointValue::Int)
}

/// How many are not above each end of a bucket that was sent.
fn up_to_bounds(shape: &Shape, count: u64) -> Vec<(f64, PointValue)> {
    let mut below = 0_u64;
    let mut bounds: Vec<(f64, PointValue)> = Vec::new();
    let mut put = |bound: f64, count: u64| {
        below = below.saturating_add(count);
        bounds.push((bound, whole(below)));
    };
    match shape {
        Shape::Explicit { bounds, counts } => {
            bounds
                .iter()
                .zip(counts)
                .for_each(|(bound, count)| put(*bound, *count));
        }
        Shape::Exponential {
            scale,
            zero_count,
            zero_threshold,
            positive,
            negative,
        } => {
            let base = base_of(*scale);
            for (index, count) in indexed(negative).rev() {
                put(-base.powi(index), count);
            }
            put(*zero_threshold, *zero_count);
            for (index, count) in indexed(positive) {
                put(base.powi(index.saturating_add(1)), count);
            }
        }
        Shape::Quantiles(_) => {}
    }
    bounds.push((f64::INFINITY, whole(count)));
    bounds
}
