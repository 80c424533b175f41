//! The days that rows of a batch need a partition for.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use xtrace_model::{Batch, Micros, Observation, time};

use crate::StoreError;
use crate::partitions::{self, Partitioned};

/// After a partition could not be made, none of its table is tried for this long: whoever holds the table (a
/// dump, say) mostly does so for a while, and every try waits.
const PAUSE: Duration = Duration::from_secs(30);

/// Old days whose partitions are there for sure.
#[derive(Default)]
pub(super) struct KnownDays {
    made: HashSet<(Partitioned, i64)>,
    /// Until when nothing is tried.
    paused: HashMap<Partitioned, Instant>,
}

impl KnownDays {
    /// Makes the partitions that are missing. Those of today and the days after it are made ahead of
    /// time.
    pub(super) async fn make(
        &mut self,
        connection: &mut PgConnection,
        batches: &[&Batch],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let today = time::day_of(time::from_utc(now));
        let all = || batches.iter();
        let starts = all().flat_map(|batch| &batch.observations);
        let exemplars = all().flat_map(|batch| &batch.exemplars);
        let logs = all().flat_map(|batch| &batch.logs);
        let old = |days: &mut dyn Iterator<Item = Micros>| -> BTreeSet<i64> {
            days.map(time::day_of)
                .filter(|day| *day < today - 1)
                .collect()
        };
        for (table, days) in [
            (
                Partitioned::Observations,
                old(&mut starts.map(Observation::begins)),
            ),
            (
                Partitioned::MetricExemplars,
                old(&mut exemplars.map(|exemplar| exemplar.point_time.div_euclid(1000))),
            ),
            (Partitioned::Logs, old(&mut logs.map(|record| record.time))),
        ] {
            let new = days
                .into_iter()
                .filter(|day| !self.made.contains(&(table, *day)));
            let days = partitions::worthy(new, now);
            if !days.is_empty() && !self.is_paused(table) {
                match partitions::make(connection, table, &days).await {
                    Ok(()) => self.made.extend(days.into_iter().map(|day| (table, day))),
                    // Somebody reads for long: the rows go to the default partition, and move when
                    // theirs is made.
                    Err(error @ (StoreError::Unavailable(_) | StoreError::Timeout)) => {
                        tracing::debug!(
                            cause = error.for_log(),
                            "a partition could not be made yet"
                        );
                        self.paused.insert(table, Instant::now() + PAUSE);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn is_paused(&self, table: Partitioned) -> bool {
        let until = self.paused.get(&table);
        until.is_some_and(|until| *until > Instant::now())
    }
}
