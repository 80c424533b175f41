//! OTLP metrics: nothing is lost, every transport takes them, and questions about them are answered as the data
//! model says.

use chrono::{DateTime, SecondsFormat};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use xtrace_store::metrics::compact;

use crate::golden::protobuf_metrics;
use crate::golden::series::{dump, plain_members};
use crate::harness::Xtrace;

const BEGIN: u64 = 1_768_471_200_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn export(metrics: Value) -> Value {
    let resource =
        json!({"attributes": [{"key": "service.name", "value": {"stringValue": "api"}}]});
    json!({"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": {"name": "s"}, "metrics": metrics}]}]})
}

async fn send(xtrace: &Xtrace, request: &Value) {
    let (status, body) = xtrace.post("/v1/metrics", request).await;
    assert_eq!((status, &body), (StatusCode::OK, &json!({})), "{request}");
}

/// Values of the only series of an answer.
async fn values(xtrace: &Xtrace, query: &str) -> Vec<f64> {
    let path = format!(
        "/api/public/metrics/query?from=2026-01-15T09:00:00Z&to=2026-01-15T12:00:00Z&step=1h&{query}"
    );
    let (status, body) = xtrace.get(&path).await;
    assert_eq!(status, StatusCode::OK, "{query}: {body}");
    let series = body["data"].as_array().unwrap();
    assert!(series.len() <= 1, "{query}: {body}");
    let values = series
        .iter()
        .flat_map(|one| one["values"].as_array().unwrap());
    values
        .map(|value| value["value"].as_f64().unwrap())
        .collect()
}

pub(crate) async fn check(xtrace: &Xtrace, query: &str, expected: &[f64]) {
    let found = values(xtrace, query).await;
    let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9 * b.abs().max(1.0);
    let same = found.len() == expected.len() && found.iter().zip(expected).all(close);
    assert!(same, "{query}: {found:?}, expected {expected:?}");
}

/// Everything that a request can say, with values at the ends of what they can be.
fn everything() -> Value {
    let attributes = json!([
        {"key": "text", "value": {"stringValue": "a"}},
        {"key": "whole", "value": {"intValue": "-9223372036854775808"}},
        {"key": "fraction", "value": {"doubleValue": 0.5}},
        {"key": "truth", "value": {"boolValue": true}},
        {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "1"}]}}},
        {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"bytesValue": "AP8="}}]}}},
    ]);
    let exemplar = |value: Value| {
        let mut exemplar = json!({"timeUnixNano": "1768471230000000001", "traceId": "0af7651916cd43dd8448eb211c80319c",
            "spanId": "b7ad6b7169203331", "filteredAttributes": [{"key": "user", "value": {"intValue": "7"}}]});
        exemplar
            .as_object_mut()
            .unwrap()
            .extend(value.as_object().unwrap().clone());
        exemplar
    };
    let point = |second: u64, value: Value| {
        let mut point = json!({"startTimeUnixNano": (BEGIN + 1).to_string(), "attributes": attributes,
            "timeUnixNano": (BEGIN + second * SECOND + 123).to_string()});
        point
            .as_object_mut()
            .unwrap()
            .extend(value.as_object().unwrap().clone());
        point
    };
    let mut request = export(json!([
        {"name": "gauge", "unit": "1", "description": "a gauge", "metadata": [{"key": "m", "value": {"intValue": "1"}}],
         "gauge": {"dataPoints": [point(1, json!({"asDouble": 0.1})), point(2, json!({"asInt": "9223372036854775807"})),
            point(3, json!({"flags": 1})), {"timeUnixNano": "1", "asDouble": -0.0},
            point(4, json!({"asInt": "-9007199254740993", "exemplars": [exemplar(json!({"asInt": "3"}))]}))]}},
        {"name": "sum", "sum": {"aggregationTemporality": 2, "isMonotonic": true,
            "dataPoints": [point(1, json!({"asDouble": 1e300})), point(2, json!({"asDouble": 5e-324, "flags": 2}))]}},
        {"name": "sum", "sum": {"aggregationTemporality": 1, "dataPoints": [point(1, json!({"asInt": "-1"}))]}},
        {"name": "histogram", "unit": "s", "histogram": {"aggregationTemporality": 1, "dataPoints": [
            point(1, json!({"count": "18446744073709551615", "sum": -1.5, "min": -2.0, "max": 9.25, "explicitBounds": [-1.0, 0.1, 7.0],
                "bucketCounts": ["1", "2", "0", "18446744073709551612"], "exemplars": [exemplar(json!({"asDouble": 2.5}))]})),
            point(2, json!({"count": "1", "explicitBounds": [0.5], "bucketCounts": ["0", "1"]})),
            point(3, json!({"count": "3", "sum": 1.0})),
            // Bounds that are equal, and not the same.
            point(4, json!({"count": "1", "explicitBounds": [0.0], "bucketCounts": ["0", "1"]})),
            point(5, json!({"count": "1", "explicitBounds": [-0.0], "bucketCounts": ["0", "1"]}))]}},
        {"name": "exponential", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [
            point(1, json!({"count": "9", "sum": 4.5, "scale": -3, "zeroCount": "2", "zeroThreshold": 1e-9, "min": -4.0, "max": 8.0,
                "positive": {"offset": -2_000_000, "bucketCounts": ["1", "0", "4"]},
                "negative": {"offset": 12, "bucketCounts": ["2"]}})),
            point(2, json!({"count": "0", "scale": 20}))]}},
        {"name": "summary", "summary": {"dataPoints": [point(1, json!({"count": "3", "sum": 6.0,
            "quantileValues": [{"quantile": 0.0, "value": 1.0}, {"quantile": 1.0, "value": 3.0}]}))]}},
    ]));
    let of_resource = &mut request["resourceMetrics"][0];
    of_resource["schemaUrl"] = json!("https://example.com/resource/1");
    of_resource["resource"]["droppedAttributesCount"] = json!(3);
    let of_scope = &mut of_resource["scopeMetrics"][0];
    of_scope["schemaUrl"] = json!("https://example.com/scope/1");
    of_scope["scope"] = json!({"name": "s", "version": "1.2", "droppedAttributesCount": 4,
        "attributes": [{"key": "a", "value": {"doubleValue": 1.5}}]});
    request
}

