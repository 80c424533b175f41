//! What is taken up when: a part of every project's changes in turn, so that no project waits for
//! another's backfill, and what fails alone, so that it holds up nothing else.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, Utc};
use metrics::gauge;
use sqlx::{Postgres, Transaction};

use super::fold::{Changes, TRACES_MAX, fold};
use super::resum::{resum, unknown};
use crate::background::Pulse;
use crate::{Store, StoreError};

/// How often changes are looked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// A project's changes are taken up again after this many times what it took,
const PAUSE_FACTOR: u32 = 20;
/// but never later than this,
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// and at once when there are more of them than readers should have to add up.
const TRACES_WAITING_MAX: i64 = 5_000;
/// What fails is tried again after a second, then after twice as long each time, up to this.
const RETRY_MAX: Duration = Duration::from_mins(5);
/// Projects that one look takes up.
const PROJECTS_MAX: i64 = 10_000;
/// Hours that are tried one by one when they can't be taken up together.
const HOURS_MAX: i64 = 1_000;
/// Name the locks that one process at a time takes changes up and sums days up under.
pub(super) const FOLD_LOCK: i64 = 0x7874_7261_6365_0002;
pub(super) const RESUM_LOCK: i64 = 0x7874_7261_6365_0012;

/// Begins a transaction of one snapshot, unless another process holds the lock.
pub(super) async fn begin(
    store: &Store,
    lock: i64,
) -> Result<Option<Transaction<'static, Postgres>>, StoreError> {
    let statement = "begin isolation level repeatable read";
    let mut transaction = store.background().begin_with(statement).await?;
    // A plan that was made while the sums were few would read all of them for each change.
    let (alone, _): (bool, String) = sqlx::query_as(
        "select pg_try_advisory_xact_lock($1), set_config('plan_cache_mode', 'force_custom_plan', true)",
    )
    .bind(lock)
    .fetch_one(&mut *transaction)
    .await?;
    Ok(alone.then_some(transaction))
}

/// Takes changes up until the task is dropped.
pub async fn run(store: Store, pulse: Pulse) {
    let mut rounds = Rounds::default();
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        while is_more(&pulse, rounds.round(&store, &pulse).await) {}
    }
}

/// Sums days up from their traces until the task is dropped. A day of many traces takes a while: changes
/// don't wait for it.
pub async fn run_days(store: Store, pulse: Pulse) {
    let mut failing = Failing::default();
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        while is_more(&pulse, sum_some_days_up(&store, &mut failing, &pulse).await) {}
    }
}

/// Notes how a round went; whether another follows at once.
fn is_more(pulse: &Pulse, round: Result<bool, StoreError>) -> bool {
    match round {
        Ok(is_more) => {
            pulse.succeeded();
            is_more
        }
        Err(error) => {
            pulse.failed(&error);
            false
        }
    }
}

/// What waits of one project.
#[derive(sqlx::FromRow)]
struct Waiting {
    project_id: String,
    hours: i64,
    traces: i64,
    oldest_seconds: f64,
}

#[derive(Default)]
struct Rounds {
    /// Until when a project's changes may wait.
    pauses: HashMap<String, Instant>,
    /// Hours that could not be taken up.
    failing: Failing<DateTime<Utc>>,
}

impl Rounds {
    /// Takes up a part of every project's changes; whether enough are left that it should go on at once.
    async fn round(&mut self, store: &Store, pulse: &Pulse) -> Result<bool, StoreError> {
        let waiting = waiting(store).await?;
        let hours: i64 = waiting.iter().map(|project| project.hours).sum();
        let ages = waiting.iter().map(|project| project.oldest_seconds);
        gauge!("xtrace_usage_dirty_hours").set(hours as f64);
        gauge!("xtrace_usage_dirty_oldest_seconds").set(ages.fold(0.0, f64::max));
        let now = Instant::now();
        self.pauses.retain(|_, until| *until > now);
        self.failing.keep(|(project, _)| {
            let mut projects = waiting.iter().map(|waiting| &waiting.project_id);
            projects.any(|waiting| waiting == project)
        });
        let mut is_behind = false;
        for project in waiting {
            pulse.alive();
            let is_much = project.traces > TRACES_WAITING_MAX;
            if is_much || !self.pauses.contains_key(&project.project_id) {
                let is_done = self.take_up(store, &project.project_id).await;
                is_behind |= is_done && project.traces > TRACES_MAX;
            }
        }
        gauge!("xtrace_usage_failing", "what" => "hour").set(self.failing.0.len() as f64);
        Ok(is_behind)
    }

