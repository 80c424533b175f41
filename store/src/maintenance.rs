//! What runs beside requests: partitions ahead of time, and retention.

use std::time::Duration;

use ::metrics::counter;
use chrono::{TimeDelta, Utc};
use xtrace_model::time;

use crate::partitions::{self, Partitioned};
use crate::{Store, StoreError, media, metrics, writer};

/// How long data is kept, in days; `None` keeps all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Age at which traces, observations, scores and log records go.
    pub traces_days: Option<i64>,
    /// Age at which metric points go.
    pub metrics_days: Option<i64>,
}

/// How long media may be without anything that refers to them.
const MEDIA_GRACE: TimeDelta = TimeDelta::days(1);
const INTERVAL: Duration = Duration::from_hours(1);
/// Rows that one delete takes at most, so that no lock is held for long.
const DELETE_ROWS_MAX: i64 = 5000;

/// Keeps partitions and retention up to date until the task is dropped.
pub async fn run(store: Store, retention: Retention) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if let Err(error) = once(&store, retention).await {
            tracing::warn!(%error, "maintenance failed and runs again in an hour");
        }
    }
}

/// One round.
pub async fn once(store: &Store, retention: Retention) -> Result<(), StoreError> {
    partitions::make_ahead(store).await?;
    partitions::analyze(store).await?;
    media::collect_garbage(store, Utc::now() - MEDIA_GRACE).await?;
    let today = time::day_of(time::from_utc(Utc::now()));
    if let Some(days) = retention.metrics_days {
        partitions::drop_before(store, Partitioned::MetricChunks, today - days).await?;
        partitions::drop_before(store, Partitioned::MetricExemplars, today - days).await?;
        metrics::forget(store, time::to_utc((today - days) * time::DAY)).await?;
    }
    if let Some(days) = retention.traces_days {
        partitions::drop_before(store, Partitioned::Observations, today - days).await?;
        partitions::drop_before(store, Partitioned::Logs, today - days).await?;
        let before = time::to_utc((today - days) * time::DAY);
        delete_batches(store, DELETE_TRACES, before).await?;
        delete_batches(store, DELETE_SCORES, before).await?;
        sum_up_again(store, before).await?;
    }
    Ok(())
}

// A trace goes when nothing of it is young: neither its begin nor its last observation. One that is
// being written is left for the next time: waiting for it while holding others could go in a circle.
const DELETE_TRACES: &str = "with gone as (
        delete from traces where ctid = any(array(
            select ctid from traces where ts < $1 and coalesce(last_start, ts) < $1 limit $2
               for update skip locked))
        returning 1)
    select count(*) from gone";
const DELETE_SCORES: &str = "with gone as (
        delete from scores where ctid = any(array(
            select ctid from scores where ts < $1 limit $2))
        returning 1)
    select count(*) from gone";

/// Traces that stay may have lost observations.
async fn sum_up_again(store: &Store, before: chrono::DateTime<Utc>) -> Result<(), StoreError> {
    const TRACES: &str = "select project_id, id from traces where first_start < $1 limit $2";
    loop {
        let keys: Vec<(String, String)> = sqlx::query_as(TRACES)
            .bind(before)
            .bind(DELETE_ROWS_MAX)
            .fetch_all(store.background())
            .await?;
        if keys.is_empty() {
            return Ok(());
        }
        writer::sum_up_again(store, keys).await?;
    }
}

async fn delete_batches(
    store: &Store,
    statement: &'static str,
    before: chrono::DateTime<Utc>,
) -> Result<(), StoreError> {
    loop {
        let deleted: i64 = sqlx::query_scalar(statement)
            .bind(before)
            .bind(DELETE_ROWS_MAX)
            .fetch_one(store.background())
            .await?;
        counter!("xtrace_dropped_total", "what" => "rows").increment(deleted.unsigned_abs());
        if deleted < DELETE_ROWS_MAX {
            return Ok(());
        }
    }
}
