//! The end of traces: with their observations, scores and log records, at once.

use chrono::{DateTime, Utc};
use xtrace_model::ProjectId;

use crate::{Store, StoreError};

type Time = DateTime<Utc>;

/// What else is of a trace, and the trace itself.
const OF_TRACES: [&str; 5] = [
    "delete from media_links where project_id = $1 and owner_kind <> 'item' and owner_id = any($2)",
    "delete from pending_content where project_id = $1 and trace_id = any($2)",
    "delete from logs where project_id = $1 and trace_id = any($2)",
    "delete from scores where project_id = $1 and trace_id = any($2)",
    "delete from traces where project_id = $1 and id = any($2)",
];

/// Deletes traces and all that belongs to them. Unknown ones are gone already; sessions stay.
pub async fn delete_traces(
    store: &Store,
    project: &ProjectId,
    ids: &[String],
) -> Result<(), StoreError> {
    let mut transaction = store.write().begin().await?;
    // Locked in the order of their keys, as every writer does. Who writes to one of them meanwhile sees
    // that its row is gone, and starts again as if it had never been.
    let extent: Vec<(String, Option<Time>, Option<Time>)> = sqlx::query_as(
        "select id, first_start, last_start from traces
          where project_id = $1 and id = any($2) order by id for update",
    )
    .bind(project.as_str())
    .bind(ids)
    .fetch_all(&mut *transaction)
    .await?;
    let firsts: Vec<Option<Time>> = extent.iter().map(|(_, first, _)| *first).collect();
    let lasts: Vec<Option<Time>> = extent.iter().map(|(.., last)| *last).collect();
    let found: Vec<&str> = extent.iter().map(|(id, ..)| id.as_str()).collect();
    sqlx::query(
        "delete from observations o
          using unnest($2::text[], $3::timestamptz[], $4::timestamptz[]) k(id, first_start, last_start)
          where o.project_id = $1 and o.trace_id = k.id
            and o.start_time between k.first_start and k.last_start
            and o.start_time between $5 and $6",
    )
    .bind(project.as_str())
    .bind(&found)
    .bind(&firsts)
    .bind(&lasts)
    .bind(firsts.iter().flatten().min())
    .bind(lasts.iter().flatten().max())
    .execute(&mut *transaction)
    .await?;
    for statement in OF_TRACES {
        sqlx::query(statement)
            .bind(project.as_str())
            .bind(ids)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}
