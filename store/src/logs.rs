//! Reads of log records, newest first.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use xtrace_model::{ProjectId, TraceId};

use crate::page::{self, Part};
use crate::{Store, StoreError};

/// Records of an answer at most.
pub const LIMIT_MAX: i64 = 1000;

/// A log record as readers see it.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `logs`, see migrations/0007_logs.sql"
)]
pub struct LogView {
    pub id: String,
    pub ts: DateTime<Utc>,
    pub observed_at: Option<DateTime<Utc>>,
    pub severity: i32,
    pub severity_text: Option<String>,
    pub event_name: Option<String>,
    /// JSON text.
    pub body: Option<String>,
    pub trace_id: Option<String>,
    pub span_id: Option<String>,
    /// JSON text.
    pub attributes: String,
    /// JSON text.
    pub rest: String,
}

/// What is asked for; every condition that is there must hold.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Records of this trace.
    pub trace_id: Option<TraceId>,
    /// Records of this span.
    pub span_id: Option<String>,
    /// Records of this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Records before this time.
    pub to: Option<DateTime<Utc>>,
    /// Records at least so severe.
    pub severity_min: Option<i32>,
    /// Records of this kind of event.
    pub event_name: Option<String>,
    /// Records whose body holds this text, whatever its case.
    pub text: Option<String>,
    /// Records older than this one: time and id of the last that is known.
    pub before: Option<(DateTime<Utc>, String)>,
    /// Records at most, 1 to [`LIMIT_MAX`].
    pub limit: i64,
}

/// The records that match.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    query: &LogQuery,
) -> Result<Part<LogView>, StoreError> {
    let mut sql = QueryBuilder::new(
        "select id, ts, observed_at, severity, severity_text, event_name, body::text as body,
                trace_id, span_id, attributes::text as attributes, rest
           from logs where project_id = ",
    );
    sql.push_bind(project.as_str().to_owned());
    if let Some(id) = &query.trace_id {
        let ids = std::iter::once(id.clone()).chain(id.other_spelling());
        let ids: Vec<String> = ids.map(TraceId::into_string).collect();
        sql.push(" and trace_id = any(").push_bind(ids).push(")");
    }
    if let Some(id) = &query.span_id {
        sql.push(" and span_id = ").push_bind(id.clone());
    }
    if let Some(from) = query.from {
        sql.push(" and ts >= ").push_bind(from);
    }
    if let Some(to) = query.to {
        sql.push(" and ts < ").push_bind(to);
    }
    if let Some(severity) = query.severity_min {
        sql.push(" and severity >= ").push_bind(severity);
    }
    if let Some(name) = &query.event_name {
        sql.push(" and event_name = ").push_bind(name.clone());
    }
    if let Some(text) = &query.text {
        sql.push(" and strpos(lower(body #>> '{}'), lower(")
            .push_bind(text.clone())
            .push(")) > 0");
    }
    if let Some((ts, id)) = &query.before {
        // The first of both leaves partitions out.
        sql.push(" and ts <= ").push_bind(*ts);
        sql.push(" and (ts, id) < (")
            .push_bind(*ts)
            .push(", ")
            .push_bind(id.clone())
            .push(")");
    }
    sql.push(" order by ts desc, id desc");
    page::part(store, sql, query.limit).await
}
