//! Sums are those of the rows, before and after they are written down, late and changed rows included;
//! counts are exact where they say so.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use xtrace_store::{Retention, maintenance};

use crate::harness::{Xtrace, until_summed_up};

fn generation(id: &str, trace: &str, start: &str, model: &str, tokens: u32) -> Value {
    json!({"id": id, "traceId": trace, "type": "GENERATION", "startTime": start, "model": model,
        "usage": {"input": tokens, "output": 1}})
}

async fn daily(xtrace: &Xtrace, query: &str) -> Value {
    let (status, body) = xtrace
        .get(&format!("/api/public/metrics/daily{query}"))
        .await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Waits until no hour is left to be summed up.
async fn settled(xtrace: &Xtrace) {
    let mut connection = xtrace.sql().await;
    until_summed_up(&mut connection, "true", Duration::from_mins(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_by_hour_are_those_of_the_rows() {
    let xtrace = Xtrace::start().await;
    // One trace within an hour, one over midnight, one of another environment.
    let batches = [
        json!({"trace": {"id": "a", "timestamp": "2026-03-01T10:10:00Z"}, "observations": [
            generation("1", "a", "2026-03-01T10:10:00Z", "gpt-4o", 10),
            generation("2", "a", "2026-03-01T10:20:00Z", "gpt-4o", 20),
            generation("3", "a", "2026-03-01T10:30:00Z", "o1", 30)]}),
        json!({"trace": {"id": "b", "timestamp": "2026-03-01T23:50:00Z"}, "observations": [
            generation("4", "b", "2026-03-01T23:50:00Z", "gpt-4o", 40),
            generation("5", "b", "2026-03-02T00:10:00Z", "gpt-4o", 50)]}),
        json!({"trace": {"id": "c", "timestamp": "2026-03-02T12:00:00Z", "environment": "staging"}}),
    ];
    for batch in &batches {
        assert_eq!(xtrace.post("/v1/l/batch", batch).await.0, 200);
    }
    let queries = [
        "",
        "?fromTimestamp=2026-03-01T10:15:00Z",
        "?fromTimestamp=2026-03-01T10:05:00Z&toTimestamp=2026-03-01T23:55:00Z",
        "?environment=staging",
        "?traceName=none",
    ];
    let mut live = Vec::new();
    for query in queries {
        live.push(daily(&xtrace, query).await);
    }
    settled(&xtrace).await;
    for (query, live) in queries.iter().zip(&live) {
        assert_eq!(daily(&xtrace, query).await, *live, "{query}");
    }
    let days = live[0]["data"].as_array().unwrap();
    assert_eq!(days.len(), 2);
    assert_eq!(
        (&days[0]["date"], &days[0]["countTraces"]),
        (&json!("2026-03-02"), &json!(1))
    );
    assert_eq!(
        (&days[1]["countTraces"], &days[1]["countObservations"]),
        (&json!(2), &json!(4))
    );
    let usage = days[1]["usage"].as_array().unwrap();
    let of = |model: &str| usage.iter().find(|usage| usage["model"] == model).unwrap();
    assert_eq!(
        (&of("gpt-4o")["inputUsage"], &of("gpt-4o")["countTraces"]),
        (&json!(70), &json!(2))
    );
    assert_eq!(
        (&of("o1")["inputUsage"], &of("o1")["countTraces"]),
        (&json!(30), &json!(1))
    );

    // A late observation and a correction show at once, and stay.
    let late = json!({"observations": [
        generation("6", "a", "2026-03-01T10:40:00Z", "o1", 5),
        generation("1", "a", "2026-03-01T10:10:00Z", "gpt-4o", 11)]});
    assert_eq!(xtrace.post("/v1/l/batch", &late).await.0, 200);
    let at_once = daily(&xtrace, "").await;
    assert_eq!(at_once["data"][1]["countObservations"], 5);
    let input = |body: &Value, at: usize| body["data"][1]["usage"][at]["inputUsage"].clone();
    let sum = input(&at_once, 0).as_i64().unwrap() + input(&at_once, 1).as_i64().unwrap();
    assert_eq!(sum, 71 + 35);
    settled(&xtrace).await;
    assert_eq!(daily(&xtrace, "").await, at_once);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_loses_observations_is_summed_up_again() {
    let xtrace = Xtrace::start().await;
    let at = |days: i64| (Utc::now() - TimeDelta::days(days)).to_rfc3339();
    let batch = json!({"trace": {"id": "t"}, "observations": [
        generation("old", "t", &at(40), "gpt-4o", 1000),
        generation("young", "t", &at(1), "gpt-4o", 10)]});
    assert_eq!(xtrace.post("/v1/l/batch", &batch).await.0, 200);
    let retention = Retention {
        traces_days: Some(30),
        metrics_days: None,
    };
    maintenance::once(&xtrace.store, retention).await.unwrap();
    let mut connection = xtrace.sql().await;
    let (usage, count, latency): (i64, i32, f64) =
        sqlx::query_as("select input_usage, default_count, latency from traces")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!((usage, count), (10, 1));
    assert!(latency < 1.0, "{latency}");
    settled(&xtrace).await;
    let body = daily(&xtrace, "").await;
    assert_eq!(body["data"][0]["usage"][0]["inputUsage"], 10, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_exact_to_ten_thousand_and_never_too_few_beyond() {
    let xtrace = Xtrace::start().await;
    let spans: Vec<Value> = (1..=10_050)
        .map(|n| {
            json!({"traceId": format!("{n:032x}"), "spanId": format!("{n:016x}"), "name": "n",
                "attributes": [{"key": "user.id", "value": {"stringValue": if n <= 9_999 { "ada" } else { "bob" }}}]})
        })
        .collect();
    let export = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    assert_eq!(xtrace.post("/v1/traces", &export).await.0, 200);
    let total = async |query: &str| {
        let (_, body) = xtrace.get(&format!("/api/public/{query}")).await;
        (
            body["meta"]["totalItems"].as_i64().unwrap(),
            body["data"].as_array().unwrap().len(),
        )
    };
    assert_eq!(
        total("traces?userId=ada&limit=10&fields=core").await,
        (9_999, 10)
    );
    assert_eq!(
        total("traces?userId=ada&limit=100&page=101&fields=core").await,
        (9_999, 0)
    );
    let (all, _) = total("traces?limit=100&fields=core").await;
    assert!(all > 10_000, "{all}");
    // The last page knows.
    assert_eq!(
        total("traces?limit=100&page=101&fields=core").await,
        (10_050, 50)
    );
    assert_eq!(total("observations?limit=100&page=101").await, (10_050, 50));
}
