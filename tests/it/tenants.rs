//! Credentials open their own project and no other.

use chrono::Utc;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

use crate::harness::{Xtrace, answer};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_ids_in_two_projects_are_two() {
    let xtrace = Xtrace::start().await;
    let (ours, theirs) = (xtrace.project("ours").await, xtrace.project("theirs").await);
    for (keys, name) in [(&ours, "mine"), (&theirs, "yours")] {
        let trace = json!({"id": "t", "name": name, "userId": name, "metadata": {name: 1}});
        let observation = json!({"id": "o", "traceId": "t", "name": name});
        let point = json!({"name": name, "value": 1, "timestamp": "2026-01-15T10:00:00Z"});
        let batch = json!({"trace": trace, "observations": [observation]});
        let request = xtrace
            .request_as(keys, Method::POST, "/v1/l/batch")
            .json(&batch);
        assert_eq!(answer(request).await.0, StatusCode::OK);
        let points = json!({"metrics": [point]});
        let request = xtrace
            .request_as(keys, Method::POST, "/v1/metrics/batch")
            .json(&points);
        assert_eq!(answer(request).await.0, StatusCode::OK);
    }
    for (keys, own, other) in [(&ours, "mine", "yours"), (&theirs, "yours", "mine")] {
        for path in [
            "/api/public/traces",
            "/api/public/traces/t",
            "/api/public/observations",
            "/api/public/observations/o",
            "/api/public/metrics/names",
            "/api/public/projects",
        ] {
            let (status, body) = answer(xtrace.request_as(keys, Method::GET, path)).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            let body = body.to_string();
            assert!(
                path.ends_with("projects") || body.contains(own),
                "{path}: {body}"
            );
            assert!(!body.contains(other), "{path}: {body}");
        }
    }
    // The default project has none of it.
    let (_, traces) = xtrace.get("/api/public/traces").await;
    assert_eq!(traces["meta"]["totalItems"], 0);
    assert_eq!(
        xtrace.get("/api/public/traces/t").await.0,
        StatusCode::NOT_FOUND
    );
    let (_, daily) = xtrace.get("/api/public/metrics/daily").await;
    assert_eq!(daily["data"], json!([]));
    let query =
        "/api/public/metrics/query?name=mine&from=2026-01-15T09:00:00Z&to=2026-01-15T11:00:00Z";
    assert_eq!(xtrace.get(query).await.1["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_events_came_is_told_to_their_project_alone() {
    let xtrace = Xtrace::start().await;
    let (busy, silent) = (xtrace.project("busy").await, xtrace.project("silent").await);
    let path = "/api/public/health?failIfNoRecentEvents=true";
    let is_silent = json!("No traces within the last 3 minutes");
    let ask = async |request: RequestBuilder| {
        let (status, body) = answer(request).await;
        (status.as_u16(), body["status"].clone())
    };
    let as_project = |keys| xtrace.request_as(keys, Method::GET, path);
    let as_admin = || xtrace.administer(Method::GET, path);
    let nobody = || xtrace.http.get(format!("{}{path}", xtrace.url));
    assert_eq!(ask(as_admin()).await, (503, is_silent.clone()));
    let now = Utc::now();
    let batch = json!({"trace": {"id": "t", "timestamp": now},
        "observations": [{"id": "o", "traceId": "t", "startTime": now}]});
    let write = xtrace.request_as(&busy, Method::POST, "/v1/l/batch");
    assert_eq!(answer(write.json(&batch)).await.0, StatusCode::OK);
    assert_eq!(ask(as_project(&busy)).await, (200, json!("OK")));
    assert_eq!(ask(as_project(&silent)).await, (503, is_silent));
    assert_eq!(ask(as_admin()).await, (200, json!("OK")));
    assert_eq!(ask(nobody()).await.0, 401);
    assert_eq!(ask(nobody().basic_auth("pk", Some("sk"))).await.0, 401);
    let plain = format!("{}/api/public/health", xtrace.url);
    assert_eq!(ask(xtrace.http.get(plain)).await, (200, json!("OK")));
}
