//! What an export of metrics says.

use std::borrow::Cow;

use super::{Item, KeyValue, Names, WireId};

#[derive(Debug, Default, PartialEq)]
pub(in crate::receivers::otlp) struct Metric<'a> {
    pub(in crate::receivers::otlp) name: Cow<'a, str>,
    pub(in crate::receivers::otlp) description: Cow<'a, str>,
    pub(in crate::receivers::otlp) unit: Cow<'a, str>,
    pub(in crate::receivers::otlp) metadata: Vec<KeyValue<'a>>,
    /// None when no member of the oneof is set.
    pub(in crate::receivers::otlp) data: Option<Data<'a>>,
}

/// Points of one kind.
#[derive(Debug, PartialEq)]
pub(in crate::receivers::otlp) struct Data<'a> {
    pub(in crate::receivers::otlp) kind: DataKind,
    pub(in crate::receivers::otlp) points: Vec<Point<'a>>,
    pub(in crate::receivers::otlp) temporality: i32,
    pub(in crate::receivers::otlp) is_monotonic: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::receivers::otlp) enum DataKind {
    Gauge,
    Sum,
    Histogram,
    ExponentialHistogram,
    Summary,
}

impl Data<'_> {
    pub(in crate::receivers::otlp) fn new(kind: DataKind) -> Self {
        Self {
            kind,
            points: Vec::new(),
            temporality: 0,
            is_monotonic: false,
        }
    }
}

/// A data point of any kind.
#[derive(Debug, Default, PartialEq)]
pub(in crate::receivers::otlp) struct Point<'a> {
    pub(in crate::receivers::otlp) attributes: Vec<KeyValue<'a>>,
    pub(in crate::receivers::otlp) start_time_unix_nano: u64,
    pub(in crate::receivers::otlp) time_unix_nano: u64,
    pub(in crate::receivers::otlp) flags: u32,
    pub(in crate::receivers::otlp) exemplars: Vec<Exemplar<'a>>,
    /// Of gauges and sums.
    pub(in crate::receivers::otlp) value: Option<Number>,
    /// Of the others.
    pub(in crate::receivers::otlp) distribution: Option<Box<Distribution>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::receivers::otlp) enum Number {
    Double(f64),
    Int(i64),
}

/// What histograms and summaries say beside a point's time and attributes.
#[derive(Debug, Default, PartialEq)]
pub(in crate::receivers::otlp) struct Distribution {
    pub(in crate::receivers::otlp) count: u64,
    pub(in crate::receivers::otlp) sum: Option<f64>,
    pub(in crate::receivers::otlp) min: Option<f64>,
    pub(in crate::receivers::otlp) max: Option<f64>,
    pub(in crate::receivers::otlp) bucket_counts: Vec<u64>,
    pub(in crate::receivers::otlp) explicit_bounds: Vec<f64>,
    pub(in crate::receivers::otlp) scale: i32,
    pub(in crate::receivers::otlp) zero_count: u64,
    pub(in crate::receivers::otlp) zero_threshold: f64,
    pub(in crate::receivers::otlp) positive: Buckets,
    pub(in crate::receivers::otlp) negative: Buckets,
    pub(in crate::receivers::otlp) quantile_values: Vec<Quantile>,
}

#[derive(Debug, Default, PartialEq)]
pub(in crate::receivers::otlp) struct Buckets {
    pub(in crate::receivers::otlp) offset: i32,
    pub(in crate::receivers::otlp) bucket_counts: Vec<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(in crate::receivers::otlp) struct Quantile {
    pub(in crate::receivers::otlp) quantile: f64,
    pub(in crate::receivers::otlp) value: f64,
}

#[derive(Debug, Default, PartialEq)]
pub(in crate::receivers::otlp) struct Exemplar<'a> {
    pub(in crate::receivers::otlp) filtered_attributes: Vec<KeyValue<'a>>,
    pub(in crate::receivers::otlp) time_unix_nano: u64,
    pub(in crate::receivers::otlp) value: Option<Number>,
    pub(in crate::receivers::otlp) span_id: WireId<8>,
    pub(in crate::receivers::otlp) trace_id: WireId<16>,
}

impl Item for Metric<'_> {
    const NAMES: Names = Names {
        resources: "resourceMetrics",
        scopes: "scopeMetrics",
        items: "metrics",
    };
}
