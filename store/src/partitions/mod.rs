//! Day partitions of `observations`, `logs`, `metric_chunks` and `metric_exemplars`.
//!
//! - `make`: partitions are made before rows need them. `end`: they are dropped, and rows deleted from those that
//!   stay, a few at a time.
//!
//! Rows whose day has no partition lie in the default one. Wild clocks can't make partitions: only days from
//! [`DAYS_BACK_MAX`] ago, or from when nobody keeps anything, to [`DAYS_AHEAD`] ahead get one.

pub(crate) mod end;
mod make;

pub(crate) use make::{EXCLUDES, make, make_ahead, reach};

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;
use xtrace_model::time;

use crate::StoreError;

/// Days ahead of today that have a partition at all times.
pub(crate) const DAYS_AHEAD: i64 = 7;
/// Days back from today that may get a partition when a row needs it, however long data is kept.
const DAYS_BACK_MAX: i64 = 400;
/// Names the lock under which partitions are made and dropped.
const LOCK: i64 = 0x7874_7261_6365_0001;
/// Everybody who reads or writes the table waits behind whoever waits for its lock, so nobody waits
/// longer than this. Set before any lock is asked for.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '300ms'";

/// A table with day partitions, and the column that they divide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Partitioned {
    Observations,
    MetricChunks,
    MetricExemplars,
    Logs,
}

impl Partitioned {
    pub(crate) const ALL: [Self; 4] = [
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

    /// Where rows of days without a partition lie.
    fn default_partition(self) -> String {
        format!("{}_default", self.table())
    }

    /// The day of a partition of that name; none if it is not one of ours.
    fn day(self, partition: &str) -> Option<i64> {
        let suffix = partition.strip_prefix(self.table())?.strip_prefix('_')?;
        let date = NaiveDate::parse_from_str(suffix, "%Y%m%d").ok()?;
        let midnight = date.and_hms_opt(0, 0, 0)?.and_utc();
        let day = time::day_of(time::from_utc(midnight));
        (self.partition(day) == partition).then_some(day)
    }
}

fn date(day: i64) -> DateTime<Utc> {
    time::to_utc(day.saturating_mul(time::DAY))
}

/// The day by Postgres' clock, which is the same for all processes.
pub(crate) async fn today(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let now: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(connection)
        .await?;
    Ok(time::day_of(time::from_utc(now)))
}

/// The days that may deserve a partition, of those that rows fall on; [`make()`] leaves out days of which
/// nobody keeps anything.
pub(crate) fn worthy(days: impl Iterator<Item = i64>, now: DateTime<Utc>) -> BTreeSet<i64> {
    let today = time::day_of(time::from_utc(now));
    days.filter(|day| (today - DAYS_BACK_MAX..=today + 1).contains(day))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wild_clocks_make_no_partitions() {
        let now = date(20_000);
        let days = [0, 19_599, 19_600, 20_000, 20_001, 20_002, i64::MAX];
        assert_eq!(
            worthy(days.into_iter(), now),
            BTreeSet::from([19_600, 20_000, 20_001])
        );
        assert_eq!(
            Partitioned::Observations.partition(20_000),
            "observations_20241004"
        );
    }

    #[test]
    fn partitions_are_known_by_their_names() {
        let logs = Partitioned::Logs;
        assert_eq!(logs.day("logs_20241004"), Some(20_000));
        for other in ["logs_default", "logs_2024100", "logs_20249999", "logs", ""] {
            assert_eq!(logs.day(other), None, "{other}");
        }
    }
}
