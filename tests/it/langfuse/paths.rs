//! Every path of Langfuse's official API: served, or listed as not served; and no key reaches another project
//! through any of them.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{event, ingest};
use crate::harness::{Keys, PUBLIC_KEY, SECRET_KEY, Xtrace, answer};

/// Methods and paths of the official spec (4.16).
const OFFICIAL: &str = include_str!("../../../fixtures/langfuse-paths/official.txt");
const README: &str = include_str!("../../../compat/README.md");
/// Older paths, and lists that name things of others.
const MORE: &str = "
GET /api/public/prompts?name={promptName}
GET /api/public/datasets
GET /api/public/datasets/{datasetName}
GET /api/public/scores
GET /api/public/scores/{scoreId}
GET /api/public/metrics/daily
GET /api/public/metrics/daily?traceName=topsecret
GET /api/public/v2/prompts/{promptName}?label=latest
GET /api/public/comments?objectType=TRACE&objectId={traceId}
GET /api/public/observations?traceId={traceId}
GET /api/public/v2/observations?traceId={traceId}&fields=core,basic,io,metadata
GET /api/public/v2/scores?traceId={traceId}
GET /api/public/v3/scores?traceId={traceId}&fields=details,subject
GET /api/public/dataset-items?datasetName={datasetName}
GET /api/public/dataset-items?sourceTraceId={traceId}
GET /api/public/dataset-run-items?datasetId={datasetId}&runName=topsecret
GET /api/public/experiments?fromStartTime=2026-01-01T00:00:00Z
GET /api/public/experiment-items?fromStartTime=2026-01-01T00:00:00Z&fields=io
GET /api/public/logs?traceId={traceId}
GET /api/public/metrics/names
POST /api/public/traces
PATCH /api/public/spans
PATCH /api/public/generations
PUT /api/public/models/{id}
";

fn operations(text: &str) -> impl Iterator<Item = (Method, &str)> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(method, path)| (method.parse().unwrap(), path))
}

/// A path with its parameters filled in; those of the same name differ by what comes before them.
fn filled(path: &str, ids: &BTreeMap<&str, String>) -> String {
    let mut path = path.to_owned();
    let kind = path.split('/').nth(3).unwrap_or_default().to_owned();
    while let Some((before, rest)) = path.clone().split_once('{') {
        let (name, after) = rest.split_once('}').unwrap();
        let own = ids
            .get(format!("{kind}.{name}").as_str())
            .or_else(|| ids.get(name));
        let value = own.cloned().unwrap_or_else(|| "x".to_owned());
        path = format!("{before}{value}{after}");
    }
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn every_official_path_is_served_or_listed() {
    let xtrace = Xtrace::start().await;
    let listed = README.split("## Not served").nth(1).unwrap();
    let listed = listed.split("\n## ").next().unwrap();
    let prefixes: Vec<&str> = listed
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|quoted| quoted.starts_with('/'))
        .collect();
    assert!(prefixes.len() >= 8, "{prefixes:?}");
    let mut served = 0;
    for (method, path) in operations(OFFICIAL) {
        let short = path.strip_prefix("/api/public").unwrap();
        let is_listed = prefixes.iter().any(|prefix| short.starts_with(prefix));
        let request = xtrace.request(method.clone(), &filled(path, &BTreeMap::new()));
        let (status, body) = answer(request.json(&json!({}))).await;
        assert!(
            body.is_object() || status == StatusCode::NO_CONTENT,
            "{method} {path}: {status}"
        );
        let is_there =
            status != StatusCode::METHOD_NOT_ALLOWED && body["message"] != "No such endpoint";
        assert_eq!(is_there, !is_listed, "{method} {path}: {status} {body}");
        assert!(
            !status.is_server_error(),
            "{method} {path}: {status} {body}"
        );
        served += usize::from(is_there);
    }
    assert!(served >= 70, "{served}");
}

