//! Input that is hostile by its size: each gets its answer, in bounded memory, and nothing is taken.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::StatusCode;
use serde_json::{Value, json};
use xtrace::receivers::body::{BodyError, Encoding};

use crate::golden::protobuf_metrics;
use crate::harness::{SeparateXtrace, TOKEN, Xtrace, answer};

/// Memory that the server may ever hold, in a debug build.
const PEAK_MIB_MAX: u64 = 400;
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

fn gzip(chunk: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..times {
        encoder.write_all(chunk).unwrap();
    }
    encoder.finish().unwrap()
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

fn field(number: u8, payload: &[u8]) -> Vec<u8> {
    [
        vec![number << 3 | 2],
        varint(payload.len()),
        payload.to_vec(),
    ]
    .concat()
}

/// Posts with the token; status and body.
async fn post(url: &str, path: &str, headers: [&str; 2], body: Vec<u8>) -> (StatusCode, Value) {
    let [content_type, encoding] = headers;
    let request = reqwest::Client::new()
        .post(format!("{url}{path}"))
        .bearer_auth(TOKEN)
        .body(body);
    let request = request.header("content-type", content_type);
    answer(request.header("content-encoding", encoding)).await
}

async fn get(xtrace: &SeparateXtrace, path: &str) -> Value {
    let request = xtrace.http.get(format!("{}{path}", xtrace.url));
    answer(request.bearer_auth(TOKEN)).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_refused_in_bounded_memory() {
    let xtrace = SeparateXtrace::start().await;
    // 15 million empty spans: 30 MB of protobuf in some 30 KB of gzip.
    let spans = gzip(&field(1, &field(2, &[0x12, 0].repeat(15_000_000))), 1);
    assert!(spans.len() < 64 << 10, "{}", spans.len());
    // A MiB more than the limit of zeros, in 64 KB.
    let zeros = gzip(&vec![0; 1 << 20], 65);
    let around = |begin: &str, item: &str, times: usize, end: &str| {
        gzip(format!("{begin}{}{end}", item.repeat(times)).as_bytes(), 1)
    };
    let json_spans = around(
        "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{}",
        ",{}",
        2_000_000,
        "]}]}]}",
    );
    let observations = around(
        "{\"observations\":[",
        r#"{"id":"a","traceId":"b"},"#,
        60_000,
        "{}]}",
    );
    let points = r#"{"name":"n","value":1,"timestamp":"2026-01-15T10:00:00Z"},"#;
    let points = around("{\"metrics\":[", points, 210_000, "{}]}");
    for (path, content_type, body) in [
        ("/v1/traces", PROTOBUF, spans),
        ("/v1/traces", PROTOBUF, zeros.clone()),
        ("/v1/traces", JSON, zeros.clone()),
        ("/v1/traces", JSON, json_spans),
        ("/v1/l/batch", JSON, zeros.clone()),
        ("/v1/l/batch", JSON, observations),
        ("/v1/metrics/batch", JSON, zeros),
        ("/v1/metrics/batch", JSON, points),
    ] {
        let (status, said) = post(&xtrace.url, path, [content_type, "gzip"], body).await;
        assert_eq!(
            status,
            StatusCode::PAYLOAD_TOO_LARGE,
            "{path} {content_type} {said}"
        );
    }
    let peak = xtrace.peak_mib();
    assert!(peak < PEAK_MIB_MAX, "memory rose to {peak} MiB");
    assert_eq!(
        get(&xtrace, "/api/public/traces").await["meta"]["totalItems"],
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_grow_when_parsed_stay_small() {
    let xtrace = SeparateXtrace::start().await;
    // Three million numbers in six megabytes; as values they would take over 300 MB.
    let list = format!("[{}0]", "0,".repeat(3_000_000));
    let sparse = |n: u32| {
        let key = format!("gen_ai.prompt.{n}.content.9999");
        json!({"key": key, "value": {"stringValue": "x"}})
    };
    let sparse: Vec<Value> = (0..4000).map(sparse).collect();
    let metadata = json!([{"key": "langfuse.observation.metadata",
                           "value": {"stringValue": format!("{{\"a\":{list}}}")}}]);
    let headers = [JSON, "identity"];
    for attributes in [json!(sparse), metadata] {
        let span = json!({"traceId": "0000000000000000000000000000000a", "spanId": "00000000000000aa",
                          "startTimeUnixNano": "1768471200000000000", "attributes": attributes});
        let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
        let body = request.to_string().into_bytes();
        assert_eq!(
            post(&xtrace.url, "/v1/traces", headers, body).await,
            (StatusCode::OK, json!({}))
        );
    }
    let usage =
        format!(r#"{{"observations":[{{"id":"o","traceId":"t","usageDetails":{{"a":{list}}}}}]}}"#);
    let (status, said) = post(&xtrace.url, "/v1/l/batch", headers, usage.into_bytes()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{said}");
    let native = format!(r#"{{"trace":{{"id":"t","metadata":{list},"input":{list}}}}}"#);
    let (status, said) = post(&xtrace.url, "/v1/l/batch", headers, native.into_bytes()).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    // Nothing is lost: what can't be held as values is held as text.
    let trace = get(&xtrace, "/api/public/traces/t").await;
    assert_eq!(trace["input"].as_array().unwrap().len(), 3_000_001);
    assert_eq!(
        trace["metadata"]["metadata"].as_str().unwrap().len(),
        6_000_003
    );
    let peak = xtrace.peak_mib();
    assert!(peak < PEAK_MIB_MAX, "memory rose to {peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_requests_at_once_wait_or_are_refused() {
    let xtrace = SeparateXtrace::start().await;
    let body = format!("{{\"trace\":{{\"id\":\"t\"{}}}}}", " ".repeat(8 << 20)).into_bytes();
    let requests = (0..24).map(|_| {
        let (url, body) = (xtrace.url.clone(), body.clone());
        async move { post(&url, "/v1/l/batch", [JSON, "identity"], body).await }
    });
    let answers = futures_util::future::join_all(requests).await;
    let count = |wanted: u16| {
        answers
            .iter()
            .filter(|(status, _)| *status == wanted)
            .count()
    };
    assert_eq!(count(200) + count(503), 24, "{answers:?}");
    assert!(count(200) >= 4, "{answers:?}");
    let peak = xtrace.peak_mib();
    assert!(peak < PEAK_MIB_MAX, "memory rose to {peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_above_the_limit_are_refused_on_the_wire_and_inflated() {
    let xtrace = Xtrace::start_with(&["--max-request-body-bytes", "1024"]).await;
    let large = vec![b' '; 2000];
    for path in [
        "/v1/traces",
        "/v1/metrics",
        "/v1/l/batch",
        "/v1/metrics/batch",
    ] {
        let (status, said) = post(&xtrace.url, path, [JSON, "identity"], large.clone()).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert!(
            said["message"].as_str().unwrap().contains("1024 bytes"),
            "{said}"
        );
        let (status, _) = post(&xtrace.url, path, [JSON, "gzip"], gzip(&large, 1)).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_traces_in_one_request_are_stored() {
    let xtrace = Xtrace::start().await;
    let spans: Vec<Value> = (1..=2000)
        .map(|n| {
            json!({"traceId": format!("{n:032x}"), "spanId": "00000000000000aa", "name": "n",
                   "startTimeUnixNano": "1768471200000000000", "endTimeUnixNano": "1768471200000001000"})
        })
        .collect();
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    assert_eq!(
        xtrace.post("/v1/traces", &request).await,
        (StatusCode::OK, json!({}))
    );
    for path in [
        "/api/public/traces?limit=1",
        "/api/public/observations?limit=1",
    ] {
        assert_eq!(
            xtrace.get(path).await.1["meta"]["totalItems"],
            2000,
            "{path}"
        );
    }
}

#[test]
fn any_bytes_are_answered() {
    let seed = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/otlp-traces/sample-01-langfuse-sdk/request.json"
    );
    let seed = std::fs::read(seed).unwrap();
    let project = xtrace_model::ProjectId::parse("p").unwrap();
    let strategy = (
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..300),
        0..seed.len(),
    );
    let outcome =
        TestRunner::new(Config::with_cases(2000)).run(&strategy, |(is_json, bytes, at)| {
            // Never a panic, whatever the answer is.
            let decode_both = |bytes: &[u8]| {
                xtrace::receivers::otlp::decodes(bytes, is_json);
                xtrace::receivers::otlp::decodes_as_logs(bytes, is_json);
                xtrace::receivers::otlp::decodes_as_metrics(bytes, is_json);
            };
            decode_both(&bytes);
            let mut spoiled = seed.clone();
            let end = (at + bytes.len()).min(spoiled.len());
            spoiled.splice(at..end, bytes.iter().copied());
            decode_both(&spoiled);
            // Mapped too, if there is anything to map.
            xtrace::receivers::otlp::batch_of(&spoiled, is_json, &project);
            xtrace::receivers::otlp::batch_of_logs(&spoiled, is_json, &project);
            for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
                match encoding.inflate(&bytes, 1 << 20) {
                    Ok(inflated) => prop_assert!(inflated.len() <= 1 << 20),
                    Err(error) => prop_assert_eq!(error, BodyError::Corrupt),
                }
            }
            Ok(())
        });
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// The same for metrics, from a request of histograms.
#[test]
fn any_bytes_are_answered_as_metrics() {
    let seed = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/otlp-metrics/histograms/request.json"
    );
    let json = std::fs::read(seed).unwrap();
    let protobuf = protobuf_metrics::from_json(&serde_json::from_slice(&json).unwrap()).unwrap();
    let project = xtrace_model::ProjectId::parse("p").unwrap();
    // The store is never connected: it knows no series.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _context = runtime.enter();
    let store = xtrace_store::Store::new(&xtrace_store::Options::new("postgres:///")).unwrap();
    let strategy = (
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..20),
        0..protobuf.len(),
    );
    let outcome =
        TestRunner::new(Config::with_cases(4000)).run(&strategy, |(is_json, bytes, at)| {
            let mut spoiled = if is_json {
                json.clone()
            } else {
                protobuf.clone()
            };
            let end = (at + bytes.len()).min(spoiled.len());
            spoiled.splice(at..end, bytes.iter().copied());
            xtrace::receivers::otlp::batch_of_metrics(&spoiled, is_json, &project, &store);
            Ok(())
        });
    assert!(outcome.is_ok(), "{outcome:?}");
}
