//! Input that is hostile by its size: each gets its answer, in bounded memory, and nothing is taken.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Xtrace, answer};

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

/// The process's memory in MiB (this test's own: the server runs within it).
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

async fn post(
    xtrace: &Xtrace,
    path: &str,
    content_type: &str,
    encoding: &str,
    body: Vec<u8>,
) -> (StatusCode, Value) {
    let request = xtrace
        .request(Method::POST, path)
        .body(body)
        .header("content-type", content_type);
    answer(request.header("content-encoding", encoding)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_refused_in_bounded_memory() {
    let xtrace = Xtrace::start().await;
    // 15 million empty spans: 30 MB of protobuf in some 30 KB of gzip.
    let spans = field(1, &field(2, &[0x12, 0].repeat(15_000_000)));
    let spans = gzip(&spans, 1);
    assert!(spans.len() < 64 << 10, "{}", spans.len());
    // 64 MiB and one byte of zeros in 64 KB.
    let zeros = gzip(&vec![0; 1 << 20], 65);
    let json_spans = [
        b"{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{}".to_vec(),
        b",{}".repeat(2_000_000),
        b"]}]}]}".to_vec(),
    ]
    .concat();
    let observations = [
        b"{\"observations\":[".to_vec(),
        br#"{"id":"a","traceId":"b"},"#.repeat(60_000),
        b"{}]}".to_vec(),
    ]
    .concat();
    let before = resident_mib();
    let too_large = StatusCode::PAYLOAD_TOO_LARGE;
    for (path, content_type, body) in [
        ("/v1/traces", "application/x-protobuf", spans),
        ("/v1/traces", "application/x-protobuf", zeros.clone()),
        ("/v1/traces", "application/json", zeros.clone()),
        ("/v1/traces", "application/json", gzip(&json_spans, 1)),
        ("/v1/l/batch", "application/json", zeros.clone()),
        ("/v1/l/batch", "application/json", gzip(&observations, 1)),
        ("/v1/metrics/batch", "application/json", zeros),
    ] {
        let (status, _) = post(&xtrace, path, content_type, "gzip", body).await;
        assert_eq!(status, too_large, "{path} {content_type}");
    }
    let grown = resident_mib().saturating_sub(before);
    assert!(grown < 400, "memory grew by {grown} MiB");
    let (_, traces) = xtrace.get("/api/public/traces").await;
    assert_eq!(traces["meta"]["totalItems"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_above_the_limit_are_refused_on_the_wire_and_inflated() {
    let xtrace = Xtrace::start_with(&["--max-request-body-bytes", "1024"]).await;
    let large = vec![b' '; 2000];
    for path in ["/v1/traces", "/v1/l/batch", "/v1/metrics/batch"] {
        let (status, body) =
            post(&xtrace, path, "application/json", "identity", large.clone()).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert!(
            body["message"].as_str().unwrap().contains("1024 bytes"),
            "{body}"
        );
        let (status, _) = post(&xtrace, path, "application/json", "gzip", gzip(&large, 1)).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_traces_in_one_request_are_stored() {
    let xtrace = Xtrace::start().await;
    let spans: Vec<Value> = (1..=2000)
        .map(|n| json!({"traceId": format!("{n:032x}"), "spanId": "00000000000000aa", "name": "n",
                        "startTimeUnixNano": "1768471200000000000", "endTimeUnixNano": "1768471200000001000"}))
        .collect();
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    assert_eq!(
        xtrace.post("/v1/traces", &request).await,
        (StatusCode::OK, json!({}))
    );
    let (_, traces) = xtrace.get("/api/public/traces?limit=1").await;
    assert_eq!(traces["meta"]["totalItems"], 2000);
    let (_, observations) = xtrace.get("/api/public/observations?limit=1").await;
    assert_eq!(observations["meta"]["totalItems"], 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_are_answered() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    let seed = std::fs::read("fixtures/otlp-traces/sample-01-langfuse-sdk/request.json").unwrap();
    let mut runner = TestRunner::new(Config::with_cases(2000));
    let strategy = (
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..300),
        0..seed.len(),
    );
    let outcome = runner.run(&strategy, |(is_json, bytes, at)| {
        // Never a panic, whatever the answer is.
        xtrace::receivers::otlp::decodes(&bytes, is_json);
        let mut spoiled = seed.clone();
        let end = (at + bytes.len()).min(spoiled.len());
        spoiled.splice(at..end, bytes);
        xtrace::receivers::otlp::decodes(&spoiled, is_json);
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}