/// Fills a project with one of everything, all named alike; ids by what paths call them.
async fn fill(xtrace: &Xtrace) -> BTreeMap<&'static str, String> {
    const NAME: &str = "topsecret";
    ingest(
        xtrace,
        json!([
            event(
                "1",
                1,
                "trace-create",
                json!({"id": "trace-a", "name": NAME, "sessionId": "session-a",
                "input": NAME, "metadata": {"k": NAME}, "timestamp": "2026-01-15T10:00:00Z"})
            ),
            event(
                "2",
                1,
                "generation-create",
                json!({"id": "observation-a", "traceId": "trace-a", "name": NAME,
                "model": NAME, "output": NAME, "startTime": "2026-01-15T10:00:00Z"})
            ),
            event(
                "3",
                1,
                "score-create",
                json!({"id": "score-a", "traceId": "trace-a", "name": NAME, "value": 1})
            ),
        ]),
    )
    .await;
    let post = async |path: &str, body: Value| {
        let (status, answer) = xtrace.post(&format!("/api/public/{path}"), &body).await;
        assert!(status.is_success(), "{path}: {answer}");
        answer
    };
    let id = |made: &Value| made["id"].as_str().unwrap().to_owned();
    post(
        "v2/prompts",
        json!({"name": NAME, "prompt": NAME, "labels": ["production"]}),
    )
    .await;
    let dataset = post("v2/datasets", json!({"name": NAME, "description": NAME})).await;
    let item = post(
        "dataset-items",
        json!({"datasetName": NAME, "id": "item-a", "input": NAME, "sourceTraceId": "trace-a"}),
    )
    .await;
    post(
        "dataset-run-items",
        json!({"runName": NAME, "datasetItemId": id(&item), "traceId": "trace-a"}),
    )
    .await;
    let config = post(
        "score-configs",
        json!({"name": NAME, "dataType": "NUMERIC"}),
    )
    .await;
    let comment = post("comments", json!({"projectId": "default", "objectType": "TRACE", "objectId": "trace-a", "content": NAME})).await;
    let queue = post(
        "annotation-queues",
        json!({"name": NAME, "scoreConfigIds": [id(&config)]}),
    )
    .await;
    let queue_item = post(
        &format!("annotation-queues/{}/items", id(&queue)),
        json!({"objectId": "trace-a", "objectType": "TRACE"}),
    )
    .await;
    let model = post(
        "models",
        json!({"modelName": NAME, "matchPattern": NAME, "inputPrice": 1}),
    )
    .await;
    let media = post("media", json!({"contentType": "text/plain", "contentLength": 3, "traceId": "trace-a", "field": "input",
        "sha256Hash": "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="})).await;
    xtrace
        .http
        .put(media["uploadUrl"].as_str().unwrap())
        .body("abc")
        .send()
        .await
        .unwrap();
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let span = json!({"traceId": "0123456789abcdef0123456789abcdef", "spanId": "0123456789abcdef", "name": NAME,
        "startTimeUnixNano": "1768471200000000000", "endTimeUnixNano": "1768471201000000000",
        "attributes": [text("langfuse.experiment.id", "experiment-a"), text("langfuse.experiment.name", NAME),
            text("langfuse.observation.input", NAME)]});
    post(
        "otel/v1/traces",
        json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}),
    )
    .await;
    BTreeMap::from([
        ("traceId", "trace-a".to_owned()),
        ("observationId", "observation-a".to_owned()),
        ("scoreId", "score-a".to_owned()),
        ("sessionId", "session-a".to_owned()),
        ("promptName", NAME.to_owned()),
        ("name", NAME.to_owned()),
        ("version", "1".to_owned()),
        ("datasetName", NAME.to_owned()),
        ("datasetId", id(&dataset)),
        ("runName", NAME.to_owned()),
        ("dataset-items.id", id(&item)),
        ("configId", id(&config)),
        ("commentId", id(&comment)),
        ("queueId", id(&queue)),
        ("itemId", id(&queue_item)),
        ("models.id", id(&model)),
        ("mediaId", media["mediaId"].as_str().unwrap().to_owned()),
        ("projectId", "default".to_owned()),
    ])
}

/// What a key reads on every path, without what is signed anew each time.
async fn snapshot(
    xtrace: &Xtrace,
    keys: &Keys,
    ids: &BTreeMap<&str, String>,
) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let reads = operations(OFFICIAL).chain(operations(MORE));
    for (method, path) in reads.filter(|(method, _)| method == Method::GET) {
        let (status, mut body) = answer(xtrace.request_as(keys, method, &filled(path, ids))).await;
        for name in ["url", "urlExpiry"] {
            body.as_object_mut().map(|members| members.remove(name));
        }
        found.insert(path.to_owned(), json!([status.as_u16(), body]));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_reaches_another_project_through_any_path() {
    let xtrace = Xtrace::start().await;
    let ids = fill(&xtrace).await;
    let ours = Keys {
        public: PUBLIC_KEY.to_owned(),
        secret: SECRET_KEY.to_owned(),
    };
    let before = snapshot(&xtrace, &ours, &ids).await;
    let shown = before
        .values()
        .filter(|answer| answer.to_string().contains("topsecret"));
    assert!(shown.count() >= 25, "the walk reads what it should");

    let theirs = xtrace.project("theirs").await;
    for (path, answer) in snapshot(&xtrace, &theirs, &ids).await {
        // Some repeat the name that was asked for when they say that it isn't there.
        let is_refusal = answer[0].as_u64().unwrap() >= 400;
        assert!(
            is_refusal || !answer.to_string().contains("topsecret"),
            "{path}: {answer}"
        );
    }
    // Nor does anything that they change, with the ids and names of others.
    let bodies = [
        json!({}),
        json!({"id": "trace-a", "traceId": "trace-a", "name": "changed", "value": 9}),
        json!({"traceIds": ["trace-a"], "name": "changed", "prompt": "changed", "newLabels": ["x"],
            "datasetName": "topsecret", "input": "changed", "runName": "topsecret", "datasetItemId": "item-a",
            "isArchived": true, "status": "COMPLETED", "spanId": "observation-a", "generationId": "observation-a",
            "uploadedAt": "2026-01-01T00:00:00Z", "uploadHttpStatus": 500, "dataType": "NUMERIC",
            "modelName": "changed", "matchPattern": "x", "inputPrice": 9}),
    ];
    for body in &bodies {
        let writes = operations(OFFICIAL).chain(operations(MORE));
        for (method, path) in writes.filter(|(method, _)| method != Method::GET) {
            let request = xtrace.request_as(&theirs, method.clone(), &filled(path, &ids));
            let (status, answer) = answer(request.json(body)).await;
            assert!(!status.is_server_error(), "{method} {path}: {answer}");
            assert!(
                !answer.to_string().contains("topsecret") || !status.is_success(),
                "{method} {path}: {answer}"
            );
        }
    }
    assert_eq!(snapshot(&xtrace, &ours, &ids).await, before);
}
