//! Throughput and cost of writes, beside what Postgres can do at best and what a service does that
//! sends one `INSERT` a row.

use std::io::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::bodies::{self, Format, Shape, Template};
use crate::machine::{Postgres, Xtrace};
use crate::reads::settle;
use crate::send::{Load, Outcome, send, send_to};
use crate::{baseline, scaled};

const SPANS: Shape = Shape {
    payload_bytes: 1600,
    spans_per_request: 200,
    spans_per_trace: 8,
    varied: false,
};

/// Different texts, so that no cache of the machine holds them all.
const TEMPLATES: u64 = 16;

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

/// Spans of one shape, new ones in every request.
pub(crate) fn spans(shape: Shape, format: Format, spans: u64, clients: usize) -> Load {
    let templates: Vec<Template> = (0..TEMPLATES)
        .map(|seed| Template::new(shape, format, seed))
        .collect();
    let run = now();
    let body = move |number: u64| {
        let template = &templates[usize::try_from(number % TEMPLATES).unwrap()];
        template.request(run, number, run)
    };
    Load {
        path: "/v1/traces",
        content_type: match format {
            Format::Protobuf => "application/x-protobuf",
            Format::Json => "application/json",
        },
        gzip: false,
        clients,
        requests: scaled(spans) / shape.spans_per_request as u64,
        items: shape.spans_per_request as u64,
        body: Arc::new(body),
    }
}

