//! What runs beside requests: partitions ahead of time, garbage, and retention.

use std::time::Duration;

use chrono::{TimeDelta, Utc};

use crate::retention::{self, Retention};
use crate::{Store, StoreError, media, partitions};

/// How long media may be without anything that refers to them.
const MEDIA_GRACE: TimeDelta = TimeDelta::days(1);
const INTERVAL: Duration = Duration::from_hours(1);

/// Keeps partitions and retention up to date until the task is dropped.
pub async fn run(store: Store, retention: Retention) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if let Err(error) = once(&store, retention).await {
            tracing::warn!(%error, cause = error.for_log(), "maintenance failed and runs again in an hour");
        }
    }
}

/// One round.
pub async fn once(store: &Store, retention: Retention) -> Result<(), StoreError> {
    partitions::make_ahead(store).await?;
    partitions::analyze(store).await?;
    media::collect_garbage(store, Utc::now() - MEDIA_GRACE).await?;
    retention::enforce(store, retention).await
}
