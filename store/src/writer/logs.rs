//! Log records of a transaction. They never change: those that are there already are left alone.

use std::collections::BTreeMap;

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
