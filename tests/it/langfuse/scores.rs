//! Scores: three ways in, three ways out.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{INGESTION, event, ingest};
use crate::harness::{PUBLIC_KEY, SECRET_KEY, Xtrace, answer};

#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_alone_writes_scores_and_nothing_else() {
    let xtrace = Xtrace::start().await;
    let send = |method: Method, path: &str, body: Value| {
        let url = format!("{}{path}", xtrace.url);
        answer(
            xtrace
                .http
                .request(method, url)
                .bearer_auth(PUBLIC_KEY)
                .json(&body),
        )
    };
    let score = json!({"id": "sc", "traceId": "t", "name": "stars", "value": 5});
    assert_eq!(
        send(Method::POST, "/api/public/scores", score.clone()).await,
        (StatusCode::OK, json!({"id": "sc"}))
    );
    let events = json!({"batch": [event("1", 1, "score-create", score), event("2", 1, "trace-create", json!({"id": "t"}))]});
    let (status, body) = send(Method::POST, INGESTION, events).await;
    assert_eq!(status, StatusCode::MULTI_STATUS);
    assert_eq!(body["successes"], json!([{"id": "1", "status": 201}]));
    assert_eq!(
        (&body["errors"][0]["id"], &body["errors"][0]["status"]),
        (&json!("2"), &json!(401))
    );
    for (method, path) in [
        (Method::GET, "/api/public/scores"),
        (Method::GET, "/api/public/traces"),
        (Method::DELETE, "/api/public/scores/sc"),
        (Method::DELETE, "/api/public/traces/t"),
        (Method::GET, "/api/public/sessions"),
    ] {
        let (status, body) = send(method, path, json!({})).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(
            body,
            json!({"message": "Access denied - insufficient permissions for this endpoint"})
        );
    }
    // Browsers ask before they send.
    let preflight = xtrace
        .http
        .request(Method::OPTIONS, format!("{}{INGESTION}", xtrace.url))
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,content-type",
        );
    let response = preflight.send().await.unwrap();
    assert!(response.status().is_success());
    assert_eq!(
        response.headers()["access-control-allow-origin"],
        "https://shop.example"
    );
    assert_eq!(
        response.headers()["access-control-allow-headers"],
        "authorization,content-type"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_refused_in_the_words_of_the_path() {
    let xtrace = Xtrace::start().await;
    let request = |path: &str| {
        xtrace
            .http
            .post(format!("{}{path}", xtrace.url))
            .json(&json!({"batch": []}))
    };
    let (status, body) = answer(request(INGESTION).basic_auth(PUBLIC_KEY, Some("wrong"))).await;
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (401, &json!("UnauthorizedError"))
    );
    let (status, body) =
        answer(request("/api/public/scores").basic_auth("wrong", Some(SECRET_KEY))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        body,
        json!({"message": "Invalid credentials. Confirm that you've configured the correct host."})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_are_written_updated_read_and_deleted() {
    let xtrace = Xtrace::start().await;
    let post = async |body: Value| xtrace.post("/api/public/scores", &body).await;
    ingest(
        &xtrace,
        json!([event(
            "e",
            1,
            "trace-create",
            json!({"id": "t", "userId": "ada", "tags": ["x"], "sessionId": "s"})
        )]),
    )
    .await;
    let first = json!({"id": "a", "traceId": "t", "observationId": "o", "name": "quality", "value": 0.5,
        "comment": "so so", "metadata": {"by": "me"}, "environment": "Prod", "timestamp": "2026-01-15T10:00:00Z"});
    assert_eq!(
        post(first.clone()).await,
        (StatusCode::OK, json!({"id": "a"}))
    );
    assert_eq!(
        post(
            json!({"id": "a", "traceId": "other", "name": "quality", "value": 0.9, "comment": null})
        )
        .await
        .0,
        200
    );
    let (_, score) = xtrace.get("/api/public/scores/a").await;
    // The subject and the time stay, the value is the last, null clears the comment.
    assert_eq!(
        (
            &score["traceId"],
            &score["observationId"],
            &score["value"],
            &score["comment"]
        ),
        (&json!("t"), &json!("o"), &json!(0.9), &Value::Null)
    );
    assert_eq!(
        (
            &score["timestamp"],
            &score["environment"],
            &score["metadata"]
        ),
        (
            &json!("2026-01-15T10:00:00.000Z"),
            &json!("prod"),
            &json!({"by": "me"})
        )
    );
    assert_eq!(score.get("trace"), None);
    assert_eq!(score.get("sessionId"), None);
    let (status, made) = post(json!({"traceId": "t", "name": "label", "value": "good"})).await;
    assert_eq!(status, 200);
    let many = json!([
        {"id": "b", "sessionId": "s", "name": "session", "value": 1},
        {"id": "c", "traceId": "t", "name": "remark", "value": "fine", "dataType": "TEXT"},
        {"id": "d", "traceId": "t", "name": "anything", "value": "better", "dataType": "CORRECTION"},
        {"id": "e", "traceId": "t", "name": "yes", "value": 1.0, "dataType": "BOOLEAN"},
        {"id": "f", "datasetRunId": "run", "name": "run", "value": 3},
    ]);
    for _ in 0..2 {
        let (status, body) = post(many.clone()).await;
        assert_eq!(
            (status.as_u16(), body),
            (202, json!({"message": "Accepted"}))
        );
    }
    let (status, body) = post(
        json!([{"id": "g", "traceId": "t", "name": "n", "value": 1}, {"name": "n", "value": 1}]),
    )
    .await;
    assert_eq!(
        (status.as_u16(), &body["accepted"], &body["rejected"]),
        (207, &json!(1), &json!(1))
    );
    let names = |body: &Value| -> Vec<String> {
        let mut names: Vec<String> = body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let (_, v1) = xtrace.get("/api/public/scores").await;
    assert_eq!(names(&v1), ["label", "n", "quality", "remark", "yes"]);
    assert_eq!(
        v1["data"][0]["trace"],
        json!({"userId": "ada", "tags": ["x"], "environment": "default"})
    );
    let (_, v2) = xtrace.get("/api/public/v2/scores").await;
    assert_eq!(v2["meta"]["totalItems"], 8);
    let text = v2["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["dataType"] == "TEXT")
        .unwrap();
    assert_eq!(
        (text.get("value"), &text["stringValue"]),
        (None, &json!("fine"))
    );
    for (query, expected) in [
        ("?value=0.8&operator=%3E&name=quality", vec!["quality"]),
        ("?value=0.8&name=quality", vec!["quality"]),
        ("?dataType=CATEGORICAL", vec!["label"]),
        ("?userId=nobody", vec![]),
        ("?traceTags=x&name=yes", vec!["yes"]),
        ("?sessionId=s", vec!["session"]),
        ("?datasetRunId=run", vec!["run"]),
        ("?scoreIds=e,f", vec!["run", "yes"]),
        ("?observationId=o", vec!["quality"]),
        ("?environment=prod", vec!["quality"]),
        (
            "?filter=%5B%7B%22type%22%3A%22stringObject%22%2C%22column%22%3A%22metadata%22%2C%22key%22%3A%22by%22%2C%22operator%22%3A%22%3D%22%2C%22value%22%3A%22me%22%7D%5D",
            vec!["quality"],
        ),
    ] {
        let (status, body) = xtrace.get(&format!("/api/public/v2/scores{query}")).await;
        assert_eq!(status, 200, "{query}: {body}");
        assert_eq!(names(&body), expected, "{query}");
    }
    for query in [
        "?operator=~&value=1",
        "?operator=%3E&value=x",
        "?dataType=FUZZY",
        "?fields=trace",
        "?fields=score&userId=ada",
        "?limit=101",
    ] {
        assert_eq!(
            xtrace.get(&format!("/api/public/v2/scores{query}")).await.0,
            400,
            "{query}"
        );
    }
    assert_eq!(xtrace.get("/api/public/scores/d").await.0, 404);
    let (_, correction) = xtrace.get("/api/public/v2/scores/d").await;
    assert_eq!(
        (&correction["name"], &correction["stringValue"]),
        (&json!("output"), &json!("better"))
    );
    let id = made["id"].as_str().unwrap();
    for _ in 0..2 {
        let request = xtrace.request(Method::DELETE, &format!("/api/public/scores/{id}"));
        assert_eq!(
            answer(request).await,
            (
                StatusCode::ACCEPTED,
                json!({"message": "Score deletion queued successfully"})
            )
        );
    }
    assert_eq!(
        xtrace.get(&format!("/api/public/scores/{id}")).await.1["error"],
        "LangfuseNotFoundError"
    );
}

/// The trace of an evaluator stays with its score, until it is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn scores_keep_the_trace_that_made_them() {
    let xtrace = Xtrace::start().await;
    let shown = async |version: &str| {
        let (status, score) = xtrace.get(&format!("/api/public/{version}scores/s")).await;
        assert_eq!(status, StatusCode::OK, "{score}");
        score["executionTraceId"].clone()
    };
    let score = json!({"id": "s", "traceId": "t", "name": "n", "value": 1, "source": "EVAL",
        "executionTraceId": "judge-1"});
    ingest(&xtrace, json!([event("1", 1, "score-create", score)])).await;
    assert_eq!(shown("").await, "judge-1");
    assert_eq!(shown("v2/").await, "judge-1");
    let again = json!({"id": "s", "traceId": "t", "name": "n", "value": 2});
    assert_eq!(xtrace.post("/api/public/scores", &again).await.0, 200);
    assert_eq!(shown("").await, "judge-1");
    let other =
        json!({"id": "s", "traceId": "t", "name": "n", "value": 3, "executionTraceId": "judge-2"});
    assert_eq!(xtrace.post("/api/public/scores", &other).await.0, 200);
    assert_eq!(shown("v2/").await, "judge-2");
    let (_, list) = xtrace.get("/api/public/v2/scores").await;
    assert_eq!(list["data"][0]["executionTraceId"], "judge-2");
    let long =
        json!({"traceId": "t", "name": "n", "value": 3, "executionTraceId": "x".repeat(801)});
    let (status, said) = xtrace.post("/api/public/scores", &long).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn version_3_of_scores_is_strict_and_turns_pages_by_cursor() {
    let xtrace = Xtrace::start().await;
    let scores: Vec<Value> = (0..7)
        .map(|n| json!({"id": format!("s{n}"), "traceId": "t", "name": "n", "value": n,
            "timestamp": if n < 5 { "2026-01-15T10:00:00Z" } else { "2026-01-16T10:00:00Z" }}))
        .chain([json!({"id": "b", "traceId": "t", "observationId": "o", "name": "b", "value": 1, "dataType": "BOOLEAN",
            "comment": "c", "timestamp": "2026-01-14T10:00:00Z"})])
        .collect();
    assert_eq!(
        xtrace.post("/api/public/scores", &json!(scores)).await.0,
        202
    );
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, body) = xtrace
            .get(&format!("/api/public/v3/scores?limit=3{cursor}"))
            .await;
        assert_eq!(status, 200, "{body}");
        seen.extend(
            body["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["id"].as_str().unwrap().to_owned()),
        );
        match body["meta"]["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["s6", "s5", "s4", "s3", "s2", "s1", "s0", "b"]);
    let (_, body) = xtrace.get("/api/public/v3/scores?limit=8").await;
    assert_eq!(body["meta"], json!({"limit": 8}));
    let (_, body) = xtrace
        .get("/api/public/v3/scores?id=b&fields=details,subject,annotation")
        .await;
    let score = &body["data"][0];
    assert_eq!(
        (&score["value"], &score["comment"], &score["queueId"]),
        (&json!(true), &json!("c"), &Value::Null)
    );
    assert_eq!(
        score["subject"],
        json!({"kind": "observation", "id": "o", "traceId": "t"})
    );
    for (query, count) in [
        ("dataType=numeric&valueMin=2&valueMax=4", 3),
        ("dataType=NUMERIC&value=1,2", 2),
        ("dataType=BOOLEAN&value=true,false", 1),
        ("traceId=t", 8),
        ("traceId=t&observationId=o", 1),
        ("fromTimestamp=2026-01-16", 2),
        ("name=", 8),
    ] {
        let (status, body) = xtrace.get(&format!("/api/public/v3/scores?{query}")).await;
        assert_eq!(status, 200, "{query}: {body}");
        assert_eq!(body["data"].as_array().unwrap().len(), count, "{query}");
    }
    for query in [
        "bogus=1",
        "limit=0",
        "limit=101",
        "limit=abc",
        "fields=bogus",
        "cursor=",
        "cursor=%21",
        "cursor=e30",
        "userId=u",
        "traceTags=x",
        "value=1",
        "dataType=TEXT&value=x",
        "dataType=BOOLEAN&value=1",
        "dataType=NUMERIC&value=Infinity",
        "valueMin=1",
        "observationId=o",
        "traceId=t&sessionId=s",
        "source=nobody",
        "dataType=odd",
    ] {
        assert_eq!(
            xtrace
                .get(&format!("/api/public/v3/scores?{query}"))
                .await
                .0,
            400,
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn web_pages_may_send_with_a_public_key() {
    let xtrace = Xtrace::start().await;
    for path in [INGESTION, "/api/public/scores"] {
        let ask = xtrace
            .http
            .request(Method::OPTIONS, format!("{}{path}", xtrace.url))
            .header("origin", "https://app.example.com")
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,content-type",
            );
        let answer = ask.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{path}");
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_lowercase();
        assert_eq!(
            header("access-control-allow-origin"),
            "https://app.example.com"
        );
        assert!(header("access-control-allow-headers").contains("authorization"));
        let methods = header("access-control-allow-methods");
        assert!(
            methods.contains("post") && methods.contains("delete"),
            "{methods}"
        );
    }
    let send = xtrace
        .http
        .post(format!("{}/api/public/scores", xtrace.url))
        .bearer_auth(PUBLIC_KEY)
        .header("origin", "https://app.example.com")
        .json(&json!({"traceId": "t", "name": "thumbs", "value": 1}));
    let answer = send.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let headers = answer.headers();
    assert_eq!(
        headers["access-control-allow-origin"],
        "https://app.example.com"
    );
    assert!(headers["vary"].to_str().unwrap().contains("origin"));
    assert!(!headers.contains_key("access-control-allow-credentials"));
}
