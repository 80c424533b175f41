//! The end of projects. Asked for, it is recorded in the project's row: from then on its keys open nothing and
//! nothing is stored for it. Any process then deletes what it had, and goes on with what another one began; the
//! certificate of what went stays.
//!
//! - `fence`: who writes asks first. `tables`, `pass`: what a project has, and its end. `orphans`: rows whose
//!   project has no row.

pub(crate) mod fence;
mod orphans;
mod pass;
mod tables;

pub(crate) use orphans::adopt;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use metrics::gauge;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use xtrace_model::ProjectId;

use crate::background::Pulse;
use crate::connect::Purpose;
use crate::reading::ROWS_MAX;
use crate::{Store, StoreError};

use self::pass::{Found, Pass};

/// How often projects are looked for that are to be erased.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a project's last transactions and locked rows are waited for; the next round goes on with it.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
/// Projects of one round.
const PROJECTS_MAX: i64 = 1000;
/// Names the lock that one process at a time erases under.
const LOCK: i64 = 0x7874_7261_6365_0032;

/// What became of a project that was to be erased.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Erasure {
    /// The project's id.
    pub id: String,
    /// Its name; none if only rows were left of it.
    pub name: Option<String>,
    /// Since when nothing has been stored for it.
    pub asked_at: DateTime<Utc>,
    /// When nothing was left of it.
    pub finished_at: Option<DateTime<Utc>>,
    /// An object: how many rows were deleted, by table.
    pub counts: Value,
}

/// Has a project erased: once this is committed no key opens it and no transaction stores anything for it, here or
/// in any other process. Whether there was such a project. To ask again changes nothing.
pub async fn ask(
    store: &Store,
    project: &ProjectId,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    // Another project may have the name at once.
    let other_name = format!(
        "{} (deleted, {})",
        project.as_str(),
        uuid::Uuid::new_v4().simple()
    );
    let mut transaction = store.write().begin().await?;
    let name: Option<(String, bool)> = sqlx::query_as(
        "select name, deleting_at is not null from projects where id = $1 for update",
    )
    .bind(project.as_str())
    .fetch_optional(&mut *transaction)
    .await?;
    match name {
        None => return Ok(false),
        Some((_, true)) => return Ok(true),
        Some((name, false)) => {
            sqlx::query("update projects set deleting_at = $2, name = $3 where id = $1")
                .bind(project.as_str())
                .bind(now)
                .bind(&other_name)
                .execute(&mut *transaction)
                .await?;
            sqlx::query("insert into project_erasures (id, name, asked_at) values ($1, $2, $3)")
                .bind(project.as_str())
                .bind(&name)
                .bind(now)
                .execute(&mut *transaction)
                .await?;
        }
    }
    let keys = sqlx::query("delete from api_keys where project_id = $1")
        .bind(project.as_str())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    pass::count(&mut transaction, project.as_str(), "api_keys", keys).await?;
    transaction.commit().await?;
    store.keys_changed();
    Ok(true)
}

/// All erasures, the newest first.
pub async fn list(store: &Store) -> Result<Vec<Erasure>, StoreError> {
    let sql = format!(
        "select id, name, asked_at, finished_at, counts from project_erasures
          order by asked_at desc, id limit {ROWS_MAX}"
    );
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .fetch_all(store.read())
        .await?;
    Ok(found)
}

/// Erases what is to be erased, unless another process is at it; when to look again.
pub(crate) async fn round(store: &Store, pulse: &Pulse) -> Result<Duration, StoreError> {
    let waiting: Vec<String> = sqlx::query_scalar(
        "select id from projects where deleting_at is not null order by deleting_at, id limit $1",
    )
    .bind(PROJECTS_MAX)
    .fetch_all(store.background())
    .await?;
    gauge!("xtrace_erasures").set(waiting.len() as f64);
    if waiting.is_empty() {
        return Ok(INTERVAL);
    }
    // The lock ends with the connection, and so with the process.
    let mut connection = store.connect(Purpose::Background).await?;
    let is_alone: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut connection)
        .await?;
    let mut outcome = Ok(());
    if is_alone {
        for project in waiting {
            let erased = erase(store, &mut connection, &project, pulse).await;
            outcome = outcome.and(erased);
        }
    }
    let closed = connection.close().await;
    outcome.and(closed.map_err(StoreError::from))?;
    Ok(INTERVAL)
}

/// Deletes all that a project has, if nobody holds it up.
async fn erase(
    store: &Store,
    connection: &mut PgConnection,
    project: &str,
    pulse: &Pulse,
) -> Result<(), StoreError> {
    let mut writers = fence::askers(connection).await?;
    let mut progress = Instant::now();
    loop {
        // Before the pass: it finds all that they wrote.
        writers = fence::unfinished(connection, &writers).await?;
        let pass = Pass {
            connection: &mut *connection,
            project,
            pulse,
            found: Found::default(),
        };
        let found = pass.run().await?;
        if found == Found::default() && writers.is_empty() {
            return finish(store, connection, project).await;
        }
        if found.some {
            progress = Instant::now();
        } else if progress.elapsed() > PATIENCE {
            tracing::info!(
                project,
                transactions = writers.len(),
                is_held = found.held,
                "the erasure of a project waits for older transactions to end"
            );
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Ends a project of which nothing is left, and dates its certificate.
async fn finish(
    store: &Store,
    connection: &mut PgConnection,
    project: &str,
) -> Result<(), StoreError> {
    let mut transaction = connection.begin().await?;
    sqlx::query("delete from projects where id = $1 and deleting_at is not null")
        .bind(project)
        .execute(&mut *transaction)
        .await?;
    let counts: Option<Value> = sqlx::query_scalar(
        "update project_erasures set finished_at = $2 where id = $1 and finished_at is null returning counts",
    )
    .bind(project)
    .bind(Utc::now())
    .fetch_optional(&mut *transaction)
    .await?;
    transaction.commit().await?;
    // One of the same id would find none of its series in the dictionary.
    store.series().forget_all();
    let counts = counts.unwrap_or_default();
    tracing::info!(project, %counts, "a project is erased");
    Ok(())
}
