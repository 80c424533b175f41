//! The end of old data. Partitions that nobody keeps any more are dropped; where a project keeps less than
//! others, its rows go from the partitions that stay.
//!
//! A round looks at everything once, in steps that don't depend on each other: one that fails ends nothing but
//! itself. Traces are only looked at up to the first partition that should be gone and is not, so that nothing is
//! done twice; the next round, which comes sooner then, does the rest. `clock`: whether today's date is to be
//! believed. `traces`: the end of traces and of scores, and new sums of those that lost observations.

mod clock;
mod traces;

use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::counter;
use xtrace_model::time;

use self::clock::Verdict;
use crate::background::Pulse;
use crate::partitions::{Partitioned, end};
use crate::{Store, StoreError, metrics as points};

/// How long data is kept, in days, by projects that don't say; `None` keeps all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Age at which traces, observations, scores and log records go.
    pub traces_days: Option<i64>,
    /// Age at which metric points go.
    pub metrics_days: Option<i64>,
}

type Time = DateTime<Utc>;

/// Between two rounds, and when something is left that could not go.
const INTERVAL: Duration = Duration::from_hours(1);
const INTERVAL_LEFT: Duration = Duration::from_mins(10);

/// What is kept of one signal: by each project, and by any.
struct Kept {
    /// The first day that some project keeps.
    first_of_all: Option<i64>,
    /// The first moment that each project keeps.
    by_project: Vec<(String, Time)>,
}

impl Kept {
    fn of(days: impl Iterator<Item = (String, Option<i64>)>, now: Time) -> Self {
        let today = time::day_of(time::from_utc(now));
        let days: Vec<(String, Option<i64>)> = days.collect();
        let longest = days.iter().map(|(_, days)| days.unwrap_or(i64::MAX)).max();
        let begin = |days: i64| time::to_utc((today - days) * time::DAY);
        Self {
            first_of_all: longest
                .filter(|days| *days < i64::MAX)
                .map(|days| today - days),
            by_project: days
                .into_iter()
                .filter_map(|(project, days)| Some((project, begin(days?))))
                .collect(),
        }
    }
}

/// How long each project keeps traces and metrics, and their longest.
struct Days(Vec<(String, Option<i64>, Option<i64>)>);

impl Days {
    async fn read(store: &Store, retention: Retention) -> Result<Self, StoreError> {
        let projects: Vec<(String, Option<i32>, Option<i32>)> = sqlx::query_as(
            "select id, traces_retention_days, metrics_retention_days from projects",
        )
        .fetch_all(store.background())
        .await?;
        let of = |own: Option<i32>, default: Option<i64>| own.map(i64::from).or(default);
        let days = projects.into_iter().map(|(project, traces, metrics)| {
            let traces = of(traces, retention.traces_days);
            (project, traces, of(metrics, retention.metrics_days))
        });
        Ok(Self(days.collect()))
    }

    fn traces(&self, now: Time) -> Kept {
        let days = self.0.iter();
        Kept::of(days.map(|(project, days, _)| (project.clone(), *days)), now)
    }

    fn metrics(&self, now: Time) -> Kept {
        let days = self.0.iter();
        Kept::of(days.map(|(project, _, days)| (project.clone(), *days)), now)
    }
}

/// The most days that any project keeps anything; `None` if one keeps all.
pub(crate) async fn days_kept(
    store: &Store,
    retention: Retention,
) -> Result<Option<i64>, StoreError> {
    let days = Days::read(store, retention).await?;
    let all = days
        .0
        .iter()
        .flat_map(|(_, traces, metrics)| [*traces, *metrics]);
    Ok(all
        .collect::<Option<Vec<i64>>>()
        .and_then(|days| days.into_iter().max()))
}

