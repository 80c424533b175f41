//! Stored series and their points as JSON, wherever these lie.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use xtrace_model::metric::{Buckets, Distribution, Kind, PointValue, Shape, Temporality};
use xtrace_model::{MetricPoint, ProjectId};
use xtrace_store::metrics::{exemplars, read};

use crate::harness::Xtrace;

const SERIES: &str =
    "select series_id, name, environment, labels::text as labels, kind, temporality, is_monotonic,
        unit, description, details from metric_series where project_id = $1
  order by name, labels::text, series_id";

/// All series of a project.
pub(crate) async fn dump(
    xtrace: &Xtrace,
    connection: &mut PgConnection,
    project: &str,
) -> Vec<Value> {
    let rows = sqlx::query(SERIES)
        .bind(project)
        .fetch_all(connection)
        .await
        .unwrap();
    let ids: Vec<i64> = rows.iter().map(|row| row.get("series_id")).collect();
    let project = ProjectId::parse(project).unwrap();
    let all = (
        DateTime::UNIX_EPOCH,
        DateTime::from_timestamp_nanos(i64::MAX),
    );
    let points: BTreeMap<i64, Vec<MetricPoint>> = BTreeMap::new();
    let mut points = read::points(&xtrace.store, &project, &ids, all, points)
        .await
        .unwrap();
    let linked = exemplars::of(&xtrace.store, &project, &ids, all)
        .await
        .unwrap();
    let series = rows.iter().map(|row| {
        let id: i64 = row.get("series_id");
        let points = points.remove(&id).unwrap_or_default();
        let of_series = linked.iter().filter(|one| one.series_id == id);
        let exemplars: Vec<Value> = of_series
            .map(|one| serde_json::from_str(&one.data).unwrap())
            .collect();
        if row.get::<i16, _>("kind") == Kind::Native as i16 {
            native(row, &points)
        } else {
            otlp(row, &points, &exemplars)
        }
    });
    series.collect()
}

fn text(row: &PgRow, column: &str) -> String {
    row.get(column)
}

fn time(point: &MetricPoint) -> String {
    DateTime::from_timestamp_nanos(point.time).to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn native(row: &PgRow, points: &[MetricPoint]) -> Value {
    let (name, labels) = (text(row, "name"), text(row, "labels"));
    json!({
        "id": format!("{name}{labels}"),
        "name": name,
        "environment": text(row, "environment"),
        "labels": serde_json::from_str::<Value>(&labels).unwrap(),
        "points": points.iter().map(|point| json!([time(point), point.value.number()])).collect::<Vec<_>>(),
    })
}

fn otlp(row: &PgRow, points: &[MetricPoint], exemplars: &[Value]) -> Value {
    let place = |column: &str| usize::try_from(row.get::<i16, _>(column)).unwrap();
    let kind = Kind::ALL[place("kind")];
    let temporality = match Temporality::ALL[place("temporality")] {
        Temporality::None => Value::Null,
        Temporality::Delta => json!("delta"),
        Temporality::Cumulative => json!("cumulative"),
    };
    let details: Value = serde_json::from_str(&text(row, "details")).unwrap();
    let scope = &details["scope"];
    let labels = plain_members(&details["attributes"]);
    json!({
        "id": format!("{}{labels}", text(row, "name")),
        "name": text(row, "name"),
        "type": match kind {
            Kind::Native | Kind::Gauge => "gauge",
            Kind::Sum => "sum",
            Kind::Histogram => "histogram",
            Kind::ExponentialHistogram => "exphist",
            Kind::Summary => "summary",
        },
        "unit": text(row, "unit"),
        "temporality": temporality,
        "monotonic": (kind == Kind::Sum).then(|| row.get::<bool, _>("is_monotonic")),
        "environment": text(row, "environment"),
        "description": text(row, "description"),
        "labels": labels,
        "resource": plain_members(&details["resource"]["attributes"]),
        "scope": {"name": scope["name"], "version": scope["version"]},
        "points": points.iter().map(|point| one_point(point, exemplars)).collect::<Vec<_>>(),
        "details": details,
    })
}

/// OTLP's list of typed attributes as an object.
pub(crate) fn plain_members(list: &Value) -> Value {
    let members = list.as_array().unwrap().iter();
    let member = |pair: &Value| {
        (
            pair["key"].as_str().unwrap().to_owned(),
            plain(&pair["value"]),
        )
    };
    Value::Object(members.map(member).collect::<Map<_, _>>())
}

fn plain(value: &Value) -> Value {
    let Some((name, value)) = value.as_object().unwrap().iter().next() else {
        return Value::Null;
    };
    match name.as_str() {
        "intValue" => json!(value.as_str().unwrap().parse::<i64>().unwrap()),
        "arrayValue" => value["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(plain)
            .collect(),
        "kvlistValue" => plain_members(&value["values"]),
        _ => value.clone(),
    }
}

fn one_point(point: &MetricPoint, exemplars: &[Value]) -> Value {
    let (value, whole, spread) = match &point.value {
        PointValue::Nothing => (Value::Null, Value::Null, Value::Null),
        PointValue::Double(number) if number.is_nan() => (json!("NaN"), Value::Null, Value::Null),
        PointValue::Double(number) => (json!(number), Value::Null, Value::Null),
        PointValue::Int(number) => (
            json!(*number as f64),
            json!(number.to_string()),
            Value::Null,
        ),
        PointValue::Distribution(one) => (json!(one.sum), Value::Null, distribution(one)),
    };
    let time_text = point.time.to_string();
    let of_point = |one: &&Value| one["pointTimeUnixNano"] == time_text.as_str();
    let exemplars: Vec<Value> = exemplars.iter().filter(of_point).map(exemplar).collect();
    json!({
        "time": time(point),
        "timeNs": point.time.to_string(),
        "startNs": (point.start != 0).then(|| point.start.to_string()),
        "value": value,
        "valueInt": whole,
        "flags": point.flags,
        "hist": spread,
        "exemplars": (!exemplars.is_empty()).then_some(exemplars),
    })
}

fn exemplar(one: &Value) -> Value {
    let value = &one["value"];
    let at = one["timeUnixNano"].as_str().unwrap().parse().unwrap();
    let time = DateTime::from_timestamp_nanos(at).to_rfc3339_opts(SecondsFormat::Micros, true);
    json!({
        "time": time,
        "value": value.get("asDouble").or_else(|| value.get("asInt")),
        "traceId": one["traceId"],
        "spanId": one["spanId"],
        "attributes": plain_members(&one["attributes"]),
    })
}

fn distribution(one: &Distribution) -> Value {
    let buckets = |buckets: &Buckets| json!({"o": buckets.offset, "n": buckets.counts});
    let mut shown = json!({"c": one.count, "s": one.sum});
    let members = match &one.shape {
        Shape::Explicit { bounds, counts } => {
            json!({"b": bounds[..], "n": counts, "mn": one.min, "mx": one.max})
        }
        Shape::Exponential {
            scale,
            zero_count,
            zero_threshold,
            positive,
            negative,
        } => json!({
            "sc": scale, "z": zero_count, "zt": zero_threshold, "p": buckets(positive), "q": buckets(negative),
            "mn": one.min, "mx": one.max,
        }),
        Shape::Quantiles(quantiles) => json!({"qv": quantiles}),
    };
    shown
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    shown
}
