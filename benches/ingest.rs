//! Load on a running server: `cargo bench --bench ingest -- URL TOKEN [SPANS] [PER_REQUEST] [CLIENTS]`.
//! Sends OTLP protobuf spans of about 2 KB with GenAI attributes, each new, and counts what is
//! acknowledged, which means committed. Prints spans/s and the latency of requests.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

struct Load {
    url: String,
    token: String,
    per_request: usize,
    requests: usize,
    next: AtomicUsize,
}

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, Value::StringValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// Words that compress about as well as prose does.
fn prose(seed: u64, bytes: usize) -> String {
    const WORDS: [&str; 16] = [
        "parcel", "tomorrow", "weather", "berlin", "train", "ticket", "answer", "question",
        "model", "token", "latency", "customer", "refund", "order", "please", "thanks",
    ];
    let mut state = seed | 1;
    let mut text = String::with_capacity(bytes + 10);
    while text.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[usize::try_from(state >> 60).unwrap()]);
        text.push(' ');
    }
    text
}

fn span(run: u64, number: u64) -> Span {
    const SPANS_PER_TRACE: u64 = 8;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let now = u64::try_from(now).unwrap();
    let trace = number / SPANS_PER_TRACE;
    let message = |role: &str, text: String| format!(r#"[{{"role":"{role}","content":"{text}"}}]"#);
    Span {
        trace_id: [run.to_be_bytes(), (trace + 1).to_be_bytes()].concat(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        parent_span_id: if number.is_multiple_of(SPANS_PER_TRACE) {
            Vec::new()
        } else {
            (trace * SPANS_PER_TRACE + 1).to_be_bytes().to_vec()
        },
        name: "chat gpt-4o".to_owned(),
        kind: 3,
        start_time_unix_nano: now,
        end_time_unix_nano: now + 800_000_000,
        attributes: vec![
            text("gen_ai.operation.name", "chat".to_owned()),
            text("gen_ai.provider.name", "openai".to_owned()),
            text("gen_ai.request.model", "gpt-4o".to_owned()),
            text("user.id", format!("user-{}", trace % 1000)),
            attribute("gen_ai.usage.input_tokens", Value::IntValue(1200)),
            attribute("gen_ai.usage.output_tokens", Value::IntValue(80)),
            attribute("gen_ai.request.temperature", Value::DoubleValue(0.2)),
            text(
                "gen_ai.input.messages",
                message("user", prose(number, 1100)),
            ),
            text(
                "gen_ai.output.messages",
                message("assistant", prose(number + 7, 500)),
            ),
        ],
        ..Span::default()
    }
}

async fn client(load: Arc<Load>, run: u64) -> (usize, Vec<Duration>) {
    let http = reqwest::Client::new();
    let (mut refused, mut latencies) = (0, Vec::new());
    loop {
        let number = load.next.fetch_add(1, Ordering::Relaxed);
        if number >= load.requests {
            return (refused, latencies);
        }
        let first = number * load.per_request;
        let spans = (first..first + load.per_request)
            .map(|n| span(run, n as u64))
            .collect();
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let body = request.encode_to_vec();
        loop {
            let began = Instant::now();
            let request = http
                .post(format!("{}/v1/traces", load.url))
                .bearer_auth(&load.token);
            let request = request
                .header("content-type", "application/x-protobuf")
                .body(body.clone());
            let status = request.send().await.unwrap().status();
            if status.is_success() {
                latencies.push(began.elapsed());
                break;
            }
            refused += 1;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let [url, token, numbers @ ..] = arguments.as_slice() else {
        println!("usage: cargo bench --bench ingest -- URL TOKEN [SPANS] [PER_REQUEST] [CLIENTS]");
        return;
    };
    let number = |at: usize, default: usize| {
        numbers
            .get(at)
            .map_or(default, |text| text.parse().unwrap())
    };
    let (spans, per_request, clients) = (number(0, 100_000), number(1, 200), number(2, 16));
    let run = u64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis(),
    )
    .unwrap();
    let load = Arc::new(Load {
        url: url.trim_end_matches('/').to_owned(),
        token: token.clone(),
        per_request,
        requests: spans / per_request,
        next: AtomicUsize::new(0),
    });
    let began = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| tokio::spawn(client(Arc::clone(&load), run)))
        .collect();
    let (mut refused, mut latencies) = (0, Vec::new());
    for task in tasks {
        let (more, some) = task.await.unwrap();
        refused += more;
        latencies.extend(some);
    }
    let seconds = began.elapsed().as_secs_f64();
    latencies.sort();
    let percentile = |p: usize| latencies[(latencies.len() - 1) * p / 100].as_secs_f64() * 1000.0;
    println!(
        "{spans} spans, {per_request} a request, {clients} clients: {:.0} spans/s; acknowledged after p50 {:.1} ms, p99 {:.1} ms; {refused} refusals",
        spans as f64 / seconds,
        percentile(50),
        percentile(99),
    );
}
