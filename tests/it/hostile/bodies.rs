//! Bodies that are announced and never come, come slowly, or come too often; and credentials that open
//! nothing, without end.

use std::time::{Duration, Instant};

use base64::Engine;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::arena::{Arena, repeated};
use crate::harness::{Xtrace, answer, is_long};
use crate::routes::routes;

fn address(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// Sends the beginning of a request; what is answered until the connection ends.
async fn begin(
    arena: &Arena,
    path: &str,
    authorization: &str,
    framing: &str,
    body: &[u8],
) -> String {
    let mut stream = TcpStream::connect(address(&arena.xtrace.url))
        .await
        .unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n\
         content-type: application/json\r\n{framing}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = stream.write_all(body).await;
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    String::from_utf8_lossy(&heard).into_owned()
}

/// What is announced takes no memory from anybody, and what has arrived takes it from its project alone.
#[tokio::test(flavor = "multi_thread")]
async fn silent_giants_stop_nobody() {
    let arena = Arena::start().await;
    let keys = &arena.attacker;
    let pair = format!("{}:{}", keys.public, keys.secret);
    let basic = format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(pair));
    let public = format!("Bearer {}", keys.public);
    // A chunk of 6 MB, and then nothing.
    let chunk = [b"600000\r\n".as_slice(), &vec![b' '; 0x60_0000], b"\r\n"].concat();
    let framings = [
        ("content-length: 21000000", Vec::new()),
        (
            "content-length: 60000000\r\ncontent-encoding: gzip",
            Vec::new(),
        ),
        ("transfer-encoding: chunked", chunk),
    ];
    let paths = [
        "/v1/traces",
        "/v1/logs",
        "/v1/metrics",
        "/api/public/otel/v1/traces",
        "/v1/l/batch",
        "/v1/metrics/batch",
        "/api/public/ingestion",
        "/api/public/v2/prompts",
    ];
    let mut attacks = Vec::new();
    for _ in 0..4 {
        for (framing, body) in &framings {
            for path in paths {
                attacks.push(begin(&arena, path, &basic, framing, body));
            }
            let path = "/api/public/ingestion";
            attacks.push(begin(&arena, path, &public, framing, body));
        }
    }
    let (answers, report) = arena.watch(join_all(attacks)).await;
    for answer in answers {
        let status = answer.get(9..12);
        let is_refused = matches!(status, Some("408" | "413" | "503"));
        assert!(is_refused, "{answer}");
    }
    report.assert_undisturbed();
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_unknown_credentials_stop_nobody() {
    let arena = Arena::start().await;
    let ask = |number: usize| {
        let url = format!("{}/api/public/traces", arena.xtrace.url);
        let request = arena.xtrace.http.get(url);
        let request = if number.is_multiple_of(2) {
            request.bearer_auth(format!("unknown-{number}"))
        } else {
            // Guesses at the secret of a key that is known.
            request.basic_auth(&arena.neighbour.public, Some(format!("guess-{number}")))
        };
        async move { request.send().await.unwrap() }
    };
    let attack = async {
        let mut held_back = 0;
        for round in 0..60 {
            let numbers = round * 10..round * 10 + 10;
            for answer in join_all(numbers.map(ask)).await {
                if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                    assert!(answer.headers().contains_key("retry-after"));
                    held_back += 1;
                } else {
                    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
                }
            }
        }
        held_back
    };
    let (held_back, report) = arena.watch(attack).await;
    assert!(held_back > 0, "no guess was held back");
    report.assert_undisturbed();
}

