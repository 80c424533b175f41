//! What exporters meet on the wire: encodings, protocols, browsers, listeners, early refusals.

use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{TOKEN, Xtrace};

fn export(trace_id: &str) -> Value {
    let span = json!({"traceId": trace_id, "spanId": "00000000000000b1", "name": "n",
        "startTimeUnixNano": "1768471200000000000", "endTimeUnixNano": "1768471201000000000"});
    json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
}

async fn is_stored(xtrace: &Xtrace, trace_id: &str) -> bool {
    xtrace
        .get(&format!("/api/public/traces/{trace_id}"))
        .await
        .0
        == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn every_encoding_of_a_body_is_taken() {
    let xtrace = Xtrace::start().await;
    let send = async |encoding: &'static str, body: Vec<u8>| {
        let request = xtrace
            .request(Method::POST, "/v1/traces")
            .header("content-type", "application/json")
            .header("content-encoding", encoding);
        let answer = request.body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.text().await.unwrap())
    };
    let body = export("000000000000000000000000000000a1").to_string();
    let zstd = zstd::encode_all(body.as_bytes(), 3).unwrap();
    assert_eq!(send("zstd", zstd.clone()).await, (200, "{}".to_owned()));
    assert!(is_stored(&xtrace, "000000000000000000000000000000a1").await);
    assert_eq!(send("ZSTD", zstd[..20].to_vec()).await.0, 400);
    assert_eq!(send("zstd", Vec::new()).await, (200, "{}".to_owned()));
    let (status, said) = send("br", body.into_bytes()).await;
    assert_eq!(status, 415);
    assert!(said.contains("zstd"), "{said}");
    // 70 MB of nothing in a few kB.
    let bomb = zstd::encode_all(vec![b' '; 70 << 20].as_slice(), 19).unwrap();
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    assert_eq!(send("zstd", bomb).await.0, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_may_ask_before_they_send() {
    let xtrace = Xtrace::start().await;
    for path in ["/v1/traces", "/api/public/otel/v1/traces"] {
        let url = format!("{}{path}", xtrace.url);
        let asked = xtrace
            .http
            .request(Method::OPTIONS, &url)
            .header("origin", "https://app.example.com")
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,content-type,x-langfuse-sdk-name",
            )
            .send()
            .await
            .unwrap();
        assert_eq!(asked.status(), 200);
        let header = |name: &str| asked.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("access-control-allow-origin"), "*");
        assert_eq!(header("access-control-allow-methods"), "POST");
        assert_eq!(header("access-control-max-age"), "7200");
        assert!(header("access-control-allow-headers").contains("x-langfuse-sdk-name"));
        // Answers can be read too, refusals included.
        let refused = xtrace
            .http
            .post(&url)
            .header("origin", "https://app.example.com");
        let refused = refused.send().await.unwrap();
        assert_eq!(refused.status(), 401);
        assert_eq!(refused.headers()["access-control-allow-origin"], "*");
    }
    let strict = Xtrace::start_with(&[
        "--otlp-cors-origins",
        "https://one.example.com,https://two.example.com/",
    ])
    .await;
    for (origin, allowed) in [
        ("https://two.example.com", true),
        ("https://three.example.com", false),
    ] {
        let request = strict
            .request(Method::POST, "/v1/traces")
            .header("origin", origin);
        let answer = request.json(&json!({})).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let allows = answer.headers().get("access-control-allow-origin");
        assert_eq!(allows.is_some(), allowed, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_told_what_is_allowed() {
    let xtrace = Xtrace::start().await;
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
        let answer = xtrace
            .request(method.clone(), "/v1/traces")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 405, "{method}");
        assert_eq!(answer.headers()["allow"], "POST, OPTIONS");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken_with_prior_knowledge() {
    let xtrace = Xtrace::start().await;
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    let request = client
        .post(format!("{}/v1/traces", xtrace.url))
        .bearer_auth(TOKEN)
        .json(&export("000000000000000000000000000000a2"));
    let answer = request.send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (200, reqwest::Version::HTTP_2)
    );
    assert!(is_stored(&xtrace, "000000000000000000000000000000a2").await);
}

/// A connection whose bytes the test chooses.
struct Raw(TcpStream);

impl Raw {
    async fn to(xtrace: &Xtrace) -> Self {
        let address = xtrace.url.strip_prefix("http://").unwrap();
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Reads until the text has come.
    async fn read_until(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        let mut chunk = [0; 4096];
        let reading = async {
            while !String::from_utf8_lossy(&read).contains(text) {
                let count = self.0.read(&mut chunk).await.unwrap();
                assert!(count > 0, "closed after {}", String::from_utf8_lossy(&read));
                read.extend_from_slice(&chunk[..count]);
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), reading).await;
        let read = String::from_utf8_lossy(&read).into_owned();
        assert!(in_time.is_ok(), "{text:?} did not come, but {read}");
        read
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_refused_is_read_and_the_connection_goes_on() {
    let xtrace = Xtrace::start().await;
    let mut raw = Raw::to(&xtrace).await;
    let body = vec![b' '; 200 << 10];
    let head = |authorization: &str, length: usize| {
        format!(
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{authorization}content-length: {length}\r\n\r\n"
        )
    };
    raw.send(head("", body.len()).as_bytes()).await;
    raw.send(&body).await;
    let refused = raw.read_until("}").await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    // The credentials' space may be percent-encoded: not all SDKs decode OTEL_EXPORTER_OTLP_HEADERS.
    let authorization = format!("authorization: Bearer%20{TOKEN}\r\n");
    raw.send(head(&authorization, 2).as_bytes()).await;
    raw.send(b"{}").await;
    let accepted = raw.read_until("{}").await;
    assert!(accepted.starts_with("HTTP/1.1 200"), "{accepted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_wait_for_the_word_to_go_on() {
    let xtrace = Xtrace::start().await;
    let mut raw = Raw::to(&xtrace).await;
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer {TOKEN}\r\n\
         transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"
    );
    raw.send(head.as_bytes()).await;
    raw.read_until("HTTP/1.1 100").await;
    raw.send(b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n").await;
    let accepted = raw.read_until("{}").await;
    assert!(accepted.contains("HTTP/1.1 200"), "{accepted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_listener_takes_otlp_alone() {
    let xtrace = Xtrace::start_with(&["--otlp-http-addr", "127.0.0.1:0"]).await;
    let url = format!("http://{}", xtrace.server.otlp_http_address().unwrap());
    let post = |path: &str| xtrace.http.post(format!("{url}{path}")).bearer_auth(TOKEN);
    let body = export("000000000000000000000000000000a3");
    let sent = post("/v1/traces").json(&body).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    assert!(is_stored(&xtrace, "000000000000000000000000000000a3").await);
    assert_eq!(
        xtrace
            .http
            .get(format!("{url}/readyz"))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    let elsewhere = post("/v1/l/batch").json(&json!({})).send().await.unwrap();
    assert_eq!(elsewhere.status(), 404);
    let at_root: Value = post("/")
        .json(&json!({}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(
        at_root["message"].as_str().unwrap().contains("/v1/traces"),
        "{at_root}"
    );
    let anonymous = xtrace.http.post(format!("{url}/v1/traces")).json(&body);
    assert_eq!(anonymous.send().await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_no_reason_not_to_start() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let xtrace =
        Xtrace::start_with(&["--otlp-http-addr", &address, "--otlp-grpc-addr", &address]).await;
    assert_eq!(xtrace.server.otlp_http_address(), None);
    assert_eq!(xtrace.server.otlp_grpc_address(), None);
    assert_eq!(xtrace.get("/readyz").await.0, 200);
}
