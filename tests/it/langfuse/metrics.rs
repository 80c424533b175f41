//! The metrics query: views, dimensions, measures, buckets, orders, refusals.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{event, ingest};
use crate::harness::Xtrace;

pub(super) const V1: &str = "/api/public/metrics";
pub(super) const V2: &str = "/api/public/v2/metrics";

pub(super) async fn ask(xtrace: &Xtrace, path: &str, query: &Value) -> (StatusCode, Value) {
    let text: String = form_urlencoded::byte_serialize(query.to_string().as_bytes()).collect();
    xtrace.get(&format!("{path}?query={text}")).await
}

/// A question about January 2026, with more members.
pub(super) fn question(view: &str, metrics: Value, more: Value) -> Value {
    let mut query = json!({"view": view, "metrics": metrics,
        "fromTimestamp": "2026-01-14T00:00:00Z", "toTimestamp": "2026-01-17T00:00:00Z"});
    query
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    query
}

pub(super) async fn rows(xtrace: &Xtrace, path: &str, query: Value) -> Value {
    let (status, body) = ask(xtrace, path, &query).await;
    assert_eq!(status, StatusCode::OK, "{query}: {body}");
    body["data"].clone()
}

pub(super) fn metric(measure: &str, aggregation: &str) -> Value {
    json!([{"measure": measure, "aggregation": aggregation}])
}

