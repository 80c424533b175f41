//! The days that rows of a batch need a partition for.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use xtrace_model::{Batch, Micros, Observation, time};

use crate::StoreError;
use crate::partitions::{self, Partitioned};

/// Old days whose partitions are there for sure.
#[derive(Default)]
pub(super) struct KnownDays(HashSet<(Partitioned, i64)>);

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
                .filter(|day| !self.0.contains(&(table, *day)));
            let days = partitions::worthy(new, now);
            if !days.is_empty() {
                match partitions::make(connection, table, &days).await {
                    Ok(()) => self.0.extend(days.into_iter().map(|day| (table, day))),
                    // Somebody reads for long: the rows go to the default partition, and move when
                    // theirs is made.
                    Err(error @ StoreError::Unavailable(_)) => {
                        tracing::debug!(
                            cause = error.for_log(),
                            "a partition could not be made yet"
                        );
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
