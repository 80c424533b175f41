//! What runs beside requests: partitions ahead of time, and retention.

use std::time::Duration;

use chrono::Utc;
use xtrace_model::time;

use crate::partitions::{self, Partitioned};
use crate::{Store, StoreError};

/// How long data is kept, in days; `None` keeps all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Age at which traces, observations and scores go.
    pub traces_days: Option<i64>,
    /// Age at which metric points go.
    pub metrics_days: Option<i64>,
}

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
    let today = time::day_of(time::from_utc(Utc::now()));
    if let Some(days) = retention.metrics_days {
        partitions::drop_before(store, Partitioned::MetricPoints, today - days).await?;
    }
    if let Some(days) = retention.traces_days {
        partitions::drop_before(store, Partitioned::Observations, today - days).await?;
        let before = time::to_utc((today - days) * time::DAY);
        delete_batches(store, DELETE_TRACES, before).await?;
        delete_batches(store, DELETE_SCORES, before).await?;
    }
    Ok(())
}

// A trace goes when nothing of it is young: neither its begin nor its last observation.
const DELETE_TRACES: &str = "delete from traces where ctid = any(array(
    select ctid from traces where ts < $1 and coalesce(last_start, ts) < $1 limit $2))";
const DELETE_SCORES: &str = "delete from scores where ctid = any(array(
    select ctid from scores where ts < $1 limit $2))";

async fn delete_batches(
    store: &Store,
    statement: &'static str,
    before: chrono::DateTime<Utc>,
) -> Result<(), StoreError> {
    loop {
        let deleted = sqlx::query(statement)
            .bind(before)
            .bind(DELETE_ROWS_MAX)
            .execute(store.background())
            .await?
            .rows_affected();
        if deleted < DELETE_ROWS_MAX.cast_unsigned() {
            return Ok(());
        }
    }
}
