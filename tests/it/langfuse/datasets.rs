//! Datasets, their items and versions, runs over them.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{event, ingest};
use crate::harness::{Xtrace, answer};

const DATASETS: &str = "/api/public/v2/datasets";
const ITEMS: &str = "/api/public/dataset-items";
const RUN_ITEMS: &str = "/api/public/dataset-run-items";

async fn post(xtrace: &Xtrace, path: &str, body: Value) -> Value {
    let (status, answer) = xtrace.post(path, &body).await;
    assert_eq!(status, StatusCode::OK, "{body}: {answer}");
    answer
}

async fn refused(xtrace: &Xtrace, path: &str, body: Value, status: StatusCode, words: &str) {
    let (found, answer) = xtrace.post(path, &body).await;
    assert_eq!(found, status, "{body}: {answer}");
    assert!(answer.to_string().contains(words), "{body}: {answer}");
}

async fn delete(xtrace: &Xtrace, path: &str) -> (StatusCode, Value) {
    answer(xtrace.request(Method::DELETE, path)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_is_its_name() {
    let xtrace = Xtrace::start().await;
    let first = post(
        &xtrace,
        DATASETS,
        json!({"name": "folder/a b+c", "description": "d", "metadata": ["x", 1]}),
    )
    .await;
    let again = post(
        &xtrace,
        DATASETS,
        json!({"name": "folder/a b+c", "description": null, "inputSchema": {"type": "object"}}),
    )
    .await;
    assert_eq!(
        (&again["id"], &again["description"], &again["metadata"]),
        (&first["id"], &json!("d"), &json!(["x", 1]))
    );
    assert_eq!(again["inputSchema"], json!({"type": "object"}));
    let again = post(&xtrace, DATASETS, json!({"name": "folder/a b+c"})).await;
    assert_eq!(again["inputSchema"], json!({"type": "object"}));
    let again = post(
        &xtrace,
        DATASETS,
        json!({"name": "folder/a b+c", "inputSchema": null}),
    )
    .await;
    assert_eq!(again["inputSchema"], Value::Null);
    for path in ["folder%2Fa%20b%2Bc", "folder%252Fa%2520b%252Bc"] {
        let (status, found) = xtrace.get(&format!("{DATASETS}/{path}")).await;
        assert_eq!(
            (status, &found["id"]),
            (StatusCode::OK, &first["id"]),
            "{path}"
        );
    }
    let (status, _) = xtrace
        .get(&format!("{ITEMS}?datasetName=folder%252Fa%2520b%252Bc"))
        .await;
    assert_eq!(status, StatusCode::OK, "encoded twice");
    let (status, body) = xtrace.get(&format!("{DATASETS}/nope")).await;
    assert_eq!(
        (status, &body["message"]),
        (StatusCode::NOT_FOUND, &json!("Dataset not found"))
    );
    for (body, words) in [
        (json!({}), "received undefined"),
        (json!({"name": ""}), "Too small"),
        (
            json!({"name": "n", "inputSchema": {"type": "invalid-type"}}),
            "Invalid JSON Schema",
        ),
        (
            json!({"name": "n", "inputSchema": "object"}),
            "Invalid JSON Schema",
        ),
        (
            json!({"name": "n", "inputSchema": {"$ref": "https://example.com/schema.json"}}),
            "Invalid JSON Schema",
        ),
    ] {
        refused(&xtrace, DATASETS, body, StatusCode::BAD_REQUEST, words).await;
    }
    post(&xtrace, DATASETS, json!({"name": "second"})).await;
    let (_, list) = xtrace.get(&format!("{DATASETS}?limit=1")).await;
    assert_eq!(
        (&list["data"][0]["name"], &list["meta"]["totalItems"]),
        (&json!("second"), &json!(2))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn items_change_part_by_part_and_keep_their_versions() {
    let xtrace = Xtrace::start().await;
    post(&xtrace, DATASETS, json!({"name": "d"})).await;
    let other = post(&xtrace, DATASETS, json!({"name": "other"})).await;
    let item = post(
        &xtrace,
        ITEMS,
        json!({"datasetName": "d", "id": "i", "input": {"q": "1"}, "expectedOutput": "a",
            "metadata": ["x"], "sourceTraceId": "t"}),
    )
    .await;
    assert_eq!(
        (
            &item["status"],
            &item["datasetName"],
            &item["metadata"],
            &item["mediaReferences"]
        ),
        (&json!("ACTIVE"), &json!("d"), &json!(["x"]), &json!([]))
    );
    let before = chrono::Utc::now();
    let item = post(
        &xtrace,
        ITEMS,
        json!({"datasetName": "d", "id": "i", "input": null, "expectedOutput": "b", "status": "ARCHIVED"}),
    )
    .await;
    assert_eq!(
        (
            &item["input"],
            &item["expectedOutput"],
            &item["sourceTraceId"]
        ),
        (&json!({"q": "1"}), &json!("b"), &json!("t"))
    );
    // Archived ones are found, not listed.
    assert_eq!(
        xtrace.get(&format!("{ITEMS}/i")).await.1["status"],
        "ARCHIVED"
    );
    assert_eq!(
        xtrace.get(&format!("{ITEMS}?datasetName=d")).await.1["data"],
        json!([])
    );
    // As it was then.
    let at: String = form_urlencoded::byte_serialize(before.to_rfc3339().as_bytes()).collect();
    let (_, then) = xtrace
        .get(&format!("{ITEMS}?datasetName=d&version={at}"))
        .await;
    assert_eq!(then["data"][0]["expectedOutput"], "a");
    let (_, earlier) = xtrace
        .get(&format!("{ITEMS}?datasetName=d&version=2026-01-01"))
        .await;
    assert_eq!(earlier["data"], json!([]));
    let (status, body) = xtrace.get(&format!("{ITEMS}?version={at}")).await;
    assert_eq!(
        (status, &body["message"]),
        (
            StatusCode::BAD_REQUEST,
            &json!("datasetName is required when version parameter is provided")
        )
    );
    assert_eq!(
        xtrace.get(&format!("{ITEMS}?datasetName=nope")).await.0,
        StatusCode::NOT_FOUND
    );

    let conflict = json!({"datasetName": "other", "id": "i", "input": 1});
    let words = format!(
        "already exists in another dataset (id {})",
        item["datasetId"].as_str().unwrap()
    );
    assert_ne!(item["datasetId"], other["id"]);
    refused(&xtrace, ITEMS, conflict, StatusCode::CONFLICT, &words).await;

    assert_eq!(
        delete(&xtrace, &format!("{ITEMS}/i")).await.0,
        StatusCode::OK
    );
    assert_eq!(
        delete(&xtrace, &format!("{ITEMS}/i")).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        xtrace.get(&format!("{ITEMS}/i")).await.0,
        StatusCode::NOT_FOUND
    );
    let (_, then) = xtrace
        .get(&format!("{ITEMS}?datasetName=d&version={at}"))
        .await;
    assert_eq!(then["meta"]["totalItems"], 1);
    // What was deleted can come anew, in another dataset too.
    post(
        &xtrace,
        ITEMS,
        json!({"datasetName": "other", "id": "i", "input": 1}),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn items_that_can_not_be_are_refused() {
    let xtrace = Xtrace::start().await;
    post(&xtrace, DATASETS, json!({"name": "d"})).await;
    let null_input = "Dataset item validation failed: Dataset item input cannot be null";
    let bad = StatusCode::BAD_REQUEST;
    for (body, status, words) in [
        (json!({"datasetName": "d"}), bad, null_input),
        (json!({"datasetName": "d", "input": null}), bad, null_input),
        (
            json!({"datasetName": "d", "input": "null"}),
            bad,
            null_input,
        ),
        (
            json!({"datasetName": "nope", "input": 1}),
            StatusCode::NOT_FOUND,
            "Dataset not found",
        ),
        (json!({"input": 1}), bad, "received undefined"),
        (
            json!({"datasetName": "d", "id": "", "input": 1}),
            bad,
            "Too small",
        ),
        (
            json!({"datasetName": "d", "id": "i".repeat(256), "input": 1}),
            bad,
            "<=255",
        ),
        (
            json!({"datasetName": "d", "input": 1, "status": "GONE"}),
            bad,
            "Invalid option",
        ),
        (
            json!({"datasetName": "d", "input": "@@@langfuseMedia:type=image/png|id=nope|source=bytes@@@"}),
            bad,
            "Dataset item references unknown media: nope",
        ),
    ] {
        refused(&xtrace, ITEMS, body, status, words).await;
    }
    // Texts that hold JSON are that JSON; control characters go.
    let item = post(
        &xtrace,
        ITEMS,
        json!({"datasetName": "d", "id": "i", "input": "{\"a\":1983516295378495150}",
            "expectedOutput": "a\u{1}b\tc", "metadata": "5"}),
    )
    .await;
    assert_eq!(
        (&item["input"], &item["expectedOutput"], &item["metadata"]),
        (
            &json!({"a": "1983516295378495150"}),
            &json!("ab\tc"),
            &json!(5)
        )
    );
    let bare = post(&xtrace, ITEMS, json!({"datasetName": "d", "id": "bare"})).await;
    assert_eq!(bare["input"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_hold_for_all_items() {
    let xtrace = Xtrace::start().await;
    let object =
        json!({"type": "object", "required": ["q"], "properties": {"q": {"type": "string"}}});
    post(
        &xtrace,
        DATASETS,
        json!({"name": "d", "inputSchema": object, "expectedOutputSchema": {"type": ["number", "null"]}}),
    )
    .await;
    post(
        &xtrace,
        ITEMS,
        json!({"datasetName": "d", "id": "i", "input": {"q": "x"}, "expectedOutput": 1}),
    )
    .await;
    let bad = StatusCode::BAD_REQUEST;
    let broken = json!({"datasetName": "d", "input": {"q": 1}, "expectedOutput": "x"});
    refused(
        &xtrace,
        ITEMS,
        broken.clone(),
        bad,
        "Dataset item validation failed: Input validation failed: ",
    )
    .await;
    refused(
        &xtrace,
        ITEMS,
        broken,
        bad,
        "; Expected output validation failed: ",
    )
    .await;
    // The whole item counts, not what was sent of it.
    let part = json!({"datasetName": "d", "id": "i", "expectedOutput": "x"});
    refused(
        &xtrace,
        ITEMS,
        part,
        bad,
        "Expected output validation failed",
    )
    .await;
    post(
        &xtrace,
        ITEMS,
        json!({"datasetName": "d", "id": "j", "input": {"q": "y"}}),
    )
    .await;
    let other = json!({"name": "d", "inputSchema": {"type": "string"}});
    refused(
        &xtrace,
        DATASETS,
        other.clone(),
        bad,
        "Schema validation failed for 2 item(s). Details: ",
    )
    .await;
    for number in 0..9 {
        let item = json!({"datasetName": "d", "id": format!("n{number}"), "input": {"q": "z"}});
        post(&xtrace, ITEMS, item).await;
    }
    refused(&xtrace, DATASETS, other, bad, "more than 10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_made_with_their_first_item() {
    let xtrace = Xtrace::start().await;
    let dataset = post(&xtrace, DATASETS, json!({"name": "a/b c"})).await;
    let id = dataset["id"].as_str().unwrap();
    post(
        &xtrace,
        ITEMS,
        json!({"datasetName": "a/b c", "id": "i", "input": 1}),
    )
    .await;
    ingest(
        &xtrace,
        json!([event(
            "1",
            1,
            "span-create",
            json!({"id": "o", "traceId": "t"})
        )]),
    )
    .await;
    let first = post(
        &xtrace,
        RUN_ITEMS,
        json!({"runName": "r+1/ü", "datasetItemId": "i", "traceId": "not there yet", "metadata": 7,
            "runDescription": "first", "createdAt": "2026-01-15T10:00:00Z", "datasetVersion": null}),
    )
    .await;
    // What Python's SDK 5 computes for the same run.
    let text = format!("[\"langfuse-experiment-v1\",\"default\",\"{id}\",\"r+1/ü\"]");
    let digest = <sha2::Sha256 as sha2::Digest>::digest(text);
    let expected: Vec<String> = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(first["datasetRunId"], json!(expected.concat()));
    assert_eq!(
        (
            &first["datasetRunName"],
            &first["createdAt"],
            &first["updatedAt"]
        ),
        (
            &json!("r+1/ü"),
            &json!("2026-01-15T10:00:00.000Z"),
            &json!("2026-01-15T10:00:00.000Z")
        )
    );
    // Later ones change nothing of the run; the observation leads to its trace.
    let second = post(
        &xtrace,
        RUN_ITEMS,
        json!({"runName": "r+1/ü", "datasetItemId": "i", "observationId": "o", "metadata": {"k": 1},
            "runDescription": "second"}),
    )
    .await;
    assert_eq!(
        (&second["traceId"], &second["datasetRunId"]),
        (&json!("t"), &first["datasetRunId"])
    );

    let runs = "/api/public/datasets/a%2Fb%20c/runs";
    let (_, list) = xtrace.get(runs).await;
    let run = &list["data"][0];
    assert_eq!(
        (
            &run["description"],
            &run["metadata"],
            &run["datasetName"],
            &list["meta"]["totalItems"]
        ),
        (
            &json!("first"),
            &json!({"metadata": 7}),
            &json!("a/b c"),
            &json!(1)
        )
    );
    assert_eq!(run["createdAt"], "2026-01-15T10:00:00.000Z");
    let path = format!("{runs}/r%2B1%2F%C3%BC");
    let (status, run) = xtrace.get(&path).await;
    assert_eq!(status, StatusCode::OK, "{run}");
    assert_eq!(run["datasetRunItems"], json!([second, first]));
    let query = format!("{RUN_ITEMS}?datasetId={id}&runName=r%2B1%2F%C3%BC");
    assert_eq!(xtrace.get(&query).await.1["data"], json!([second, first]));
    let (status, body) = xtrace
        .get(&format!("{RUN_ITEMS}?datasetId={id}&runName=nope"))
        .await;
    assert_eq!(
        (status, &body["message"]),
        (
            StatusCode::NOT_FOUND,
            &json!("Dataset run not found for the given project and dataset id")
        )
    );
    assert_eq!(xtrace.get(RUN_ITEMS).await.0, StatusCode::BAD_REQUEST);

    let (_, old) = xtrace.get("/api/public/datasets/a%2Fb%20c").await;
    assert_eq!(
        (&old["items"][0]["id"], &old["runs"]),
        (&json!("i"), &json!(["r+1/ü"]))
    );
    let (_, old) = xtrace.get("/api/public/datasets").await;
    assert_eq!(
        (&old["data"][0]["items"], &old["data"][0]["runs"]),
        (&json!(["i"]), &json!(["r+1/ü"]))
    );

    let (bad, gone) = (StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND);
    for (body, status, words) in [
        (
            json!({"runName": "r", "datasetItemId": "i"}),
            bad,
            "observationId or traceId must be provided",
        ),
        (
            json!({"runName": "r", "datasetItemId": "nope", "traceId": "t"}),
            gone,
            "Dataset item not found",
        ),
        (
            json!({"runName": "r", "datasetItemId": "i", "observationId": "nope"}),
            gone,
            "Observation not found",
        ),
        (
            json!({"runName": "r", "datasetItemId": "i", "traceId": "t", "datasetVersion": "2020-01-01"}),
            gone,
            "Dataset item not found",
        ),
        (
            json!({"runName": "", "datasetItemId": "i", "traceId": "t"}),
            bad,
            "Too small",
        ),
        (
            json!({"runName": "r", "datasetItemId": "i", "traceId": "t", "more": 1}),
            bad,
            "Unrecognized key",
        ),
    ] {
        refused(&xtrace, RUN_ITEMS, body, status, words).await;
    }
    // Another project sees and deletes none of it.
    let other = xtrace.project("other").await;
    for method in [Method::GET, Method::DELETE] {
        let (status, _) = answer(xtrace.request_as(&other, method, &path)).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
    let item = format!("{ITEMS}/i");
    assert_eq!(
        answer(xtrace.request_as(&other, Method::DELETE, &item))
            .await
            .0,
        gone
    );

    let (status, body) = delete(&xtrace, &path).await;
    assert_eq!(
        (status, &body["message"]),
        (StatusCode::OK, &json!("Dataset run successfully deleted"))
    );
    assert_eq!(delete(&xtrace, &path).await.0, StatusCode::NOT_FOUND);
    assert_eq!(xtrace.get("/api/public/traces/t").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dataset_of_old_is_made_with_empty_lists() {
    let xtrace = Xtrace::start().await;
    let made = post(&xtrace, "/api/public/datasets", json!({"name": "old"})).await;
    assert_eq!((&made["items"], &made["runs"]), (&json!([]), &json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn items_lead_to_their_media() {
    let xtrace = Xtrace::start().await;
    let dataset = post(&xtrace, DATASETS, json!({"name": "d"})).await;
    let hash = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="; // of "abc"
    let announcement = json!({"contentType": "text/plain", "contentLength": 3, "sha256Hash": hash,
        "datasetId": dataset["id"], "datasetItemId": "i", "field": "input"});
    let (_, made) = xtrace.post("/api/public/media", &announcement).await;
    let reference = format!(
        "@@@langfuseMedia:type=text/plain|id={}|source=bytes@@@",
        made["mediaId"].as_str().unwrap()
    );
    let body = json!({"datasetName": "d", "id": "i", "input": {"image": [reference]}});
    // Announced is known; shown is what is here.
    assert_eq!(
        post(&xtrace, ITEMS, body.clone()).await["mediaReferences"],
        json!([])
    );
    let put = xtrace
        .http
        .put(made["uploadUrl"].as_str().unwrap())
        .body("abc");
    assert_eq!(put.send().await.unwrap().status(), StatusCode::OK);
    let (_, item) = xtrace.get(&format!("{ITEMS}/i")).await;
    let found = &item["mediaReferences"][0];
    assert_eq!(
        (
            &found["field"],
            &found["jsonPath"],
            &found["referenceString"],
            &found["media"]["mediaId"]
        ),
        (
            &json!("input"),
            &json!("$['image'][0]"),
            &json!(reference),
            &made["mediaId"]
        )
    );
    let text = xtrace
        .http
        .get(found["media"]["url"].as_str().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(text.text().await.unwrap(), "abc");
}
