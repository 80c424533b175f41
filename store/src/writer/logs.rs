//! Log records of a transaction. They never change: those that are there already are left alone.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use xtrace_model::{Batch, LogRecord, Micros, ObservationId, ProjectId, TraceId, time};

use super::insert::{Method, Rows};
use crate::StoreError;

const COLUMNS: &[&str] = &[
    "project_id",
    "ts",
    "id",
    "observed_at",
    "severity",
    "severity_text",
    "event_name",
    "body",
    "trace_id",
    "span_id",
    "attributes",
    "rest",
    "created_at",
];

/// Writes the records of all batches, in the order of their keys, as every writer does; how many are
/// new.
pub(super) async fn write(
    connection: &mut PgConnection,
    batches: &[&Batch],
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let mut records: BTreeMap<(&ProjectId, Micros, &str), &LogRecord> = BTreeMap::new();
    for batch in batches {
        for record in &batch.logs {
            records.insert((&batch.project, record.time, &record.id), record);
        }
    }
    note_content(connection, batches, now).await?;
    let mut rows = Rows::new("logs", COLUMNS, Method::Insert);
    for ((project, at, id), record) in records {
        rows.row()
            .text(Some(project.as_str()))
            .time(Some(at))
            .text(Some(id))
            .time(record.observed)
            .int4(Some(record.severity))
            .text(record.severity_text.as_deref())
            .text(record.event_name.as_deref())
            .jsonb(record.body.clone())
            .text(record.trace_id.as_ref().map(TraceId::as_str))
            .text(record.span_id.as_ref().map(ObservationId::as_str))
            .jsonb(Some(record.attributes.clone()))
            .text(Some(&record.rest))
            .time(Some(time::from_utc(now)));
    }
    rows.insert_new(connection).await
}

/// Notes the spans that records have content for; see [`crate::pending`].
async fn note_content(
    connection: &mut PgConnection,
    batches: &[&Batch],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut spans: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for batch in batches {
        for record in batch.logs.iter().filter(|record| record.has_content) {
            if let (Some(trace), Some(span)) = (&record.trace_id, &record.span_id) {
                spans.insert((batch.project.as_str(), trace.as_str(), span.as_str()));
            }
        }
    }
    if spans.is_empty() {
        return Ok(());
    }
    let projects: Vec<&str> = spans.iter().map(|(project, ..)| *project).collect();
    let traces: Vec<&str> = spans.iter().map(|(_, trace, _)| *trace).collect();
    let ids: Vec<&str> = spans.iter().map(|(.., span)| *span).collect();
    sqlx::query(
        "insert into pending_content (project_id, trace_id, span_id, created_at)
         select k.*, $4 from unnest($1::text[], $2::text[], $3::text[]) k
         on conflict (project_id, trace_id, span_id) do update set created_at = excluded.created_at",
    )
    .bind(projects)
    .bind(traces)
    .bind(ids)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}
