//! What Langfuse's clients write and read, resource by resource. Each test is a promise of the contract, in
//! the words of its traps.

#![expect(clippy::too_many_lines, reason = "a test is one story")]

mod annotation;
mod datasets;
mod deletes;
mod experiments;
mod ingestion;
mod media;
mod metrics;
mod metrics_limits;
mod metrics_shapes;
mod models;
mod observations_v2;
mod paths;
mod printed;
mod prompt_references;
mod prompts;
mod scores;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::Xtrace;

pub(super) const INGESTION: &str = "/api/public/ingestion";

/// An event at a second of 2026-01-15T10:00.
pub(super) fn event(id: &str, second: u32, kind: &str, body: Value) -> Value {
    json!({"id": id, "timestamp": format!("2026-01-15T10:00:{second:02}.000Z"), "type": kind, "body": body})
}

pub(super) async fn ingest(xtrace: &Xtrace, events: Value) -> Value {
    let (status, body) = xtrace.post(INGESTION, &json!({ "batch": events })).await;
    assert_eq!(status, StatusCode::MULTI_STATUS, "{body}");
    body
}

pub(super) async fn trace(xtrace: &Xtrace, id: &str) -> Value {
    let (status, body) = xtrace.get(&format!("/api/public/traces/{id}")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

pub(super) fn accepted(ids: &[&str]) -> Value {
    let row = |id: &&str| json!({"id": id, "status": 201});
    json!({"successes": ids.iter().map(row).collect::<Vec<_>>(), "errors": []})
}
