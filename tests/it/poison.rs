//! A request that Postgres refuses fails alone; those that share its transaction don't.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Xtrace, refuse_poison};

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_request_fails_alone() {
    let xtrace = Xtrace::start().await;
    let mut connection = xtrace.sql().await;
    // No input is known that gets this far (`hostile::writer` tries them), so the database is made to refuse one.
    refuse_poison(&mut connection, "traces").await;
    let requests = (0..60).map(|n| {
        let name = if n % 20 == 7 { "poison" } else { "sound" };
        let body = json!({"trace": {"id": format!("t-{n}"), "name": name}});
        let xtrace = &xtrace;
        async move { (name, xtrace.post("/v1/l/batch", &body).await.0) }
    });
    for (name, status) in join_all(requests).await {
        let expected = if name == "poison" {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::OK
        };
        assert_eq!(status, expected, "{name}");
    }
    let (_, traces) = xtrace.get("/api/public/traces?limit=1").await;
    assert_eq!(traces["meta"]["totalItems"], 57);
    // Nobody has to wait for rows that a refused transaction had locked: Postgres would end it after a minute.
    let open = "select count(*) from pg_stat_activity
        where datname = current_database() and state like 'idle in transaction%'";
    let began = Instant::now();
    while sqlx::query_scalar::<_, i64>(open)
        .fetch_one(&mut connection)
        .await
        .unwrap()
        > 0
    {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "it is still open"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_span_fails_alone() {
    let xtrace = Xtrace::start().await;
    let mut connection = xtrace.sql().await;
    refuse_poison(&mut connection, "observations").await;
    let spans: Vec<_> = (1..=40)
        .map(|n| {
            json!({"traceId": format!("{:032x}", n / 8 + 1), "spanId": format!("{n:016x}"),
                "name": if n == 23 { "poison" } else { "sound" }})
        })
        .collect();
    let export = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    let (status, body) = xtrace.post("/v1/traces", &export).await;
    assert_eq!(status, 200);
    assert_eq!(body["partialSuccess"]["rejectedSpans"], "1", "{body}");
    let (_, found) = xtrace.get("/api/public/observations?limit=1").await;
    assert_eq!(found["meta"]["totalItems"], 39);
    let path = format!("/api/public/observations/{:016x}", 23);
    assert_eq!(xtrace.get(&path).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_without_times_are_the_same_when_sent_twice() {
    let xtrace = Xtrace::start().await;
    let span = json!({"traceId": "0000000000000000000000000000000a", "spanId": "00000000000000aa", "name": "n"});
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
    let mut found = Vec::new();
    for _ in 0..2 {
        assert_eq!(
            xtrace.post("/v1/traces", &request).await,
            (StatusCode::OK, json!({}))
        );
        let (_, mut body) = xtrace
            .get("/api/public/observations/00000000000000aa")
            .await;
        body["updatedAt"] = json!("<clock>");
        found.push(body);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0]["startTime"], found[0]["endTime"]);
}
