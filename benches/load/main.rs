//! The benchmark of docs/performance.md: `cargo bench --bench load [-- PART…]`.
//!
//! Starts a private Postgres and xtrace, sends them load over HTTP from this process, and prints
//! tables in Markdown. Parts (all, unless some are named): `write`, `latency`, `memory`, `growth`,
//! `ingestion`, `metrics`, `reads`.
//! `backfill [SPANS]` asks for sums while 30 days of history arrive (a million spans, unless it is said).
//! `send URL TOKEN SPANS` sends spans to a server that runs already.
//! `XTRACE_BENCH_DIR` names the directory of the data, `XTRACE_BENCH_SCALE` multiplies all sizes.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unchecked_time_subtraction,
    reason = "a program for people"
)]

mod backfill;
mod baseline;
mod bodies;
mod machine;
mod metrics;
mod reads;
mod send;
mod write;

use machine::Postgres;

/// All sizes are multiplied with this.
fn scale() -> f64 {
    let scale = std::env::var("XTRACE_BENCH_SCALE").ok();
    scale.map_or(1.0, |text| text.parse().unwrap())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts"
)]
fn scaled(count: u64) -> u64 {
    (count as f64 * scale()) as u64
}

#[tokio::main]
async fn main() {
    let parts: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    if parts.first().is_some_and(|word| word == "serve-row-by-row") {
        return baseline::serve_row_by_row(&parts[1..]).await;
    }
    if let [word, url, token, spans] = parts.as_slice()
        && word == "send"
    {
        return write::to_running(url, token, spans.parse().unwrap()).await;
    }
    println!("{}\n", machine::description());
    let postgres = Postgres::start().await;
    if let Some("backfill") = parts.first().map(String::as_str) {
        let spans = parts.get(1).map(|spans| spans.parse().unwrap());
        backfill::table(&postgres, spans.unwrap_or_else(|| scaled(backfill::SPANS))).await;
        return postgres.stop().await;
    }
    // First, while Postgres has nothing left to do of other parts.
    if wants("latency") {
        write::light(&postgres).await;
    }
    if wants("write") {
        write::table(&postgres).await;
    }
    if wants("memory") {
        write::memory(&postgres).await;
    }
    if wants("growth") {
        write::growth(&postgres).await;
    }
    if wants("ingestion") {
        write::ingestion(&postgres).await;
    }
    if wants("metrics") {
        metrics::table(&postgres).await;
    }
    if wants("reads") {
        reads::table(&postgres).await;
    }
    postgres.stop().await;
}
