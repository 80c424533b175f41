//! Moves points from blocks into chunks, a shard at a time, while others read and write.
//!
//! One transaction takes blocks away and writes the chunks that hold their points, so no reader's snapshot misses
//! a point, and a crash loses none. Points that come late go into the chunk of their time, and touch no other.

mod rows;
mod shard;
mod targets;

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use metrics::gauge;
use xtrace_model::metric::SeriesId;

use self::rows::Time;
use self::shard::{Moved, move_blocks};
use super::{series, set_aside};
use crate::background::Pulse;
use crate::{Store, StoreError};

const INTERVAL: Duration = Duration::from_secs(5);
/// Blocks of a shard are moved when they are so many bytes: whoever reads one series reads them all.
const BYTES_MIN: i64 = 512 << 10;
/// Fewer bytes are moved when they are so old: chunks are smaller, and quicker to read.
const AGE_MIN: TimeDelta = TimeDelta::minutes(10);
/// Shards of one round at most; the largest come first.
const SHARDS_MAX: i64 = 10_000;
/// An older program that still runs may write rows: they are looked for in one round of so many.
const ROUNDS_OF_OLD_ROWS: u64 = 60;
/// Names the lock that one process at a time moves points under.
const LOCK: i64 = 0x7874_7261_6365_0003;

/// Moves points until the task is dropped.
pub async fn run(store: Store, pulse: Pulse) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0_u64.. {
        interval.tick().await;
        if let Err(error) = series::verify(&store).await {
            let cause = error.for_log();
            tracing::debug!(%error, cause, "what is known of series is verified a little later");
        }
        let outcome = if round % ROUNDS_OF_OLD_ROWS == 0 {
            once(&store, BYTES_MIN).await
        } else {
            move_shards(&store, BYTES_MIN).await
        };
        match outcome {
            Ok(()) => pulse.succeeded(),
            Err(error) => pulse.failed(&error),
        }
    }
}

/// Moves what an older program wrote, and the blocks of every shard that holds so many bytes, or old ones.
pub async fn once(store: &Store, bytes_min: i64) -> Result<(), StoreError> {
    let counted = set_aside::count(store).await;
    let rows = move_rows(store).await;
    let shards = move_shards(store, bytes_min).await;
    counted.and(rows).and(shards)
}

/// Moves what is due of every shard. A shard that fails doesn't hold up the others; its failure is the answer.
async fn move_shards(store: &Store, bytes_min: i64) -> Result<(), StoreError> {
    let shards: Vec<(String, i16)> = sqlx::query_as(
        "select project_id, shard from metric_blocks group by project_id, shard
         having sum(octet_length(data)) >= $1 or min(stored_at) < $2
          order by sum(octet_length(data)) desc limit $3",
    )
    .bind(bytes_min)
    .bind(Utc::now() - AGE_MIN)
    .bind(SHARDS_MAX)
    .fetch_all(store.background())
    .await?;
    gauge!("xtrace_metric_shards_due").set(shards.len() as f64);
    let mut failed = 0_u32;
    let mut outcome = Ok(());
    for (project, shard) in shards {
        if let Err(error) = move_shard(store, &project, shard).await {
            failed += 1;
            let is_away = is_away(&error);
            tracing::debug!(%error, project, shard, "a shard's points are not moved");
            outcome = outcome.and(Err(error));
            if is_away {
                break;
            }
        }
    }
    gauge!("xtrace_metric_shards_failing").set(f64::from(failed));
    outcome
}

async fn move_shard(store: &Store, project: &str, shard: i16) -> Result<(), StoreError> {
    while move_blocks(store, project, shard).await? == Moved::Some {}
    Ok(())
}

/// Whether the database is, so that all other shards would fail alike, each after a while.
fn is_away(error: &StoreError) -> bool {
    let cause = match error {
        StoreError::Unavailable(cause) => cause.as_ref(),
        _ => return false,
    };
    !matches!(cause, Some(sqlx::Error::Database(_)))
}

/// Rows of single points, which programs before this one wrote, become blocks.
async fn move_rows(store: &Store) -> Result<(), StoreError> {
    const ROWS_MAX: i64 = 50_000;
    loop {
        let mut transaction = store.background().begin().await?;
        let rows: Vec<(String, SeriesId, Time, f64)> = sqlx::query_as(
            "delete from metric_points p using (select tableoid, ctid from metric_points limit $1) k
              where p.tableoid = k.tableoid and p.ctid = k.ctid
             returning p.project_id, p.series_id, p.ts, p.value",
        )
        .bind(ROWS_MAX)
        .fetch_all(&mut *transaction)
        .await?;
        if rows.is_empty() {
            return Ok(());
        }
        super::insert::old_points(&mut transaction, rows).await?;
        transaction.commit().await?;
    }
}
