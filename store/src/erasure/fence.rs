//! Nothing is stored for a project that is being deleted, nor for one that has no row in `projects`.
//!
//! Every transaction that adds rows asks first whether their project takes any. That reads `projects`, so the
//! transaction holds a lock on this table until its end, which is in nobody's way but can be seen; and Postgres
//! takes that lock before the snapshot that the question is answered from. So of the transactions that ask, each
//! either sees that the project is being deleted, or is seen by [`askers`] once that is committed.

use std::collections::BTreeSet;

use sqlx::{PgConnection, PgPool, PgTransaction};
use xtrace_model::ProjectId;

use crate::StoreError;

/// Those of these projects that take no rows; to be asked within the transaction that writes the rows.
pub(crate) async fn closed<'a>(
    connection: &mut PgConnection,
    projects: impl Iterator<Item = &'a ProjectId>,
) -> Result<BTreeSet<ProjectId>, StoreError> {
    let mut closed: BTreeSet<&ProjectId> = projects.collect();
    let ids: Vec<&str> = closed.iter().map(|project| project.as_str()).collect();
    let open: Vec<String> =
        sqlx::query_scalar("select id from projects where id = any($1) and deleting_at is null")
            .bind(ids)
            .fetch_all(connection)
            .await?;
    closed.retain(|project| !open.iter().any(|id| id == project.as_str()));
    Ok(closed.into_iter().cloned().collect())
}

/// Begins a transaction that adds rows of a project, if it takes any.
pub(crate) async fn begin(
    pool: &PgPool,
    project: &ProjectId,
) -> Result<PgTransaction<'static>, StoreError> {
    let mut transaction = pool.begin().await?;
    if closed(&mut transaction, [project].into_iter())
        .await?
        .is_empty()
    {
        return Ok(transaction);
    }
    Err(StoreError::ProjectGone)
}

/// Transactions that may have asked before now, and are not over.
pub(super) async fn askers(connection: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    let found = sqlx::query_scalar(
        "select distinct virtualtransaction from pg_locks
          where locktype = 'relation' and relation = 'projects'::regclass and granted
            and database = (select oid from pg_database where datname = current_database())
            and pid is distinct from pg_backend_pid()",
    )
    .fetch_all(connection)
    .await?;
    Ok(found)
}

/// Those of these transactions that are not over.
pub(super) async fn unfinished(
    connection: &mut PgConnection,
    transactions: &[String],
) -> Result<Vec<String>, StoreError> {
    if transactions.is_empty() {
        return Ok(Vec::new());
    }
    let found = sqlx::query_scalar(
        "select distinct virtualtransaction from pg_locks where virtualtransaction = any($1)",
    )
    .bind(transactions)
    .fetch_all(connection)
    .await?;
    Ok(found)
}
