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

/// Asks whether all of these projects take rows; within the transaction that is going to add them.
pub(crate) async fn ask(
    connection: &mut PgConnection,
    projects: &BTreeSet<&ProjectId>,
) -> Result<(), StoreError> {
    if closed(connection, projects).await?.is_empty() {
        return Ok(());
    }
    Err(StoreError::ProjectGone)
}

/// Those of these projects that take no rows.
pub(crate) async fn closed(
    connection: &mut PgConnection,
    projects: &BTreeSet<&ProjectId>,
) -> Result<BTreeSet<ProjectId>, StoreError> {
    let ids: Vec<&str> = projects.iter().map(|project| project.as_str()).collect();
    let open: Vec<String> =
        sqlx::query_scalar("select id from projects where id = any($1) and deleting_at is null")
            .bind(ids)
            .fetch_all(connection)
            .await?;
    let is_closed = |project: &&&ProjectId| !open.iter().any(|id| id == project.as_str());
    let closed = projects.iter().filter(is_closed);
    Ok(closed.map(|project| ProjectId::clone(project)).collect())
}

/// Begins a transaction that adds rows of a project, if it takes any.
pub(crate) async fn begin(
    pool: &PgPool,
    project: &ProjectId,
) -> Result<PgTransaction<'static>, StoreError> {
    let mut transaction = pool.begin().await?;
    ask(&mut transaction, &BTreeSet::from([project])).await?;
    Ok(transaction)
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
