//! Golden cases: wire bytes in, the answer and the stored rows out. `fixtures/README.md` says how a
//! case is written; `UPDATE_FIXTURES=1` writes what is found as what is expected.

mod case;
mod compare;
mod protobuf;
pub(crate) mod protobuf_metrics;
mod rows;
pub(crate) mod series;

use case::Case;

use crate::harness::Xtrace;

/// Runs all cases of a format and reports every failure at once.
async fn check(format: &str, path: &str) {
    let xtrace = Xtrace::start().await;
    let cases = Case::all(format, path);
    assert!(!cases.is_empty(), "no cases in fixtures/{format}");
    let mut failures = Vec::new();
    for case in cases {
        failures.extend(case.run(&xtrace).await);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn otlp_traces() {
    check("otlp-traces", "/v1/traces").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn otlp_metrics() {
    check("otlp-metrics", "/v1/metrics").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn otlp_logs() {
    check("otlp-logs", "/v1/logs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_batches() {
    check("native-batch", "/v1/l/batch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_metrics() {
    check("native-metrics", "/v1/metrics/batch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn langfuse_batches() {
    check("langfuse-ingestion", "/api/public/ingestion").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn langfuse_reads() {
    check("langfuse-api", "/v1/l/batch").await;
}
