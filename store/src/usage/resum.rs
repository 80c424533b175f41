//! Sums of a day from its traces: of days that were last summed up by a program that recorded no changes,
//! or that somebody marks (a row of `usage_dirty` without `usages`) because their sums are in doubt.

use chrono::NaiveDate;
use sqlx::AssertSqlSafe;

use super::source::{Source, hours_of};
use super::{fold, worker};
use crate::{Store, StoreError};

/// Days that one look finds.
const DAYS_MAX: i64 = 1000;

/// Projects and days to be summed up from their traces, the oldest days first.
pub(super) async fn unknown(store: &Store) -> Result<Vec<(String, NaiveDate)>, StoreError> {
    let days = sqlx::query_as(
        "select project_id, day from (
             select project_id, (hour at time zone 'utc')::date as day from usage_dirty where usages is null
              union
             select project_id, (hour at time zone 'utc')::date from usage_hourly where cost is null) d
          order by row_number() over (partition by project_id order by day), project_id limit $1",
    )
    .bind(DAYS_MAX)
    .fetch_all(store.background())
    .await?;
    Ok(days)
}

/// Sums one day up, in one snapshot: changes that it sees are in the sums, later ones are still recorded. Whether
/// that was done, because nobody else is at it.
pub(super) async fn resum(
    store: &Store,
    project: &str,
    day: NaiveDate,
) -> Result<bool, StoreError> {
    let Some(mut transaction) = worker::begin(store, worker::RESUM_LOCK).await? else {
        return Ok(false);
    };
    let (first, end) = hours_of(day);
    for table in [
        "usage_dirty",
        "traces_hourly",
        "usage_hourly",
        "usage_shared",
    ] {
        let sql = format!("delete from {table} where project_id = $1 and hour >= $2 and hour < $3");
        sqlx::query(AssertSqlSafe(sql))
            .bind(project)
            .bind(first)
            .bind(end)
            .execute(&mut *transaction)
            .await?;
    }
    for table in ["usage_daily", "usage_shared_daily", "latency_daily"] {
        let sql = format!("delete from {table} where project_id = $1 and day = $2");
        sqlx::query(AssertSqlSafe(sql))
            .bind(project)
            .bind(day)
            .execute(&mut *transaction)
            .await?;
    }
    fold::add(&mut transaction, project, Source::Day(day)).await?;
    transaction.commit().await?;
    Ok(true)
}
