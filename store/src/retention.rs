//! The end of old data. Partitions that nobody keeps any more are dropped; where a project keeps less than
//! others, its rows go from the partitions that stay.

use chrono::{DateTime, Utc};
use metrics::counter;
use sqlx::AssertSqlSafe;
use xtrace_model::time;

use crate::partitions::{self, Partitioned};
use crate::{Store, StoreError, metrics as points, writer};

/// How long data is kept, in days, by projects that don't say; `None` keeps all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Age at which traces, observations, scores and log records go.
    pub traces_days: Option<i64>,
    /// Age at which metric points go.
    pub metrics_days: Option<i64>,
}

/// Rows that one delete takes at most, so that no lock is held for long.
const DELETE_ROWS_MAX: i64 = 5000;

type Time = DateTime<Utc>;

/// What is kept of one signal: by each project, and by any.
struct Kept {
    /// The first day that some project keeps.
    first_of_all: Option<i64>,
    /// The first moment that each project keeps.
    by_project: Vec<(String, Time)>,
}

impl Kept {
    fn of(days: impl Iterator<Item = (String, Option<i64>)>) -> Self {
        let today = time::day_of(time::from_utc(Utc::now()));
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

/// Deletes what is older than it is kept.
pub(crate) async fn enforce(store: &Store, retention: Retention) -> Result<(), StoreError> {
    let projects: Vec<(String, Option<i32>, Option<i32>)> =
        sqlx::query_as("select id, traces_retention_days, metrics_retention_days from projects")
            .fetch_all(store.background())
            .await?;
    let of = |own: Option<i32>, default: Option<i64>| own.map(i64::from).or(default);
    let metrics = Kept::of(
        projects
            .iter()
            .map(|(project, _, own)| (project.clone(), of(*own, retention.metrics_days))),
    );
    let tables = [Partitioned::MetricChunks, Partitioned::MetricExemplars];
    drop_old(store, &metrics, &tables).await?;
    for (project, before) in &metrics.by_project {
        points::forget(store, project, *before).await?;
    }
    let traces = Kept::of(
        projects
            .iter()
            .map(|(project, own, _)| (project.clone(), of(*own, retention.traces_days))),
    );
    drop_old(
        store,
        &traces,
        &[Partitioned::Observations, Partitioned::Logs],
    )
    .await?;
    for (project, before) in &traces.by_project {
        delete_batches(store, DELETE_TRACES, (project, *before)).await?;
        delete_batches(store, DELETE_SCORES, (project, *before)).await?;
        sum_up_again(store, (project, *before)).await?;
    }
    Ok(())
}

async fn drop_old(store: &Store, kept: &Kept, tables: &[Partitioned]) -> Result<(), StoreError> {
    for table in tables {
        if let Some(first) = kept.first_of_all {
            partitions::drop_before(store, *table, first).await?;
        }
        for (project, before) in &kept.by_project {
            let is_gone =
                kept.first_of_all.map(|day| time::to_utc(day * time::DAY)) == Some(*before);
            if is_gone {
                continue;
            }
            let (name, column) = (table.table(), table.column());
            let sql = format!("delete from {name} where project_id = $1 and {column} < $2");
            let deleted = sqlx::query(AssertSqlSafe(sql))
                .bind(project)
                .bind(before)
                .execute(store.background())
                .await?;
            counter!("xtrace_dropped_total", "what" => "rows").increment(deleted.rows_affected());
        }
    }
    Ok(())
}

// A trace goes when nothing of it is young: neither its begin nor its last observation. One that is
// being written is left for the next time: waiting for it while holding others could go in a circle.
const DELETE_TRACES: &str = "with gone as (
        delete from traces where ctid = any(array(
            select ctid from traces
             where project_id = $1 and ts < $2 and coalesce(last_start, ts) < $2 limit $3
               for update skip locked))
        returning 1)
    select count(*) from gone";
const DELETE_SCORES: &str = "with gone as (
        delete from scores where ctid = any(array(
            select ctid from scores where project_id = $1 and ts < $2 limit $3))
        returning 1)
    select count(*) from gone";

/// Traces that stay may have lost observations.
async fn sum_up_again(store: &Store, (project, before): (&str, Time)) -> Result<(), StoreError> {
    const TRACES: &str =
        "select project_id, id from traces where project_id = $1 and first_start < $2 limit $3";
    loop {
        let keys: Vec<(String, String)> = sqlx::query_as(TRACES)
            .bind(project)
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
    (project, before): (&str, Time),
) -> Result<(), StoreError> {
    loop {
        let deleted: i64 = sqlx::query_scalar(statement)
            .bind(project)
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
