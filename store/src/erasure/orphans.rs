//! Rows whose project has no row in `projects`. No transaction of this program leaves any; one of an older
//! program, which deleted projects table by table, may.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, PgConnection};

use super::tables;
use crate::background::Pulse;
use crate::{Store, StoreError};

/// How long rows must have been without a project.
const AGE_MIN: TimeDelta = TimeDelta::days(1);
/// Ids that one look at a table finds.
const IDS_MAX: i64 = 1000;

/// Makes ids that have owned rows for a day, by Postgres' clock, projects that are being deleted: they end as
/// those do, with a certificate. How many were found.
pub(crate) async fn adopt(store: &Store, pulse: &Pulse) -> Result<u64, StoreError> {
    let mut connection = store.background().acquire().await?;
    let mut orphans = BTreeSet::new();
    for table in tables::owned(&mut connection).await? {
        pulse.alive();
        orphans.extend(without_project(&mut connection, &table.name).await?);
    }
    let orphans: Vec<String> = orphans.into_iter().collect();
    let now: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(&mut *connection)
        .await?;
    remember(&mut connection, &orphans, now).await?;
    drop(connection);
    let mut transaction = store.background().begin().await?;
    let due: Vec<String> =
        sqlx::query_scalar("delete from orphans where seen_at <= $1 and id = any($2) returning id")
            .bind(now - AGE_MIN)
            .bind(&orphans)
            .fetch_all(&mut *transaction)
            .await?;
    for id in &due {
        tracing::warn!(
            project = id,
            "rows of a project that does not exist are deleted"
        );
        begin(&mut transaction, id, now).await?;
    }
    transaction.commit().await?;
    Ok(due.len() as u64)
}

/// Ids that own rows of a table and are no project's, by one look into an index for each id.
async fn without_project(
    connection: &mut PgConnection,
    table: &str,
) -> Result<Vec<String>, StoreError> {
    let sql = format!(
        "with recursive owners (id) as (
            (select project_id from {table} order by project_id limit 1)
             union all
            select (select t.project_id from {table} t where t.project_id > o.id order by t.project_id limit 1)
              from owners o where o.id is not null)
         select o.id from owners o
          where o.id is not null and not exists (select from projects p where p.id = o.id) limit $1"
    );
    let found = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(IDS_MAX)
        .fetch_all(connection)
        .await?;
    Ok(found)
}

/// Notes since when these have been orphans, and forgets all others.
async fn remember(
    connection: &mut PgConnection,
    orphans: &[String],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query("delete from orphans where id <> all($1)")
        .bind(orphans)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "insert into orphans (id, seen_at) select id, $2 from unnest($1::text[]) k(id) on conflict do nothing",
    )
    .bind(orphans)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// A project that was made meanwhile keeps what has its id.
async fn begin(
    connection: &mut PgConnection,
    id: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let name = format!("{id} (deleted, {})", uuid::Uuid::new_v4().simple());
    let made = sqlx::query(
        "insert into projects (id, name, created_at, updated_at, deleting_at) values ($1, $2, $3, $3, $3)
         on conflict (id) do nothing",
    )
    .bind(id)
    .bind(name)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    if made.rows_affected() > 0 {
        sqlx::query("insert into project_erasures (id, asked_at) values ($1, $2)")
            .bind(id)
            .bind(now)
            .execute(connection)
            .await?;
    }
    Ok(())
}
