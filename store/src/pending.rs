//! Spans whose log records wait to be added to their observation: records may come before their span,
//! and are acknowledged before they are added.

use chrono::{DateTime, Utc};
use xtrace_model::ProjectId;

use crate::{Store, StoreError};

/// A stored observation that records wait for.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Awaited {
    /// Its trace.
    pub trace_id: String,
    /// Its id.
    pub id: String,
    /// When it began.
    pub start_time: DateTime<Utc>,
    /// The observation that it ran within.
    pub parent_id: Option<String>,
    /// How much it matters.
    pub level: String,
    /// How strongly it stands for its trace if it has a parent.
    pub root_rank: Option<i32>,
    /// JSON text: what no other field holds of its span.
    pub otel: Option<String>,
    /// Of the note that records wait; another one once more records came.
    note: String,
}

/// A log record of a span.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(missing_docs, reason = "columns of the table `logs`")]
pub struct SpanRecord {
    pub trace_id: String,
    pub span_id: String,
    pub id: String,
    pub event_name: String,
    /// JSON text.
    pub body: Option<String>,
    /// JSON text.
    pub attributes: String,
    /// JSON text.
    pub rest: String,
}

/// Observations of these traces that records wait for and that are stored.
pub async fn awaited(
    store: &Store,
    project: &ProjectId,
    traces: &[String],
) -> Result<Vec<Awaited>, StoreError> {
    let found = sqlx::query_as(
        "select o.trace_id, o.id, o.start_time, o.parent_id, o.level, o.root_rank, o.otel, p.xmin::text as note
           from pending_content p
           join traces t on t.project_id = p.project_id and t.id = p.trace_id
           join observations o on o.project_id = p.project_id and o.trace_id = p.trace_id
            and o.id = p.span_id and o.start_time between t.first_start and t.last_start
          where p.project_id = $1 and p.trace_id = any($2)",
    )
    .bind(project.as_str())
    .bind(traces)
    .fetch_all(store.write())
    .await?;
    Ok(found)
}

/// All records of these events that the spans have.
pub async fn records(
    store: &Store,
    project: &ProjectId,
    spans: &[Awaited],
    events: &[&str],
) -> Result<Vec<SpanRecord>, StoreError> {
    let traces: Vec<&str> = spans.iter().map(|span| span.trace_id.as_str()).collect();
    let ids: Vec<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let found = sqlx::query_as(
        "select trace_id, span_id, id, event_name, body::text as body,
                attributes::text as attributes, rest
           from logs
          where project_id = $1 and trace_id = any($2) and span_id = any($3)
            and event_name = any($4)",
    )
    .bind(project.as_str())
    .bind(traces)
    .bind(ids)
    .bind(events)
    .fetch_all(store.write())
    .await?;
    Ok(found)
}

/// Notes that the records of these spans are added, except where more have come since.
pub async fn added(
    store: &Store,
    project: &ProjectId,
    spans: &[Awaited],
) -> Result<(), StoreError> {
    let columns = |of: fn(&Awaited) -> &str| spans.iter().map(of).collect::<Vec<&str>>();
    sqlx::query(
        "delete from pending_content p using unnest($2::text[], $3::text[], $4::text[]) k(trace_id, span_id, note)
          where p.project_id = $1 and p.trace_id = k.trace_id and p.span_id = k.span_id
            and p.xmin::text = k.note",
    )
    .bind(project.as_str())
    .bind(columns(|span| &span.trace_id))
    .bind(columns(|span| &span.id))
    .bind(columns(|span| &span.note))
    .execute(store.write())
    .await?;
    Ok(())
}

/// Which of these traces have records that still wait.
pub async fn still_waiting(
    store: &Store,
    project: &ProjectId,
    traces: &[String],
) -> Result<Vec<String>, StoreError> {
    let waiting = sqlx::query_scalar(
        "select distinct trace_id from pending_content where project_id = $1 and trace_id = any($2)",
    )
    .bind(project.as_str())
    .bind(traces)
    .fetch_all(store.write())
    .await?;
    Ok(waiting)
}

/// A note, and whether its observation is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Note {
    /// Whose.
    pub project_id: String,
    /// The trace of the span.
    pub trace_id: String,
    /// The span that records wait for.
    pub span_id: String,
    /// Whether the observation of the span is stored.
    pub is_there: bool,
}

/// The notes after this one, of all projects, in order of their keys.
pub async fn next(store: &Store, after: &Note, limit: i64) -> Result<Vec<Note>, StoreError> {
    let next = sqlx::query_as(
        "select p.project_id, p.trace_id, p.span_id, exists (
                select from traces t join observations o on o.project_id = t.project_id
                   and o.trace_id = t.id and o.start_time between t.first_start and t.last_start
                 where t.project_id = p.project_id and t.id = p.trace_id
                   and o.id = p.span_id) as is_there
           from (select project_id, trace_id, span_id from pending_content
                  where (project_id, trace_id, span_id) > ($1, $2, $3)
                  order by 1, 2, 3 limit $4) p
          order by 1, 2, 3",
    )
    .bind(&after.project_id)
    .bind(&after.trace_id)
    .bind(&after.span_id)
    .bind(limit)
    .fetch_all(store.background())
    .await?;
    Ok(next)
}

/// Gives up on some of the spans whose records came before this time; the records stay. How many.
pub async fn forget(store: &Store, before: DateTime<Utc>, limit: i64) -> Result<u64, StoreError> {
    let forgotten = sqlx::query(
        "delete from pending_content where ctid = any(array(
            select ctid from pending_content where created_at < $1
             order by created_at limit $2 for update skip locked))",
    )
    .bind(before)
    .bind(limit)
    .execute(store.background())
    .await?;
    Ok(forgotten.rows_affected())
}
