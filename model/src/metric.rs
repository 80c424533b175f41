//! Metric points, and the series that they belong to. Shapes are those of OpenTelemetry's metrics data model;
//! a point of the native API is a gauge's.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Nanoseconds since the Unix epoch.
pub type Nanos = i64;

/// Names a series within the whole store: a hash of its project and all that identifies it.
pub type SeriesId = i64;

/// What a series measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Numbers of the native API, which say no more of themselves.
    Native,
    /// A value that goes up and down.
    Gauge,
    /// A sum of changes.
    Sum,
    /// Counts by explicit bounds.
    Histogram,
    /// Counts by powers of a base.
    ExponentialHistogram,
    /// Quantiles that the sender computed.
    Summary,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Native,
        Self::Gauge,
        Self::Sum,
        Self::Histogram,
        Self::ExponentialHistogram,
        Self::Summary,
    ];

    /// Whether points hold more than a number.
    pub fn is_distribution(self) -> bool {
        matches!(
            self,
            Self::Histogram | Self::ExponentialHistogram | Self::Summary
        )
    }
}

/// What a point's value is the sum of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Temporality {
    /// Not a sum.
    #[default]
    None,
    /// Changes since the point before.
    Delta,
    /// Changes since the series began.
    Cumulative,
}

impl Temporality {
    /// All of them, in the order of their numbers, which are OTLP's.
    pub const ALL: [Self; 3] = [Self::None, Self::Delta, Self::Cumulative];
}

/// A series, as the dictionary keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its hash.
    pub id: SeriesId,
    /// The metric's name, 1 to 255 characters.
    pub name: String,
    /// What it measures.
    pub kind: Kind,
    /// What its values are sums of.
    pub temporality: Temporality,
    /// Whether its sum only grows.
    pub is_monotonic: bool,
    /// The unit, in UCUM; empty if unknown.
    pub unit: String,
    /// What the sender says of it; does not identify it.
    pub description: String,
    /// The environment, `default` on the native path.
    pub environment: String,
    /// Label keys and values, compared as text.
    pub labels: BTreeMap<String, String>,
    /// Attributes of its resource, as text; also found by filters.
    pub resource: BTreeMap<String, String>,
    /// What else was sent, as JSON text: typed attributes, resource, scope, schemas. Empty for native series.
    pub details: String,
}

/// One measurement of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricPoint {
    /// The series that it belongs to.
    pub series: SeriesId,
    /// When it was measured.
    pub time: Nanos,
    /// When its sum began; 0 if that is unknown.
    pub start: Nanos,
    /// OTLP's flags; bit 0 says that nothing was recorded.
    pub flags: u32,
    /// What was measured.
    pub value: PointValue,
}

/// What a point says.
#[derive(Debug, Clone, PartialEq)]
pub enum PointValue {
    /// The series has gone stale.
    Nothing,
    /// A number.
    Double(f64),
    /// A whole number, exact.
    Int(i64),
    /// A histogram or a summary.
    Distribution(Box<Distribution>),
}

impl PointValue {
    /// The number that it is.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Double(number) => Some(*number),
            Self::Int(number) => Some(*number as f64),
            Self::Nothing | Self::Distribution(_) => None,
        }
    }

    /// The histogram or summary that it is.
    pub fn distribution(&self) -> Option<&Distribution> {
        match self {
            Self::Distribution(distribution) => Some(distribution),
            Self::Nothing | Self::Double(_) | Self::Int(_) => None,
        }
    }
}

/// Many measurements in one point.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: Option<f64>,
    /// The least of them.
    pub min: Option<f64>,
    /// The greatest of them.
    pub max: Option<f64>,
    /// How they are spread.
    pub shape: Shape,
}

