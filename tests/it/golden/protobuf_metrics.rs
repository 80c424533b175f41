//! OTLP metrics in JSON as the same request in protobuf, by the official types.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar, exponential_histogram_data_point::Buckets, metric,
    number_data_point, summary_data_point::ValueAtQuantile,
};
use prost::Message;
use serde_json::Value;

use super::protobuf::{id, key_value, list, number, resource, scope, small, text};

/// The request; none if protobuf can't say the same.
pub(crate) fn from_json(json: &Value) -> Option<Vec<u8>> {
    let resource_metrics = list(json, "resourceMetrics", resource_metrics)?;
    Some(ExportMetricsServiceRequest { resource_metrics }.encode_to_vec())
}

fn resource_metrics(json: &Value) -> Option<ResourceMetrics> {
    Some(ResourceMetrics {
        resource: Some(resource(json)?),
        scope_metrics: list(json, "scopeMetrics", scope_metrics)?,
        schema_url: text(json, "schemaUrl")?,
    })
}

fn scope_metrics(json: &Value) -> Option<ScopeMetrics> {
    Some(ScopeMetrics {
        scope: Some(scope(json)?),
        metrics: list(json, "metrics", one_metric)?,
        schema_url: text(json, "schemaUrl")?,
    })
}

fn one_metric(json: &Value) -> Option<Metric> {
    let temporality = |data: &Value| Some(small(data, "aggregationTemporality")?.cast_signed());
    let data = if let Some(data) = json.get("gauge") {
        Some(metric::Data::Gauge(Gauge {
            data_points: list(data, "dataPoints", number_point)?,
        }))
    } else if let Some(data) = json.get("sum") {
        Some(metric::Data::Sum(Sum {
            data_points: list(data, "dataPoints", number_point)?,
            aggregation_temporality: temporality(data)?,
            is_monotonic: data
                .get("isMonotonic")
                .and_then(Value::as_bool)
                .unwrap_or_default(),
        }))
    } else if let Some(data) = json.get("histogram") {
        Some(metric::Data::Histogram(Histogram {
            data_points: list(data, "dataPoints", histogram_point)?,
            aggregation_temporality: temporality(data)?,
        }))
    } else if let Some(data) = json.get("exponentialHistogram") {
        Some(metric::Data::ExponentialHistogram(ExponentialHistogram {
            data_points: list(data, "dataPoints", exponential_point)?,
            aggregation_temporality: temporality(data)?,
        }))
    } else if let Some(data) = json.get("summary") {
        Some(metric::Data::Summary(Summary {
            data_points: list(data, "dataPoints", summary_point)?,
        }))
    } else {
        None
    };
    Some(Metric {
        name: text(json, "name")?,
        description: text(json, "description")?,
        unit: text(json, "unit")?,
        metadata: list(json, "metadata", key_value)?,
        data,
    })
}

/// Also of the words that JSON has for what is no number.
fn double(json: &Value) -> Option<f64> {
    match json {
        Value::String(text) => text.parse().ok(),
        other => other.as_f64(),
    }
}

/// None if it was not sent; no case has one that is not a number.
fn optional(json: &Value, name: &str) -> Option<f64> {
    json.get(name).and_then(double)
}

fn whole(json: &Value) -> Option<i64> {
    match json {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}

fn count(json: &Value) -> Option<u64> {
    match json {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    }
}

fn number_point(json: &Value) -> Option<NumberDataPoint> {
    let value = match (json.get("asInt"), json.get("asDouble")) {
        (Some(value), _) => Some(number_data_point::Value::AsInt(whole(value)?)),
        (_, Some(value)) => Some(number_data_point::Value::AsDouble(double(value)?)),
        _ => None,
    };
    Some(NumberDataPoint {
        attributes: list(json, "attributes", key_value)?,
        start_time_unix_nano: number(json, "startTimeUnixNano")?,
        time_unix_nano: number(json, "timeUnixNano")?,
        exemplars: list(json, "exemplars", one_exemplar)?,
        flags: small(json, "flags")?,
        value,
    })
}

fn histogram_point(json: &Value) -> Option<HistogramDataPoint> {
    Some(HistogramDataPoint {
        attributes: list(json, "attributes", key_value)?,
        start_time_unix_nano: number(json, "startTimeUnixNano")?,
        time_unix_nano: number(json, "timeUnixNano")?,
        count: number(json, "count")?,
        sum: optional(json, "sum"),
        bucket_counts: list(json, "bucketCounts", count)?,
        explicit_bounds: list(json, "explicitBounds", double)?,
        exemplars: list(json, "exemplars", one_exemplar)?,
        flags: small(json, "flags")?,
        min: optional(json, "min"),
        max: optional(json, "max"),
    })
}

fn exponential_point(json: &Value) -> Option<ExponentialHistogramDataPoint> {
    let buckets = |name: &str| {
        let Some(buckets) = json.get(name) else {
            return Some(None);
        };
        Some(Some(Buckets {
            offset: i32::try_from(buckets.get("offset").map_or(Some(0), whole)?).ok()?,
            bucket_counts: list(buckets, "bucketCounts", count)?,
        }))
    };
    Some(ExponentialHistogramDataPoint {
        attributes: list(json, "attributes", key_value)?,
        start_time_unix_nano: number(json, "startTimeUnixNano")?,
        time_unix_nano: number(json, "timeUnixNano")?,
        count: number(json, "count")?,
        sum: optional(json, "sum"),
        scale: i32::try_from(json.get("scale").map_or(Some(0), whole)?).ok()?,
        zero_count: number(json, "zeroCount")?,
        positive: buckets("positive")?,
        negative: buckets("negative")?,
        flags: small(json, "flags")?,
        exemplars: list(json, "exemplars", one_exemplar)?,
        min: optional(json, "min"),
        max: optional(json, "max"),
        zero_threshold: optional(json, "zeroThreshold").unwrap_or_default(),
    })
}

fn summary_point(json: &Value) -> Option<SummaryDataPoint> {
    let quantile = |json: &Value| {
        Some(ValueAtQuantile {
            quantile: optional(json, "quantile").unwrap_or_default(),
            value: optional(json, "value").unwrap_or_default(),
        })
    };
    Some(SummaryDataPoint {
        attributes: list(json, "attributes", key_value)?,
        start_time_unix_nano: number(json, "startTimeUnixNano")?,
        time_unix_nano: number(json, "timeUnixNano")?,
        count: number(json, "count")?,
        sum: optional(json, "sum").unwrap_or_default(),
        quantile_values: list(json, "quantileValues", quantile)?,
        flags: small(json, "flags")?,
    })
}

fn one_exemplar(json: &Value) -> Option<Exemplar> {
    let value = match (json.get("asInt"), json.get("asDouble")) {
        (Some(value), _) => Some(exemplar::Value::AsInt(whole(value)?)),
        (_, Some(value)) => Some(exemplar::Value::AsDouble(double(value)?)),
        _ => None,
    };
    Some(Exemplar {
        filtered_attributes: list(json, "filteredAttributes", key_value)?,
        time_unix_nano: number(json, "timeUnixNano")?,
        span_id: id(json, "spanId")?,
        trace_id: id(json, "traceId")?,
        value,
    })
}
