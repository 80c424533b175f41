//! One trace that grows without end.

use chrono::Utc;
use reqwest::Method;
use serde_json::{Value, json};

use super::arena::{Arena, succeed};

/// Everything goes into one trace: its first observation moves with every request, one clock is that of 1970, and
/// models and environments are made up.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_without_end_slows_nobody_down() {
    const REQUESTS: i64 = 40;
    const OBSERVATIONS: i64 = 400;
    let arena = Arena::start().await;
    let begin = Utc::now() - chrono::TimeDelta::hours(1);
    let at = |millis: i64| begin + chrono::TimeDelta::milliseconds(millis);
    let attack = async {
        for request in 0..REQUESTS {
            let new = (0..OBSERVATIONS).map(|n| {
                let n = request * OBSERVATIONS + n;
                json!({"id": format!("o-{n}"), "traceId": "t", "type": "GENERATION", "startTime": at(n),
                    "endTime": at(n + n % 977), "model": format!("m-{}", n % 1700), "environment": format!("e{}", n % 3),
                    "usageDetails": {"input": n}})
            });
            let first = json!({"id": "first", "traceId": "t", "startTime": at(-100_000 + request), "endTime": at(0)});
            let wild = json!({"id": format!("w-{request}"), "traceId": "t", "startTime": "1970-01-01T00:00:01Z"});
            let observations: Vec<Value> = new.chain([first, wild]).collect();
            let body = json!({"observations": observations});
            succeed(arena.attack(Method::POST, "/v1/l/batch").json(&body)).await;
        }
    };
    let ((), report) = arena.watch(attack).await;
    report.assert_undisturbed();
    arena.assert_sums_are_right(&report).await;
    let counted = "select default_count::bigint from traces where project_id = 'attacker'";
    let counted: i64 = sqlx::query_scalar(counted)
        .fetch_one(&mut arena.sql().await)
        .await
        .unwrap();
    assert_eq!(counted, REQUESTS * (OBSERVATIONS + 1) + 1);
}