/// How measurements are spread.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Bucket `i` is `(bounds[i - 1], bounds[i]]`; one more count than bounds, or neither.
    Explicit {
        /// Ascending; shared by points that have the same.
        bounds: Arc<[f64]>,
        /// By bucket.
        counts: Vec<u64>,
    },
    /// Bucket `k` is `(base^k, base^(k + 1)]`, of the base `2^(2^-scale)`.
    Exponential {
        /// The resolution.
        scale: i32,
        /// How many are about zero.
        zero_count: u64,
        /// What is about zero.
        zero_threshold: f64,
        /// Counts of what is above.
        positive: Buckets,
        /// Counts of what is below, by the negated value.
        negative: Buckets,
    },
    /// Quantile (0 to 1) and value.
    Quantiles(Vec<(f64, f64)>),
}

/// Whether bounds are the same to the bit: -0 equals 0, and is not what was sent.
pub fn are_same_bounds(one: &[f64], other: &[f64]) -> bool {
    let bits = |bound: &f64| bound.to_bits();
    one.iter().map(bits).eq(other.iter().map(bits))
}

/// Consecutive buckets of an exponential histogram.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Buckets {
    /// The index of the first.
    pub offset: i32,
    /// Counts from there on.
    pub counts: Vec<u64>,
}

/// A measurement that a point counts, with the trace that it was made in.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// The point's series,
    pub series: SeriesId,
    /// and time.
    pub point_time: Nanos,
    /// When it was measured.
    pub time: Nanos,
    /// What was measured.
    pub value: PointValue,
    /// The trace, in hex.
    pub trace_id: Option<String>,
    /// The span, in hex.
    pub span_id: Option<String>,
    /// Attributes that the series does not have, as JSON text in OTLP's form.
    pub attributes: String,
}

/// Hashes what identifies a series; parts are told apart by their lengths.
#[derive(Clone)]
pub struct SeriesHasher(xxhash_rust::xxh3::Xxh3);

impl SeriesHasher {
    /// Of series of one project and dialect; those of two dialects are never the same. Without the key, which is the
    /// database's, nobody can find two series of one hash. It takes a while: begin once, then clone.
    pub fn new(key: u64, dialect: &str, project: &crate::ProjectId) -> Self {
        let mut hasher = Self(xxhash_rust::xxh3::Xxh3::with_seed(key));
        hasher.text(dialect);
        hasher.text(project.as_str());
        hasher
    }

    /// Adds a text.
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    /// The hash.
    pub fn id(&self) -> SeriesId {
        self.0.digest().cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProjectId;

    #[test]
    fn a_series_is_told_apart_by_every_part() {
        let id = |dialect: &str, project: &str, parts: &[&str]| {
            let mut hasher = SeriesHasher::new(7, dialect, &ProjectId::parse(project).unwrap());
            for part in parts {
                hasher.text(part);
            }
            hasher.id()
        };
        let first = id("native", "p", &["gpu", "a", "1"]);
        assert_eq!(first, id("native", "p", &["gpu", "a", "1"]));
        assert_ne!(first, id("otlp", "p", &["gpu", "a", "1"]));
        assert_ne!(first, id("native", "q", &["gpu", "a", "1"]));
        assert_ne!(first, id("native", "p", &["gpu", "a1", ""]));
    }

    /// Databases from before there were keys have key 0: their series keep their ids.
    #[test]
    fn keys_tell_databases_apart_and_none_changes_nothing() {
        for length in [1, 20, 100, 200, 300, 3000] {
            let text = "x".repeat(length);
            let id = |key: u64| {
                let mut hasher = SeriesHasher::new(key, "otlp", &ProjectId::parse("p").unwrap());
                hasher.text(&text);
                hasher.id()
            };
            let mut plain = xxhash_rust::xxh3::Xxh3Default::new();
            for text in ["otlp", "p", &text] {
                plain.update(&(text.len() as u64).to_le_bytes());
                plain.update(text.as_bytes());
            }
            assert_eq!(id(0), plain.digest().cast_signed());
            assert_ne!(id(0), id(1));
        }
    }
}
