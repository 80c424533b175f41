//! From points to one value a bucket.

use std::collections::BTreeMap;

use chrono::DateTime;
use xtrace_model::metric::{
    Distribution, Kind, MetricPoint, Nanos, PointValue, Shape, Temporality,
};
use xtrace_model::time;

use super::growth;
use super::query::{Aggregation, Answer, AnswerSeries, BUCKETS_MAX, MetricsQuery, SERIES_MAX};
use super::series::Found;
use super::spread::{Spread, base_of, indexed};

/// Labels of a series.
pub type Labels = BTreeMap<String, String>;

const SECOND: Nanos = 1_000_000_000;

/// What of a point is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
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
    pub(super) fn parse(part: &str) -> Option<Self> {
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
    pub(super) fn label(self) -> Option<&'static str> {
        match self {
            Self::Bucket => Some("le"),
            Self::Quantile => Some("quantile"),
            _ => None,
        }
    }
}

/// Series of the answer, as they are gathered.
pub(super) struct Groups<'a> {
    query: &'a MetricsQuery,
    view: View,
    window: Window,
    groups: BTreeMap<Labels, Group>,
}

/// The range, and how it is cut into buckets.
#[derive(Clone, Copy)]
struct Window {
    from: Nanos,
    to: Nanos,
    step: Nanos,
}

impl Window {
    fn contains(&self, at: Nanos) -> bool {
        (self.from..=self.to).contains(&at)
    }

    /// When the bucket of a moment begins.
    fn bucket_of(&self, at: Nanos) -> Nanos {
        at.div_euclid(self.step).saturating_mul(self.step)
    }

    /// Points of one bucket: those before the range, those within, those after.
    fn split<'a>(&self, points: &'a [MetricPoint]) -> [&'a [MetricPoint]; 3] {
        let (rest, after) = points.split_at(points.partition_point(|point| point.time <= self.to));
        let (before, within) = rest.split_at(rest.partition_point(|point| point.time < self.from));
        [before, within, after]
    }
}

#[derive(Default)]
struct Group {
    latest: Nanos,
    buckets: BTreeMap<Nanos, Bucket>,
    truncated: bool,
}

impl Group {
    /// Adds to a bucket, if that is among the newest.
    fn add(&mut self, begins: Nanos, more: Bucket) {
        self.latest = self.latest.max(more.last.0);
        if let Some(bucket) = self.buckets.get_mut(&begins) {
            return bucket.merge(more);
        }
        if self.buckets.len() >= BUCKETS_MAX {
            self.truncated = true;
            match self.buckets.first_entry() {
                Some(oldest) if *oldest.key() < begins => drop(oldest.remove()),
                _ => return,
            }
        }
        self.buckets.insert(begins, more);
    }
}

/// What lies in a bucket of time.
#[derive(Default)]
struct Bucket {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    grown: f64,
    last: (Nanos, f64),
    /// Kept for percentiles only.
    values: Vec<f64>,
    spread: Option<Spread>,
}

fn nanos(at: DateTime<chrono::Utc>) -> Nanos {
    time::from_utc(at).saturating_mul(1000)
}

impl<'a> Groups<'a> {
    pub(super) fn new(query: &'a MetricsQuery, view: View) -> Self {
        Self {
            query,
            view,
            window: Window {
                from: nanos(query.from),
                // A question ends with a microsecond, points with nanoseconds.
                to: nanos(query.to).saturating_add(999),
                step: query.step_s.saturating_mul(SECOND),
            },
            groups: BTreeMap::new(),
        }
    }

    /// Adds a series' points, some of which may lie before the range.
    pub(super) fn add(&mut self, labels: &Labels, series: &Found, points: &[MetricPoint]) {
        if !series.kind.is_distribution() {
            return self.add_numbers(labels.clone(), series, points);
        }
        match self.view {
            View::Value => self.add_distributions(labels, series, points),
            View::Count | View::Sum | View::Min | View::Max => {
                let (series, points) = part(self.view, series, points);
                self.add_numbers(labels.clone(), &series, &points);
            }
            View::Bucket | View::Quantile => {
                let key = self.view.label().unwrap_or_default();
                let wanted = self.query.selector.labels.get(key);
                for (value, points) in spread_out(self.view, points) {
                    if wanted.is_some_and(|wanted| *wanted != value) {
                        continue;
                    }
                    let mut labels = labels.clone();
                    let keys = self.query.group_by.as_ref();
                    if keys.is_none_or(|keys| keys.iter().any(|one| one == key)) {
                        labels.insert(key.to_owned(), value);
                    }
                    let series = as_numbers(series, self.view == View::Bucket);
                    self.add_numbers(labels, &series, &points);
                }
            }
        }
    }

