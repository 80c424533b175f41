//! Queues of things that people are to look at.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Postgres, QueryBuilder};
use xtrace_model::ProjectId;

use crate::erasure::fence;
use crate::error::{UNIQUE_VIOLATION, is_sqlstate};
use crate::page::{self, Order, Page, Paged};
use crate::{Store, StoreError};

/// A queue.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `annotation_queues`, see migrations/0013_annotation.sql"
)]
pub struct Queue {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub score_config_ids: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Something to look at.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `annotation_queue_items`, see migrations/0013_annotation.sql"
)]
pub struct Item {
    pub id: String,
    pub queue_id: String,
    pub object_type: String,
    pub object_id: String,
    pub status: String,
    pub completed_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const QUEUE: &str = "id, name, description, score_config_ids, created_at, updated_at";
const ITEM: &str =
    "id, queue_id, object_type, object_id, status, completed_at, created_at, updated_at";

/// There is a queue of that name.
#[derive(Debug)]
pub struct NameTaken;

/// A page of queues, newest first.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    page: Page,
) -> Result<Paged<Queue>, StoreError> {
    let push = |sql: &mut QueryBuilder<Postgres>| {
        sql.push(" from annotation_queues where project_id = ")
            .push_bind(project.as_str().to_owned());
    };
    page::read(
        store,
        QUEUE,
        push,
        Order::indexed("created_at desc, id desc"),
        page,
    )
    .await
}

/// The queue of that id.
pub async fn find(
    store: &Store,
    project: &ProjectId,
    id: &str,
) -> Result<Option<Queue>, StoreError> {
    let sql = format!("select {QUEUE} from annotation_queues where project_id = $1 and id = $2");
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(id)
        .fetch_optional(store.read())
        .await?;
    Ok(found)
}

/// Adds a queue.
pub async fn add(
    store: &Store,
    project: &ProjectId,
    queue: &Queue,
) -> Result<Result<(), NameTaken>, StoreError> {
    let mut transaction = fence::begin(store.write(), project).await?;
    let added = sqlx::query(
        "insert into annotation_queues
            (project_id, id, name, description, score_config_ids, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(project.as_str())
    .bind(&queue.id)
    .bind(&queue.name)
    .bind(&queue.description)
    .bind(&queue.score_config_ids)
    .bind(queue.created_at)
    .bind(queue.updated_at)
    .execute(&mut *transaction)
    .await;
    match added {
        Ok(_) => Ok(Ok(transaction.commit().await?)),
        Err(error) if is_sqlstate(&error, &[UNIQUE_VIOLATION]) => Ok(Err(NameTaken)),
        Err(error) => Err(error.into()),
    }
}

/// A page of a queue's items, newest first; of one status, if asked for.
pub async fn items(
    store: &Store,
    project: &ProjectId,
    queue: &str,
    status: Option<&str>,
    page: Page,
) -> Result<Paged<Item>, StoreError> {
    let push = |sql: &mut QueryBuilder<Postgres>| {
        sql.push(" from annotation_queue_items where project_id = ")
            .push_bind(project.as_str().to_owned());
        sql.push(" and queue_id = ").push_bind(queue.to_owned());
        if let Some(status) = status {
            sql.push(" and status = ").push_bind(status.to_owned());
        }
    };
    page::read(
        store,
        ITEM,
        push,
        Order::indexed("created_at desc, id"),
        page,
    )
    .await
}

/// An item of a queue.
pub async fn item(
    store: &Store,
    project: &ProjectId,
    queue: &str,
    id: &str,
) -> Result<Option<Item>, StoreError> {
    let sql = format!(
        "select {ITEM} from annotation_queue_items
          where project_id = $1 and queue_id = $2 and id = $3"
    );
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(queue)
        .bind(id)
        .fetch_optional(store.read())
        .await?;
    Ok(found)
}

/// Writes an item, new or changed.
pub async fn put_item(store: &Store, project: &ProjectId, item: &Item) -> Result<(), StoreError> {
    let mut transaction = fence::begin(store.write(), project).await?;
    sqlx::query(
        "insert into annotation_queue_items (project_id, id, queue_id, object_type, object_id, status,
                completed_at, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (project_id, id) do update set status = excluded.status,
            completed_at = excluded.completed_at, updated_at = excluded.updated_at",
    )
    .bind(project.as_str())
    .bind(&item.id)
    .bind(&item.queue_id)
    .bind(&item.object_type)
    .bind(&item.object_id)
    .bind(&item.status)
    .bind(item.completed_at)
    .bind(item.created_at)
    .bind(item.updated_at)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// Removes an item of a queue; whether it was there.
pub async fn delete_item(
    store: &Store,
    project: &ProjectId,
    queue: &str,
    id: &str,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "delete from annotation_queue_items where project_id = $1 and queue_id = $2 and id = $3",
    )
    .bind(project.as_str())
    .bind(queue)
    .bind(id)
    .execute(store.write())
    .await?;
    Ok(done.rows_affected() > 0)
}
