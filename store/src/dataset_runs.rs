//! Runs over datasets: which traces came of which items.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Postgres, QueryBuilder};
use xtrace_model::ProjectId;

use crate::background::Pulse;
use crate::erasure::fence;
use crate::pace::in_batches;
use crate::page::{self, Order, Page, Paged};
use crate::{Store, StoreError};

/// A run.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `dataset_runs`, see migrations/0015_datasets.sql"
)]
pub struct Run {
    pub id: String,
    pub dataset_id: String,
    pub name: String,
    pub description: Option<String>,
    /// JSON text.
    pub metadata: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What came of an item.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `dataset_run_items`, see migrations/0015_datasets.sql"
)]
pub struct RunItem {
    pub id: String,
    pub run_id: String,
    pub item_id: String,
    pub trace_id: String,
    pub observation_id: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const RUN: &str = "id, dataset_id, name, description, metadata, created_at, updated_at";
const RUN_ITEM: &str = "id, run_id, item_id, trace_id, observation_id, created_at, updated_at";

/// A page of a dataset's runs, newest first.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    dataset_id: &str,
    page: Page,
) -> Result<Paged<Run>, StoreError> {
    let push = |sql: &mut QueryBuilder<Postgres>| {
        sql.push(" from dataset_runs where project_id = ")
            .push_bind(project.as_str().to_owned());
        sql.push(" and dataset_id = ")
            .push_bind(dataset_id.to_owned());
    };
    page::read(
        store,
        RUN,
        push,
        Order::indexed("created_at desc, id"),
        page,
    )
    .await
}

/// The names of all runs of datasets, newest first, each with its dataset's id.
pub async fn names(
    store: &Store,
    project: &ProjectId,
    dataset_ids: &[String],
) -> Result<Vec<(String, String)>, StoreError> {
    let mut sql =
        QueryBuilder::new("select dataset_id, name from dataset_runs where project_id = ");
    sql.push_bind(project.as_str().to_owned())
        .push(" and dataset_id = any(")
        .push_bind(dataset_ids.to_vec());
    sql.push(") order by created_at desc, id");
    page::all(store, sql).await
}

/// The run of that id.
pub async fn find(store: &Store, project: &ProjectId, id: &str) -> Result<Option<Run>, StoreError> {
    let sql = format!("select {RUN} from dataset_runs where project_id = $1 and id = $2");
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(id)
        .fetch_optional(store.read())
        .await?;
    Ok(found)
}

/// Adds what came of an item to a run, which is made if it is new; else it stays as it is.
pub async fn add_item(
    store: &Store,
    project: &ProjectId,
    run: &Run,
    item: &RunItem,
) -> Result<(), StoreError> {
    let mut transaction = fence::begin(store.write(), project).await?;
    sqlx::query(
        "insert into dataset_runs (project_id, id, dataset_id, name, description, metadata, created_at,
                updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (project_id, id) do nothing",
    )
    .bind(project.as_str())
    .bind(&run.id)
    .bind(&run.dataset_id)
    .bind(&run.name)
    .bind(&run.description)
    .bind(&run.metadata)
    .bind(run.created_at)
    .bind(run.updated_at)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "insert into dataset_run_items (project_id, id, run_id, item_id, trace_id, observation_id,
                created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(project.as_str())
    .bind(&item.id)
    .bind(&item.run_id)
    .bind(&item.item_id)
    .bind(&item.trace_id)
    .bind(&item.observation_id)
    .bind(item.created_at)
    .bind(item.updated_at)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// A page of what came of a run, newest first.
pub async fn items(
    store: &Store,
    project: &ProjectId,
    run_id: &str,
    page: Page,
) -> Result<Paged<RunItem>, StoreError> {
    let push = |sql: &mut QueryBuilder<Postgres>| push_items(sql, project, run_id);
    page::read(
        store,
        RUN_ITEM,
        push,
        Order::indexed("created_at desc, id"),
        page,
    )
    .await
}

/// All that came of a run, newest first.
pub async fn all_items(
    store: &Store,
    project: &ProjectId,
    run_id: &str,
) -> Result<Vec<RunItem>, StoreError> {
    let mut rows = QueryBuilder::new(format!("select {RUN_ITEM}"));
    push_items(&mut rows, project, run_id);
    rows.push(" order by created_at desc, id");
    page::all(store, rows).await
}

fn push_items(sql: &mut QueryBuilder<Postgres>, project: &ProjectId, run_id: &str) {
    sql.push(" from dataset_run_items where project_id = ")
        .push_bind(project.as_str().to_owned());
    sql.push(" and run_id = ").push_bind(run_id.to_owned());
}

/// Removes a run and what it knows of items; traces stay. Whether there was one.
pub async fn delete(store: &Store, project: &ProjectId, id: &str) -> Result<bool, StoreError> {
    // A run may have very many, and whoever adds one waits for the run's row.
    in_batches(&Pulse::unwatched(), |rows| async move {
        let deleted = sqlx::query(
            "delete from dataset_run_items where project_id = $1 and ctid = any(array(
                select ctid from dataset_run_items where project_id = $1 and run_id = $2
                offset $3 limit $3 for update skip locked))",
        )
        .bind(project.as_str())
        .bind(id)
        .bind(rows)
        .execute(store.write())
        .await?;
        Ok(deleted.rows_affected())
    })
    .await?;
    let mut transaction = store.write().begin().await?;
    sqlx::query("delete from dataset_run_items where project_id = $1 and run_id = $2")
        .bind(project.as_str())
        .bind(id)
        .execute(&mut *transaction)
        .await?;
    let done = sqlx::query("delete from dataset_runs where project_id = $1 and id = $2")
        .bind(project.as_str())
        .bind(id)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(done.rows_affected() > 0)
}
