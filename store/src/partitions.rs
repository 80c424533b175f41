//! Day partitions of `observations`, `logs`, `metric_chunks` and `metric_exemplars`, made before rows need them.
//!
//! Rows whose day has no partition lie in the default one. Wild clocks can't make partitions: only
//! days from [`DAYS_BACK_MAX`] ago to [`DAYS_AHEAD`] ahead get one.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::{counter, gauge};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use xtrace_model::time;

use crate::error::is_sqlstate;
use crate::{Store, StoreError};

/// Days ahead of today that have a partition at all times.
pub(crate) const DAYS_AHEAD: i64 = 7;
/// Days back from today that get a partition when a row needs it.
const DAYS_BACK_MAX: i64 = 90;
/// Names the lock under which partitions are made and dropped.
const LOCK: i64 = 0x7874_7261_6365_0001;

/// A table with day partitions, and the column that they divide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Partitioned {
    Observations,
    MetricChunks,
    MetricExemplars,
    Logs,
}

impl Partitioned {
    const ALL: [Self; 4] = [
        Self::Observations,
        Self::MetricChunks,
        Self::MetricExemplars,
        Self::Logs,
    ];

    pub(crate) fn table(self) -> &'static str {
        match self {
            Self::Observations => "observations",
            Self::MetricChunks => "metric_chunks",
            Self::MetricExemplars => "metric_exemplars",
            Self::Logs => "logs",
        }
    }

    pub(crate) fn column(self) -> &'static str {
        match self {
            Self::Observations => "start_time",
            Self::MetricChunks => "first_at",
            Self::MetricExemplars | Self::Logs => "ts",
        }
    }

    fn partition(self, day: i64) -> String {
        format!("{}_{}", self.table(), date(day).format("%Y%m%d"))
    }
}

fn date(day: i64) -> DateTime<Utc> {
    time::to_utc(day.saturating_mul(time::DAY))
}

/// Makes partitions for today and the days ahead.
pub(crate) async fn make_ahead(store: &Store) -> Result<(), StoreError> {
    let today = time::day_of(time::from_utc(Utc::now()));
    let mut connection = store.background().acquire().await?;
    for table in Partitioned::ALL {
        let days: BTreeSet<i64> = (today - 1..=today + DAYS_AHEAD).collect();
        make(&mut connection, table, &days).await?;
    }
    Ok(())
}

/// Refreshes the planner's statistics of the whole tables: autovacuum looks at partitions only, and
/// without them a look-up by trace reads far too much.
pub(crate) async fn analyze(store: &Store) -> Result<(), StoreError> {
    for table in Partitioned::ALL {
        let statement = AssertSqlSafe(format!("analyze {}", table.table()));
        sqlx::query(statement).execute(store.background()).await?;
    }
    Ok(())
}

/// The days that deserve a partition, of those that rows fall on.
pub(crate) fn worthy(days: impl Iterator<Item = i64>, now: DateTime<Utc>) -> BTreeSet<i64> {
    let today = time::day_of(time::from_utc(now));
    days.filter(|day| (today - DAYS_BACK_MAX..=today + 1).contains(day))
        .collect()
}

/// Makes the partitions that are missing. Rows of their day that wait in the default partition
/// move along, or Postgres would refuse the new one.
pub(crate) async fn make(
    connection: &mut PgConnection,
    table: Partitioned,
    days: &BTreeSet<i64>,
) -> Result<(), StoreError> {
    let missing = missing(connection, table, days).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
    let days: BTreeSet<i64> = missing.into_iter().collect();
    for day in self::missing(&mut transaction, table, &days).await? {
        make_one(&mut transaction, table, day).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn missing(
    connection: &mut PgConnection,
    table: Partitioned,
    days: &BTreeSet<i64>,
) -> Result<Vec<i64>, StoreError> {
    let names: Vec<String> = days.iter().map(|day| table.partition(*day)).collect();
    let found: Vec<String> = sqlx::query_scalar(
        "select name from unnest($1::text[]) name where to_regclass(name) is not null",
    )
    .bind(&names)
    .fetch_all(connection)
    .await?;
    Ok(days
        .iter()
        .copied()
        .filter(|day| !found.contains(&table.partition(*day)))
        .collect())
}

async fn make_one(
    connection: &mut PgConnection,
    table: Partitioned,
    day: i64,
) -> Result<(), StoreError> {
    let (name, parent, column) = (table.partition(day), table.table(), table.column());
    let (from, to) = (date(day).to_rfc3339(), date(day + 1).to_rfc3339());
    let statements = [
        format!("create table {name} (like {parent} including all)"),
        format!(
            "with moved as (delete from {parent}_default
              where {column} >= '{from}' and {column} < '{to}' returning *)
             insert into {name} select * from moved"
        ),
        format!(
            "alter table {parent} attach partition {name} for values from ('{from}') to ('{to}')"
        ),
    ];
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

const LOCK_NOT_AVAILABLE: &str = "55P03";
/// Everybody who reads or writes the table waits behind whoever waits for its lock, so nobody waits
/// longer than this.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '300ms'";

/// Whether the partition is gone; else somebody is reading for long, and the next round tries again.
async fn drop_one(connection: &mut PgConnection, name: &str) -> Result<bool, StoreError> {
    const ATTEMPTS: usize = 10;
    const PAUSE: Duration = Duration::from_millis(500);
    for _ in 0..ATTEMPTS {
        let mut transaction = connection.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        let statement = AssertSqlSafe(format!("drop table {name}"));
        match sqlx::query(statement).execute(&mut *transaction).await {
            Ok(_) => {
                transaction.commit().await?;
                return Ok(true);
            }
            Err(error) if is_sqlstate(&error, &[LOCK_NOT_AVAILABLE]) => {
                transaction.rollback().await?;
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(false)
}

/// Drops partitions of days before `first_kept`, and older rows of the default partition.
pub(crate) async fn drop_before(
    store: &Store,
    table: Partitioned,
    first_kept: i64,
) -> Result<u64, StoreError> {
    let mut connection = store.background().acquire().await?;
    let names: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_inherits i
           join pg_class c on c.oid = i.inhrelid
          where i.inhparent = to_regclass($1)",
    )
    .bind(table.table())
    .fetch_all(&mut *connection)
    .await?;
    let oldest = table.partition(first_kept);
    let is_day = |name: &&String| name.len() == oldest.len() && !name.ends_with("default");
    let mut dropped = 0;
    for name in names.iter().filter(is_day).filter(|name| **name < oldest) {
        dropped += u64::from(drop_one(&mut connection, name).await?);
    }
    counter!("xtrace_dropped_total", "what" => table.table()).increment(dropped);
    gauge!("xtrace_partitions", "table" => table.table())
        .set(names.iter().filter(is_day).count() as f64 - dropped as f64);
    let (parent, column) = (table.table(), table.column());
    sqlx::query(AssertSqlSafe(format!(
        "delete from {parent}_default where {column} < $1"
    )))
    .bind(date(first_kept))
    .execute(&mut *connection)
    .await?;
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wild_clocks_make_no_partitions() {
        let now = date(20_000);
        let days = [0, 19_909, 19_910, 20_000, 20_001, 20_002, i64::MAX];
        assert_eq!(
            worthy(days.into_iter(), now),
            BTreeSet::from([19_910, 20_000, 20_001])
        );
        assert_eq!(
            Partitioned::Observations.partition(20_000),
            "observations_20241004"
        );
    }
}