/// The same load, compressed ahead.
fn compressed(load: Load) -> Load {
    let bodies: Vec<Bytes> = (0..load.requests)
        .map(|number| gzip(&(load.body)(number)))
        .collect();
    Load {
        gzip: true,
        body: Arc::new(move |number| bodies[usize::try_from(number).unwrap()].clone()),
        ..load
    }
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

pub(crate) fn points(points: u64) -> Load {
    const PER_REQUEST: usize = 512;
    let seconds = i64::try_from(now() / 1_000_000_000).unwrap();
    let body = move |number: u64| {
        bodies::metric_points(
            PER_REQUEST,
            512,
            number,
            seconds - i64::try_from(number).unwrap() % 80_000,
        )
    };
    let requests = scaled(points) / PER_REQUEST as u64;
    let ready: Vec<Bytes> = (0..requests).map(body).collect();
    Load {
        path: "/v1/metrics/batch",
        content_type: "application/json",
        gzip: false,
        clients: 16,
        requests,
        items: PER_REQUEST as u64,
        body: Arc::new(move |number| ready[usize::try_from(number).unwrap()].clone()),
    }
}

/// Batches of Langfuse's events: generations of 2 KB, eight to a trace.
fn events(events: u64) -> Load {
    const PER_REQUEST: usize = 100;
    let run = now();
    let requests = scaled(events) / PER_REQUEST as u64;
    let ready: Vec<Bytes> = (0..requests)
        .map(|number| bodies::generation_events(PER_REQUEST, run, number))
        .collect();
    Load {
        path: "/api/public/ingestion",
        content_type: "application/json",
        gzip: false,
        clients: 16,
        requests,
        items: PER_REQUEST as u64,
        body: Arc::new(move |number| ready[usize::try_from(number).unwrap()].clone()),
    }
}

/// What Langfuse's older clients send.
pub(crate) async fn ingestion(postgres: &Postgres) {
    print_head();
    warm_up(postgres).await;
    run(postgres, "generation events of 2 KB", events(100_000)).await;
}

pub(crate) fn print_head() {
    println!(
        "| load | items/s | CPU µs an item: xtrace | Postgres | both | generator | p50 ms | p99 ms | refused | memory MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
}

pub(crate) fn print(name: &str, outcome: &Outcome, memory: u64) {
    println!(
        "| {name} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {memory} |",
        outcome.per_second(),
        outcome.each(outcome.xtrace),
        outcome.each(outcome.postgres),
        outcome.each(outcome.xtrace + outcome.postgres),
        outcome.each(outcome.generator),
        outcome.latency(50),
        outcome.latency(99),
        outcome.refused,
    );
}

async fn run(postgres: &Postgres, name: &str, load: Load) -> Outcome {
    let url = postgres.database("load").await;
    let xtrace = Xtrace::start(&url).await;
    let outcome = send(postgres, &xtrace, load).await;
    print(name, &outcome, xtrace.memory_mib().1);
    xtrace.stop().await;
    postgres.drop_database("load").await;
    outcome
}

/// Whether a full table makes writes dearer.
pub(crate) async fn growth(postgres: &Postgres) {
    const SOME: u64 = 200_000;
    println!("\nGrowth, spans of 2 KB:\n");
    print_head();
    let url = postgres.database("growth").await;
    let xtrace = Xtrace::start(&url).await;
    let send_some = |count| send(postgres, &xtrace, spans(SPANS, Format::Protobuf, count, 16));
    // The first are slowed down by files that are made for the first time.
    send_some(100_000).await;
    let first = send_some(SOME).await;
    print("from 100 thousand rows", &first, xtrace.memory_mib().1);
    let growing = send_some(4_500_000).await;
    print("the next 4.5 million", &growing, xtrace.memory_mib().1);
    settle(&url).await;
    let last = send_some(SOME).await;
    print("from 5 million rows", &last, xtrace.memory_mib().1);
    let cost = |outcome: &Outcome| outcome.each(outcome.xtrace + outcome.postgres);
    println!(
        "\na span costs {:.2} times as much, and {:.2} times while the table grows at full speed, \
         with all that Postgres then does in the background",
        cost(&last) / cost(&first),
        cost(&growing) / cost(&first)
    );
    xtrace.stop().await;
    postgres.drop_database("growth").await;
}

/// How much memory large requests of many clients take.
pub(crate) async fn memory(postgres: &Postgres) {
    println!("\nMemory:\n");
    print_head();
    let large = Shape {
        spans_per_request: 2000,
        ..SPANS
    };
    let load = spans(large, Format::Protobuf, 200_000, 64);
    run(postgres, "64 clients, 4 MB a request", load).await;
    let huge = Shape {
        spans_per_request: 24_000,
        ..SPANS
    };
    let load = spans(huge, Format::Protobuf, 192_000, 8);
    run(postgres, "8 clients, 50 MB a request", load).await;
}

/// What a light load feels like.
pub(crate) async fn light(postgres: &Postgres) {
    print_head();
    let shape = Shape {
        spans_per_request: 10,
        spans_per_trace: 10,
        ..SPANS
    };
    let load = spans(shape, Format::Protobuf, 20_000, 4);
    run(postgres, "light: 4 clients, 10 spans a request", load).await;
}

/// Makes the files of the write-ahead log, which Postgres uses again ever after: whatever runs first
/// would wait for them.
async fn warm_up(postgres: &Postgres) {
    let url = postgres.database("load").await;
    let xtrace = Xtrace::start(&url).await;
    send(
        postgres,
        &xtrace,
        spans(SPANS, Format::Protobuf, 100_000, 16),
    )
    .await;
    xtrace.stop().await;
    postgres.drop_database("load").await;
}

pub(crate) async fn table(postgres: &Postgres) {
    let of = |payload_bytes: usize| Shape {
        payload_bytes,
        ..SPANS
    };
    print_head();
    warm_up(postgres).await;
    let url = postgres.database("best").await;
    let xtrace = Xtrace::start(&url).await;
    let best = send(
        postgres,
        &xtrace,
        spans(SPANS, Format::Protobuf, 200_000, 16),
    )
    .await;
    print("spans of 2 KB, protobuf", &best, xtrace.memory_mib().1);
    xtrace.stop().await;
    let copied = baseline::copy(postgres, &url, &postgres.database("copied").await).await;
    postgres.drop_database("best").await;
    postgres.drop_database("copied").await;
    run(
        postgres,
        "spans of 0.5 KB, protobuf",
        spans(of(150), Format::Protobuf, 200_000, 16),
    )
    .await;
    run(
        postgres,
        "spans of 10 KB, protobuf",
        spans(
            Shape {
                spans_per_request: 80,
                ..of(9500)
            },
            Format::Protobuf,
            40_000,
            16,
        ),
    )
    .await;
    run(
        postgres,
        "spans of 2 KB, JSON",
        spans(SPANS, Format::Json, 100_000, 16),
    )
    .await;
    run(
        postgres,
        "spans of 2 KB, protobuf, gzip",
        compressed(spans(SPANS, Format::Protobuf, 100_000, 16)),
    )
    .await;
    let url = postgres.database("load").await;
    let slow = Xtrace::start_row_by_row(&url).await;
    let by_row = send(postgres, &slow, spans(SPANS, Format::Protobuf, 20_000, 16)).await;
    print("the same, an INSERT a row", &by_row, slow.memory_mib().1);
    slow.stop().await;
    postgres.drop_database("load").await;
    let rate = copied.rows as f64 / copied.seconds;
    println!(
        "\nbare COPY of the same rows: {rate:.0} rows/s, Postgres {:.1} µs a row; xtrace does {:.0} % of it, \
         and {:.1} times what an INSERT a row does",
        copied.postgres.as_secs_f64() * 1e6 / copied.rows as f64,
        best.per_second() * 100.0 / rate,
        best.per_second() / by_row.per_second()
    );
}

/// Sends spans of 2 KB to a server that runs already.
pub(crate) async fn to_running(url: &str, token: &str, count: u64) {
    let token: &'static str = token.to_owned().leak();
    let load = spans(SPANS, Format::Protobuf, count, 16);
    let outcome = send_to(url.trim_end_matches('/'), token, load).await;
    println!(
        "{:.0} spans/s; acknowledged after p50 {:.1} ms, p99 {:.1} ms; {} refusals",
        outcome.per_second(),
        outcome.latency(50),
        outcome.latency(99),
        outcome.refused
    );
}
