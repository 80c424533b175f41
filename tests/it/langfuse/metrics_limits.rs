//! The metrics query: what is refused, what sums suffice for, whose numbers are answered.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::metrics::{V1, V2, ask, fill, metric, question, rows};
use super::{event, ingest};
use crate::harness::Xtrace;

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

/// Sums by day answer what the rows answer, dirty or clean, also for parts of a day.
#[tokio::test(flavor = "multi_thread")]
async fn sums_by_day_are_those_of_the_rows() {
    let xtrace = Xtrace::start().await;
    let models = ["m1", "m2", "m3"];
    let events: Vec<Value> = (0..200)
        .map(|n: usize| {
            let body = json!({"id": format!("o{n}"), "traceId": format!("t{}", n / 3), "model": models.get(n % 4),
                "environment": if n.is_multiple_of(5) { "dev" } else { "prod" },
                "startTime": format!("2026-01-{:02}T{:02}:30:00Z", 1 + n % 28, n % 24),
                "usageDetails": {"input": n, "output": 1}, "costDetails": {"total": 0.25 * n as f64}});
            event(&n.to_string(), 1, "generation-create", body)
        })
        .collect();
    ingest(&xtrace, json!(events)).await;
    let all = json!([{"measure": "count", "aggregation": "count"}, {"measure": "totalCost", "aggregation": "sum"},
        {"measure": "inputTokens", "aggregation": "sum"}, {"measure": "totalTokens", "aggregation": "sum"}]);
    let range =
        json!({"fromTimestamp": "2026-01-02T05:00:00Z", "toTimestamp": "2026-01-27T12:30:00Z"});
    for round in ["dirty", "clean"] {
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
            assert_eq!(sums, counted, "{round} {more}");
            assert!(!sums.as_array().unwrap().is_empty());
        }
        // The worker sums up once a second.
        let mut sql = xtrace.sql().await;
        let began = std::time::Instant::now();
        while sqlx::query_scalar::<_, i64>("select count(*) from usage_dirty")
            .fetch_one(&mut sql)
            .await
            .unwrap()
            > 0
        {
            assert!(began.elapsed().as_secs() < 60, "hours stay dirty");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
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
