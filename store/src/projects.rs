//! Projects, who all rows belong to.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgQueryResult;
use xtrace_model::ProjectId;

use crate::erasure::fence;
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
/// project has that name. Refused while a project of that id is being deleted.
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
    // It rolls back: nothing else is to be written.
    fence::begin(store.write(), project).await.map(drop)
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

/// The project of that id, unless it is being deleted.
pub async fn find(store: &Store, project: &ProjectId) -> Result<Option<Project>, StoreError> {
    let sql = format!("select {COLUMNS} from projects where id = $1 and deleting_at is null");
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .fetch_optional(store.read())
        .await?;
    Ok(found)
}

/// All projects that are not being deleted, oldest first.
pub async fn all(store: &Store) -> Result<Vec<Project>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from projects where deleting_at is null order by created_at, id limit {ROWS_MAX}"
    );
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .fetch_all(store.read())
        .await?;
    Ok(found)
}

/// Adds a project.
pub async fn add(store: &Store, project: &Project) -> Result<Result<(), NameTaken>, StoreError> {
    let added = sqlx::query(
        "insert into projects (id, name, metadata, created_at, updated_at, traces_retention_days,
            metrics_retention_days) values ($1, $2, $3, $4, $5, $6, $7)",
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
    named(added).map(|written| written.map(drop))
}

/// Changes a project; one that is being deleted stays as it is.
pub async fn put(store: &Store, project: &Project) -> Result<Result<(), NameTaken>, StoreError> {
    let written = sqlx::query(
        "update projects set name = $2, metadata = $3, updated_at = $4, traces_retention_days = $5,
            metrics_retention_days = $6
          where id = $1 and deleting_at is null",
    )
    .bind(&project.id)
    .bind(&project.name)
    .bind(&project.metadata)
    .bind(project.updated_at)
    .bind(project.traces_retention_days)
    .bind(project.metrics_retention_days)
    .execute(store.write())
    .await;
    match named(written)? {
        Ok(0) => Err(StoreError::ProjectGone),
        Ok(_) => Ok(Ok(())),
        Err(taken) => Ok(Err(taken)),
    }
}

/// How many rows were written, unless the name is that of another project.
fn named(
    written: Result<PgQueryResult, sqlx::Error>,
) -> Result<Result<u64, NameTaken>, StoreError> {
    match written {
        Ok(done) => Ok(Ok(done.rows_affected())),
        Err(error) if is_sqlstate(&error, &[UNIQUE_VIOLATION]) => Ok(Err(NameTaken)),
        Err(error) => Err(error.into()),
    }
}

/// Whether a project is there and not being deleted; asked for every request, so it waits for no others.
pub async fn is_open(store: &Store, project: &ProjectId) -> Result<bool, StoreError> {
    let open = sqlx::query_scalar(
        "select exists (select from projects where id = $1 and deleting_at is null)",
    )
    .bind(project.as_str())
    .fetch_one(store.access())
    .await?;
    Ok(open)
}
