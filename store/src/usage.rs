//! Sums of usage and durations by hour, which `metrics/daily` and analytics read; they are computed anew,
//! never added to.
//!
//! Whatever changes traces inserts the hours that these begin in into `usage_dirty` (by triggers). To sum
//! an hour up, one transaction with one snapshot removes the entries that it sees and replaces the
//! hour's sums. Whatever committed before that snapshot is in the sums; whatever commits later has an
//! entry that the transaction did not see, and so makes the hour dirty again. A crash changes nothing.
//! Readers take the sums of clean hours, and add dirty ones up themselves.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use metrics::gauge;
use sqlx::AssertSqlSafe;
use xtrace_model::{ProjectId, time};

use crate::background::Pulse;
use crate::{Store, StoreError};

/// How often dirty hours are looked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// Hours that one look takes up.
const HOURS_MAX: i64 = 500;
/// An hour that changes all the time is summed up again after this many times what it took,
const PAUSE_FACTOR: u32 = 20;
/// but never later than this.
const PAUSE_MAX: Duration = Duration::from_mins(5);
/// Names the lock that one process at a time sums up under.
const LOCK: i64 = 0x7874_7261_6365_0002;
/// A dirty hour with more observations is read as it was summed up last, five minutes ago
/// at most.
const LIVE_OBSERVATIONS_MAX: i64 = 200_000;

/// Different durations of an hour, environment, model and measure; more are rounded.
const VALUES_MAX: usize = 1000;

/// What a trace used, to be joined with `traces t`: the column's entries, which hold no zeros.
pub(crate) const ENTRIES: &str = "jsonb_to_recordset(t.usage) u(date date, environment text, model text, \
    observations bigint, input bigint, output bigint, total bigint, cost float8, \
    latency jsonb, first_token jsonb)";
/// How long observations of [`ENTRIES`] took, by measure: microseconds, and how many took as long.
pub(crate) const DURATIONS: &str = "(select 'latency' as measure, key::bigint as micros, value::bigint as count \
    from jsonb_each_text(u.latency) union all select 'timeToFirstToken', key::bigint, value::bigint \
    from jsonb_each_text(u.first_token)) l";
/// Observations, input, output, total and cost of [`ENTRIES`].
pub(crate) const SUMS: &str = "sum(u.observations)::bigint as observations, \
    coalesce(sum(u.input), 0)::bigint as input, coalesce(sum(u.output), 0)::bigint as output, \
    coalesce(sum(u.total), 0)::bigint as total, coalesce(sum(u.cost), 0) as total_cost";

/// The hour that a time lies in.
pub(crate) fn hour_of(at: DateTime<Utc>) -> DateTime<Utc> {
    let micros = time::from_utc(at);
    time::to_utc(micros - micros.rem_euclid(time::HOUR))
}

/// Hours of a project, from `first` up to and not including `end`, that must be added up by the
/// reader.
pub(crate) async fn dirty_hours(
    store: &Store,
    project: &ProjectId,
    first: DateTime<Utc>,
    end: DateTime<Utc>,
) -> Result<Vec<DateTime<Utc>>, StoreError> {
    let hours = sqlx::query_scalar(
        "select d.hour from usage_dirty d
          where d.project_id = $1 and d.hour >= $2 and d.hour < $3
            and $4 >= (select coalesce(sum(u.observations), 0) from usage_hourly u
                        where u.project_id = d.project_id and u.hour = d.hour)
          group by d.hour limit $5",
    )
    .bind(project.as_str())
    .bind(first)
    .bind(end)
    .bind(LIVE_OBSERVATIONS_MAX)
    .bind(HOURS_MAX)
    .fetch_all(store.read())
    .await?;
    Ok(hours)
}

/// Sums up dirty hours until the task is dropped.
pub async fn run(store: Store, pulse: Pulse) {
    let mut pauses = Pauses::default();
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match refresh(&store, &mut pauses).await {
            Ok(()) => pulse.succeeded(),
            Err(error) => pulse.failed(&error),
        }
    }
}

/// When hours may be summed up again.
#[derive(Default)]
struct Pauses(HashMap<(String, DateTime<Utc>), Instant>);

