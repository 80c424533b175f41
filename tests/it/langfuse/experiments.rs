//! Experiments and their items, as the spans of newer SDKs tell of them.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::Xtrace;

const FROM: &str = "fromStartTime=2026-01-01T00:00:00Z";

/// Exports an item of an experiment: its root span and one below it.
async fn run_item(xtrace: &Xtrace, experiment: &str, item: u64) {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let root = format!("{:016x}", 0xa000 + item);
    let start = 1_768_471_200_000_000_000 + item * 1_000_000_000;
    let attributes = json!([
        text("langfuse.experiment.id", experiment),
        text("langfuse.experiment.name", &format!("name of {experiment}")),
        text("langfuse.experiment.description", "d"),
        text(
            "langfuse.experiment.metadata",
            "{\"model\":\"\\\"m\\\"\",\"n\":\"1\"}"
        ),
        text("langfuse.experiment.dataset.id", "dataset"),
        text("langfuse.experiment.item.id", &format!("item-{item}")),
        text("langfuse.experiment.item.version", "2026-01-14T00:00:00Z"),
        text("langfuse.experiment.item.expected_output", "{\"a\":1}"),
        text(
            "langfuse.experiment.item.metadata",
            "{\"level\":\"\\\"easy\\\"\"}"
        ),
        text("langfuse.experiment.item.root_observation_id", &root),
        text("langfuse.environment", "sdk-experiment"),
        text("langfuse.observation.input", "{\"q\":1}"),
        text("langfuse.observation.output", "yes"),
    ]);
    let span = |id: &str, parent: &str| {
        json!({"traceId": format!("{:032x}", 0xb000 + item), "spanId": id, "parentSpanId": parent,
            "name": "task", "startTimeUnixNano": start.to_string(),
            "endTimeUnixNano": (start + 500_000_000).to_string(), "attributes": attributes})
    };
    let child = format!("{:016x}", 0xc000 + item);
    let export = json!({"resourceSpans": [{"scopeSpans": [
        {"spans": [span(&child, &root), span(&root, "")]}]}]});
    let (status, body) = xtrace.post("/api/public/otel/v1/traces", &export).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

async fn get(xtrace: &Xtrace, path: &str, query: &str) -> Value {
    let (status, body) = xtrace
        .get(&format!("/api/public/{path}?{FROM}&{query}"))
        .await;
    assert_eq!(status, StatusCode::OK, "{query}: {body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn experiments_are_what_their_items_tell() {
    let xtrace = Xtrace::start().await;
    for (experiment, item) in [("e1", 1), ("e2", 2), ("e1", 3)] {
        run_item(&xtrace, experiment, item).await;
    }
    let run_score = json!({"datasetRunId": "e1", "name": "mean", "value": 0.5});
    xtrace.post("/api/public/scores", &run_score).await;
    let trace = format!("{:032x}", 0xb003);
    let item_score = json!({"traceId": trace, "observationId": format!("{:016x}", 0xa003),
        "name": "ok", "value": 1, "dataType": "BOOLEAN"});
    xtrace.post("/api/public/scores", &item_score).await;

    let body = get(&xtrace, "experiments", "").await;
    assert_eq!(body["meta"], json!({}));
    assert_eq!(
        body["data"][0],
        json!({"id": "e1", "name": "name of e1", "description": "d", "itemCount": 2, "datasetId": "dataset",
            "startTime": "2026-01-15T10:00:01.000Z", "endTime": "2026-01-15T10:00:03.500Z"})
    );
    assert_eq!(body["data"][1]["id"], "e2");
    let body = get(&xtrace, "experiments", "fields=metadata,scores&id=e1,nope").await;
    let row = &body["data"][0];
    assert_eq!(row["metadata"], json!({"model": "m", "n": 1}));
    assert_eq!(
        (
            &row["scores"][0]["name"],
            &row["scores"][0]["value"],
            &row["scores"][0]["subject"]
        ),
        (
            &json!("mean"),
            &json!(0.5),
            &json!({"kind": "experiment", "id": "e1"})
        )
    );
    assert_eq!(row["scores"].as_array().unwrap().len(), 1);

    let body = get(&xtrace, "experiment-items", "experimentId=e1").await;
    let row = &body["data"][0];
    assert_eq!(
        (
            &row["id"],
            &row["experimentItemId"],
            &row["environment"],
            &row["level"]
        ),
        (
            &json!("000000000000a003"),
            &json!("item-3"),
            &json!("sdk-experiment"),
            &json!("DEFAULT")
        )
    );
    assert_eq!(
        (&row["experimentDatasetId"], &row["experimentItemVersion"]),
        (&json!("dataset"), &json!("2026-01-14T00:00:00Z"))
    );
    assert_eq!((row.get("input"), row.get("scores")), (None, None));
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    let all = "fields=io,metadata,itemMetadata,experimentMetadata,scores&experimentItemId=item-3";
    let body = get(&xtrace, "experiment-items", all).await;
    let row = &body["data"][0];
    assert_eq!(
        (&row["input"], &row["output"], &row["expectedOutput"]),
        (&json!({"q": 1}), &json!("yes"), &json!({"a": 1}))
    );
    assert_eq!(
        (
            &row["experimentItemMetadata"],
            &row["experimentMetadata"],
            &row["experimentDescription"]
        ),
        (
            &json!({"level": "easy"}),
            &json!({"model": "m", "n": 1}),
            &json!("d")
        )
    );
    assert_eq!(
        (&row["scores"][0]["value"], row.get("experimentDatasetId")),
        (&json!(true), None)
    );
    assert!(row["metadata"].is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_experiments_follow_their_cursor() {
    let xtrace = Xtrace::start().await;
    for item in 1..=5 {
        run_item(&xtrace, &format!("e{item}"), item).await;
    }
    for path in ["experiments", "experiment-items"] {
        let (mut query, mut seen) = ("limit=2".to_owned(), 0);
        loop {
            let body = get(&xtrace, path, &query).await;
            seen += body["data"].as_array().unwrap().len();
            match body["meta"].get("cursor") {
                Some(cursor) => query = format!("limit=2&cursor={}", cursor.as_str().unwrap()),
                None => break,
            }
        }
        assert_eq!(seen, 5, "{path}");
        let (status, _) = xtrace.get(&format!("/api/public/{path}")).await;
        assert_eq!(
            status,
            StatusCode::BAD_REQUEST,
            "{path} without fromStartTime"
        );
        let filter = |column: &str| {
            let filter =
                json!([{"type": "string", "column": column, "operator": "=", "value": "x"}]);
            let text: String =
                form_urlencoded::byte_serialize(filter.to_string().as_bytes()).collect();
            format!("filter={text}")
        };
        for bad in [
            "fields=bogus".to_owned(),
            "cursor=e30".to_owned(),
            "cursor=%25".to_owned(),
            "limit=101".to_owned(),
            "scoreLimit=51".to_owned(),
            filter("level"),
            "toStartTime=yesterday".to_owned(),
        ] {
            let (status, body) = xtrace
                .get(&format!("/api/public/{path}?{FROM}&{bad}"))
                .await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {bad}: {body}");
        }
        let body = get(&xtrace, path, &filter("datasetId")).await;
        assert_eq!(body["data"], json!([]));
        let body = get(&xtrace, path, "toStartTime=2026-01-15T10:00:03Z").await;
        assert_eq!(
            body["data"].as_array().unwrap().len(),
            2,
            "{path}: the end is exclusive"
        );
    }
}
