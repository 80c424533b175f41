//! What runs beside requests: partitions ahead of time, statistics, times of large traces, garbage,
//! retention, erasure. Each is a loop of its own that depends on no other.

use std::time::Duration;

use chrono::{TimeDelta, Utc};

use crate::background::{self, Limits, Loop, Pulse};
use crate::retention::{self, Retention};
use crate::{Store, StoreError, erasure, garbage, partitions, statistics, writer};

/// How long media may be without anything that refers to them, and comments without what they are about.
const GRACE: TimeDelta = TimeDelta::days(1);
/// Partitions are made a week ahead: many failures in a row are harmless.
const PARTITIONS_INTERVAL: Duration = Duration::from_mins(10);
const INTERVAL: Duration = Duration::from_hours(1);
/// A round that fails is tried again within this.
const ERASURE_INTERVAL: Duration = Duration::from_mins(1);
/// Times of large traces are in doubt for about this long.
const DOUBTS_INTERVAL: Duration = Duration::from_secs(1);

/// The loops, to be run by [`background::Background`].
pub fn loops(store: &Store, retention: Retention) -> Vec<Loop> {
    let hourly = Limits {
        silence_max: Duration::from_hours(1),
        success_max: Duration::from_hours(6),
    };
    // Making an index takes as long as its table is large.
    let slow = Limits {
        silence_max: Duration::from_hours(12),
        success_max: Duration::from_hours(24),
    };
    vec![
        every(
            store,
            ("partitions", PARTITIONS_INTERVAL, hourly),
            move |store, _| async move {
                make_partitions(&store, retention).await?;
                Ok(PARTITIONS_INTERVAL)
            },
        ),
        every(
            store,
            ("statistics", INTERVAL, slow),
            |store, _| async move {
                statistics::refresh(&store).await?;
                Ok(INTERVAL)
            },
        ),
        every(
            store,
            ("garbage", INTERVAL, hourly),
            |store, pulse| async move {
                garbage::collect(&store, Utc::now() - GRACE, &pulse).await?;
                Ok(INTERVAL)
            },
        ),
        every(
            store,
            ("traces", DOUBTS_INTERVAL, hourly),
            |store, pulse| async move {
                writer::settle_doubts(&store, &pulse).await?;
                Ok(DOUBTS_INTERVAL)
            },
        ),
        every(
            store,
            ("retention", INTERVAL, hourly),
            move |store, pulse| async move { retention::enforce(&store, retention, &pulse).await },
        ),
        every(
            store,
            ("erasure", ERASURE_INTERVAL, slow),
            |store, pulse| async move { erasure::round(&store, &pulse).await },
        ),
        every(
            store,
            ("orphans", INTERVAL, slow),
            |store, pulse| async move {
                erasure::adopt(&store, &pulse).await?;
                Ok(INTERVAL)
            },
        ),
    ]
}

/// A loop that repeats a round.
fn every<R>(
    store: &Store,
    (name, interval, limits): (&'static str, Duration, Limits),
    round: impl Fn(Store, Pulse) -> R + Clone + Send + Sync + 'static,
) -> Loop
where
    R: Future<Output = Result<Duration, StoreError>> + Send + 'static,
{
    let store = store.clone();
    Loop::new(name, limits, move |pulse| {
        let (store, round) = (store.clone(), round.clone());
        async move {
            let one = || round(store.clone(), pulse.clone());
            background::repeat(&pulse, interval, one).await;
        }
    })
}

async fn make_partitions(store: &Store, retention: Retention) -> Result<(), StoreError> {
    let made = partitions::make_ahead(store).await;
    let kept = retention::days_kept(store, retention).await?;
    partitions::reach(store, kept).await?;
    made
}

/// One round of each but that of large traces, whichever fails; the first failure.
pub async fn once(store: &Store, retention: Retention) -> Result<(), StoreError> {
    let pulse = Pulse::unwatched();
    let made = make_partitions(store, retention).await;
    let refreshed = statistics::refresh(store).await;
    let collected = garbage::collect(store, Utc::now() - GRACE, &pulse).await;
    let enforced = retention::enforce(store, retention, &pulse).await;
    let adopted = erasure::adopt(store, &pulse).await;
    let erased = erasure::round(store, &pulse).await;
    made.and(refreshed)
        .and(collected)
        .and(enforced.map(drop))
        .and(adopted.map(drop))
        .and(erased.map(drop))
}
