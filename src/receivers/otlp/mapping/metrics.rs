//! From OTLP metrics to series and points. Source: OpenTelemetry's metrics data model; docs/metrics.md.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use xtrace_model::environment;
use xtrace_model::metric::{
    Buckets, Distribution, Exemplar, Kind, MetricPoint, Nanos, PointValue, Series, SeriesHasher,
    SeriesId, Shape, Temporality, are_same_bounds,
};
use xtrace_model::text::without_nul;
use xtrace_store::metrics::KnownSeries;

use super::{Mapped, Rejected, trace_fields};
use crate::receivers::otlp::wire::metrics::{self as wire, Data, DataKind, Metric, Number};
use crate::receivers::otlp::wire::{AnyValue, Export, KeyValue, OfResource, OfScope};

const NAME_CHARS_MAX: usize = 255;
const LABELS_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 1024;
/// OTLP: the point has no value, and its series has gone stale.
const NO_RECORDED_VALUE: u32 = 1;
/// Buckets, or quantiles, of a point.
const BUCKETS_MAX: usize = 4096;
/// Scales whose buckets a double can hold.
const SCALES: std::ops::RangeInclusive<i32> = -10..=20;

/// Maps a request; series that are known need no description.
pub(in crate::receivers::otlp) fn map_metrics(
    export: Export<'_, Metric<'_>>,
    known: &KnownSeries,
) -> Mapped {
    let root = known.hasher("otlp");
    let mut mapping = Mapping {
        known,
        described: HashSet::new(),
        bounds: None,
        mapped: Mapped {
            batch: known.batch(),
            rejected: Vec::new(),
        },
    };
    for of_resource in export.resources {
        let OfResource {
            mut resource,
            scopes,
            schema_url,
        } = of_resource;
        let mut hasher = root.clone();
        feed_attributes(&mut hasher, &mut resource.attributes);
        for of_scope in scopes {
            let OfScope {
                mut scope,
                items,
                schema_url: scope_schema_url,
            } = of_scope;
            let mut hasher = hasher.clone();
            hasher.text(&scope.name);
            hasher.text(&scope.version);
            feed_attributes(&mut hasher, &mut scope.attributes);
            let context = Context {
                resource: &resource.attributes,
                scope: &scope.name,
                details: json!({
                    "resource": {
                        "attributes": typed_list(&resource.attributes),
                        "droppedAttributesCount": resource.dropped_attributes_count,
                        "schemaUrl": schema_url,
                    },
                    "scope": {
                        "name": scope.name,
                        "version": scope.version,
                        "attributes": typed_list(&scope.attributes),
                        "droppedAttributesCount": scope.dropped_attributes_count,
                        "schemaUrl": scope_schema_url,
                    },
                }),
                hasher,
            };
            for metric in items {
                mapping.metric(metric, &context);
            }
        }
    }
    mapping.mapped
}

/// What metrics of one scope share.
struct Context<'a> {
    resource: &'a [KeyValue<'a>],
    scope: &'a str,
    /// Of the series' column of that name.
    details: Value,
    /// Has been fed resource and scope.
    hasher: SeriesHasher,
}

/// What points of one metric share.
struct OfMetric<'a> {
    name: &'a str,
    description: &'a str,
    unit: &'a str,
    metadata: &'a [KeyValue<'a>],
    kind: Kind,
    temporality: Temporality,
    is_monotonic: bool,
}

struct Mapping<'a> {
    known: &'a KnownSeries,
    described: HashSet<SeriesId>,
    /// Those of the histogram before, which mostly are the next one's too.
    bounds: Option<Arc<[f64]>>,
    mapped: Mapped,
}

