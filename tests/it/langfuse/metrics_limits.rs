//! The metrics query: what is refused, what sums suffice for, whose numbers are answered.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::metrics::{V1, V2, ask, fill, metric, question, rows};
use super::{event, ingest};
use crate::harness::{Xtrace, until_summed_up};

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_make_no_sense_are_refused() {
    let xtrace = Xtrace::start().await;
    let count = || metric("count", "count");
    let filtered = |filter: Value| question("observations", count(), json!({"filters": [filter]}));
    let by = |field: &str, more: Value| {
        let mut query = question("observations", count(), more);
        query["dimensions"] = json!([{"field": field}]);
        query
    };
    let ordered = json!({"orderBy": [{"field": "sum_totalCost", "direction": "desc"}]});
    let hc = "High cardinality dimension(s) 'userId' require both 'config.row_limit' and 'orderBy' with direction 'desc' on a measure field.";
    for (query, words) in [
        (
            question("observations", metric("speed", "sum"), json!({})),
            "Invalid metric",
        ),
        (
            question("observations", metric("latency", "median"), json!({})),
            "Invalid request data",
        ),
        (
            question("observations", metric("traceId", "sum"), json!({})),
            "Aggregation \\\"sum\\\" is not valid for measure \\\"traceId\\\"",
        ),
        (
            question("scores-categorical", metric("value", "sum"), json!({})),
            "Invalid metric",
        ),
        (by("colour", json!({})), "Invalid dimension"),
        (by("userId", json!({})), hc),
        (by("userId", json!({"config": {"row_limit": 5}})), hc),
        (
            by("traceId", json!({"timeDimension": {"granularity": "day"}})),
            "High cardinality",
        ),
        (
            question("observations", count(), ordered),
            "Invalid orderBy field: sum_totalCost",
        ),
        (
            question("traces", count(), json!({})),
            "\"path\":[\"query\",\"view\"]",
        ),
        (question("nonsense", count(), json!({})), "observations"),
        (
            question("observations", json!({}), json!({})),
            "expected array",
        ),
        (
            json!({"view": "observations", "metrics": []}),
            "fromTimestamp",
        ),
        (
            question(
                "observations",
                count(),
                json!({"toTimestamp": "2026-01-14T00:00:00Z"}),
            ),
            "must be before",
        ),
        (
            question(
                "observations",
                count(),
                json!({"fromTimestamp": "yesterday"}),
            ),
            "Invalid ISO datetime",
        ),
        (
            question("observations", count(), json!({"config": {"bins": 101}})),
            "<=100",
        ),
        (
            question(
                "observations",
                count(),
                json!({"config": {"row_limit": 1001}}),
            ),
            "<=1000",
        ),
        (
            question(
                "observations",
                count(),
                json!({"timeDimension": {"granularity": "year"}}),
            ),
            "Invalid option",
        ),
        (
            filtered(json!({"column": "colour", "operator": "=", "value": "x", "type": "string"})),
            "Invalid filter column",
        ),
        (
            filtered(json!({"column": "tags", "operator": "=", "value": "x", "type": "string"})),
            "Filter type 'string' is not supported for dimension type 'string[]'. Expected 'arrayOptions'.",
        ),
        (
            filtered(
                json!({"column": "name", "operator": "any of", "value": ["x"], "type": "arrayOptions"}),
            ),
            "Filter type 'arrayOptions' is not supported for dimension type 'string'. Expected 'string' or 'stringOptions'.",
        ),
        (
            filtered(
                json!({"column": "metadata", "operator": "=", "value": "x", "type": "string"}),
            ),
            "Metadata filters require type 'stringObject'",
        ),
        (
            filtered(
                json!({"column": "name; drop table traces", "operator": "=", "value": "x", "type": "string"}),
            ),
            "Invalid filter column",
        ),
    ] {
        let (status, body) = ask(&xtrace, V2, &query).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {body}");
        assert!(body.to_string().contains(words), "{query}: {body}");
    }
    assert_eq!(xtrace.get(V2).await.0, StatusCode::BAD_REQUEST);
    let (status, body) = xtrace.get(&format!("{V2}?query=%7B")).await;
    assert_eq!(
        (status, &body["message"]),
        (
            StatusCode::BAD_REQUEST,
            &json!("Invalid JSON in query parameter")
        )
    );
    // From the beginning of time.
    let epoch = question(
        "observations",
        count(),
        json!({"fromTimestamp": "1970-01-01T00:00:00Z"}),
    );
    assert_eq!(ask(&xtrace, V2, &epoch).await.0, StatusCode::OK);
    let minutes = json!({"fromTimestamp": "1970-01-01T00:00:00Z", "timeDimension": {"granularity": "minute"}});
    let (status, body) = ask(&xtrace, V1, &question("observations", count(), minutes)).await;
    assert_eq!(
        (status, &body["error"]),
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            &json!("PayloadTooLargeError")
        )
    );
}