    /// Takes up changes of a project; whether there were any that could be.
    async fn take_up(&mut self, store: &Store, project: &str) -> bool {
        let began = Instant::now();
        for hour in self.failing.due(project) {
            self.try_alone(store, project, hour).await;
        }
        let apart = self.failing.of(project);
        let result = fold(store, project, Changes::Without(&apart)).await;
        let pause = (began.elapsed() * PAUSE_FACTOR).min(PAUSE_MAX);
        self.pauses.insert(project.to_owned(), began + pause);
        match result {
            Ok(taken) => taken > 0,
            Err(error) => {
                // Two processes met, or the database went away: that passes.
                if !matches!(error, StoreError::Unavailable(_)) {
                    self.try_each(store, project, &apart, &error).await;
                }
                false
            }
        }
    }

    /// Finds the hours that can't be taken up, by trying each alone.
    async fn try_each(
        &mut self,
        store: &Store,
        project: &str,
        apart: &[DateTime<Utc>],
        cause: &StoreError,
    ) {
        let hours = sqlx::query_scalar(
            "select distinct hour from usage_dirty
              where project_id = $1 and usages is not null and hour <> all($2) order by hour limit $3",
        )
        .bind(project)
        .bind(apart)
        .bind(HOURS_MAX)
        .fetch_all(store.background())
        .await;
        match hours {
            Ok(hours) => {
                for hour in hours {
                    self.try_alone(store, project, hour).await;
                }
            }
            Err(_) => {
                tracing::warn!(project, error = %cause, cause = cause.for_log(), "changes of usage wait");
            }
        }
    }

    async fn try_alone(&mut self, store: &Store, project: &str, hour: DateTime<Utc>) {
        let result = fold(store, project, Changes::Of(hour)).await;
        self.failing.note(project, hour, &result);
    }
}

async fn waiting(store: &Store) -> Result<Vec<Waiting>, StoreError> {
    let waiting = sqlx::query_as(
        "select project_id, count(distinct hour) as hours, sum(traces)::bigint as traces,
                greatest(extract(epoch from now() - min(marked_at)), 0)::float8 as oldest_seconds
           from usage_dirty where usages is not null
          group by project_id order by min(marked_at) limit $1",
    )
    .bind(PROJECTS_MAX)
    .fetch_all(store.background())
    .await?;
    Ok(waiting)
}

/// Sums up the oldest unknown day of every project; whether there may be more.
async fn sum_some_days_up(
    store: &Store,
    failing: &mut Failing<NaiveDate>,
    pulse: &Pulse,
) -> Result<bool, StoreError> {
    let days = unknown(store).await?;
    gauge!("xtrace_usage_unknown_days").set(days.len() as f64);
    failing.keep(|key| days.contains(key));
    let mut is_more = false;
    for (project, day) in days {
        if failing.hold(&project, day) {
            continue;
        }
        pulse.alive();
        let result = resum(store, &project, day).await;
        is_more |= matches!(result, Ok(true));
        failing.note(&project, day, &result);
    }
    gauge!("xtrace_usage_failing", "what" => "day").set(failing.0.len() as f64);
    Ok(is_more)
}

/// Times that failed, by project: when each may be tried again, and how long it waited for that.
#[derive(Default)]
struct Failing<T>(HashMap<(String, T), (Instant, Duration)>);

impl<T: Copy + Eq + std::hash::Hash + std::fmt::Display> Failing<T> {
    fn note<R>(&mut self, project: &str, time: T, result: &Result<R, StoreError>) {
        let key = (project.to_owned(), time);
        match result {
            Ok(_) => {
                self.0.remove(&key);
            }
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => {
                let pause = self.0.get(&key).map_or(INTERVAL, |(_, pause)| *pause * 2);
                let pause = pause.min(RETRY_MAX);
                tracing::warn!(
                    project, %time, %error, cause = error.for_log(), retry_after = ?pause,
                    "usage can't be summed up; readers of this time fail or are slow, all others are right"
                );
                self.0.insert(key, (Instant::now() + pause, pause));
            }
        }
    }

    fn hold(&self, project: &str, time: T) -> bool {
        let until = self.0.get(&(project.to_owned(), time));
        until.is_some_and(|(until, _)| *until > Instant::now())
    }

    fn of(&self, project: &str) -> Vec<T> {
        let of_project = self.0.keys().filter(|(of, _)| of == project);
        of_project.map(|(_, time)| *time).collect()
    }

    fn due(&self, project: &str) -> Vec<T> {
        let all = self.of(project).into_iter();
        all.filter(|time| !self.hold(project, *time)).collect()
    }

    fn keep(&mut self, is_wanted: impl Fn(&(String, T)) -> bool) {
        self.0.retain(|key, _| is_wanted(key));
    }
}