impl Mapping<'_> {
    fn metric(&mut self, metric: Metric<'_>, context: &Context<'_>) {
        let Some(data) = metric.data else {
            return;
        };
        let Data {
            kind,
            points,
            temporality,
            is_monotonic,
        } = data;
        let name = without_nul(&metric.name);
        let of_metric = kind_of(kind, temporality).and_then(|kind| {
            if name.is_empty() {
                return Err("name:absent");
            }
            if name.chars().count() > NAME_CHARS_MAX {
                return Err("name:too_long");
            }
            Ok(kind)
        });
        let (kind, temporality) = match of_metric {
            Ok(found) => found,
            Err(reason) => {
                for _ in points {
                    self.reject(reason, &name, context);
                }
                return;
            }
        };
        let of_metric = OfMetric {
            name: &name,
            description: &metric.description,
            unit: &metric.unit,
            metadata: &metric.metadata,
            kind,
            temporality,
            is_monotonic: is_monotonic && kind == Kind::Sum,
        };
        let mut hasher = context.hasher.clone();
        hasher.text(&name);
        hasher.text(&metric.unit);
        hasher.number(kind as u64);
        hasher.number(temporality as u64);
        hasher.number(u64::from(of_metric.is_monotonic));
        for point in points {
            if let Err(reason) = self.point(point, hasher.clone(), &of_metric, context) {
                self.reject(reason, &name, context);
            }
        }
    }

    fn reject(&mut self, reason: &'static str, name: &str, context: &Context<'_>) {
        self.mapped.rejected.push(Rejected {
            reason,
            span: name.to_owned(),
            scope: context.scope.to_owned(),
        });
    }

    fn point(
        &mut self,
        mut point: wire::Point<'_>,
        mut hasher: SeriesHasher,
        metric: &OfMetric<'_>,
        context: &Context<'_>,
    ) -> Result<(), &'static str> {
        let time = nanos(point.time_unix_nano).ok_or("time:out_of_range")?;
        if time == 0 {
            return Err("time:absent");
        }
        check_labels(&point.attributes)?;
        let value = self.value(&mut point, metric.kind)?;
        feed_attributes(&mut hasher, &mut point.attributes);
        let series = hasher.id();
        if !self.known.contains(series) && self.described.insert(series) {
            let series = describe(series, &point.attributes, metric, context);
            self.mapped.batch.bytes += 1000 + 2 * series.details.len();
            self.mapped.batch.series.push(series);
        }
        let batch = &mut self.mapped.batch;
        batch.bytes += size_of::<MetricPoint>() + weight(&value);
        for exemplar in point.exemplars {
            let exemplar = map_exemplar(exemplar, series, time);
            batch.bytes += 300 + exemplar.attributes.len();
            batch.exemplars.push(exemplar);
        }
        batch.points.push(MetricPoint {
            series,
            time,
            start: nanos(point.start_time_unix_nano).unwrap_or_default(),
            flags: point.flags,
            value,
        });
        Ok(())
    }

    fn value(
        &mut self,
        point: &mut wire::Point<'_>,
        kind: Kind,
    ) -> Result<PointValue, &'static str> {
        if point.flags & NO_RECORDED_VALUE != 0 {
            return Ok(PointValue::Nothing);
        }
        match (point.value, point.distribution.take()) {
            (Some(number), None) => Ok(of_number(number)),
            (None, None) => Err("value:absent"),
            (_, Some(sent)) => {
                let (count, sum, min, max) = (sent.count, sent.sum, sent.min, sent.max);
                let shape = self.shape(*sent, kind)?;
                let distribution = Distribution {
                    count,
                    sum,
                    min,
                    max,
                    shape,
                };
                Ok(PointValue::Distribution(Box::new(distribution)))
            }
        }
    }

    fn shape(&mut self, sent: wire::Distribution, kind: Kind) -> Result<Shape, &'static str> {
        match kind {
            Kind::Histogram => {
                let (bounds, counts) = (sent.explicit_bounds, sent.bucket_counts);
                let is_empty = bounds.is_empty() && counts.is_empty();
                if !is_empty && counts.len() != bounds.len() + 1 {
                    return Err("bucketCounts:not_one_more_than_bounds");
                }
                if counts.len() > BUCKETS_MAX {
                    return Err("explicitBounds:too_many");
                }
                if !bounds.is_sorted_by(|a, b| a < b) || bounds.iter().any(|bound| bound.is_nan()) {
                    return Err("explicitBounds:not_increasing");
                }
                let shared = self
                    .bounds
                    .take()
                    .filter(|known| are_same_bounds(known, &bounds));
                let bounds = shared.unwrap_or_else(|| bounds.into());
                self.bounds = Some(Arc::clone(&bounds));
                Ok(Shape::Explicit { bounds, counts })
            }
            Kind::ExponentialHistogram => {
                let buckets = |buckets: wire::Buckets| Buckets {
                    offset: buckets.offset,
                    counts: buckets.bucket_counts,
                };
                let (positive, negative) = (buckets(sent.positive), buckets(sent.negative));
                if positive.counts.len() + negative.counts.len() > BUCKETS_MAX {
                    return Err("bucketCounts:too_many");
                }
                let fits = |buckets: &Buckets| {
                    let length = i32::try_from(buckets.counts.len()).ok();
                    length.is_some_and(|length| buckets.offset.checked_add(length).is_some())
                };
                if !SCALES.contains(&sent.scale) || !fits(&positive) || !fits(&negative) {
                    return Err("scale:out_of_range");
                }
                Ok(Shape::Exponential {
                    scale: sent.scale,
                    zero_count: sent.zero_count,
                    zero_threshold: sent.zero_threshold,
                    positive,
                    negative,
                })
            }
            _ => {
                let pairs = sent.quantile_values.iter();
                if pairs.len() > BUCKETS_MAX {
                    return Err("quantileValues:too_many");
                }
                Ok(Shape::Quantiles(
                    pairs.map(|pair| (pair.quantile, pair.value)).collect(),
                ))
            }
        }
    }
}

