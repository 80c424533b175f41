//! Langfuse's paths: batches of nothing, prompts within prompts, schemas that never end, and downloads that nobody
//! reads.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::arena::{Arena, repeated, succeed};
use crate::harness::answer;

const INGESTION: &str = "/api/public/ingestion";
const PROMPTS: &str = "/api/public/v2/prompts";
const DATASETS: &str = "/api/public/v2/datasets";
const ITEMS: &str = "/api/public/dataset-items";

/// A list of a million items that are none, inflated from two kilobytes.
fn million(begin: &str, end: &str) -> Vec<u8> {
    repeated(begin, "1,", 1_000_000, &format!("1{end}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_nothing_are_refused_while_they_are_read() {
    let arena = Arena::start().await;
    let lists = [
        (INGESTION, million("{\"batch\":[", "]}")),
        ("/api/public/scores", million("[", "]")),
        ("/v1/l/batch", million("{\"observations\":[", "]}")),
        ("/v1/metrics/batch", million("{\"metrics\":[", "]}")),
    ];
    let attack = async {
        for (path, body) in lists {
            let answers = (0..4).map(|_| {
                let request = arena.attack(Method::POST, path).body(body.clone());
                let request = request.header("content-type", "application/json");
                answer(request.header("content-encoding", "gzip"))
            });
            for (status, body) in futures_util::future::join_all(answers).await {
                assert!(status.is_client_error(), "{path}: {status}");
                assert!(body.to_string().len() < 1000, "{path}");
            }
        }
    };
    let ((), report) = arena.watch(attack).await;
    report.assert_undisturbed();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_a_full_batch_has_a_line_and_a_hundred_have_words() {
    let arena = Arena::start().await;
    let batch = |events: usize| {
        let body = repeated("{\"batch\":[", "1,", events - 1, "1]}");
        let request = arena.attack(Method::POST, INGESTION).body(body);
        let request = request.header("content-type", "application/json");
        answer(request.header("content-encoding", "gzip"))
    };
    let (status, body) = batch(10_001).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(
        body["message"].as_str().unwrap().contains("10000 events"),
        "{body}"
    );
    let (status, body) = batch(10_000).await;
    assert_eq!(status, StatusCode::MULTI_STATUS);
    let errors = body["errors"].as_array().unwrap();
    let worded = errors.iter().filter(|one| one.get("error").is_some());
    assert_eq!((errors.len(), worded.count()), (10_000, 100));
    assert!(
        errors
            .iter()
            .all(|one| one["status"] == 400 && one["id"] == "unknown")
    );
    // Small members become large structures too.
    let members = (0..40_000).map(|n: u32| (n.to_string(), json!(1)));
    let metadata = Value::Object(members.collect());
    let event = format!(
        "{{\"id\":\"e\",\"type\":\"trace-create\",\"timestamp\":\"2026-01-15T10:00:00Z\",\"body\":{{\"metadata\":{metadata}}}}},"
    );
    let body = repeated(
        "{\"batch\":[",
        &event,
        50,
        &format!("{}]}}", event.trim_end_matches(',')),
    );
    let request = arena.attack(Method::POST, INGESTION).body(body);
    let request = request.header("content-type", "application/json");
    let (status, body) = answer(request.header("content-encoding", "gzip")).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{body}");
    let peak = arena.xtrace.peak_mib();
    assert!(
        peak <= super::arena::PEAK_MIB_MAX,
        "memory rose to {peak} MiB"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_within_prompts_have_a_budget() {
    let arena = Arena::start().await;
    let create = |body: Value| answer(arena.attack(Method::POST, PROMPTS).json(&body));
    let tag = |name: &str| format!("@@@langfusePrompt:name={name}|label=latest@@@");
    let messages = |name: &str, count: usize| {
        json!(vec![json!({"role": "user", "content": tag(name)}); count])
    };
    let attack = async {
        let (status, _) = create(json!({"name": "large", "prompt": "x".repeat(9_900_000)})).await;
        assert_eq!(status, StatusCode::CREATED);
        let (status, _) = create(json!({"name": "small", "prompt": "x"})).await;
        assert_eq!(status, StatusCode::CREATED);
        // Twenty that are large only when they are put together.
        let text = tag("small").repeat(900);
        create(json!({"name": "often", "prompt": text})).await;
        let kinds = [
            ("messages", "chat", messages("large", 30), "bytes"),
            ("text", "text", tag("large").repeat(2).into(), "bytes"),
            ("references", "chat", messages("small", 1_001), "references"),
            (
                "levels",
                "text",
                format!("{}{}", tag("often"), tag("small").repeat(101)).into(),
                "references",
            ),
        ];
        for (name, kind, prompt, words) in kinds {
            let (status, body) =
                create(json!({"name": name, "type": kind, "prompt": prompt})).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{name}");
            assert_eq!(body["error"], "InvalidRequestError");
            assert!(body["message"].as_str().unwrap().contains(words), "{body}");
        }
        // What is within the budget when it is made may outgrow it.
        let (status, _) =
            create(json!({"name": "later", "type": "chat", "prompt": messages("small", 30)})).await;
        assert_eq!(status, StatusCode::CREATED);
        create(json!({"name": "small", "prompt": "x".repeat(9_900_000)})).await;
        for _ in 0..5 {
            let path = format!("{PROMPTS}/later?label=latest");
            let (status, body) = answer(arena.attack(Method::GET, &path)).await;
            assert_eq!(
                (status, &body["error"]),
                (StatusCode::CONFLICT, &json!("LangfuseConflictError"))
            );
        }
        let path = format!("{PROMPTS}/often?label=latest");
        let (status, _) = answer(arena.attack(Method::GET, &path)).await;
        assert_eq!(status, StatusCode::CONFLICT);
    };
    let ((), report) = arena.watch(attack).await;
    report.assert_undisturbed();
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_never_end_hold_up_nobody() {
    let arena = Arena::start().await;
    let dataset = |name: &str, schema: Value| {
        let body = json!({"name": name, "inputSchema": schema});
        answer(arena.attack(Method::POST, DATASETS).json(&body))
    };
    let item = |name: &str, input: Value| {
        let body = json!({"datasetName": name, "input": input});
        answer(arena.attack(Method::POST, ITEMS).json(&body))
    };
    let attack = async {
        for levels in [22, 40] {
            let mut defs = json!({"d0": {"type": "object"}});
            for level in 1..=levels {
                let below = json!({"$ref": format!("#/$defs/d{}", level - 1)});
                defs[format!("d{level}")] = json!({"allOf": [below, below]});
            }
            let schema = json!({"$defs": defs, "$ref": format!("#/$defs/d{levels}")});
            let (status, body) = dataset("doubling", schema).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{levels}");
            assert!(body.to_string().contains("too much work"), "{body}");
        }
        // Endless only with a value, many at once.
        let schema = json!({"$defs": {"d": {"properties": {"a": {"allOf": [{"$ref": "#/$defs/d"},
            {"$ref": "#/$defs/d"}]}}}}, "$ref": "#/$defs/d"});
        let (status, body) = dataset("deep", schema).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let mut value = json!(1);
        for _ in 0..60 {
            value = json!({ "a": value });
        }
        let many = (0..16).map(|_| item("deep", value.clone()));
        for (status, body) in futures_util::future::join_all(many).await {
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert!(
                body["message"].as_str().unwrap().contains("too much work"),
                "{body}"
            );
        }
        let (status, _) = dataset("pattern", json!({"items": {"pattern": "^(a+)+$"}})).await;
        assert_eq!(status, StatusCode::OK);
        let input = json!(vec!["a".repeat(200) + "b"; 500]);
        let (status, body) = item("pattern", input).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let words = body["message"].as_str().unwrap();
        assert!(
            words.starts_with("Dataset item validation failed"),
            "{words}"
        );
        succeed(
            arena
                .attack(Method::POST, ITEMS)
                .json(&json!({"datasetName": "pattern", "input": ["aa"]})),
        )
        .await;
    };
    let ((), report) = arena.watch(attack).await;
    report.assert_undisturbed();
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_nobody_reads_leave_places_to_others() {
    const BYTES: usize = 8 << 20;
    let arena = Arena::start().await;
    let bytes = vec![7_u8; BYTES];
    let mut links = Vec::new();
    for keys in [&arena.attacker, &arena.neighbour] {
        let hash = BASE64_STANDARD.encode(Sha256::digest(&bytes));
        let body = json!({"contentType": "image/png", "contentLength": BYTES, "sha256Hash": hash,
            "traceId": "t", "field": "input"});
        let url = |path: &str| format!("{}/api/public/media{path}", arena.xtrace.url);
        let http = &arena.xtrace.http;
        let request =
            |request: reqwest::RequestBuilder| request.basic_auth(&keys.public, Some(&keys.secret));
        let announced = succeed(request(http.post(url(""))).json(&body)).await;
        let upload = http.put(announced["uploadUrl"].as_str().unwrap());
        assert_eq!(
            upload.body(bytes.clone()).send().await.unwrap().status(),
            StatusCode::OK
        );
        let id = announced["mediaId"].as_str().unwrap();
        let found = succeed(request(http.get(url(&format!("/{id}"))))).await;
        links.push(found["url"].as_str().unwrap().to_owned());
    }
    let attack = async {
        // The answers are held, and their bodies never read.
        let requests = (0..64).map(|_| arena.xtrace.http.get(&links[0]).send());
        let held = futures_util::future::join_all(requests).await;
        let statuses = held.iter().map(|answer| answer.as_ref().unwrap().status());
        let (served, refused): (Vec<_>, Vec<_>) = statuses.partition(|status| *status == 200);
        assert!(
            served.len() <= 16,
            "{} downloads of one project",
            served.len()
        );
        assert!(
            refused
                .iter()
                .all(|status| *status == StatusCode::SERVICE_UNAVAILABLE)
        );
        let download = arena.xtrace.http.get(&links[1]).send().await.unwrap();
        assert_eq!(download.status(), StatusCode::OK);
        assert_eq!(download.bytes().await.unwrap().len(), BYTES);
        drop(held);
    };
    let ((), report) = arena.watch(attack).await;
    report.assert_undisturbed();
}