/// Two traces on the 15th and one on the 16th, of two models.
pub(super) async fn fill(xtrace: &Xtrace) {
    let generation = |id: &str, trace: &str, day: u32, ms: u32, model: &str, usage: Value| {
        let body = json!({"id": id, "traceId": trace, "name": "llm", "model": model, "usageDetails": usage,
            "costDetails": {"input": 0.5, "output": 0.25, "total": 0.75}, "environment": "prod",
            "startTime": format!("2026-01-{day}T10:00:00.000Z"),
            "completionStartTime": format!("2026-01-{day}T10:00:00.010Z"),
            "endTime": format!("2026-01-{day}T10:00:00.{ms:03}Z"),
            "output": {"tool_calls": [{"type": "function", "function": {"name": "search"}}]}});
        event(id, 1, "generation-create", body)
    };
    let trace = |id: &str, day: u32, user: &str| {
        let body = json!({"id": id, "timestamp": format!("2026-01-{day}T10:00:00Z"), "name": "request",
            "userId": user, "sessionId": "s", "tags": ["b", "a"], "release": "r1", "metadata": {"tier": "gold"}});
        event(id, 0, "trace-create", body)
    };
    ingest(
        xtrace,
        json!([
            trace("t1", 15, "ada"),
            trace("t2", 15, "bob"),
            trace("t3", 16, "ada"),
            generation("g1", "t1", 15, 100, "m1", json!({"input": 10, "output": 1})),
            generation("g2", "t2", 15, 300, "m2", json!({"input": 20, "output": 2})),
            generation("g3", "t3", 16, 200, "m1", json!({"input": 30, "output": 3})),
            event(
                "c",
                1,
                "span-create",
                json!({"id": "c", "traceId": "t1", "parentObservationId": "g1",
                "name": "child", "startTime": "2026-01-15T10:00:00Z", "level": "ERROR"})
            ),
            event(
                "s1",
                2,
                "score-create",
                json!({"id": "s1", "traceId": "t1", "name": "quality", "value": 0.5,
                "timestamp": "2026-01-15T12:00:00Z"})
            ),
            event(
                "s2",
                2,
                "score-create",
                json!({"id": "s2", "traceId": "t2", "observationId": "g2", "name": "ok",
                "value": 1, "dataType": "BOOLEAN", "timestamp": "2026-01-15T12:00:00Z"})
            ),
            event(
                "s3",
                2,
                "score-create",
                json!({"id": "s3", "traceId": "t3", "name": "ok", "value": 0,
                "dataType": "BOOLEAN", "timestamp": "2026-01-16T12:00:00Z"})
            ),
            event(
                "s4",
                2,
                "score-create",
                json!({"id": "s4", "sessionId": "s", "name": "tone", "value": "kind",
                "timestamp": "2026-01-16T12:00:00Z"})
            ),
        ]),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn observations_are_counted_by_what_they_are() {
    let xtrace = Xtrace::start().await;
    fill(&xtrace).await;
    let by = |field: &str| json!({"dimensions": [{"field": field}]});
    // The first metric, descending.
    assert_eq!(
        rows(
            &xtrace,
            V2,
            question(
                "observations",
                metric("count", "count"),
                by("providedModelName")
            )
        )
        .await,
        json!([
            {"providedModelName": "m1", "count_count": 2},
            {"providedModelName": "m2", "count_count": 1},
            {"providedModelName": null, "count_count": 1},
        ])
    );
    assert_eq!(
        rows(
            &xtrace,
            V2,
            question("observations", metric("totalCost", "sum"), by("type"))
        )
        .await,
        json!([{"type": "GENERATION", "sum_totalCost": 2.25}, {"type": "SPAN", "sum_totalCost": 0}])
    );
    for (measure, aggregation, expected) in [
        ("latency", "avg", json!(200.0)),
        ("latency", "max", json!(300.0)),
        ("latency", "min", json!(100.0)),
        ("latency", "p50", json!(200.0)),
        ("latency", "p95", json!(290.0)),
        ("latency", "count", json!(3)),
        ("streamingLatency", "max", json!(290.0)),
        ("timeToFirstToken", "avg", json!(10.0)),
        ("inputTokens", "sum", json!(60)),
        ("outputTokens", "sum", json!(6)),
        ("totalTokens", "sum", json!(66)),
        ("inputCost", "sum", json!(1.5)),
        ("tokensPerSecond", "max", json!(165.0)),
        ("countScores", "sum", json!(1)),
        ("toolCalls", "sum", json!(3)),
        ("toolDefinitions", "sum", json!(0)),
        ("traceId", "uniq", json!(3)),
        ("uniqueUserIds", "uniq", json!(2)),
        ("uniqueSessionIds", "count", json!(1)),
        ("count", "count", json!(4)),
    ] {
        let found = rows(
            &xtrace,
            V2,
            question("observations", metric(measure, aggregation), json!({})),
        )
        .await;
        let value = &found[0][format!("{aggregation}_{measure}")];
        assert_eq!(
            value.as_f64(),
            expected.as_f64(),
            "{measure} {aggregation}: {found}"
        );
    }
    for (dimension, expected) in [
        (
            "isRootObservation",
            json!([{"isRootObservation": true, "count_count": 3}, {"isRootObservation": false, "count_count": 1}]),
        ),
        ("tags", json!([{"tags": ["a", "b"], "count_count": 4}])),
        (
            "traceName",
            json!([{"traceName": "request", "count_count": 4}]),
        ),
        ("release", json!([{"release": "r1", "count_count": 4}])),
        (
            "calledToolNames",
            json!([{"calledToolNames": "search", "count_count": 3}]),
        ),
        (
            "startTimeMonth",
            json!([{"startTimeMonth": "2026-01", "count_count": 4}]),
        ),
        (
            "level",
            json!([{"level": "DEFAULT", "count_count": 3}, {"level": "ERROR", "count_count": 1}]),
        ),
    ] {
        let found = rows(
            &xtrace,
            V2,
            question("observations", metric("count", "count"), by(dimension)),
        )
        .await;
        assert_eq!(found, expected, "{dimension}");
    }
    // A measure by kind brings its dimension.
    assert_eq!(
        rows(
            &xtrace,
            V2,
            question("observations", metric("costByType", "sum"), json!({}))
        )
        .await,
        json!([
            {"costType": "total", "sum_costByType": 2.25},
            {"costType": "input", "sum_costByType": 1.5},
            {"costType": "output", "sum_costByType": 0.75},
        ])
    );
    // Many values need a limit and an order, which then may be had.
    let many = json!({"dimensions": [{"field": "userId"}], "config": {"row_limit": 1},
        "orderBy": [{"field": "count_count", "direction": "desc"}]});
    assert_eq!(
        rows(
            &xtrace,
            V2,
            question("observations", metric("count", "count"), many)
        )
        .await,
        json!([{"userId": "ada", "count_count": 3}])
    );
    assert_eq!(
        rows(
            &xtrace,
            V1,
            question("observations", metric("count", "count"), by("userId"))
        )
        .await[1],
        json!({"userId": "bob", "count_count": 1})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_and_scores_have_views_of_their_own() {
    let xtrace = Xtrace::start().await;
    fill(&xtrace).await;
    let by = |field: &str| json!({"dimensions": [{"field": field}]});
    for (measure, aggregation, expected) in [
        ("count", "count", 3.0),
        ("observationsCount", "sum", 4.0),
        ("scoresCount", "sum", 3.0),
        ("uniqueUserIds", "uniq", 2.0),
        ("latency", "max", 300.0),
        ("totalTokens", "sum", 66.0),
        ("totalCost", "sum", 2.25),
    ] {
        let found = rows(
            &xtrace,
            V1,
            question("traces", metric(measure, aggregation), json!({})),
        )
        .await;
        assert_eq!(
            found[0][format!("{aggregation}_{measure}")].as_f64(),
            Some(expected),
            "{measure}: {found}"
        );
    }
    assert_eq!(
        rows(
            &xtrace,
            V1,
            question("traces", metric("count", "count"), by("userId"))
        )
        .await,
        json!([{"userId": "ada", "count_count": 2}, {"userId": "bob", "count_count": 1}])
    );
    assert_eq!(
        rows(
            &xtrace,
            V2,
            question("scores-numeric", metric("value", "avg"), by("name"))
        )
        .await,
        json!([{"name": "ok", "avg_value": 0.5}, {"name": "quality", "avg_value": 0.5}])
    );
    assert_eq!(
        rows(
            &xtrace,
            V2,
            question(
                "scores-boolean",
                metric("count", "count"),
                by("booleanValue")
            )
        )
        .await,
        json!([{"booleanValue": false, "count_count": 1}, {"booleanValue": true, "count_count": 1}])
    );
    assert_eq!(
        rows(
            &xtrace,
            V2,
            question(
                "scores-categorical",
                metric("count", "count"),
                by("stringValue")
            )
        )
        .await,
        json!([{"stringValue": "kind", "count_count": 1}])
    );
    assert_eq!(
        rows(
            &xtrace,
            V2,
            question(
                "scores-numeric",
                metric("count", "count"),
                by("observationModelName")
            )
        )
        .await,
        json!([{"observationModelName": null, "count_count": 2}, {"observationModelName": "m2", "count_count": 1}])
    );
    assert_eq!(
        rows(
            &xtrace,
            V1,
            question("scores-numeric", metric("count", "count"), by("sessionId"))
        )
        .await,
        json!([{"sessionId": "s", "count_count": 3}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_of_time_have_no_holes_unless_they_are_ordered() {
    let xtrace = Xtrace::start().await;
    fill(&xtrace).await;
    let daily = json!({"timeDimension": {"granularity": "day"}, "dimensions": [{"field": "providedModelName"}],
        "filters": [{"column": "type", "operator": "=", "value": "GENERATION", "type": "string"}]});
    assert_eq!(
        rows(
            &xtrace,
            V2,
            question("observations", metric("count", "count"), daily.clone())
        )
        .await,
        json!([
            {"providedModelName": null, "time_dimension": "2026-01-14", "count_count": 0},
            {"providedModelName": "m1", "time_dimension": "2026-01-15", "count_count": 1},
            {"providedModelName": "m2", "time_dimension": "2026-01-15", "count_count": 1},
            {"providedModelName": "m1", "time_dimension": "2026-01-16", "count_count": 1},
        ])
    );
    // Filled rows count too.
    let mut limited = daily.clone();
    limited["config"] = json!({"row_limit": 2});
    let found = rows(
        &xtrace,
        V2,
        question("observations", metric("count", "count"), limited),
    )
    .await;
    assert_eq!(found.as_array().unwrap().len(), 2);
    let mut ordered = daily;
    ordered["orderBy"] = json!([{"field": "time_dimension", "direction": "desc"}]);
    let found = rows(
        &xtrace,
        V2,
        question("observations", metric("count", "count"), ordered),
    )
    .await;
    assert_eq!(
        (found.as_array().unwrap().len(), &found[0]["time_dimension"]),
        (3, &json!("2026-01-16"))
    );
    for (granularity, first, buckets) in [
        ("hour", "2026-01-14T00:00:00.000Z", 72),
        ("week", "2026-01-12", 1),
        ("month", "2026-01-01", 1),
    ] {
        let over =
            json!({"timeDimension": {"granularity": granularity}, "config": {"row_limit": 1000}});
        let found = rows(
            &xtrace,
            V2,
            question("observations", metric("count", "count"), over),
        )
        .await;
        assert_eq!(
            (found.as_array().unwrap().len(), &found[0]["time_dimension"]),
            (buckets, &json!(first)),
            "{granularity}: {found}"
        );
        let counted: i64 = found
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["count_count"].as_i64().unwrap())
            .sum();
        assert_eq!(counted, 4, "{granularity}");
    }
    let auto = json!({"timeDimension": {"granularity": "auto"}});
    let found = rows(
        &xtrace,
        V2,
        question("observations", metric("count", "count"), auto),
    )
    .await;
    assert_eq!(found[0]["time_dimension"], "2026-01-14");
}

#[tokio::test(flavor = "multi_thread")]
async fn histograms_hold_every_value_once() {
    let xtrace = Xtrace::start().await;
    fill(&xtrace).await;
    let query = json!({"config": {"bins": 4}});
    let found = rows(
        &xtrace,
        V2,
        question("observations", metric("latency", "histogram"), query),
    )
    .await;
    let bins = found[0]["histogram_latency"].as_array().unwrap();
    assert!(bins.len() <= 4);
    let heights: f64 = bins.iter().map(|bin| bin[2].as_f64().unwrap()).sum();
    assert!((heights - 3.0).abs() < f64::EPSILON, "{bins:?}");
    assert!(bins.iter().all(|bin| bin[0].as_f64() <= bin[1].as_f64()));
    let alike = json!({"dimensions": [{"field": "providedModelName"}], "filters":
        [{"column": "providedModelName", "operator": "any of", "value": ["m2"], "type": "stringOptions"}]});
    let found = rows(
        &xtrace,
        V2,
        question("observations", metric("latency", "histogram"), alike),
    )
    .await;
    assert_eq!(found[0]["histogram_latency"], json!([[300, 300, 1]]));
    let none = json!({"filters": [{"column": "name", "operator": "=", "value": "nope", "type": "string"}]});
    let found = rows(
        &xtrace,
        V2,
        question("observations", metric("latency", "histogram"), none),
    )
    .await;
    assert_eq!(found[0]["histogram_latency"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_narrow_a_question() {
    let xtrace = Xtrace::start().await;
    fill(&xtrace).await;
    for (view, filter, count) in [
        (
            "observations",
            json!({"column": "userId", "operator": "=", "value": "bob", "type": "string"}),
            1,
        ),
        (
            "observations",
            json!({"column": "tags", "operator": "all of", "value": ["a"], "type": "arrayOptions"}),
            4,
        ),
        (
            "observations",
            json!({"column": "latency", "operator": ">=", "value": 200, "type": "number"}),
            2,
        ),
        (
            "observations",
            json!({"column": "calledToolNames", "operator": "any of", "value": ["search"], "type": "arrayOptions"}),
            3,
        ),
        (
            "observations",
            json!({"column": "name", "operator": "is not null", "value": "", "type": "null"}),
            4,
        ),
        (
            "traces",
            json!({"column": "metadata", "operator": "=", "key": "tier", "value": "gold", "type": "stringObject"}),
            3,
        ),
        (
            "traces",
            json!({"column": "timestamp", "operator": ">", "value": "2026-01-15T11:00:00Z", "type": "datetime"}),
            1,
        ),
        (
            "scores-numeric",
            json!({"column": "value", "operator": "<", "value": 1, "type": "number"}),
            2,
        ),
    ] {
        let found = rows(
            &xtrace,
            V1,
            question(view, metric("count", "count"), json!({"filters": [filter]})),
        )
        .await;
        assert_eq!(found[0]["count_count"], count, "{filter}");
    }
}