fn kind_of(kind: DataKind, temporality: i32) -> Result<(Kind, Temporality), &'static str> {
    let kind = match kind {
        DataKind::Gauge => return Ok((Kind::Gauge, Temporality::None)),
        DataKind::Summary => return Ok((Kind::Summary, Temporality::None)),
        DataKind::Sum => Kind::Sum,
        DataKind::Histogram => Kind::Histogram,
        DataKind::ExponentialHistogram => Kind::ExponentialHistogram,
    };
    match temporality {
        1 => Ok((kind, Temporality::Delta)),
        2 => Ok((kind, Temporality::Cumulative)),
        _ => Err("aggregationTemporality:unspecified"),
    }
}

fn of_number(number: Number) -> PointValue {
    match number {
        Number::Double(number) => PointValue::Double(number),
        Number::Int(number) => PointValue::Int(number),
    }
}

/// Nanoseconds up to the year 2262.
fn nanos(time: u64) -> Option<Nanos> {
    Nanos::try_from(time).ok()
}

/// What a value holds beside the point itself.
fn weight(value: &PointValue) -> usize {
    let PointValue::Distribution(distribution) = value else {
        return 16;
    };
    let numbers = match &distribution.shape {
        Shape::Explicit { bounds, counts } => bounds.len() + counts.len(),
        Shape::Exponential {
            positive, negative, ..
        } => positive.counts.len() + negative.counts.len(),
        Shape::Quantiles(quantiles) => 2 * quantiles.len(),
    };
    size_of::<Distribution>() + 8 * numbers
}

