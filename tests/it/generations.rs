//! Series that nobody sends: what stored generations say, by model, environment, name and type.

#![expect(clippy::too_many_lines, reason = "a test is one story")]

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::Xtrace;
use crate::otlp_metrics::check;

#[tokio::test(flavor = "multi_thread")]
async fn generations_are_series_too() {
    let xtrace = Xtrace::start().await;
    let observation = |id: &str, model: &str, seconds: u64, level: &str| {
        json!({"id": id, "traceId": "t", "type": "GENERATION", "name": "ask", "model": model, "level": level,
            "startTime": "2026-01-15T10:00:00Z", "completionStartTime": "2026-01-15T10:00:00.500Z",
            "endTime": format!("2026-01-15T10:00:{seconds:02}Z"), "usage": {"input": 10, "output": 5, "total": 15},
            "costDetails": {"total": 0.25}})
    };
    let batch = json!({"observations": [observation("a", "m1", 2, "DEFAULT"), observation("b", "m1", 4, "ERROR"),
        observation("c", "m2", 8, "DEFAULT"), {"id": "d", "traceId": "t", "type": "SPAN", "startTime": "2026-01-15T10:00:00Z"}]});
    assert_eq!(xtrace.post("/v1/l/batch", &batch).await.0, StatusCode::OK);
    let m1 = "labels=%7B%22model%22%3A%22m1%22%7D";
    check(
        &xtrace,
        &format!("name=xtrace.generation.duration&{m1}"),
        &[3.0],
    )
    .await;
    check(
        &xtrace,
        &format!("name=xtrace.generation.duration&{m1}&agg=p50"),
        &[3.0],
    )
    .await;
    check(
        &xtrace,
        "name=xtrace.generation.duration&agg=max&group_by=type",
        &[8.0],
    )
    .await;
    check(
        &xtrace,
        &format!("name=xtrace.generation.time_to_first_token&{m1}"),
        &[0.5],
    )
    .await;
    check(
        &xtrace,
        "name=xtrace.generation.tokens&agg=sum&group_by=name",
        &[45.0],
    )
    .await;
    check(
        &xtrace,
        "name=xtrace.generation.cost&agg=increase&group_by=environment",
        &[0.75],
    )
    .await;
    check(
        &xtrace,
        "name=xtrace.generation.requests&agg=rate&group_by=none",
        &[3.0 / 3600.0],
    )
    .await;
    check(
        &xtrace,
        "name=xtrace.generation.errors&agg=sum&group_by=none",
        &[1.0],
    )
    .await;
    check(
        &xtrace,
        "name=xtrace.generation.errors&agg=sum&environment=other",
        &[],
    )
    .await;
    // Corrected, it is another number at once.
    let again = json!({"observations": [observation("a", "m1", 6, "DEFAULT")]});
    assert_eq!(xtrace.post("/v1/l/batch", &again).await.0, StatusCode::OK);
    let path = format!(
        "/api/public/metrics/query?name=xtrace.generation.duration&{m1}&exemplars=true\
        &from=2026-01-15T09:00:00Z&to=2026-01-15T12:00:00Z&step=1h"
    );
    let (_, body) = xtrace.get(&path).await;
    assert_eq!(
        body["data"][0]["labels"],
        json!({"environment": "default", "model": "m1", "name": "ask", "type": "GENERATION"})
    );
    assert_eq!(body["data"][0]["values"][0]["value"], 5.0, "{body}");
    let exemplar = &body["exemplars"][0];
    assert_eq!(
        (&exemplar["traceId"], &exemplar["trace"]),
        (&json!("t"), &json!("/api/public/traces/t"))
    );
    // All traces of the range are a click away.
    let (status, traces) = xtrace.get(body["meta"]["traces"].as_str().unwrap()).await;
    assert_eq!(
        (status, &traces["data"][0]["id"]),
        (StatusCode::OK, &json!("t"))
    );
    let (_, names) = xtrace.get("/api/public/metrics/names").await;
    assert!(
        names["data"]
            .as_array()
            .unwrap()
            .contains(&json!("xtrace.generation.duration")),
        "{names}"
    );
    // Nobody else's.
    let other = xtrace.project("other").await;
    let request = xtrace.request_as(&other, Method::GET, &path);
    let (_, body) = crate::harness::answer(request).await;
    assert_eq!(
        (&body["data"], &body["exemplars"]),
        (&json!([]), &json!([]))
    );
}
