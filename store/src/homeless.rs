//! Observations that were stored before anybody said which trace they are of: they lie in a trace of their own
//! id, which nobody else told of, until the trace is known.

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use xtrace_model::{Observation, ProjectId};

use crate::stored::{self, ObservationRow};
use crate::{Store, StoreError};

/// A trace that says nothing of itself.
const BARE: &str =
    "t.name is null and t.sent_timestamp is null and t.user_id is null and t.session_id is null";

/// An observation in a trace of its own.
#[derive(Debug)]
pub struct Homeless {
    /// The observation, as it is stored.
    pub document: Observation,
    /// When it was stored so.
    updated_at: DateTime<Utc>,
}

/// Which of these observations have no home.
pub async fn find(
    store: &Store,
    project: &ProjectId,
    ids: &[String],
) -> Result<Vec<Homeless>, StoreError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        #[sqlx(flatten)]
        row: ObservationRow,
        updated_at: DateTime<Utc>,
    }
    // Mostly there are none, and then no partition is looked into.
    let sql =
        format!("select t.id from traces t where t.project_id = $1 and t.id = any($2) and {BARE}");
    let bare: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(ids)
        .fetch_all(store.write())
        .await?;
    if bare.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "select {}, o.updated_at from traces t join observations o on o.project_id = t.project_id
            and o.trace_id = t.id and o.id = t.id and o.start_time between t.first_start and t.last_start
          where t.project_id = $1 and t.id = any($2)",
        stored::OBSERVATION_COLUMNS
    );
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(&bare)
        .fetch_all(store.write())
        .await?;
    let mut homeless = Vec::new();
    for found in rows {
        if let Some(document) = found.row.into_observation()? {
            homeless.push(Homeless {
                document,
                updated_at: found.updated_at,
            });
        }
    }
    Ok(homeless)
}

/// Removes an observation that has moved, with the trace that was its own. Nothing is removed, and false
/// answered, if either was written to since, or the trace has become somebody's.
pub async fn remove(
    store: &Store,
    project: &ProjectId,
    moved: &Homeless,
) -> Result<bool, StoreError> {
    let id = moved.document.id.as_str();
    let mut transaction = store.write().begin().await?;
    let sql = format!(
        "select t.first_start, t.last_start from traces t
          where t.project_id = $1 and t.id = $2 and {BARE}
            and t.debug_count + t.default_count + t.warning_count + t.error_count = 1
            and not exists (select from scores s where s.project_id = $1 and s.trace_id = $2)
            for update"
    );
    let extent: Option<(DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(id)
        .fetch_optional(&mut *transaction)
        .await?;
    let Some((first, last)) = extent else {
        return Ok(false);
    };
    let removed = sqlx::query(
        "delete from observations where project_id = $1 and trace_id = $2 and id = $2
            and start_time between $3 and $4 and updated_at = $5",
    )
    .bind(project.as_str())
    .bind(id)
    .bind(first)
    .bind(last)
    .bind(moved.updated_at)
    .execute(&mut *transaction)
    .await?;
    if removed.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query("delete from traces where project_id = $1 and id = $2")
        .bind(project.as_str())
        .bind(id)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(true)
}