fn check_labels(attributes: &[KeyValue<'_>]) -> Result<(), &'static str> {
    if attributes.len() > LABELS_MAX {
        return Err("attributes:too_many");
    }
    let is_long = |pair: &KeyValue<'_>| {
        let text = match &pair.value {
            AnyValue::Text(text) => text.len(),
            AnyValue::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        pair.key.len().max(text) > LABEL_BYTES_MAX
    };
    if attributes.iter().any(is_long) {
        return Err("attributes:too_long");
    }
    Ok(())
}

/// In order of their keys; of one key the last counts. Types tell values apart: "1" is not 1.
fn feed_attributes(hasher: &mut SeriesHasher, attributes: &mut Vec<KeyValue<'_>>) {
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    attributes.dedup_by(|later, earlier| {
        let is_same = later.key == earlier.key;
        if is_same {
            std::mem::swap(later, earlier);
        }
        is_same
    });
    hasher.number(attributes.len() as u64);
    for pair in attributes {
        hasher.text(&pair.key);
        feed_value(hasher, &pair.value);
    }
}

fn feed_value(hasher: &mut SeriesHasher, value: &AnyValue<'_>) {
    match value {
        AnyValue::Null => hasher.number(0),
        AnyValue::Text(text) => {
            hasher.number(1);
            hasher.text(text);
        }
        AnyValue::Bool(truth) => hasher.number(2 + u64::from(*truth)),
        AnyValue::Int(number) => {
            hasher.number(4);
            hasher.number(number.cast_unsigned());
        }
        AnyValue::Double(number) => {
            hasher.number(5);
            hasher.number(number.to_bits());
        }
        // Rare enough to be written out.
        AnyValue::Array(_) | AnyValue::Map(_) | AnyValue::Bytes(_) => {
            hasher.number(6);
            hasher.text(&typed(value).to_string());
        }
    }
}

/// A value as OTLP's JSON has it, which keeps its type.
fn typed(value: &AnyValue<'_>) -> Value {
    match value {
        AnyValue::Null => json!({}),
        AnyValue::Text(text) => json!({"stringValue": without_nul(text)}),
        AnyValue::Bool(truth) => json!({"boolValue": truth}),
        AnyValue::Int(number) => json!({"intValue": number.to_string()}),
        AnyValue::Double(number) if number.is_finite() => json!({"doubleValue": number}),
        AnyValue::Double(number) => json!({"doubleValue": not_finite(*number)}),
        AnyValue::Array(items) => {
            json!({"arrayValue": {"values": items.iter().map(typed).collect::<Vec<_>>()}})
        }
        AnyValue::Map(members) => json!({"kvlistValue": {"values": typed_list(members)}}),
        AnyValue::Bytes(bytes) => {
            use base64::Engine;
            json!({"bytesValue": base64::prelude::BASE64_STANDARD.encode(bytes)})
        }
    }
}

/// The words of proto3's JSON.
fn not_finite(number: f64) -> &'static str {
    if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

fn typed_list(attributes: &[KeyValue<'_>]) -> Value {
    let pair =
        |pair: &KeyValue<'_>| json!({"key": without_nul(&pair.key), "value": typed(&pair.value)});
    attributes.iter().map(pair).collect()
}

/// Labels as text, for filters and answers.
fn texts(attributes: &[KeyValue<'_>]) -> BTreeMap<String, String> {
    let text = |value: &AnyValue<'_>| match value {
        AnyValue::Text(text) => without_nul(text).into_owned(),
        AnyValue::Bool(truth) => truth.to_string(),
        AnyValue::Int(number) => number.to_string(),
        AnyValue::Double(number) => number.to_string(),
        other => typed(other).to_string(),
    };
    let pair = |pair: &KeyValue<'_>| (without_nul(&pair.key).into_owned(), text(&pair.value));
    attributes.iter().map(pair).collect()
}

fn describe(
    id: SeriesId,
    attributes: &[KeyValue<'_>],
    metric: &OfMetric<'_>,
    context: &Context<'_>,
) -> Series {
    let mut details = context.details.clone();
    details["attributes"] = typed_list(attributes);
    details["metadata"] = typed_list(metric.metadata);
    let of_environment = |key: &str| {
        let found = context.resource.iter().find(|pair| pair.key == key)?;
        to_text(&found.value)
    };
    let environment = trace_fields::ENVIRONMENT_KEYS
        .iter()
        .find_map(|key| of_environment(key));
    Series {
        id,
        name: metric.name.to_owned(),
        kind: metric.kind,
        temporality: metric.temporality,
        is_monotonic: metric.is_monotonic,
        unit: without_nul(metric.unit).into_owned(),
        description: without_nul(metric.description).into_owned(),
        environment: environment.map_or_else(
            || environment::DEFAULT.to_owned(),
            |name| environment::normalise(&name),
        ),
        labels: texts(attributes),
        resource: texts(context.resource),
        details: details.to_string(),
    }
}

fn to_text(value: &AnyValue<'_>) -> Option<String> {
    match value {
        AnyValue::Text(text) => Some(without_nul(text).into_owned()),
        _ => None,
    }
}

fn map_exemplar(exemplar: wire::Exemplar<'_>, series: SeriesId, point_time: Nanos) -> Exemplar {
    Exemplar {
        series,
        point_time,
        time: nanos(exemplar.time_unix_nano).unwrap_or_default(),
        value: exemplar.value.map_or(PointValue::Nothing, of_number),
        trace_id: exemplar.trace_id.to_hex(),
        span_id: exemplar.span_id.to_hex(),
        attributes: typed_list(&exemplar.filtered_attributes).to_string(),
    }
}
