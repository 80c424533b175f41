//! Reads of scores, and their end.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::ProjectId;

use crate::filter::{self, Condition, ScoreColumn};
use crate::page::{self, Order, Page, Paged, Part};
use crate::reading::ROWS_MAX;
use crate::{Store, StoreError};

/// A score as readers see it.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `scores`, see migrations/0008_scores_and_content.sql and 0024_score_execution.sql"
)]
pub struct ScoreView {
    pub id: String,
    pub trace_id: Option<String>,
    pub observation_id: Option<String>,
    pub session_id: Option<String>,
    pub run_id: Option<String>,
    pub name: String,
    pub source: String,
    pub data_type: String,
    pub value: f64,
    pub string_value: Option<String>,
    pub comment: Option<String>,
    pub environment: String,
    pub config_id: Option<String>,
    pub queue_id: Option<String>,
    pub execution_trace_id: Option<String>,
    /// JSON text.
    pub metadata: Option<String>,
    pub ts: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = "s.id, s.trace_id, s.observation_id, s.session_id, s.run_id, s.name, s.source, \
    s.data_type, s.value, s.string_value, s.comment, s.environment, s.config_id, s.queue_id, \
    s.execution_trace_id, s.metadata, s.ts, s.created_at, s.updated_at";

/// What lists show of a score's trace.
const OF_TRACE: &str = "t.id is not null as has_trace, t.user_id as trace_user_id, t.tags as trace_tags, \
    t.environment as trace_environment, t.session_id as trace_session_id";

/// A score with what lists show of its trace.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ListedScore {
    /// The score.
    #[sqlx(flatten)]
    pub score: ScoreView,
    /// Whether its trace is stored.
    pub has_trace: bool,
    /// The trace's user.
    pub trace_user_id: Option<String>,
    /// The trace's tags.
    pub trace_tags: Option<Vec<String>>,
    /// The trace's environment.
    pub trace_environment: Option<String>,
    /// The trace's session.
    pub trace_session_id: Option<String>,
}

/// Which kinds of scores a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Scores of traces and observations, without corrections.
    OfTraces,
    /// All scores.
    All,
}

/// A page of scores, newest first.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    scope: Scope,
    conditions: &[Condition<ScoreColumn>],
    page: Page,
) -> Result<Paged<ListedScore>, StoreError> {
    let push = |sql: &mut QueryBuilder<Postgres>| push_from(sql, project, scope, conditions);
    let columns = format!("{COLUMNS}, {OF_TRACE}");
    let is_of_index = |one: &Condition<_>| one.column == ScoreColumn::Timestamp;
    let order = Order {
        by: "s.ts desc, s.id desc",
        is_indexed: conditions.iter().all(is_of_index),
    };
    page::read(store, &columns, push, order, page).await
}

/// Scores older than `before` (time and id of the last that is known), newest first.
pub async fn list_before(
    store: &Store,
    project: &ProjectId,
    conditions: &[Condition<ScoreColumn>],
    before: Option<&(DateTime<Utc>, String)>,
    limit: i64,
) -> Result<Part<ScoreView>, StoreError> {
    let mut sql = QueryBuilder::new(format!("select {COLUMNS}"));
    push_from(&mut sql, project, Scope::All, conditions);
    if let Some((ts, id)) = before {
        sql.push(" and (s.ts, s.id) < (").push_bind(*ts);
        sql.push(", ").push_bind(id.clone()).push(")");
    }
    sql.push(" order by s.ts desc, s.id desc");
    page::part(store, sql, limit).await
}

fn push_from(
    sql: &mut QueryBuilder<Postgres>,
    project: &ProjectId,
    scope: Scope,
    conditions: &[Condition<ScoreColumn>],
) {
    sql.push(
        " from scores s left join traces t on t.project_id = s.project_id and t.id = s.trace_id
           where s.project_id = ",
    )
    .push_bind(project.as_str().to_owned());
    if scope == Scope::OfTraces {
        sql.push(" and s.trace_id is not null and s.data_type <> 'CORRECTION'");
    }
    filter::push_all(sql, conditions);
}

/// The score of that id.
pub async fn find(
    store: &Store,
    project: &ProjectId,
    id: &str,
) -> Result<Option<ScoreView>, StoreError> {
    let sql = format!("select {COLUMNS} from scores s where s.project_id = $1 and s.id = $2");
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(id)
        .fetch_optional(store.read())
        .await?;
    Ok(found)
}

/// Scores of traces and of their observations, without corrections; empty `environments` means all.
pub async fn of_traces(
    store: &Store,
    project: &ProjectId,
    traces: &[String],
    environments: &[String],
) -> Result<Vec<ScoreView>, StoreError> {
    // Of a page that nothing is on.
    if traces.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "select {COLUMNS} from scores s
          where s.project_id = $1 and s.trace_id = any($2) and s.data_type <> 'CORRECTION'
            and (cardinality($3::text[]) = 0 or s.environment = any($3))
          order by s.ts desc, s.id limit {ROWS_MAX}"
    );
    let scores = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(traces)
        .bind(environments)
        .fetch_all(store.read())
        .await?;
    Ok(scores)
}

/// Scores of runs over datasets as a whole, newest first.
pub async fn of_runs(
    store: &Store,
    project: &ProjectId,
    runs: &[String],
) -> Result<Vec<ScoreView>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from scores s
          where s.project_id = $1 and s.run_id = any($2) and s.trace_id is null
          order by s.ts desc, s.id desc limit {ROWS_MAX}"
    );
    let scores = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(runs)
        .fetch_all(store.read())
        .await?;
    Ok(scores)
}

/// Removes a score.
pub async fn delete(store: &Store, project: &ProjectId, id: &str) -> Result<(), StoreError> {
    sqlx::query("delete from scores where project_id = $1 and id = $2")
        .bind(project.as_str())
        .bind(id)
        .execute(store.write())
        .await?;
    Ok(())
}
