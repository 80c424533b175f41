//! The end of old rows: partitions that nobody keeps are dropped; from those that stay, rows are deleted a
//! few at a time, so that no writer waits for long.

use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::{counter, gauge};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{LOCK, LOCK_TIMEOUT, Partitioned, date};
use crate::background::Pulse;
use crate::error::{UNDEFINED_TABLE, is_sqlstate};
use crate::pace::in_batches;
use crate::{Store, StoreError};

const LOCK_NOT_AVAILABLE: &str = "55P03";
const DEADLOCK: &str = "40P01";

type Time = DateTime<Utc>;

/// What became of the partitions that should be gone.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    /// The first day of those that could not be dropped now.
    pub(crate) first_left: Option<i64>,
    /// Why one could not be dropped, if not for a lock.
    pub(crate) failure: Option<StoreError>,
}

/// Drops partitions of days before `first_kept`. One that somebody reads for long is left, and the next
/// round tries again.
pub(crate) async fn drop_before(
    store: &Store,
    table: Partitioned,
    first_kept: i64,
    pulse: &Pulse,
) -> Result<Dropped, StoreError> {
    let mut connection = store.background().acquire().await?;
    let days = days(&mut connection, table).await?;
    let mut outcome = Dropped::default();
    let mut dropped = 0_u32;
    for day in days.iter().copied().filter(|day| *day < first_kept) {
        pulse.alive();
        match drop_one(&mut connection, &table.partition(day)).await {
            Ok(true) => dropped += 1,
            Ok(false) => outcome.leave(day),
            Err(error) => {
                outcome.leave(day);
                outcome.failure.get_or_insert(error);
            }
        }
    }
    if let Some(day) = outcome.first_left {
        let (table, since) = (table.table(), date(day).date_naive());
        tracing::warn!(table, %since, "partitions older than anybody keeps could not be dropped, most likely because a statement reads them for long; the next round tries again");
    }
    counter!("xtrace_dropped_total", "what" => table.table()).increment(u64::from(dropped));
    gauge!("xtrace_partitions", "table" => table.table())
        .set(days.len() as f64 - f64::from(dropped));
    Ok(outcome)
}

impl Dropped {
    fn leave(&mut self, day: i64) {
        self.first_left = Some(self.first_left.map_or(day, |first| first.min(day)));
    }
}

/// The days that have a partition, oldest first.
async fn days(connection: &mut PgConnection, table: Partitioned) -> Result<Vec<i64>, StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_inherits i
           join pg_class c on c.oid = i.inhrelid
          where i.inhparent = to_regclass($1)
          order by 1",
    )
    .bind(table.table())
    .fetch_all(connection)
    .await?;
    Ok(names.iter().filter_map(|name| table.day(name)).collect())
}

/// Whether the partition is gone.
async fn drop_one(connection: &mut PgConnection, name: &str) -> Result<bool, StoreError> {
    const ATTEMPTS: usize = 3;
    const PAUSE: Duration = Duration::from_millis(500);
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        match try_drop(connection, name).await {
            Ok(()) => return Ok(true),
            Err(error) if is_sqlstate(&error, &[LOCK_NOT_AVAILABLE, DEADLOCK]) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Another process may be at it too.
async fn try_drop(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    let statement = AssertSqlSafe(format!("drop table if exists {name}"));
    sqlx::query(statement).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// Deletes rows from before a time that have no partition of their own.
pub(crate) async fn delete_unplaced_before(
    store: &Store,
    table: Partitioned,
    before: Time,
    pulse: &Pulse,
) -> Result<(), StoreError> {
    let (default, column) = (table.default_partition(), table.column());
    let sql = format!(
        "delete from {default} where ctid = any(array(
            select ctid from {default} where {column} < $1 limit $2 for update skip locked))"
    );
    let sql = sql.as_str();
    in_batches(pulse, |rows| async move {
        let deleted = sqlx::query(AssertSqlSafe(sql))
            .bind(before)
            .bind(rows)
            .execute(store.background())
            .await?;
        Ok(deleted.rows_affected())
    })
    .await?;
    Ok(())
}

/// Deletes a project's rows from before a time out of the partitions that stay.
pub(crate) async fn delete_before(
    store: &Store,
    table: Partitioned,
    (project, before): (&str, Time),
    pulse: &Pulse,
) -> Result<(), StoreError> {
    let mut connection = store.background().acquire().await?;
    let days = days(&mut connection, table).await?;
    drop(connection);
    let old = days.into_iter().filter(|day| date(*day) < before);
    let mut names: Vec<String> = old.map(|day| table.partition(day)).collect();
    names.push(table.default_partition());
    let column = table.column();
    for name in names {
        let sql = format!(
            "delete from {name} where project_id = $1 and ctid = any(array(
                select ctid from {name} where project_id = $1 and {column} < $2
                 limit $3 for update skip locked))"
        );
        let sql = sql.as_str();
        in_batches(pulse, |rows| async move {
            let deleted = sqlx::query(AssertSqlSafe(sql))
                .bind(project)
                .bind(before)
                .bind(rows)
                .execute(store.background())
                .await;
            match deleted {
                Ok(deleted) => Ok(deleted.rows_affected()),
                // Another process dropped all of it.
                Err(error) if is_sqlstate(&error, &[UNDEFINED_TABLE]) => Ok(0),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
    }
    Ok(())
}
