//! The end of traces: with their observations, scores, log records, and what people said of them.
//!
//! A trace that has much goes in parts, each a short transaction, so that nobody who writes to it waits for long;
//! the last one takes the rest and the trace itself. If that is never reached, the trace is there with less than it
//! had, and deleting it again does the rest.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use xtrace_model::ProjectId;

use crate::background::Pulse;
use crate::pace::{ROWS_MAX, in_batches};
use crate::{Store, StoreError};

type Time = DateTime<Utc>;

/// Traces that end in one transaction.
const TRACES_MAX: usize = 50;

/// What else is of traces, and the traces themselves.
const OF_TRACES: [&str; 7] = [
    "delete from media_links where project_id = $1 and owner_kind <> 'item' and owner_id = any($2)",
    "delete from pending_content where project_id = $1 and trace_id = any($2)",
    "delete from comments where project_id = $1 and object_type = 'TRACE' and object_id = any($2)",
    "delete from annotation_queue_items where project_id = $1 and object_type = 'TRACE' and object_id = any($2)
        and octet_length(object_id) <= 1200",
    "delete from logs where project_id = $1 and trace_id = any($2)",
    "delete from scores where project_id = $1 and trace_id = any($2)",
    "delete from traces where project_id = $1 and id = any($2)",
];

/// What people said of observations, unless another trace has one of that id.
const OF_OBSERVATIONS: [&str; 2] = [
    "delete from comments g where g.project_id = $1 and g.object_type = 'OBSERVATION' and g.object_id = any($2)
        and not exists (select from observations o where o.project_id = $1 and o.id = g.object_id)",
    "delete from annotation_queue_items g
      where g.project_id = $1 and g.object_type = 'OBSERVATION' and g.object_id = any($2)
        and octet_length(g.object_id) <= 1200
        and not exists (select from observations o where o.project_id = $1 and o.id = g.object_id)",
];

/// What traces may have very much of, but for the last rows, which go with the trace.
const MUCH: [&str; 4] = [
    "delete from logs l using (
            select ts, id from logs where project_id = $1 and trace_id = any($2)
            offset $3 limit $3 for update skip locked) k
      where l.project_id = $1 and l.ts = k.ts and l.id = k.id",
    "delete from scores where project_id = $1 and ctid = any(array(
            select ctid from scores where project_id = $1 and trace_id = any($2)
            offset $3 limit $3 for update skip locked))",
    "delete from pending_content where project_id = $1 and ctid = any(array(
            select ctid from pending_content where project_id = $1 and trace_id = any($2)
            offset $3 limit $3 for update skip locked))",
    "delete from media_links where project_id = $1 and ctid = any(array(
            select ctid from media_links
             where project_id = $1 and owner_kind <> 'item' and owner_id = any($2)
            offset $3 limit $3 for update skip locked))",
];

/// A trace, when its observations begin, and how many there are.
#[derive(sqlx::FromRow)]
struct Extent {
    id: String,
    first_start: Option<Time>,
    last_start: Option<Time>,
    observations: i64,
}

const EXTENT: &str = "select id, first_start, last_start,
            debug_count::bigint + default_count + warning_count + error_count as observations
       from traces where project_id = $1 and id = any($2) order by id";

/// Deletes traces and all that belongs to them. Unknown ones are gone already; sessions stay.
pub async fn delete_traces(
    store: &Store,
    project: &ProjectId,
    ids: &[String],
) -> Result<(), StoreError> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    for some in ids.chunks(TRACES_MAX) {
        delete_some(store, project, some).await?;
    }
    Ok(())
}

async fn delete_some(store: &Store, project: &ProjectId, ids: &[String]) -> Result<(), StoreError> {
    let found: Vec<Extent> = sqlx::query_as(EXTENT)
        .bind(project.as_str())
        .bind(ids)
        .fetch_all(store.write())
        .await?;
    for trace in found.iter().filter(|trace| trace.observations > ROWS_MAX) {
        in_batches(&Pulse::unwatched(), |rows| async move {
            delete_observations(store.write(), project, trace, rows).await
        })
        .await?;
    }
    for statement in MUCH {
        in_batches(&Pulse::unwatched(), |rows| async move {
            let deleted = sqlx::query(statement)
                .bind(project.as_str())
                .bind(ids)
                .bind(rows)
                .execute(store.write())
                .await?;
            Ok(deleted.rows_affected())
        })
        .await?;
    }
    delete_rest(store, project, ids).await
}

/// Deletes some observations of a trace, but not the last ones, in a transaction of their own.
async fn delete_observations(
    pool: &PgPool,
    project: &ProjectId,
    trace: &Extent,
    rows: i64,
) -> Result<u64, StoreError> {
    let mut transaction = pool.begin().await?;
    let deleted: Vec<String> = sqlx::query_scalar(
        "delete from observations o using (
                select id, start_time from observations
                 where project_id = $1 and trace_id = $2 and start_time between $3 and $4
                offset $5 limit $5 for update skip locked) k
          where o.project_id = $1 and o.trace_id = $2 and o.id = k.id and o.start_time = k.start_time
            and o.start_time between $3 and $4
         returning o.id",
    )
    .bind(project.as_str())
    .bind(&trace.id)
    .bind(trace.first_start)
    .bind(trace.last_start)
    .bind(rows)
    .fetch_all(&mut *transaction)
    .await?;
    delete_of(&mut transaction, project, &OF_OBSERVATIONS, &deleted).await?;
    transaction.commit().await?;
    Ok(deleted.len() as u64)
}

async fn delete_rest(store: &Store, project: &ProjectId, ids: &[String]) -> Result<(), StoreError> {
    let mut transaction = store.write().begin().await?;
    // Locked in the order of their keys, as every writer does. Who writes to one of them meanwhile sees
    // that its row is gone, and starts again as if it had never been.
    let found: Vec<Extent> = sqlx::query_as(sqlx::AssertSqlSafe(format!("{EXTENT} for update")))
        .bind(project.as_str())
        .bind(ids)
        .fetch_all(&mut *transaction)
        .await?;
    let firsts: Vec<Option<Time>> = found.iter().map(|trace| trace.first_start).collect();
    let lasts: Vec<Option<Time>> = found.iter().map(|trace| trace.last_start).collect();
    let traces: Vec<&str> = found.iter().map(|trace| trace.id.as_str()).collect();
    let observations: Vec<String> = sqlx::query_scalar(
        "delete from observations o
          using unnest($2::text[], $3::timestamptz[], $4::timestamptz[]) k(id, first_start, last_start)
          where o.project_id = $1 and o.trace_id = k.id
            and o.start_time between k.first_start and k.last_start
            and o.start_time between $5 and $6
         returning o.id",
    )
    .bind(project.as_str())
    .bind(&traces)
    .bind(&firsts)
    .bind(&lasts)
    .bind(firsts.iter().flatten().min())
    .bind(lasts.iter().flatten().max())
    .fetch_all(&mut *transaction)
    .await?;
    delete_of(&mut transaction, project, &OF_OBSERVATIONS, &observations).await?;
    delete_of(&mut transaction, project, &OF_TRACES, ids).await?;
    transaction.commit().await?;
    Ok(())
}

/// Runs statements that delete what is of these ids.
async fn delete_of(
    connection: &mut PgConnection,
    project: &ProjectId,
    statements: &[&'static str],
    ids: &[String],
) -> Result<(), StoreError> {
    for statement in statements {
        sqlx::query(*statement)
            .bind(project.as_str())
            .bind(ids)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