/// A key that was looked up goes on to open its project while look-ups hang, and the service stays ready.
#[tokio::test(flavor = "multi_thread")]
async fn known_keys_open_while_look_ups_hang() {
    let arena = Arena::start().await;
    let ask = || arena.ask(Method::GET, "/api/public/traces");
    assert_eq!(answer(ask()).await.0, StatusCode::OK);
    let mut connection = arena.sql().await;
    for statement in ["begin", "lock table api_keys in access exclusive mode"] {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    // Long enough that what was looked up is older than a second.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        assert_eq!(answer(ask()).await.0, StatusCode::OK);
    }
    let request = arena.attack(Method::GET, "/api/public/traces");
    assert_eq!(answer(request).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let ready = arena
        .xtrace
        .http
        .get(format!("{}/readyz", arena.xtrace.url));
    assert_eq!(ready.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_are_held_to_requests_and_bytes() {
    let xtrace = Xtrace::start_with(&["--public-key-qps", "1"]).await;
    let keys = xtrace.project("web").await;
    let send = |body: String| {
        let request = xtrace
            .http
            .post(format!("{}/api/public/scores", xtrace.url));
        let request = request.bearer_auth(&keys.public);
        request
            .header("content-type", "application/json")
            .body(body)
    };
    let score = json!({"traceId": "t", "name": "n", "value": 1}).to_string();
    let padded = format!("{score}{}", " ".repeat(1 << 20));
    let (status, body) = answer(send(padded)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{body}");
    let mut statuses = Vec::new();
    while !statuses.contains(&StatusCode::TOO_MANY_REQUESTS) {
        assert!(statuses.len() < 500, "nothing was held back");
        let response = send(score.clone()).send().await.unwrap();
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            assert!(response.headers().contains_key("retry-after"));
        }
        statuses.push(response.status());
    }
    assert_eq!(statuses[0], StatusCode::OK);
    // The project itself goes on.
    let request = xtrace.request_as(&keys, Method::POST, "/api/public/scores");
    let request = request
        .header("content-type", "application/json")
        .body(score);
    assert_eq!(answer(request).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_beyond_a_project_s_rate_are_refused_in_its_dialect() {
    let flags = ["--max-write-bytes-per-second", "1000"];
    let xtrace = Xtrace::start_with(&flags).await;
    let batch = json!({"trace": {"id": "t", "input": "x".repeat(1 << 20)}});
    assert_eq!(xtrace.post("/v1/l/batch", &batch).await.0, StatusCode::OK);
    for (path, member) in [
        ("/v1/l/batch", "data"),
        ("/v1/metrics/batch", "data"),
        ("/v1/traces", "code"),
        ("/api/public/ingestion", "details"),
        ("/api/public/v2/prompts", "details"),
    ] {
        let request = xtrace.request(Method::POST, path).json(&json!({}));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS, "{path}");
        assert!(response.headers().contains_key("retry-after"), "{path}");
        let body: serde_json::Value = response.json().await.unwrap();
        assert!(body.get(member).is_some(), "{path} {body}");
    }
    let other = xtrace.project("other").await;
    let request = xtrace.request_as(&other, Method::POST, "/v1/l/batch");
    assert_eq!(answer(request.json(&batch)).await.0, StatusCode::OK);
}

/// Bytes of the bodies below: held as values, one of them would be more memory than there may be.
const TINY_BYTES: usize = 16_000_000;
/// Bytes of those that every route gets: enough to be decoded apart from the threads that serve requests. Long
/// runs send them the large ones.
const TINY_BYTES_OF_A_ROUTE: usize = 1_000_000;

/// A long list of a short item, between the beginning and the end of a body; as gzip, which makes it small.
fn tiny(begin: &str, item: &str, end: &str) -> Vec<u8> {
    repeated(begin, item, TINY_BYTES / item.len(), end)
}

/// Values of two bytes cost hundreds once they are held, wherever they stand.
#[tokio::test(flavor = "multi_thread")]
async fn tiny_values_are_bounded_on_every_route() {
    let arena = Arena::start().await;
    let bytes = if is_long() {
        TINY_BYTES
    } else {
        TINY_BYTES_OF_A_ROUTE
    };
    let anything = repeated("{\"list\":[0", ",0", bytes / 2, "]}");
    let observation = |member: &str| format!("{{\"id\":\"o\",\"traceId\":\"t\",{member}}},");
    // Objects of a thousand members, of which one alone would do no harm.
    let numbers = |name: &str| {
        let members: Vec<String> = (0..1000).map(|n| format!("\"{n}\":0")).collect();
        observation(&format!("\"{name}\":{{{}}}", members.join(",")))
    };
    let list = observation(&format!("\"metadata\":[{}0]", "0,".repeat(1000)));
    let all_of = |item: &str| {
        let last = "{\"id\":\"o\",\"traceId\":\"t\"}]}";
        ("/v1/l/batch", tiny("{\"observations\":[", item, last), 413)
    };
    let versions = observation(&format!("\"promptVersion\":[{}0]", "0,".repeat(1000)));
    let event = |body: &str| {
        format!(
            "{{\"id\":\"e\",\"timestamp\":\"2026-01-01T00:00:00Z\",\"type\":\"span-create\",\"body\":{body}}},"
        )
    };
    let of_event = event(&format!(
        "{{\"id\":\"o\",\"metadata\":[{}0]}}",
        "0,".repeat(1000)
    ));
    let ingestion = tiny("{\"batch\":[", &of_event, "{}]}");
    let cases = [
        all_of(&numbers("metadata")),
        all_of(&numbers("usage")),
        all_of(&numbers("usageDetails")),
        all_of(&numbers("costDetails")),
        all_of(&list),
        all_of(&versions),
        (
            "/v1/l/batch",
            tiny("{\"trace\":{\"id\":\"t\",\"tags\":[\"\"", ",\"\"", "]}}"),
            413,
        ),
        (
            "/v1/metrics/batch",
            tiny("{\"metrics\":[", "{},", "{}]}"),
            400,
        ),
        ("/api/public/ingestion", ingestion, 413),
    ];
    let attack = async {
        for (path, body, expected) in cases {
            let (status, answer) = send(&arena, "POST", path, body).await;
            assert_eq!(status, expected, "{path}: {answer}");
        }
        // One after the other: a project has a share of the memory for bodies.
        for route in routes().into_iter().filter(|route| route.method != "GET") {
            let (status, answer) =
                send(&arena, &route.method, &route.example(), anything.clone()).await;
            assert!(status.as_u16() < 500, "{}: {status} {answer}", route.name());
        }
    };
    let ((), report) = arena.watch(attack).await;
    report.assert_undisturbed();
}

async fn send(arena: &Arena, method: &str, path: &str, body: Vec<u8>) -> (StatusCode, String) {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = arena
        .attack(method, path)
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body(body);
    let response = request.send().await.unwrap();
    (
        response.status(),
        response
            .text()
            .await
            .unwrap_or_default()
            .chars()
            .take(300)
            .collect(),
    )
}