/// Deletes what is older than it is kept; when to look again.
pub(crate) async fn enforce(
    store: &Store,
    retention: Retention,
    pulse: &Pulse,
) -> Result<Duration, StoreError> {
    let mut connection = store.background().acquire().await?;
    let verdict = clock::read(&mut connection, Utc::now()).await?;
    drop(connection);
    let now = match verdict {
        Verdict::Trusted(now) => now,
        Verdict::Differs { here, postgres } => {
            counter!("xtrace_retention_refused_total").increment(1);
            tracing::warn!(%here, %postgres, "this host's clock and Postgres' differ by more than a day: nothing is deleted for its age until one is set right");
            return Ok(INTERVAL);
        }
        Verdict::Suspected { since, until } => {
            counter!("xtrace_retention_refused_total").increment(1);
            tracing::warn!(%since, %until, "the clock is more than two days ahead of the last round of retention: nothing is deleted for its age until it has gone on for a day; set it right if it is wrong");
            return Ok(INTERVAL);
        }
    };
    let days = Days::read(store, retention).await?;
    let mut round = Round {
        store,
        pulse,
        first_failure: None,
        is_left: false,
    };
    round.metrics(&days.metrics(now)).await;
    round.traces(&days.traces(now)).await;
    match round.first_failure {
        Some(error) => Err(error),
        None if round.is_left => Ok(INTERVAL_LEFT),
        None => Ok(INTERVAL),
    }
}

/// Steps that are independent of each other.
struct Round<'a> {
    store: &'a Store,
    pulse: &'a Pulse,
    first_failure: Option<StoreError>,
    /// Whether something could not go now.
    is_left: bool,
}

impl Round<'_> {
    /// Notes the failure of a step; what it gave if it succeeded.
    fn note<T>(&mut self, outcome: Result<T, StoreError>) -> Option<T> {
        self.pulse.alive();
        match outcome {
            Ok(done) => Some(done),
            Err(error) => {
                tracing::debug!(%error, cause = error.for_log(), "a step of retention failed");
                self.first_failure.get_or_insert(error);
                None
            }
        }
    }

    async fn metrics(&mut self, kept: &Kept) {
        for table in [Partitioned::MetricChunks, Partitioned::MetricExemplars] {
            self.drop_old(kept, table).await;
        }
        for (project, before) in &kept.by_project {
            let done = points::forget(self.store, project, *before, self.pulse).await;
            self.note(done);
        }
    }

    async fn traces(&mut self, kept: &Kept) {
        self.drop_old(kept, Partitioned::Logs).await;
        let left = self.drop_old(kept, Partitioned::Observations).await;
        let (store, pulse) = (self.store, self.pulse);
        for (project, before) in &kept.by_project {
            // Observations from that time on are still there, however old they are.
            let before = match left {
                Left::Nothing => *before,
                Left::From(first) => first.min(*before),
                Left::Unknown => return,
            };
            let done = traces::delete(store, (project, before), pulse).await;
            self.note(done);
            let done = traces::delete_scores(store, (project, before), pulse).await;
            self.note(done);
            let done = traces::sum_up_again(store, (project, before), pulse).await;
            self.note(done);
        }
    }

    /// Deletes old rows, as far as that can be done now.
    async fn drop_old(&mut self, kept: &Kept, table: Partitioned) -> Left {
        let (store, pulse) = (self.store, self.pulse);
        let mut left = Left::Nothing;
        let first_of_all = kept.first_of_all.map(|day| time::to_utc(day * time::DAY));
        if let (Some(first), Some(before)) = (kept.first_of_all, first_of_all) {
            let dropped = end::drop_before(store, table, first, pulse).await;
            left = self.note(dropped).map_or(Left::Unknown, |dropped| {
                self.first_failure = self.first_failure.take().or(dropped.failure);
                match dropped.first_left {
                    Some(day) => Left::From(time::to_utc(day * time::DAY)),
                    None => Left::Nothing,
                }
            });
            self.is_left |= left != Left::Nothing;
            let done = end::delete_unplaced_before(store, table, before, pulse).await;
            self.note(done);
        }
        for (project, before) in &kept.by_project {
            if first_of_all != Some(*before) {
                let done = end::delete_before(store, table, (project, *before), pulse).await;
                self.note(done);
            }
        }
        left
    }
}

/// Partitions that should be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// One that begins here is still there.
    From(Time),
    Unknown,
}
