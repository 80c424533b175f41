//! The end of traces and scores, and new sums of traces that lost observations.
//!
//! Each pass goes through the keys once, in their order: what it can't change now, it comes to again in
//! the next round.

use std::time::Instant;

use chrono::{DateTime, Utc};
use metrics::counter;

use crate::background::Pulse;
use crate::pace::in_batches;
use crate::{Store, StoreError, writer};

type Time = DateTime<Utc>;
/// A project, and the first moment that it keeps.
type Due<'a> = (&'a str, Time);

/// Where a pass is: a time, none before the first, and an id.
type Key = (Option<Time>, String);

/// Traces that one transaction locks.
const TRACES_MAX: i64 = 200;

/// Deletes traces of which nothing is young: neither their begin nor their last observation.
pub(super) async fn delete(store: &Store, due: Due<'_>, pulse: &Pulse) -> Result<(), StoreError> {
    let mut after = Some(Key::default());
    while let Some(last) = after {
        let began = Instant::now();
        after = delete_some(store, due, &last).await?;
        pulse.alive();
        // Half of the time belongs to others.
        tokio::time::sleep(began.elapsed()).await;
    }
    Ok(())
}

/// Deletes some of the traces after this one; the last that was looked at, if there are more.
async fn delete_some(
    store: &Store,
    (project, before): Due<'_>,
    after: &Key,
) -> Result<Option<Key>, StoreError> {
    // One that is being written is left for the next round: waiting for it while holding others could go in
    // a circle.
    const LOCK: &str = "select ts, id from traces
          where project_id = $1 and ts < $2 and (ts, id) > (coalesce($3, '-infinity'), $4) and coalesce(last_start, ts) < $2
          order by ts, id limit $5 for update skip locked";
    // A second statement, which sees what was committed before the lock was held. Nobody adds an observation
    // without changing the trace's row, so none comes while it is locked.
    const DELETE: &str = "delete from traces t where t.project_id = $1 and t.id = any($2)
            and not exists (select from observations o
                             where o.project_id = t.project_id and o.trace_id = t.id and o.start_time < $3
                               and o.start_time between t.first_start and t.last_start)";
    let mut transaction = store.background().begin().await?;
    let mut locked: Vec<Key> = sqlx::query_as(LOCK)
        .bind(project)
        .bind(before)
        .bind(after.0)
        .bind(&after.1)
        .bind(TRACES_MAX)
        .fetch_all(&mut *transaction)
        .await?;
    let ids: Vec<&str> = locked.iter().map(|(_, id)| id.as_str()).collect();
    let deleted = sqlx::query(DELETE)
        .bind(project)
        .bind(ids)
        .bind(before)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    counter!("xtrace_dropped_total", "what" => "rows").increment(deleted.rows_affected());
    Ok(locked.pop())
}

/// Deletes old scores.
pub(super) async fn delete_scores(
    store: &Store,
    (project, before): Due<'_>,
    pulse: &Pulse,
) -> Result<(), StoreError> {
    const DELETE: &str = "delete from scores where project_id = $1 and ctid = any(array(
            select ctid from scores where project_id = $1 and ts < $2 limit $3 for update skip locked))";
    in_batches(pulse, |rows| async move {
        let deleted = sqlx::query(DELETE)
            .bind(project)
            .bind(before)
            .bind(rows)
            .execute(store.background())
            .await?;
        Ok(deleted.rows_affected())
    })
    .await?;
    Ok(())
}

/// Traces that stay may have lost observations. Most begin with their first observation; few were given
/// a later time, and an index of their own finds these.
pub(super) async fn sum_up_again(
    store: &Store,
    due: Due<'_>,
    pulse: &Pulse,
) -> Result<(), StoreError> {
    const BY_BEGIN: &str = "select ts, id from traces
          where project_id = $1 and ts < $2 and first_start < $2 and (ts, id) > (coalesce($3, '-infinity'), $4)
          order by ts, id limit $5";
    const BY_FIRST_START: &str = "select first_start, id from traces
          where project_id = $1 and first_start < $2 and first_start < ts and ts >= $2
            and (first_start, id) > (coalesce($3, '-infinity'), $4)
          order by first_start, id limit $5";
    for statement in [BY_BEGIN, BY_FIRST_START] {
        let mut after = Some(Key::default());
        while let Some(last) = after {
            let began = Instant::now();
            after = sum_some_up(store, due, (statement, &last)).await?;
            pulse.alive();
            tokio::time::sleep(began.elapsed()).await;
        }
    }
    Ok(())
}

/// Sums some traces up; the last of them, if there are more.
async fn sum_some_up(
    store: &Store,
    (project, before): Due<'_>,
    (statement, after): (&'static str, &Key),
) -> Result<Option<Key>, StoreError> {
    let mut found: Vec<Key> = sqlx::query_as(statement)
        .bind(project)
        .bind(before)
        .bind(after.0)
        .bind(&after.1)
        .bind(TRACES_MAX)
        .fetch_all(store.background())
        .await?;
    if !found.is_empty() {
        let keys = found.iter().map(|(_, id)| (project.to_owned(), id.clone()));
        writer::sum_up_again(store, keys.collect()).await?;
    }
    Ok(found.pop())
}
