//! Score configurations, comments, annotation queues.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{event, ingest};
use crate::harness::{Xtrace, answer};

const CONFIGS: &str = "/api/public/score-configs";
const COMMENTS: &str = "/api/public/comments";
const QUEUES: &str = "/api/public/annotation-queues";

async fn send(xtrace: &Xtrace, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    answer(xtrace.request(method, path).json(&body)).await
}

async fn config(xtrace: &Xtrace, body: Value) -> Value {
    let (status, config) = xtrace.post(CONFIGS, &body).await;
    assert_eq!(status, StatusCode::OK, "{body}: {config}");
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_are_made_changed_and_listed() {
    let xtrace = Xtrace::start().await;
    let numeric = config(
        &xtrace,
        json!({"name": "accuracy (v1.0)_-é", "dataType": "NUMERIC", "minValue": 0, "maxValue": 1}),
    )
    .await;
    assert_eq!(
        (
            &numeric["maxValue"],
            &numeric["isArchived"],
            &numeric["categories"],
            &numeric["projectId"]
        ),
        (&json!(1.0), &json!(false), &Value::Null, &json!("default"))
    );
    let boolean = config(&xtrace, json!({"name": "ok", "dataType": "BOOLEAN"})).await;
    assert_eq!(
        boolean["categories"],
        json!([{"label": "True", "value": 1.0}, {"label": "False", "value": 0.0}])
    );
    let tone = json!([{"label": "kind", "value": 1}, {"label": "rude", "value": 0}]);
    let categorical = config(
        &xtrace,
        json!({"name": "tone", "dataType": "CATEGORICAL", "categories": tone}),
    )
    .await;
    config(&xtrace, json!({"name": "note", "dataType": "TEXT"})).await;
    let (_, list) = xtrace.get(&format!("{CONFIGS}?limit=2")).await;
    assert_eq!(list["meta"]["totalItems"], 4);
    assert_eq!(list["data"][0]["name"], "note");

    let id = categorical["id"].as_str().unwrap();
    let path = format!("{CONFIGS}/{id}");
    let (status, changed) = send(
        &xtrace,
        Method::PATCH,
        &path,
        json!({"isArchived": true, "description": "d"}),
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    assert_eq!(
        (
            &changed["isArchived"],
            &changed["name"],
            &changed["categories"]
        ),
        (&json!(true), &json!("tone"), &categorical["categories"])
    );
    assert_eq!(xtrace.get(&path).await.1, changed);
    let (status, body) = xtrace.get(&format!("{CONFIGS}/nope")).await;
    assert_eq!(
        (status, &body["message"]),
        (
            StatusCode::NOT_FOUND,
            &json!("Score config not found within authorized project")
        )
    );
    let numeric = format!("{CONFIGS}/{}", numeric["id"].as_str().unwrap());
    let boolean = format!("{CONFIGS}/{}", boolean["id"].as_str().unwrap());
    for (path, body, words) in [
        (&path, json!({}), "Invalid request data"),
        (&path, json!({"name": "n/a"}), "Invalid request data"),
        (&numeric, json!({"categories": tone}), "Invalid input"),
        (&boolean, json!({"categories": tone}), "Invalid input"),
        (
            &numeric,
            json!({"minValue": 5}),
            "Maximum value must be greater than Minimum value",
        ),
    ] {
        let (status, answer) = send(&xtrace, Method::PATCH, path, body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(
            answer["message"].as_str().unwrap().contains(words),
            "{answer}"
        );
    }
    // Scores of an archived configuration are refused; the name is the configuration's.
    let score = json!({"name": "x", "traceId": "t", "value": "kind", "configId": id});
    let (status, body) = xtrace.post("/api/public/scores", &score).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    send(&xtrace, Method::PATCH, &path, json!({"isArchived": false})).await;
    let (_, made) = xtrace.post("/api/public/scores", &score).await;
    let (_, read) = xtrace
        .get(&format!(
            "/api/public/scores/{}",
            made["id"].as_str().unwrap()
        ))
        .await;
    assert_eq!(
        (&read["name"], &read["value"]),
        (&json!("tone"), &json!(1.0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_that_can_not_be_are_refused() {
    let xtrace = Xtrace::start().await;
    let (status, body) = xtrace
        .post(
            CONFIGS,
            &json!({"name": "n", "dataType": "NUMERIC", "minValue": 1, "maxValue": 0}),
        )
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        body,
        json!({"message": "Invalid request data", "error": [{"code": "custom",
            "message": "Maximum value must be greater than Minimum value", "path": []}]})
    );
    let category = |label: &str, value: i32| json!({"label": label, "value": value});
    let categorical = |categories: Value| json!({"name": "n", "dataType": "CATEGORICAL", "categories": categories});
    for (body, words) in [
        (json!({"name": "", "dataType": "TEXT"}), "Too small"),
        (json!({"name": "n".repeat(36), "dataType": "TEXT"}), "<=35"),
        (
            json!({"name": "a/b", "dataType": "TEXT"}),
            "Name may only contain",
        ),
        (json!({"name": "n"}), "Invalid option"),
        (json!({"name": "n", "dataType": "NUMBER"}), "Invalid option"),
        (
            json!({"name": "n", "dataType": "NUMERIC", "minValue": "1"}),
            "expected number",
        ),
        (
            json!({"name": "n", "dataType": "CATEGORICAL"}),
            "Category must be an array",
        ),
        (categorical(json!([])), "Category must be an array"),
        (
            categorical(json!([{"label": "a"}])),
            "Category must be an array",
        ),
        (
            categorical(json!([category("first", 1), category("first", 2)])),
            "Duplicate category label: first, category",
        ),
        (
            categorical(json!([category("a", 1), category("b", 1)])),
            "Duplicate category value: 1, category",
        ),
        (
            json!({"name": "n", "dataType": "BOOLEAN", "categories": [category("a", 1)]}),
            "Invalid input",
        ),
    ] {
        let (status, answer) = xtrace.post(CONFIGS, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
        assert!(answer.to_string().contains(words), "{body}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn comments_are_on_things_that_are_there() {
    let xtrace = Xtrace::start().await;
    ingest(
        &xtrace,
        json!([
            event("1", 1, "trace-create", json!({"id": "t", "sessionId": "s"})),
            event("2", 1, "span-create", json!({"id": "o", "traceId": "t"})),
        ]),
    )
    .await;
    let (_, prompt) = xtrace
        .post(
            "/api/public/v2/prompts",
            &json!({"name": "p", "prompt": "x"}),
        )
        .await;
    let objects = [
        ("TRACE", json!("t")),
        ("OBSERVATION", json!("o")),
        ("SESSION", json!("s")),
        ("PROMPT", prompt["id"].clone()),
    ];
    let body = |kind: &str, id: &Value, content: &str| json!({"projectId": "default", "objectType": kind, "objectId": id, "content": content});
    for (kind, id) in &objects {
        let (status, made) = xtrace
            .post(COMMENTS, &body(kind, id, "  see @[Ada](user:1)  "))
            .await;
        assert_eq!(status, StatusCode::OK, "{kind}: {made}");
        let (_, read) = xtrace
            .get(&format!("{COMMENTS}/{}", made["id"].as_str().unwrap()))
            .await;
        assert_eq!(
            (
                &read["objectType"],
                &read["objectId"],
                &read["content"],
                &read["authorUserId"]
            ),
            (&json!(kind), id, &json!("see @[Ada](user:1)"), &Value::Null)
        );
        let (status, missing) = xtrace
            .post(COMMENTS, &body(kind, &json!("nope"), "x"))
            .await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        let words = format!("Reference object, {kind}: nope not found.");
        assert!(
            missing["message"].as_str().unwrap().starts_with(&words),
            "{missing}"
        );
    }
    let (_, list) = xtrace.get(COMMENTS).await;
    let kinds: Vec<&Value> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["objectType"])
        .collect();
    assert_eq!(kinds, ["TRACE", "OBSERVATION", "SESSION", "PROMPT"]);
    let (_, list) = xtrace
        .get(&format!("{COMMENTS}?objectType=TRACE&objectId=t"))
        .await;
    assert_eq!(list["meta"]["totalItems"], 1);
    let (status, list) = xtrace.get(&format!("{COMMENTS}?objectId=t")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        list["error"],
        json!([{"code": "custom", "path": ["objectType"],
            "message": "objectType is required when objectId is provided"}])
    );
    for query in ["objectType=NOTE", "other=1", "page=0"] {
        let (status, _) = xtrace.get(&format!("{COMMENTS}?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
    }
    let (status, missing) = xtrace.get(&format!("{COMMENTS}/nope")).await;
    assert_eq!(
        (status, &missing["message"]),
        (
            StatusCode::NOT_FOUND,
            &json!("Comment not found within authorized project")
        )
    );
    let short = json!([{"origin": "string", "code": "too_small", "minimum": 1, "inclusive": true,
        "path": ["content"], "message": "Too small: expected string to have >=1 characters"}]);
    let long = json!([{"origin": "string", "code": "too_big", "maximum": 5000, "inclusive": true,
        "path": ["content"], "message": "Too big: expected string to have <=5000 characters"}]);
    for (content, issues) in [(" ".to_owned(), short), ("x".repeat(5001), long)] {
        let (status, answer) = xtrace
            .post(COMMENTS, &body("TRACE", &json!("t"), &content))
            .await;
        assert_eq!(
            (status, &answer["error"]),
            (StatusCode::BAD_REQUEST, &issues)
        );
    }
    let mut with_author = body("TRACE", &json!("t"), "x");
    with_author["authorUserId"] = json!("ada");
    let (status, answer) = xtrace.post(COMMENTS, &with_author).await;
    assert_eq!(
        (status, &answer["error"]),
        (StatusCode::BAD_REQUEST, &json!("InvalidRequestError"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_hold_things_to_look_at() {
    let xtrace = Xtrace::start().await;
    let config = config(&xtrace, json!({"name": "ok", "dataType": "BOOLEAN"})).await;
    let body = json!({"name": "review", "scoreConfigIds": [config["id"]]});
    let (status, queue) = xtrace.post(QUEUES, &body).await;
    assert_eq!(
        (status, &queue["description"]),
        (StatusCode::OK, &Value::Null),
        "{queue}"
    );
    let (status, again) = xtrace.post(QUEUES, &body).await;
    assert_eq!(
        (status, &again["message"]),
        (
            StatusCode::BAD_REQUEST,
            &json!("A queue with this name already exists.")
        )
    );
    for (body, words) in [
        (
            json!({"name": "n", "scoreConfigIds": ["nope"]}),
            "cannot be found for the given project",
        ),
        (json!({"name": "n", "scoreConfigIds": []}), "At least 1"),
        (json!({"name": "n"}), "expected array"),
        (
            json!({"name": "n", "scoreConfigIds": [config["id"]], "more": 1}),
            "Unrecognized key",
        ),
    ] {
        let (status, answer) = xtrace.post(QUEUES, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.to_string().contains(words), "{answer}");
    }
    assert_eq!(xtrace.get(QUEUES).await.1["data"], json!([queue]));
    let path = format!("{QUEUES}/{}", queue["id"].as_str().unwrap());
    assert_eq!(xtrace.get(&path).await.1, queue);

    let items = format!("{path}/items");
    let (status, item) = xtrace
        .post(&items, &json!({"objectId": "t", "objectType": "TRACE"}))
        .await;
    assert_eq!(
        (status, &item["status"], &item["completedAt"]),
        (StatusCode::OK, &json!("PENDING"), &Value::Null)
    );
    // No id is as long, and no index could hold it.
    let endless = json!({"objectId": "t".repeat(10_000), "objectType": "TRACE"});
    assert_eq!(xtrace.post(&items, &endless).await.0, 400);
    let done = json!({"objectId": "s", "objectType": "SESSION", "status": "COMPLETED"});
    let (_, done) = xtrace.post(&items, &done).await;
    assert!(done["completedAt"].is_string());
    let item_path = format!("{items}/{}", item["id"].as_str().unwrap());
    let (_, completed) = send(
        &xtrace,
        Method::PATCH,
        &item_path,
        json!({"status": "COMPLETED"}),
    )
    .await;
    assert!(completed["completedAt"].is_string());
    let (_, pending) = send(
        &xtrace,
        Method::PATCH,
        &item_path,
        json!({"status": "PENDING"}),
    )
    .await;
    assert_eq!(
        (&pending["status"], &pending["completedAt"]),
        (&json!("PENDING"), &completed["completedAt"])
    );
    let (_, list) = xtrace.get(&format!("{items}?status=PENDING")).await;
    assert_eq!(list["data"], json!([pending]));
    let (status, gone) = send(&xtrace, Method::DELETE, &item_path, json!({})).await;
    assert_eq!((status, &gone["success"]), (StatusCode::OK, &json!(true)));
    let (status, gone) = xtrace.get(&item_path).await;
    assert_eq!(
        (status, &gone["message"]),
        (
            StatusCode::NOT_FOUND,
            &json!("Annotation queue item not found")
        )
    );
    for path in [
        format!("{QUEUES}/nope"),
        format!("{QUEUES}/nope/items"),
        format!("{QUEUES}/nope/items/x"),
    ] {
        let (status, body) = xtrace.get(&path).await;
        assert_eq!(
            (status, &body["message"]),
            (StatusCode::NOT_FOUND, &json!("Annotation queue not found")),
            "{path}"
        );
    }
    let assignments = format!("{path}/assignments");
    let (status, body) = send(
        &xtrace,
        Method::POST,
        &assignments,
        json!({"userId": "ada"}),
    )
    .await;
    assert_eq!(
        (status, &body["message"]),
        (
            StatusCode::NOT_FOUND,
            &json!("User not found or not authorized for this project")
        )
    );
    let (status, body) = send(
        &xtrace,
        Method::DELETE,
        &assignments,
        json!({"userId": "ada"}),
    )
    .await;
    assert_eq!((status, &body), (StatusCode::OK, &json!({"success": true})));
    assert_eq!(
        xtrace.get(&format!("{QUEUES}?odd=1")).await.0,
        StatusCode::BAD_REQUEST
    );

    // Another project sees and changes none of it.
    let other = xtrace.project("other").await;
    for (method, path) in [
        (Method::GET, &path),
        (Method::GET, &items),
        (Method::DELETE, &item_path),
    ] {
        let (status, _) = answer(xtrace.request_as(&other, method, path)).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
}