/// A point with all that it is of, as one line; what is not sent is what protobuf takes it for.
fn lines_of_request(request: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for of_resource in list(&request["resourceMetrics"]) {
        for of_scope in list(&of_resource["scopeMetrics"]) {
            for metric in list(&of_scope["metrics"]) {
                let kinds = [
                    "gauge",
                    "sum",
                    "histogram",
                    "exponentialHistogram",
                    "summary",
                ];
                let kind = kinds
                    .iter()
                    .find(|kind| metric.get(**kind).is_some())
                    .unwrap();
                for point in list(&metric[*kind]["dataPoints"]) {
                    let (resource, scope) = (&of_resource["resource"], &of_scope["scope"]);
                    lines.push(
                        json!([
                            plain(&resource["attributes"]),
                            number(&resource["droppedAttributesCount"]),
                            of_resource["schemaUrl"],
                            scope["name"],
                            text(&scope["version"]),
                            plain(&scope["attributes"]),
                            number(&scope["droppedAttributesCount"]),
                            of_scope["schemaUrl"],
                            metric["name"],
                            text(&metric["unit"]),
                            text(&metric["description"]),
                            plain(&metric["metadata"]),
                            kind,
                            number(&metric[*kind]["aggregationTemporality"]),
                            metric[*kind]["isMonotonic"] == true,
                            typed(&point["attributes"]),
                            text(&point["startTimeUnixNano"]),
                            point["timeUnixNano"],
                            number(&point["flags"]),
                            value_of_point(kind, &point),
                            exemplars_of_point(&point),
                        ])
                        .to_string(),
                    );
                }
            }
        }
    }
    lines.sort();
    lines
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn plain(list: &Value) -> Value {
    if list.is_null() {
        json!({})
    } else {
        plain_members(list)
    }
}

/// Typed attributes, in order of their keys.
fn typed(list: &Value) -> Value {
    let mut pairs = list.as_array().cloned().unwrap_or_default();
    pairs.sort_by_key(|pair| pair["key"].to_string());
    pairs.into()
}

fn counts(list: &Value) -> Vec<u64> {
    let texts = list.as_array().cloned().unwrap_or_default();
    texts
        .iter()
        .map(|one| one.as_str().unwrap().parse().unwrap())
        .collect()
}

/// As `golden::series` shows it: value, whole number, distribution.
fn value_of_point(kind: &str, point: &Value) -> Value {
    if point["flags"] == 1 {
        return json!([null, null, null]);
    }
    if kind == "gauge" || kind == "sum" {
        let whole = point["asInt"].as_str();
        let number = whole.map_or(point["asDouble"].clone(), |text| {
            json!(text.parse::<i64>().unwrap() as f64)
        });
        return json!([number, whole, null]);
    }
    let mut shown = json!({"c": text(&point["count"]).parse::<u64>().unwrap(), "s": point["sum"]});
    let buckets = |name: &str| {
        let buckets = &point[name];
        json!({"o": buckets["offset"].as_i64().unwrap_or_default(), "n": counts(&buckets["bucketCounts"])})
    };
    let members = match kind {
        "histogram" => json!({"b": point["explicitBounds"].as_array().cloned().unwrap_or_default(),
            "n": counts(&point["bucketCounts"]), "mn": point["min"], "mx": point["max"]}),
        "exponentialHistogram" => json!({"sc": point["scale"],
            "z": text(&point["zeroCount"]).parse::<u64>().unwrap_or_default(),
            "zt": point["zeroThreshold"].as_f64().unwrap_or_default(),
            "p": buckets("positive"), "q": buckets("negative"), "mn": point["min"], "mx": point["max"]}),
        _ => {
            let pairs = point["quantileValues"].as_array().unwrap().iter();
            json!({"qv": pairs.map(|pair| json!([pair["quantile"], pair["value"]])).collect::<Vec<_>>()})
        }
    };
    shown
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    json!([point["sum"], null, shown])
}

fn exemplars_of_point(point: &Value) -> Value {
    let Some(exemplars) = point["exemplars"].as_array() else {
        return Value::Null;
    };
    let shown = |one: &Value| {
        let time = DateTime::from_timestamp_nanos(text(&one["timeUnixNano"]).parse().unwrap());
        let value = one.get("asDouble").or_else(|| one.get("asInt"));
        json!({"time": time.to_rfc3339_opts(SecondsFormat::Micros, true), "value": value, "traceId": one["traceId"],
            "spanId": one["spanId"], "attributes": plain(&one["filteredAttributes"])})
    };
    exemplars.iter().map(shown).collect()
}

/// The same lines, from what is stored.
fn lines_of_series(series: &[Value]) -> Vec<String> {
    let mut lines = Vec::new();
    for one in series {
        let details = &one["details"];
        let (resource, scope) = (&details["resource"], &details["scope"]);
        let kind = if one["type"] == "exphist" {
            json!("exponentialHistogram")
        } else {
            one["type"].clone()
        };
        let temporality = match one["temporality"].as_str() {
            Some("delta") => 1,
            Some(_) => 2,
            None => 0,
        };
        for point in one["points"].as_array().unwrap() {
            lines.push(
                json!([
                    plain(&resource["attributes"]),
                    resource["droppedAttributesCount"],
                    resource["schemaUrl"],
                    scope["name"],
                    scope["version"],
                    plain(&scope["attributes"]),
                    scope["droppedAttributesCount"],
                    scope["schemaUrl"],
                    one["name"],
                    one["unit"],
                    one["description"],
                    plain(&details["metadata"]),
                    kind,
                    temporality,
                    one["monotonic"] == true,
                    typed(&details["attributes"]),
                    text(&point["startNs"]),
                    point["timeNs"],
                    point["flags"],
                    [&point["value"], &point["valueInt"], &point["hist"]],
                    point["exemplars"],
                ])
                .to_string(),
            );
        }
    }
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_can_be_made_again_of_what_is_stored() {
    let xtrace = Xtrace::start().await;
    let request = everything();
    // The second mount, and once more, and once in protobuf.
    for path in ["/api/public/otel/v1/metrics", "/v1/metrics"] {
        let (status, body) = xtrace.post(path, &request).await;
        assert_eq!((status, body), (StatusCode::OK, json!({})), "{path}");
    }
    let protobuf = protobuf_metrics::from_json(&request).unwrap();
    let post = xtrace.request(Method::POST, "/v1/metrics").body(protobuf);
    let post = post.header("content-type", "application/x-protobuf");
    assert_eq!(post.send().await.unwrap().status(), StatusCode::OK);
    let expected = lines_of_request(&request);
    assert_eq!(expected.len(), 16);
    let mut sql = xtrace.sql().await;
    for place in ["blocks", "chunks"] {
        let found = lines_of_series(&dump(&xtrace, &mut sql, "default").await);
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected, found, "{place}");
        }
        assert_eq!(expected.len(), found.len(), "{place}");
        compact::once(&xtrace.store, 0).await.unwrap();
    }
}

