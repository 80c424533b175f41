//! Decoding, mapping and encoding alone, on one core: `cargo bench --bench micro`. The request has 512
//! generations of about 2 KB; numbers are the best of many rounds.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people"
)]

#[expect(dead_code, reason = "shared with the benchmark of the whole")]
#[path = "load/bodies.rs"]
mod bodies;

use std::io::Write;
use std::time::{Duration, Instant};

use bodies::{Format, Shape, Template};
use xtrace::receivers::body::Encoding;
use xtrace::receivers::otlp;
use xtrace_model::ProjectId;

const SHAPE: Shape = Shape {
    payload_bytes: 1600,
    spans_per_request: 512,
    spans_per_trace: 8,
    varied: true,
};
const ROUNDS: usize = 40;

/// The time of the fastest round.
fn best<T>(work: impl Fn() -> T) -> Duration {
    let round = |_| {
        let began = Instant::now();
        std::hint::black_box(work());
        began.elapsed()
    };
    (0..ROUNDS).map(round).min().unwrap()
}

fn main() {
    let project = ProjectId::parse("bench").unwrap();
    println!("| work | MB/s | µs a span |\n|---|---|---|");
    let print = |name: &str, bytes: usize, took: Duration| {
        let (seconds, spans) = (took.as_secs_f64(), SHAPE.spans_per_request as f64);
        let rate = bytes as f64 / 1e6 / seconds;
        println!("| {name} | {rate:.0} | {:.2} |", seconds * 1e6 / spans);
    };
    for (name, format) in [("protobuf", Format::Protobuf), ("JSON", Format::Json)] {
        let body = Template::new(SHAPE, format, 1).request(1, 1, 1_768_471_200_000_000_000);
        let is_json = format == Format::Json;
        let decoded = best(|| assert!(otlp::decodes(&body, is_json)));
        let mapped = best(|| otlp::batch_of(&body, is_json, &project).unwrap());
        print(&format!("decode {name}"), body.len(), decoded);
        print(&format!("decode and map {name}"), body.len(), mapped);
    }
    let body = Template::new(SHAPE, Format::Protobuf, 1).request(1, 1, 1_768_471_200_000_000_000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&body).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&body[..], 3).unwrap();
    for (name, encoding, wire) in [
        ("gzip", Encoding::Gzip, gzip),
        ("zstd", Encoding::Zstd, zstd),
    ] {
        let inflated = best(|| encoding.inflate(&wire, body.len()).unwrap());
        print(&format!("inflate {name}"), body.len(), inflated);
    }
    let batch = otlp::batch_of(&body, false, &project).unwrap();
    print(
        "encode rows",
        body.len(),
        best(|| xtrace_store::writer::encoded_bytes(&batch)),
    );
}
