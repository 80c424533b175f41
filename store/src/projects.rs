//! Projects, who all rows belong to.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use xtrace_model::ProjectId;

use crate::error::{UNIQUE_VIOLATION, is_sqlstate};
use crate::reading::ROWS_MAX;
use crate::{Store, StoreError};

/// A project.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(missing_docs, reason = "columns of the table `projects`")]
pub struct Project {
    pub id: String,
    pub name: String,
    #[sqlx(json)]
    pub metadata: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub traces_retention_days: Option<i32>,
    pub metrics_retention_days: Option<i32>,
}

/// Another project has that name.
#[derive(Debug)]
pub struct NameTaken;

const COLUMNS: &str = "id, name, metadata, created_at, updated_at, traces_retention_days, \
    metrics_retention_days";

/// Makes sure that the project is there; a new one is named like its id, or nearly so if another
/// project has that name.
pub async fn ensure(
    store: &Store,
    project: &ProjectId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let id = project.as_str();
    let other = format!("{id} ({})", &uuid::Uuid::new_v4().to_string()[..8]);
    let named = insert_if_missing(store, project, id, now).await;
    match named {
        Err(error) if is_sqlstate(&error, &[UNIQUE_VIOLATION]) => {
            insert_if_missing(store, project, &other, now).await?;
        }
        named => named?,
    }
    Ok(())
}

async fn insert_if_missing(
    store: &Store,
    project: &ProjectId,
    name: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into projects (id, name, created_at, updated_at) values ($1, $2, $3, $3)
         on conflict (id) do nothing",
    )
    .bind(project.as_str())
    .bind(name)
    .bind(now)
    .execute(store.write())
    .await?;
    Ok(())
}

/// The project of that id.
pub async fn find(store: &Store, project: &ProjectId) -> Result<Option<Project>, StoreError> {
    let sql = format!("select {COLUMNS} from projects where id = $1");
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .fetch_optional(store.read())
        .await?;
    Ok(found)
}

/// All projects, oldest first.
pub async fn all(store: &Store) -> Result<Vec<Project>, StoreError> {
    let sql = format!("select {COLUMNS} from projects order by created_at, id limit {ROWS_MAX}");
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .fetch_all(store.read())
        .await?;
    Ok(found)
}

/// Writes a project, new or changed.
pub async fn put(store: &Store, project: &Project) -> Result<Result<(), NameTaken>, StoreError> {
    let written = sqlx::query(
        "insert into projects (id, name, metadata, created_at, updated_at, traces_retention_days,
            metrics_retention_days) values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (id) do update set name = excluded.name, metadata = excluded.metadata,
            updated_at = excluded.updated_at, traces_retention_days = excluded.traces_retention_days,
            metrics_retention_days = excluded.metrics_retention_days",
    )
    .bind(&project.id)
    .bind(&project.name)
    .bind(&project.metadata)
    .bind(project.created_at)
    .bind(project.updated_at)
    .bind(project.traces_retention_days)
    .bind(project.metrics_retention_days)
    .execute(store.write())
    .await;
    match written {
        Ok(_) => Ok(Ok(())),
        Err(error) if is_sqlstate(&error, &[UNIQUE_VIOLATION]) => Ok(Err(NameTaken)),
        Err(error) => Err(error.into()),
    }
}

/// Every table whose rows are a project's; the last ones are what the others are found by.
const TABLES: [&str; 31] = [
    "observations",
    "logs",
    "scores",
    "pending_content",
    "metric_points",
    "metric_blocks",
    "metric_chunks",
    "metric_exemplars",
    "metric_series",
    "metric_set_aside",
    "media_links",
    "media_chunks",
    "media",
    "comments",
    "annotation_queue_items",
    "annotation_queues",
    "score_configs",
    "prompts",
    "dataset_run_items",
    "dataset_runs",
    "dataset_items",
    "datasets",
    "models",
    "sessions",
    "traces",
    "usage_hourly",
    "usage_shared",
    "latency_daily",
    "latency_hourly",
    "traces_hourly",
    "usage_dirty",
];

/// Shuts a project at once: none of its keys opens it any more.
pub async fn shut(store: &Store, project: &ProjectId) -> Result<(), StoreError> {
    sqlx::query("delete from api_keys where project_id = $1")
        .bind(project.as_str())
        .execute(store.write())
        .await?;
    store.keys_changed();
    Ok(())
}

/// Deletes a project and everything that is its; takes as long as it has rows.
pub async fn delete(store: &Store, project: &ProjectId) -> Result<(), StoreError> {
    shut(store, project).await?;
    for table in TABLES {
        let sql = format!("delete from {table} where project_id = $1");
        sqlx::query(AssertSqlSafe(sql))
            .bind(project.as_str())
            .execute(store.background())
            .await?;
    }
    sqlx::query("delete from projects where id = $1")
        .bind(project.as_str())
        .execute(store.background())
        .await?;
    // One of the same name would find none of its series in the dictionary.
    store.series().forget_all();
    Ok(())
}