    fn add_numbers(&mut self, labels: Labels, series: &Found, points: &[MetricPoint]) {
        let keeps_values = self.query.aggregation.fraction().is_some();
        let (window, group) = self.group(labels);
        let mut before: Option<&MetricPoint> = None;
        for points in points.chunk_by(|a, b| window.bucket_of(a.time) == window.bucket_of(b.time)) {
            for points in window.split(points) {
                let is_within = points
                    .first()
                    .is_some_and(|first| window.contains(first.time));
                let mut of_bucket = Bucket::default();
                for point in points {
                    let Some(value) = point.value.number().filter(|value| !value.is_nan()) else {
                        continue;
                    };
                    if is_within {
                        let grown = growth::of_number(series, before, point, window.from);
                        of_bucket.add(point.time, value, grown.unwrap_or(0.0));
                        if keeps_values {
                            of_bucket.values.push(value);
                        }
                    }
                    before = Some(point);
                }
                if of_bucket.count > 0 {
                    group.add(window.bucket_of(points[0].time), of_bucket);
                }
            }
        }
    }

    fn add_distributions(&mut self, labels: &Labels, series: &Found, points: &[MetricPoint]) {
        let fraction = self.query.aggregation.fraction();
        let (window, group) = self.group(labels.clone());
        let mut before: Option<&MetricPoint> = None;
        for point in points {
            let PointValue::Distribution(whole) = &point.value else {
                continue;
            };
            let grown = growth::of_distribution(series, before, point, window.from);
            before = Some(point);
            if !window.contains(point.time) {
                continue;
            }
            let mut of_bucket = Bucket {
                last: (point.time, f64::NAN),
                count: 1,
                ..Bucket::default()
            };
            let spread = of_bucket.spread.get_or_insert_default();
            if let Some(grown) = &grown {
                spread.add(grown);
                of_bucket.last.1 = grown.sum.unwrap_or(f64::NAN) / grown.count as f64;
            }
            // Quantiles that the sender computed can't be added up: the greatest is told.
            if let (Shape::Quantiles(quantiles), Some(fraction)) = (&whole.shape, fraction) {
                let is_it = |(quantile, _): &&(f64, f64)| (quantile - fraction).abs() < 1e-9;
                let of = quantiles.iter().find(is_it);
                of_bucket.values.extend(of.map(|(_, value)| *value));
            }
            group.add(window.bucket_of(point.time), of_bucket);
        }
    }

    fn group(&mut self, labels: Labels) -> (Window, &mut Group) {
        (self.window, self.groups.entry(labels).or_default())
    }

    pub(super) fn answer(self) -> Answer {
        let value = |bucket: &mut Bucket| bucket.value(self.query);
        let utc = DateTime::from_timestamp_nanos;
        let mut series: Vec<AnswerSeries> = Vec::new();
        let mut truncated = false;
        for (labels, group) in self.groups {
            truncated |= group.truncated;
            let values: Vec<_> = group
                .buckets
                .into_iter()
                .filter_map(|(begins, mut bucket)| Some((utc(begins), value(&mut bucket)?)))
                .collect();
            if !values.is_empty() {
                let latest = utc(group.latest);
                series.push(AnswerSeries {
                    labels,
                    values,
                    latest,
                });
            }
        }
        series.sort_by(|a, b| (b.latest, &a.labels).cmp(&(a.latest, &b.labels)));
        truncated |= series.len() > SERIES_MAX;
        series.truncate(SERIES_MAX);
        Answer {
            series,
            truncated,
            exemplars: Vec::new(),
        }
    }
}

impl Bucket {
    fn add(&mut self, at: Nanos, value: f64, grown: f64) {
        if self.count == 0 {
            (self.min, self.max) = (value, value);
        }
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.last = (at, value);
        self.count += 1;
        self.sum += value;
        self.grown += grown;
    }