fn histogram(name: &str, temporality: u64, points: Value) -> Value {
    json!({"name": name, "histogram": {"aggregationTemporality": temporality, "dataPoints": points}})
}

#[tokio::test(flavor = "multi_thread")]
async fn percentiles_come_from_buckets() {
    let xtrace = Xtrace::start().await;
    let at = |minute: u64| (BEGIN + minute * 60 * SECOND).to_string();
    let delta = |minute: u64, counts: Value| {
        json!({"timeUnixNano": at(minute), "startTimeUnixNano": at(minute - 1), "count": "4", "sum": 10.0,
            "min": 0.5, "max": 7.0, "explicitBounds": [1.0, 2.0, 4.0, 8.0], "bucketCounts": counts})
    };
    let cumulative = |minute: u64, count: &str, sum: f64, counts: Value| {
        json!({"timeUnixNano": at(minute), "startTimeUnixNano": at(0), "count": count, "sum": sum,
            "explicitBounds": [1.0, 2.0, 4.0], "bucketCounts": counts})
    };
    send(&xtrace, &export(json!([
        histogram("delta", 1, json!([delta(1, json!(["1", "1", "1", "1", "0"])), delta(2, json!(["0", "2", "2", "0", "0"]))])),
        histogram("total", 2, json!([
            cumulative(1, "2", 3.0, json!(["1", "1", "0", "0"])),
            cumulative(2, "6", 11.0, json!(["1", "3", "2", "0"])),
            cumulative(3, "6", 11.0, json!(["1", "3", "2", "0"])),
        ])),
        {"name": "exponential", "exponentialHistogram": {"aggregationTemporality": 1, "dataPoints": [
            {"timeUnixNano": at(1), "count": "4", "sum": 9.0, "scale": 0, "positive": {"offset": 0, "bucketCounts": ["2", "2"]}}]}},
        {"name": "summary", "summary": {"dataPoints": [{"timeUnixNano": at(1), "count": "10", "sum": 123.0,
            "quantileValues": [{"quantile": 0.5, "value": 11.0}, {"quantile": 0.99, "value": 30.0}]}]}},
    ]))).await;
    // 8 measurements: 1 up to 1, 3 up to 2, 3 up to 4, 1 up to 8.
    check(&xtrace, "name=delta&agg=p50", &[2.0]).await;
    check(&xtrace, "name=delta&agg=p90", &[4.0 + 4.0 * 0.2]).await;
    check(&xtrace, "name=delta&agg=p99", &[7.0]).await;
    check(&xtrace, "name=delta&agg=count", &[8.0]).await;
    check(&xtrace, "name=delta&agg=sum", &[20.0]).await;
    check(&xtrace, "name=delta", &[2.5]).await;
    check(&xtrace, "name=delta&agg=min", &[0.5]).await;
    check(&xtrace, "name=delta&agg=max", &[7.0]).await;
    check(&xtrace, "name=delta&agg=rate", &[8.0 / 3600.0]).await;
    // The series began within the range, so its first point counts whole.
    check(&xtrace, "name=total&agg=count", &[6.0]).await;
    check(&xtrace, "name=total&agg=sum", &[11.0]).await;
    check(&xtrace, "name=total&agg=p50", &[1.0 + 2.0 / 3.0]).await;
    check(&xtrace, "name=total.count&agg=increase", &[6.0]).await;
    check(&xtrace, "name=total.count&agg=last", &[6.0]).await;
    check(&xtrace, "name=total.sum&agg=increase", &[11.0]).await;
    check(
        &xtrace,
        "name=total.bucket&labels=%7B%22le%22%3A%222%22%7D&agg=last",
        &[4.0],
    )
    .await;
    check(
        &xtrace,
        "name=total.bucket&labels=%7B%22le%22%3A%22%2BInf%22%7D&agg=increase",
        &[6.0],
    )
    .await;
    check(&xtrace, "name=delta.max&agg=max", &[7.0]).await;
    check(&xtrace, "name=exponential&agg=p50", &[2.0]).await;
    check(&xtrace, "name=exponential&agg=max", &[4.0]).await;
    check(&xtrace, "name=summary&agg=p99", &[30.0]).await;
    check(
        &xtrace,
        "name=summary.quantile&labels=%7B%22quantile%22%3A0.5%7D&agg=last",
        &[11.0],
    )
    .await;
    check(&xtrace, "name=summary.sum&agg=last", &[123.0]).await;
    check(&xtrace, "name=nothing.count", &[]).await;
    let (_, all) = xtrace.get("/api/public/metrics/query?name=total.bucket&agg=last&from=2026-01-15T09:00:00Z&to=2026-01-15T12:00:00Z&step=1h").await;
    let mut bounds: Vec<&str> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["labels"]["le"].as_str().unwrap())
        .collect();
    bounds.sort_unstable();
    assert_eq!(bounds, ["+Inf", "1", "2", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn growth_knows_resets_and_temporality() {
    let xtrace = Xtrace::start().await;
    let at = |minute: u64| (BEGIN + minute * 60 * SECOND).to_string();
    let point = |start: u64, minute: u64, value: f64| json!({"timeUnixNano": at(minute), "startTimeUnixNano": at(start), "asDouble": value});
    let sum = |name: &str, temporality: u64, is_monotonic: bool, points: Value| json!({"name": name, "sum": {"aggregationTemporality": temporality, "isMonotonic": is_monotonic, "dataPoints": points}});
    send(&xtrace, &export(json!([
        // Begins with 5, grows by 7, starts anew and reaches 3, shrinks to 1.
        sum("counter", 2, true, json!([point(0, 1, 5.0), point(0, 2, 12.0), point(3, 4, 3.0), point(3, 5, 1.0)])),
        // Nobody knows when it began.
        sum("unknown", 2, true, json!([point(1, 1, 5.0), point(1, 2, 12.0)])),
        sum("changes", 1, true, json!([point(0, 1, 5.0), point(1, 2, 12.0)])),
        sum("depth", 2, false, json!([point(0, 1, 5.0), point(0, 2, 2.0)])),
        {"name": "gauge", "gauge": {"dataPoints": [point(0, 1, 5.0), point(0, 2, 9.0), point(0, 3, 3.0),
            {"timeUnixNano": at(4), "flags": 1}]}},
    ]))).await;
    check(
        &xtrace,
        "name=counter&agg=increase",
        &[5.0 + 7.0 + 3.0 + 1.0],
    )
    .await;
    check(&xtrace, "name=unknown&agg=increase", &[7.0]).await;
    check(&xtrace, "name=changes&agg=increase", &[17.0]).await;
    check(&xtrace, "name=changes&agg=rate", &[17.0 / 3600.0]).await;
    check(&xtrace, "name=depth&agg=increase", &[-3.0]).await;
    check(&xtrace, "name=gauge&agg=increase", &[-2.0]).await;
    check(&xtrace, "name=gauge&agg=last", &[3.0]).await;
    check(&xtrace, "name=gauge&agg=count", &[3.0]).await;
    check(
        &xtrace,
        "name=gauge&agg=avg&group_by=service.name",
        &[17.0 / 3.0],
    )
    .await;
    check(
        &xtrace,
        "name=gauge&labels=%7B%22service.name%22%3A%22api%22%7D",
        &[17.0 / 3.0],
    )
    .await;
    check(
        &xtrace,
        "name=gauge&labels=%7B%22service.name%22%3A%22web%22%7D",
        &[],
    )
    .await;
    // The point before the range tells how much the first one in it grew.
    let path = "/api/public/metrics/query?name=counter&agg=increase&step=1m&from=2026-01-15T10:02:00Z&to=2026-01-15T10:02:30Z";
    let (_, body) = xtrace.get(path).await;
    assert_eq!(body["data"][0]["values"][0]["value"], 7.0, "{body}");
}

/// Starts that jitter, whole numbers that no double holds, buckets that widen: none of them is a reset.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_smaller_value_is_a_reset() {
    let xtrace = Xtrace::start().await;
    let begin = BEGIN - 2 * 3600 * SECOND;
    let at = |number: u64| (BEGIN + number * 10 * SECOND).to_string();
    let sum = |name: &str, value: &dyn Fn(u64) -> u64, start: &dyn Fn(u64) -> u64| {
        let point = |n: u64| json!({"timeUnixNano": at(n), "startTimeUnixNano": start(n).to_string(), "asInt": value(n).to_string()});
        json!({"name": name, "sum": {"aggregationTemporality": 2, "isMonotonic": true,
            "dataPoints": (0..60).map(point).collect::<Vec<_>>()}})
    };
    let steady = |_: u64| begin;
    let jitter = |n: u64| begin + n % 3 * 1_000_000;
    let exponential = |n: u64, threshold: f64, zero: u64, offset: i64, counts: &[u64]| {
        json!({"timeUnixNano": at(n), "startTimeUnixNano": begin.to_string(), "scale": 0, "zeroThreshold": threshold,
            "count": (zero + counts.iter().sum::<u64>()).to_string(), "zeroCount": zero.to_string(), "sum": 1000.0 + n as f64,
            "positive": {"offset": offset, "bucketCounts": counts.iter().map(u64::to_string).collect::<Vec<_>>()}})
    };
    let widens = json!([
        exponential(0, 0.0, 0, 0, &[1000, 1000]),
        exponential(1, 0.0, 0, 0, &[1001, 1000]),
        exponential(2, 2.0, 1002, 1, &[1000]),
        exponential(3, 2.0, 1003, 1, &[1000]),
    ]);
    let bounds = |n: u64, bounds: &[f64], counts: &[u64]| {
        json!({"timeUnixNano": at(n), "startTimeUnixNano": begin.to_string(), "sum": n as f64,
            "count": counts.iter().sum::<u64>().to_string(), "explicitBounds": bounds,
            "bucketCounts": counts.iter().map(u64::to_string).collect::<Vec<_>>()})
    };
    let changes = json!([
        bounds(0, &[1.0, 2.0], &[500, 500, 0]),
        bounds(1, &[1.0, 4.0], &[501, 502, 0]),
        bounds(2, &[8.0], &[1005, 0]),
    ]);
    send(&xtrace, &export(json!([
        sum("steady", &|n| n * 5, &steady),
        sum("jitter", &|n| n * 5, &jitter),
        sum("big", &|n| (1 << 60) + n * 7, &steady),
        {"name": "widens", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": widens}},
        histogram("changes", 2, changes),
    ]))).await;
    for _ in 0..2 {
        check(&xtrace, "name=steady&agg=increase", &[295.0]).await;
        check(&xtrace, "name=jitter&agg=increase", &[295.0]).await;
        check(&xtrace, "name=big&agg=increase", &[413.0]).await;
        check(&xtrace, "name=widens&agg=count", &[3.0]).await;
        check(&xtrace, "name=widens.count&agg=increase", &[3.0]).await;
        check(&xtrace, "name=changes&agg=count", &[5.0]).await;
        compact::once(&xtrace.store, 0).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplars_lead_to_traces() {
    let xtrace = Xtrace::start().await;
    send(&xtrace, &everything()).await;
    let path = "/api/public/metrics/query?name=histogram&agg=p50&exemplars=true&from=2026-01-15T09:00:00Z&to=2026-01-15T12:00:00Z";
    let (status, body) = xtrace.get(path).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let exemplar = &body["exemplars"][0];
    assert_eq!(exemplar["value"], 2.5);
    assert_eq!(
        exemplar["trace"],
        "/api/public/traces/0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(
        xtrace.get(&format!("{path}&exemplars=maybe")).await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn series_above_the_limit_are_rejected_point_by_point() {
    let database = crate::harness::new_database().await;
    let xtrace = Xtrace::start_on(&database, &["--max-series-per-metric", "3"]).await;
    let points: Vec<Value> = (0..5)
        .map(|n| {
            json!({"timeUnixNano": BEGIN.to_string(), "asInt": "1",
            "attributes": [{"key": "n", "value": {"intValue": n.to_string()}}]})
        })
        .collect();
    let request = export(json!([{"name": "m", "gauge": {"dataPoints": points}}]));
    // Those that were refused are refused again, and those that were let in go on.
    for _ in 0..3 {
        let (status, body) = xtrace.post("/v1/metrics", &request).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["partialSuccess"]["rejectedDataPoints"], "2", "{body}");
        let message = body["partialSuccess"]["errorMessage"].as_str().unwrap();
        assert!(
            message.starts_with("2 of 5 data point(s) rejected: 2 x series limit"),
            "{message}"
        );
    }
    let alone = export(json!([{"name": "m", "gauge": {"dataPoints": [points[4]]}}]));
    let (_, body) = xtrace.post("/v1/metrics", &alone).await;
    assert_eq!(body["partialSuccess"]["rejectedDataPoints"], "1", "{body}");
}