impl Pauses {
    fn hold(&self, key: &(String, DateTime<Utc>)) -> bool {
        self.0.get(key).is_some_and(|until| *until > Instant::now())
    }

    fn begin(&mut self, key: (String, DateTime<Utc>), took: Duration) {
        let now = Instant::now();
        self.0.retain(|_, until| *until > now);
        self.0
            .insert(key, now + (took * PAUSE_FACTOR).min(PAUSE_MAX));
    }
}

async fn refresh(store: &Store, pauses: &mut Pauses) -> Result<(), StoreError> {
    let dirty: Vec<(String, DateTime<Utc>)> =
        sqlx::query_as("select project_id, hour from usage_dirty group by 1, 2 limit $1")
            .bind(HOURS_MAX)
            .fetch_all(store.background())
            .await?;
    gauge!("xtrace_usage_dirty_hours").set(dirty.len() as f64);
    for key in dirty {
        if pauses.hold(&key) {
            continue;
        }
        let began = Instant::now();
        if !sum_up(store, &key.0, key.1).await? {
            return Ok(());
        }
        pauses.begin(key, began.elapsed());
    }
    Ok(())
}

/// Sums one hour up; whether nobody else is at it.
async fn sum_up(store: &Store, project: &str, hour: DateTime<Utc>) -> Result<bool, StoreError> {
    let statement = "begin isolation level repeatable read";
    let mut transaction = store.background().begin_with(statement).await?;
    let alone: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut *transaction)
        .await?;
    if !alone {
        return Ok(false);
    }
    let sum_usage = format!(
        "insert into usage_hourly (project_id, hour, environment, date, model, traces, observations,
                input_usage, output_usage, total_usage, total_cost)
         select $1, $2, u.environment, u.date, u.model, count(*), {SUMS}
           from traces t cross join lateral {ENTRIES}
          where t.project_id = $1 and t.ts >= $2 and t.ts < $2 + interval '1 hour'
          group by 3, 4, 5"
    );
    let sum_latency = format!(
        "with durations as (
             select u.environment, u.date, u.model, l.measure, l.micros, sum(l.count)::bigint as count
               from traces t cross join lateral {ENTRIES} cross join lateral {DURATIONS}
              where t.project_id = $1 and t.ts >= $2 and t.ts < $2 + interval '1 hour'
              group by 1, 2, 3, 4, 5),
         counted as (
             select *, count(*) over (partition by environment, date, model, measure) as distinct_values
               from durations),
         rounded as (
             select environment, date, model, measure, sum(count * micros::float8) as total,
                    min(micros) as least, max(micros) as greatest, sum(count)::bigint as count,
                    case when distinct_values > {VALUES_MAX} then rounded_micros(micros) else micros end as micros
               from counted group by 1, 2, 3, 4, 9)
         insert into latency_hourly (project_id, hour, environment, date, model, measure,
                total, least, greatest, micros, counts)
         select $1, $2, environment, date, model, measure, sum(total), min(least), max(greatest),
                array_agg(micros order by micros),
                case when max(count) > 1 then array_agg(count order by micros) end
           from rounded group by 3, 4, 5, 6"
    );
    for statement in [
        FORGET,
        FORGET_USAGE,
        FORGET_TRACES,
        FORGET_LATENCY,
        SUM_TRACES,
        &sum_usage,
        &sum_latency,
    ] {
        sqlx::query(AssertSqlSafe(statement))
            .bind(project)
            .bind(hour)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(true)
}

const FORGET: &str = "delete from usage_dirty where project_id = $1 and hour = $2";
const FORGET_USAGE: &str = "delete from usage_hourly where project_id = $1 and hour = $2";
const FORGET_TRACES: &str = "delete from traces_hourly where project_id = $1 and hour = $2";
const FORGET_LATENCY: &str = "delete from latency_hourly where project_id = $1 and hour = $2";
const SUM_TRACES: &str = "
    insert into traces_hourly (project_id, hour, environment, traces)
    select $1, $2, environment, count(*) from traces
     where project_id = $1 and ts >= $2 and ts < $2 + interval '1 hour'
     group by 3";
