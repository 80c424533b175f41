//! Rate limits, request ids and the other rules that hold on every path.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Xtrace, answer};

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_limited_by_credential_and_writes_are_not() {
    let flags = ["--rate-limit-qps", "1", "--rate-limit-burst", "2"];
    let xtrace = Xtrace::start_with(&flags).await;
    let other = xtrace.project("other").await;
    for _ in 0..2 {
        assert_eq!(
            xtrace.get("/api/public/metrics/names").await.0,
            StatusCode::OK
        );
    }
    let native = xtrace
        .request(Method::GET, "/api/public/metrics/names")
        .send()
        .await
        .unwrap();
    assert_eq!(native.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = native.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(seconds >= 1);
    let body: serde_json::Value = native.json().await.unwrap();
    assert_eq!(
        (&body["message"], &body["code"]),
        (&json!("Too Many Requests"), &json!("TOO_MANY_REQUESTS"))
    );
    assert_eq!(body["meta"]["rate_limit"]["remaining"], 0);
    assert!(body["meta"]["rate_limit"]["reset_at"].is_string());

    let (status, body) = xtrace.get("/api/public/traces").await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        (&body["code"], &body["details"]["limit"]),
        (&json!("rate_limited"), &json!(2))
    );
    assert_eq!(
        answer(xtrace.request_as(&other, Method::GET, "/api/public/traces"))
            .await
            .0,
        StatusCode::OK
    );
    assert_eq!(xtrace.get("/api/public/projects").await.0, StatusCode::OK);
    for _ in 0..10 {
        assert_eq!(
            xtrace.post("/v1/l/batch", &json!({})).await.0,
            StatusCode::OK
        );
    }
    // `HEAD` runs the same handler, and what xtrace says of itself is read too.
    let path = "/api/internal/rate_limit_stats";
    let head = (Method::HEAD, "/api/public/traces");
    for (method, path) in [head, (Method::GET, "/metrics"), (Method::GET, path)] {
        let (status, _) = answer(xtrace.request(method.clone(), path)).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{method} {path}");
    }
    let (_, stats) = answer(xtrace.administer(Method::GET, path)).await;
    let all = stats["data"].as_object().unwrap();
    let refused: u64 = all
        .values()
        .map(|counts| counts["refused"].as_u64().unwrap())
        .sum();
    assert_eq!((all.len(), refused), (3, 5), "{stats}");
    for credential in ["test-token", "pk-lf", "sk-lf", "other"] {
        assert!(!stats.to_string().contains(credential), "{stats}");
    }
    // A key sees its own counts.
    let (_, own) = answer(xtrace.request_as(&other, Method::GET, path)).await;
    let own = own["data"].as_object().unwrap();
    let counts: Vec<_> = own.values().collect();
    assert_eq!(counts, [&json!({"allowed": 2, "refused": 0})]);
    assert!(own.keys().all(|label| all.contains_key(label)), "{own:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_have_ids() {
    let xtrace = Xtrace::start().await;
    let id_of = async |sent: Option<&str>| {
        let mut request = xtrace.request(Method::GET, "/healthz");
        if let Some(id) = sent {
            request = request.header("x-request-id", id);
        }
        let response = request.send().await.unwrap();
        response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(id_of(Some("order-17")).await, "order-17");
    let long = "x".repeat(129);
    for odd in [None, Some("with space"), Some(long.as_str())] {
        let id = id_of(odd).await;
        assert!(Some(id.as_str()) != odd && id.len() == 36, "{id}");
    }
}
