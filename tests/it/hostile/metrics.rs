//! Metrics: histograms of very many buckets, and questions that reach very much.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::arena::{Arena, succeed};
use crate::harness::answer;

const METRICS: &str = "/v1/metrics";

/// A histogram of so many buckets, whose bounds no other point has.
fn histogram(at: DateTime<Utc>, number: u32, buckets: u32) -> Value {
    let bounds = (1..buckets).map(|bound| f64::from(bound) + f64::from(number) / 1000.0);
    let time = at.timestamp_nanos_opt().unwrap() + i64::from(number) * 1000;
    json!({"timeUnixNano": time.to_string(), "startTimeUnixNano": "1", "count": buckets.to_string(), "sum": 1.0,
        "bucketCounts": vec!["1"; buckets as usize], "explicitBounds": bounds.collect::<Vec<_>>()})
}

fn request(points: &[Value]) -> Value {
    let metric =
        json!({"name": "wide", "histogram": {"aggregationTemporality": 1, "dataPoints": points}});
    json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]})
}

/// Points of too many buckets are refused one by one; those of as many as there may be can be stored, and asked for in
/// every way, without anybody else noticing.
#[tokio::test(flavor = "multi_thread")]
async fn wide_histograms_stop_nobody() {
    let arena = Arena::start().await;
    let now = Utc::now() - TimeDelta::minutes(5);
    let attack = async {
        let mixed = [
            histogram(now, 0, 4096),
            histogram(now, 1, 4097),
            histogram(now, 2, 30_000),
        ];
        let body = succeed(arena.attack(Method::POST, METRICS).json(&request(&mixed))).await;
        assert_eq!(body["partialSuccess"]["rejectedDataPoints"], "2", "{body}");
        let message = body["partialSuccess"]["errorMessage"].as_str().unwrap();
        assert!(message.contains("explicitBounds:too_many"), "{body}");
        for round in 0..20 {
            let points: Vec<Value> = (0..10)
                .map(|number| histogram(now, 10 + round * 10 + number, 4000))
                .collect();
            succeed(arena.attack(Method::POST, METRICS).json(&request(&points))).await;
        }
        let questions = [
            "name=wide&agg=p95&step=1m",
            "name=wide&agg=p50&step=1h",
            "name=wide&agg=max&step=1d",
            "name=wide.bucket&agg=last",
            "name=wide.bucket&agg=increase&group_by=le",
            "name=wide.bucket&agg=p99&group_by=none",
        ];
        let asked = questions.iter().cycle().take(18).map(|question| {
            let path = format!("/api/public/metrics/query?{question}");
            answer(arena.attack(Method::GET, &path))
        });
        futures_util::future::join_all(asked).await
    };
    let (answers, report) = arena.watch(attack).await;
    for (status, body) in answers {
        match status {
            StatusCode::OK | StatusCode::TOO_MANY_REQUESTS | StatusCode::GATEWAY_TIMEOUT => {}
            StatusCode::UNPROCESSABLE_ENTITY => {
                // A million bounds: it says what to do.
                let message = body["message"].as_str().unwrap();
                assert!(
                    message.contains("name one value of the label \"le\""),
                    "{body}"
                );
            }
            other => panic!("{other} {body}"),
        }
    }
    report.assert_undisturbed();
    // Narrowed, it is answered.
    let path =
        "/api/public/metrics/query?name=wide.bucket&agg=last&labels=%7B%22le%22%3A%22%2BInf%22%7D";
    let body = succeed(arena.ask(Method::GET, path)).await;
    assert_eq!(body["data"], json!([]), "the neighbour has no such metric");
    let body = succeed(arena.attack(Method::GET, path)).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 1, "{body}");
}