/// Numbers may differ in their last digits: they were added up in other orders.
fn assert_alike(a: &Value, b: &Value, what: &str) {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            (a.iter().zip(b)).for_each(|(a, b)| assert_alike(a, b, what));
        }
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{what}: {a:?} {b:?}");
            (a.values().zip(b.values())).for_each(|(a, b)| assert_alike(a, b, what));
        }
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            assert!((one - other).abs() <= other.abs() * 1e-9, "{what}: {a} {b}");
        }
        _ => assert_eq!(a, b, "{what}"),
    }
}

/// Sums by day answer what the rows answer, dirty or clean, also for parts of a day.
#[tokio::test(flavor = "multi_thread")]
async fn sums_by_day_are_those_of_the_rows() {
    let xtrace = Xtrace::start().await;
    let models = ["m1", "m2", "m3"];
    let time = |n: usize, minute: usize, milliseconds: usize| {
        format!(
            "2026-01-{:02}T{:02}:{minute}:00.{milliseconds:03}Z",
            1 + n % 28,
            n % 24
        )
    };
    let events: Vec<Value> = (0..200)
        .map(|n: usize| {
            let body = json!({"id": format!("o{n}"), "traceId": format!("t{}", n / 3), "model": models.get(n % 4),
                "environment": if n.is_multiple_of(5) { "dev" } else { "prod" },
                "startTime": time(n, 30, 0),
                "completionStartTime": if n.is_multiple_of(3) { json!(null) } else { json!(time(n, 30, 100 + n)) },
                "endTime": if n.is_multiple_of(7) { json!(null) } else { json!(time(n, 30 + n % 20, n * 4)) },
                "usageDetails": {"input": n, "output": 1}, "costDetails": {"total": 0.25 * n as f64}});
            event(&n.to_string(), 1, "generation-create", body)
        })
        .collect();
    ingest(&xtrace, json!(events)).await;
    let all = json!([{"measure": "count", "aggregation": "count"}, {"measure": "totalCost", "aggregation": "sum"},
        {"measure": "inputTokens", "aggregation": "sum"}, {"measure": "totalTokens", "aggregation": "sum"},
        {"measure": "latency", "aggregation": "avg"}, {"measure": "latency", "aggregation": "p50"},
        {"measure": "latency", "aggregation": "p95"}, {"measure": "latency", "aggregation": "max"},
        {"measure": "latency", "aggregation": "count"}, {"measure": "latency", "aggregation": "histogram"},
        {"measure": "timeToFirstToken", "aggregation": "sum"}, {"measure": "timeToFirstToken", "aggregation": "p99"},
        {"measure": "timeToFirstToken", "aggregation": "min"}]);
    let range =
        json!({"fromTimestamp": "2026-01-02T05:00:00Z", "toTimestamp": "2026-01-27T12:30:00Z"});
    for round in ["dirty", "clean", "migrated"] {
        if round == "migrated" {
            // Traces of before are given what the program writes into new ones.
            let migration = include_str!("../../../migrations/0019_latency_hourly.sql");
            let update = &migration[migration.find("update traces").unwrap()..];
            let mut sql = xtrace.sql().await;
            sqlx::query(update).execute(&mut sql).await.unwrap();
        }
        for more in [
            json!({"dimensions": [{"field": "providedModelName"}], "timeDimension": {"granularity": "day"}}),
            json!({"dimensions": [{"field": "environment"}], "timeDimension": {"granularity": "week"}}),
            json!({"dimensions": [{"field": "environment"}, {"field": "providedModelName"}]}),
            json!({"timeDimension": {"granularity": "month"}}),
            json!({"filters": [{"column": "environment", "operator": "any of", "value": ["dev"], "type": "stringOptions"}]}),
        ] {
            let mut from_sums = question("observations", all.clone(), range.clone());
            from_sums
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            // One more condition, which always holds, makes it read the rows.
            let mut from_rows = from_sums.clone();
            let mut filters = from_rows["filters"].as_array().cloned().unwrap_or_default();
            filters.push(
                json!({"column": "type", "operator": "=", "value": "GENERATION", "type": "string"}),
            );
            from_rows["filters"] = json!(filters);
            let (sums, counted) = (
                rows(&xtrace, V1, from_sums).await,
                rows(&xtrace, V1, from_rows).await,
            );
            assert_alike(&sums, &counted, &format!("{round} {more}"));
            assert!(!sums.as_array().unwrap().is_empty());
        }
        until_clean(&xtrace).await;
    }
}

