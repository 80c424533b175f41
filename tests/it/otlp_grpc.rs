//! OTLP over gRPC, frame by frame.

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::net::TcpStream;

use crate::harness::{TOKEN, Xtrace};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

fn spans(ids: &[u8]) -> Vec<u8> {
    let span = |id: &u8| Span {
        trace_id: vec![*id; 16],
        span_id: vec![*id; 8],
        name: "n".to_owned(),
        start_time_unix_nano: 1_768_471_200_000_000_000,
        end_time_unix_nano: 1_768_471_201_000_000_000,
        ..Span::default()
    };
    let scope_spans = ScopeSpans {
        spans: ids.iter().map(span).collect(),
        ..ScopeSpans::default()
    };
    let resource_spans = ResourceSpans {
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![resource_spans],
    }
    .encode_to_vec()
}

fn frame(is_compressed: bool, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [
        &[u8::from(is_compressed)],
        &length.to_be_bytes()[..],
        message,
    ]
    .concat()
}

struct Answer {
    status: String,
    message: Bytes,
    headers: HeaderMap,
}

type Headers<'a> = &'a [(&'a str, &'a str)];

async fn call(xtrace: &Xtrace, path: &str, headers: Headers<'_>, body: Vec<u8>) -> Answer {
    let address = xtrace.url.strip_prefix("http://").unwrap();
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(format!("{}{path}", xtrace.url)).header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender
        .send_request(request.body(Body::from(body)).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = parts
        .headers
        .get("grpc-status")
        .or(trailers.get("grpc-status"));
    Answer {
        status: status.unwrap().to_str().unwrap().to_owned(),
        message: body.to_bytes(),
        headers: parts.headers,
    }
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

fn authorization() -> String {
    format!("Bearer {TOKEN}")
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_taken_in_every_encoding() {
    let xtrace = Xtrace::start().await;
    let token = authorization();
    let gzip = |message: &[u8]| {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(message).unwrap();
        encoder.finish().unwrap()
    };
    let bodies = [
        ("identity", frame(false, &spans(&[1]))),
        ("gzip", frame(true, &gzip(&spans(&[2])))),
        (
            "zstd",
            frame(true, &zstd::encode_all(spans(&[3]).as_slice(), 3).unwrap()),
        ),
        // Small messages may stay as they are, whatever the header says.
        ("gzip", frame(false, &spans(&[4]))),
    ];
    for (encoding, body) in bodies {
        let headers = [GRPC, ("authorization", &token), ("grpc-encoding", encoding)];
        let answer = call(&xtrace, EXPORT, &headers, body).await;
        assert_eq!(answer.status, "0", "{encoding}: {:?}", answer.headers);
        assert_eq!(answer.message, frame(false, b""), "{encoding}");
    }
    for id in 1..=4_u8 {
        let path = format!("/api/public/traces/{}", format!("{id:02x}").repeat(16));
        assert_eq!(xtrace.get(&path).await.0, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_span_is_reported_and_the_others_are_kept() {
    let xtrace = Xtrace::start().await;
    let headers = [GRPC, ("authorization", &authorization())];
    // The first has ids of zeros alone.
    let answer = call(&xtrace, EXPORT, &headers, frame(false, &spans(&[0, 5]))).await;
    assert_eq!(answer.status, "0");
    let response = ExportTraceServiceResponse::decode(&answer.message[5..]).unwrap();
    assert_eq!(response.partial_success.unwrap().rejected_spans, 1);
    assert_eq!(
        xtrace
            .get(&format!("/api/public/traces/{}", "05".repeat(16)))
            .await
            .0,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_taken_gets_a_status() {
    let xtrace = Xtrace::start_with(&["--max-request-body-bytes", "100000"]).await;
    let token = authorization();
    let known = [GRPC, ("authorization", token.as_str())];
    let unknown_encoding = [known[0], known[1], ("grpc-encoding", "snappy")];
    let gzip = [known[0], known[1], ("grpc-encoding", "gzip")];
    let some = frame(false, &spans(&[6]));
    let bomb = zstd::encode_all(vec![0; 200_000].as_slice(), 3).unwrap();
    let zstd = [known[0], known[1], ("grpc-encoding", "zstd")];
    let cases: [(&str, &str, Headers<'_>, Vec<u8>, &str); 9] = [
        ("no credentials", EXPORT, &[GRPC], some.clone(), "16"),
        (
            "wrong ones",
            EXPORT,
            &[GRPC, ("authorization", "Bearer x")],
            some.clone(),
            "16",
        ),
        (
            "another method",
            "/opentelemetry.proto.collector.trace.v1.TraceService/Import",
            &known,
            some.clone(),
            "12",
        ),
        (
            "another encoding",
            EXPORT,
            &unknown_encoding,
            some.clone(),
            "12",
        ),
        ("no message", EXPORT, &known, Vec::new(), "3"),
        ("half a message", EXPORT, &known, some[..20].to_vec(), "3"),
        ("not gzip", EXPORT, &gzip, frame(true, b"no gzip"), "3"),
        (
            "not protobuf",
            EXPORT,
            &known,
            frame(false, b"\xff\xff\xff"),
            "3",
        ),
        ("a bomb", EXPORT, &zstd, frame(true, &bomb), "8"),
    ];
    for (name, path, headers, body, status) in cases {
        let answer = call(&xtrace, path, headers, body).await;
        assert_eq!(answer.status, status, "{name}: {:?}", answer.headers);
        assert!(!answer.headers["grpc-message"].is_empty(), "{name}");
        assert!(answer.message.is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_says_when_to_come_again() {
    // Nobody listens there: the database is away.
    let xtrace = Xtrace::start_on("postgres://postgres@127.0.0.1:1/none", &[]).await;
    let headers = [GRPC, ("authorization", &authorization())];
    let answer = call(&xtrace, EXPORT, &headers, frame(false, &spans(&[7]))).await;
    assert_eq!(answer.status, "14");
    let details = &answer.headers["grpc-status-details-bin"];
    let details = STANDARD_NO_PAD.decode(details.as_bytes()).unwrap();
    let details = String::from_utf8_lossy(&details);
    assert!(details.contains("google.rpc.RetryInfo"), "{details}");
}
