//! What an answer prints is what a question may say: times to the millisecond, headings of columns, keys of
//! metadata with dots, names and labels of scores, environments of the same request.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{event, ingest};
use crate::harness::{PUBLIC_KEY, Xtrace, answer};

async fn read(xtrace: &Xtrace, path: &str, query: &[(&str, &str)]) -> Value {
    let request = xtrace.request(Method::GET, path).query(query);
    let (status, body) = answer(request).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

/// The ids of what a filter finds.
async fn found(xtrace: &Xtrace, path: &str, filter: Value) -> Vec<String> {
    let body = read(xtrace, path, &[("filter", &json!([filter]).to_string())]).await;
    let rows = body["data"].as_array().unwrap().iter();
    let mut ids: Vec<String> = rows
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_as_it_is_printed_selects_its_own_row() {
    let xtrace = Xtrace::start().await;
    let at = |micros: &str| format!("2026-01-15T10:00:00.{micros}Z");
    let span = |id: &str, micros: &str| {
        event(
            id,
            1,
            "span-create",
            json!({"id": id, "traceId": "t", "startTime": at(micros)}),
        )
    };
    ingest(
        &xtrace,
        json!([
            span("a", "123400"),
            span("b", "123999"),
            span("c", "124000")
        ]),
    )
    .await;
    let path = "/api/public/observations";
    let cases: [(&str, &str, &[&str]); 7] = [
        ("<=", "123", &["a", "b"]),
        (">", "123", &["c"]),
        (">=", "123", &["a", "b", "c"]),
        ("<", "124", &["a", "b"]),
        // To the microsecond it is meant so.
        ("<=", "123500", &["a"]),
        (">", "123500", &["b", "c"]),
        (">", "123999", &["c"]),
    ];
    for (operator, time, ids) in cases {
        let filter = json!({"type": "datetime", "column": "startTime", "operator": operator, "value": at(time)});
        assert_eq!(found(&xtrace, path, filter).await, ids, "{operator} {time}");
    }

    let (status, _) = xtrace
        .post("/api/public/v2/datasets", &json!({"name": "d"}))
        .await;
    assert_eq!(status, StatusCode::OK);
    // Many, so that some were made in the midst of a millisecond.
    for number in 0..10 {
        let body = json!({"datasetName": "d", "id": format!("i{number}"), "input": number});
        let (status, item) = xtrace.post("/api/public/dataset-items", &body).await;
        assert_eq!(status, StatusCode::OK, "{item}");
        let made = item["createdAt"].as_str().unwrap();
        let query = [("datasetName", "d"), ("version", made)];
        let items = read(&xtrace, "/api/public/dataset-items", &query).await;
        let mut ids = items["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| &row["id"]);
        assert!(ids.any(|id| *id == item["id"]), "{items}");
        let run = json!({"runName": "r", "datasetItemId": item["id"], "traceId": "t", "datasetVersion": made});
        let (status, body) = xtrace.post("/api/public/dataset-run-items", &run).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_take_headings_dotted_keys_and_labels_with_names() {
    let xtrace = Xtrace::start().await;
    let trace = |id: &str, metadata: Value| {
        event(
            id,
            1,
            "trace-create",
            json!({"id": id, "name": format!("n-{id}"), "metadata": metadata}),
        )
    };
    let score = |id: &str, name: &str, label: &str| {
        let body = json!({"id": id, "traceId": id, "name": name, "value": label, "dataType": "CATEGORICAL"});
        event(&format!("s-{id}"), 2, "score-create", body)
    };
    ingest(
        &xtrace,
        json!([
            trace("a", json!({"scope": {"name": "lib"}})),
            trace("b", json!({"scope.name": "lib"})),
            trace("c", json!({"scope": {"name": "other"}})),
            trace("d", json!({"scope": "lib"})),
            score("a", "tone", "kind"),
            score("b", "other", "kind"),
            score("c", "tone", "rude")
        ]),
    )
    .await;
    let path = "/api/public/traces";
    let text = |kind: &str, column: &str, operator: &str, value: Value| json!({"type": kind, "column": column, "operator": operator, "value": value, "key": "scope.name"});
    let cases: [(Value, &[&str]); 7] = [
        (text("string", "Name", "=", json!("n-a")), &["a"]),
        (
            text("stringOptions", "ID", "any of", json!(["b", "c"])),
            &["b", "c"],
        ),
        (
            text("stringObject", "metadata", "=", json!("lib")),
            &["a", "b"],
        ),
        (
            text("stringObject", "Metadata", "contains", json!("oth")),
            &["c"],
        ),
        (
            text("stringObject", "metadata", "starts with", json!("l")),
            &["a", "b"],
        ),
        (
            json!({"type": "stringOptions", "column": "score_categories", "operator": "any of", "value": ["tone:kind"]}),
            &["a"],
        ),
        (
            json!({"type": "categoryOptions", "column": "Scores (categorical)", "key": "tone", "operator": "any of",
                "value": ["kind", "rude"]}),
            &["a", "c"],
        ),
    ];
    for (filter, ids) in cases {
        assert_eq!(found(&xtrace, path, filter.clone()).await, ids, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn observations_take_the_environment_of_their_trace_in_the_same_request() {
    let xtrace = Xtrace::start().await;
    let observation = |id: &str, trace: &str| {
        json!({"id": id, "traceId": trace, "startTime": "2026-01-15T10:00:00Z",
            "endTime": "2026-01-15T10:00:02Z"})
    };
    let mut named = observation("named", "t");
    named["environment"] = json!("other");
    let body = json!({"trace": {"id": "t", "environment": "prod"},
        "observations": [observation("o", "t"), named, observation("foreign", "u")]});
    let (status, answer) = xtrace.post("/v1/l/batch", &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let query = [("environment", "prod")];
    let listed = read(&xtrace, "/api/public/traces", &query).await;
    let trace = &listed["data"][0];
    assert_eq!(
        (&trace["id"], &trace["latency"]),
        (&json!("t"), &json!(2.0))
    );
    assert_eq!(trace["observations"], json!(["o"]));
    for (environment, id) in [("prod", "o"), ("other", "named"), ("default", "foreign")] {
        let query = [("environment", environment)];
        let rows = read(&xtrace, "/api/public/observations", &query).await;
        let rows: Vec<&Value> = rows["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| &row["id"])
            .collect();
        assert_eq!(rows, [id], "{environment}");
    }
    // What is said of the observation itself counts more, and stays.
    let own = json!({"observations": [{"id": "o", "traceId": "t", "environment": "own"}]});
    assert_eq!(xtrace.post("/v1/l/batch", &own).await.0, StatusCode::OK);
    assert_eq!(xtrace.post("/v1/l/batch", &body).await.0, StatusCode::OK);
    let (_, found) = xtrace.get("/api/public/observations/o").await;
    assert_eq!(found["environment"], "own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_changes_no_score_but_its_own() {
    let xtrace = Xtrace::start().await;
    let path = "/api/public/scores";
    let public = |body: Value| {
        let url = format!("{}{path}", xtrace.url);
        answer(xtrace.http.post(url).bearer_auth(PUBLIC_KEY).json(&body))
    };
    let score = |id: &str, value: i64, comment: &str| json!({"id": id, "traceId": "t", "name": "stars", "value": value, "comment": comment});
    let stored = async |id: &str| {
        let (status, found) = xtrace.get(&format!("{path}/{id}")).await;
        assert_eq!(status, StatusCode::OK, "{found}");
        (found["value"].clone(), found["comment"].clone())
    };
    // Its own it makes and changes.
    for value in [1, 2] {
        assert_eq!(public(score("own", value, "mine")).await.0, StatusCode::OK);
        assert_eq!(stored("own").await, (json!(value as f64), json!("mine")));
    }
    // A secret's score stays as it is, also where it says nothing, by both ways in.
    let body = json!({"id": "secret", "traceId": "t", "name": "stars", "value": 5});
    assert_eq!(xtrace.post(path, &body).await.0, StatusCode::OK);
    assert_eq!(public(score("secret", 1, "forged")).await.0, StatusCode::OK);
    let mut late = event("e", 1, "score-create", score("secret", 1, "forged"));
    late["timestamp"] = json!("2030-01-01T00:00:00Z");
    let batch = xtrace
        .http
        .post(format!("{}{}", xtrace.url, super::INGESTION));
    let batch = batch
        .bearer_auth(PUBLIC_KEY)
        .json(&json!({ "batch": [late] }));
    assert_eq!(answer(batch).await.0, StatusCode::MULTI_STATUS);
    assert_eq!(stored("secret").await, (json!(5.0), Value::Null));
    // What came before the secret's part goes with it.
    let body = json!({"id": "own", "traceId": "t", "name": "stars", "value": 4});
    assert_eq!(xtrace.post(path, &body).await.0, StatusCode::OK);
    assert_eq!(stored("own").await, (json!(4.0), Value::Null));
}