/// The worker sums up once a second.
async fn until_clean(xtrace: &Xtrace) {
    let mut sql = xtrace.sql().await;
    until_summed_up(&mut sql, "true", std::time::Duration::from_mins(1)).await;
}

/// An hour of more than a thousand different durations keeps rounded ones.
#[tokio::test(flavor = "multi_thread")]
async fn percentiles_of_busy_hours_are_wrong_by_half_a_percent_at_most() {
    let xtrace = Xtrace::start().await;
    let events: Vec<Value> = (0..3000_u64)
        .map(|n| {
            let micros = 1000 + n * n * 6;
            let body = json!({"id": format!("o{n}"), "traceId": format!("t{}", n % 2), "model": "m",
                "startTime": "2026-01-10T10:00:00Z",
                "endTime": format!("2026-01-10T10:00:{:02}.{:06}Z", micros / 1_000_000, micros % 1_000_000)});
            event(&n.to_string(), 1, "generation-create", body)
        })
        .collect();
    for part in events.chunks(1000) {
        ingest(&xtrace, json!(part)).await;
    }
    until_clean(&xtrace).await;
    let all = json!([{"measure": "latency", "aggregation": "p50"}, {"measure": "latency", "aggregation": "p99"},
        {"measure": "latency", "aggregation": "count"}, {"measure": "latency", "aggregation": "max"}]);
    let range = json!({"fromTimestamp": "2026-01-08T00:00:00Z"});
    let found = rows(&xtrace, V2, question("observations", all, range)).await;
    for (name, n) in [("p50_latency", 1499.5_f64), ("p99_latency", 2969.01)] {
        let exact = 1.0 + n * n * 0.006;
        let wrong = (found[0][name].as_f64().unwrap() - exact).abs() / exact;
        assert!(wrong < 0.005, "{found}");
    }
    assert_eq!(found[0]["count_latency"], 3000);
    let mut sql = xtrace.sql().await;
    let kept: i64 =
        sqlx::query_scalar("select sum(cardinality(micros))::bigint from latency_daily")
            .fetch_one(&mut sql)
            .await
            .unwrap();
    assert!(kept < 1500, "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_of_ones_own_project() {
    let xtrace = Xtrace::start().await;
    fill(&xtrace).await;
    let other = xtrace.project("other").await;
    for query in [
        question("observations", metric("count", "count"), json!({})),
        question(
            "observations",
            metric("latency", "max"),
            json!({"dimensions": [{"field": "traceName"}]}),
        ),
        question("scores-numeric", metric("count", "count"), json!({})),
    ] {
        let text: String = form_urlencoded::byte_serialize(query.to_string().as_bytes()).collect();
        let request =
            xtrace.request_as(&other, reqwest::Method::GET, &format!("{V2}?query={text}"));
        let (_, body) = crate::harness::answer(request).await;
        let found = body["data"].as_array().unwrap();
        assert!(
            found.is_empty() || found[0]["count_count"] == 0,
            "{query}: {body}"
        );
    }
}