    fn merge(&mut self, more: Self) {
        self.min = self.min.min(more.min);
        self.max = self.max.max(more.max);
        self.count += more.count;
        self.sum += more.sum;
        self.grown += more.grown;
        if more.last.0 >= self.last.0 && !more.last.1.is_nan() || self.last.1.is_nan() {
            self.last = more.last;
        }
        self.values.extend(more.values);
        if let Some(spread) = more.spread {
            self.spread.get_or_insert_default().merge(spread);
        }
    }

    fn value(&mut self, query: &MetricsQuery) -> Option<f64> {
        let value = match &self.spread {
            Some(spread) => self.of_spread(spread, query)?,
            None => self.of_numbers(query)?,
        };
        value.is_finite().then_some(value)
    }

    fn of_numbers(&mut self, query: &MetricsQuery) -> Option<f64> {
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
            Aggregation::Rate => self.grown / query.step_s as f64,
            Aggregation::Increase => self.grown,
            percentile => {
                self.values.sort_by(f64::total_cmp);
                between(&self.values, percentile.fraction()?)
            }
        })
    }

    fn of_spread(&self, spread: &Spread, query: &MetricsQuery) -> Option<f64> {
        let has_any = spread.count > 0.0;
        match query.aggregation {
            Aggregation::Avg => has_any.then_some(spread.sum / spread.count),
            Aggregation::Min => spread.ends().0,
            Aggregation::Max => spread.ends().1,
            Aggregation::Sum => Some(spread.sum),
            Aggregation::Last => has_any.then_some(self.last.1),
            Aggregation::Count | Aggregation::Increase => Some(spread.count),
            Aggregation::Rate => Some(spread.count / query.step_s as f64),
            percentile => {
                let fraction = percentile.fraction()?;
                let told = self.values.iter().copied().max_by(f64::total_cmp);
                spread.quantile(fraction).or(told)
            }
        }
    }
}

/// Between the two values that the fraction lies between.
fn between(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction * (sorted.len() - 1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the list"
    )]
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * place.fract()
}

/// The same series, as one of numbers.
fn as_numbers(series: &Found, grows: bool) -> Found {
    let mut numbers = series.clone();
    numbers.kind = if grows { Kind::Sum } else { Kind::Gauge };
    numbers.is_monotonic = grows;
    if grows && numbers.temporality == Temporality::None {
        numbers.temporality = Temporality::Cumulative;
    }
    numbers
}

fn with_number(point: &MetricPoint, number: f64) -> MetricPoint {
    MetricPoint {
        value: PointValue::Double(number),
        ..*point
    }
}

/// One part of each distribution, as a series of numbers.
fn part(view: View, series: &Found, points: &[MetricPoint]) -> (Found, Vec<MetricPoint>) {
    let number = |one: &Distribution| match view {
        View::Count => Some(one.count as f64),
        View::Sum => one.sum,
        View::Min => one.min,
        _ => one.max,
    };
    let numbers = points
        .iter()
        .filter_map(|point| Some(with_number(point, number(point.value.distribution()?)?)))
        .collect();
    let grows = matches!(view, View::Count | View::Sum);
    (as_numbers(series, grows), numbers)
}

/// Many numbers of each distribution, by the label that tells them apart.
fn spread_out(view: View, points: &[MetricPoint]) -> BTreeMap<String, Vec<MetricPoint>> {
    let mut series: BTreeMap<String, Vec<MetricPoint>> = BTreeMap::new();
    for point in points {
        let Some(one) = point.value.distribution() else {
            continue;
        };
        let numbers = match (view, &one.shape) {
            (View::Quantile, Shape::Quantiles(quantiles)) => quantiles.clone(),
            (View::Bucket, shape) => up_to_bounds(shape, one.count),
            _ => Vec::new(),
        };
        for (key, number) in numbers {
            let text = if key == f64::INFINITY {
                "+Inf".to_owned()
            } else {
                key.to_string()
            };
            series
                .entry(text)
                .or_default()
                .push(with_number(point, number));
        }
    }
    series
}

/// How many are not above each end of a bucket that was sent.
fn up_to_bounds(shape: &Shape, count: u64) -> Vec<(f64, f64)> {
    let mut below = 0_u64;
    let mut bounds: Vec<(f64, f64)> = Vec::new();
    let mut put = |bound: f64, count: u64| {
        below = below.saturating_add(count);
        bounds.push((bound, below as f64));
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
    bounds.push((f64::INFINITY, count as f64));
    bounds
}
