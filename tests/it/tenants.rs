//! Credentials open their own project and no other.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{PUBLIC_KEY, SECRET_KEY, TOKEN, Xtrace, answer};

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

/// Every protected path, with a method that it takes.
const PROTECTED: [(&str, &str); 39] = [
    ("POST", "/v1/traces"),
    ("POST", "/api/public/otel/v1/traces"),
    ("POST", "/v1/metrics"),
    ("POST", "/api/public/otel/v1/metrics"),
    ("POST", "/v1/logs"),
    ("POST", "/api/public/otel/v1/logs"),
    ("GET", "/api/public/logs"),
    ("POST", "/v1/l/batch"),
    ("POST", "/v1/metrics/batch"),
    ("GET", "/api/public/metrics/names"),
    ("GET", "/api/public/metrics/query?name=x"),
    ("GET", "/api/internal/rate_limit_stats"),
    ("GET", "/api/public/projects"),
    ("GET", "/api/public/traces"),
    ("GET", "/api/public/traces/t"),
    ("GET", "/api/public/observations"),
    ("GET", "/api/public/observations/o"),
    ("GET", "/api/public/metrics/daily"),
    ("DELETE", "/api/public/traces/t"),
    ("GET", "/api/public/v2/observations"),
    ("GET", "/api/public/sessions"),
    ("GET", "/api/public/sessions/s"),
    ("GET", "/api/public/scores"),
    ("GET", "/api/public/scores/s"),
    ("GET", "/api/public/v2/scores"),
    ("GET", "/api/public/v3/scores"),
    ("GET", "/api/public/v2/prompts"),
    ("GET", "/api/public/score-configs"),
    ("GET", "/api/public/comments"),
    ("GET", "/api/public/media/m"),
    ("GET", "/api/public/models"),
    ("DELETE", "/api/public/models/m"),
    (
        "GET",
        "/api/public/v2/metrics?query=%7B%22view%22:%22observations%22,%22metrics%22:[],%22fromTimestamp%22:%222026-01-01T00:00:00Z%22,%22toTimestamp%22:%222026-01-02T00:00:00Z%22%7D",
    ),
    ("GET", "/api/public/datasets"),
    ("GET", "/api/public/v2/datasets"),
    ("GET", "/api/public/datasets/d/runs"),
    ("GET", "/api/public/dataset-items"),
    (
        "GET",
        "/api/public/experiments?fromStartTime=2026-01-01T00:00:00Z",
    ),
    ("GET", "/api/public/annotation-queues"),
];

#[tokio::test(flavor = "multi_thread")]
async fn both_schemes_open_every_path_and_nothing_else_does() {
    let xtrace = Xtrace::start().await;
    for (method, path) in PROTECTED {
        let method: Method = method.parse().unwrap();
        let request = || {
            let request = xtrace
                .http
                .request(method.clone(), format!("{}{path}", xtrace.url));
            request
                .header("content-type", "application/json")
                .body("{\"metrics\":[]}")
        };
        let refused = [
            request(),
            request().bearer_auth("wrong"),
            request().bearer_auth(SECRET_KEY),
            request().basic_auth(PUBLIC_KEY, Some("wrong")),
            request().basic_auth("wrong", Some(SECRET_KEY)),
            request().basic_auth(SECRET_KEY, Some(PUBLIC_KEY)),
            request().basic_auth(PUBLIC_KEY, Some("")),
            request().header("authorization", TOKEN),
            request().header("authorization", "Basic \u{e9}"),
        ];
        for (index, request) in refused.into_iter().enumerate() {
            let response = request.send().await.unwrap();
            assert_eq!(
                response.status(),
                StatusCode::UNAUTHORIZED,
                "{path} {index}"
            );
            assert!(
                response.headers().contains_key("www-authenticate"),
                "{path} {index}"
            );
        }
        let bare_public_key = request().bearer_auth(PUBLIC_KEY).send().await.unwrap();
        assert_eq!(bare_public_key.status(), StatusCode::FORBIDDEN, "{path}");
        for request in [
            request().bearer_auth(TOKEN),
            request().basic_auth(PUBLIC_KEY, Some(SECRET_KEY)),
        ] {
            let status = request.send().await.unwrap().status();
            assert!(
                status == StatusCode::OK || status == StatusCode::NOT_FOUND,
                "{path} {status}"
            );
        }
    }
}
