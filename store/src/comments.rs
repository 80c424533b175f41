//! Comments on traces, observations, sessions and prompts.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::ProjectId;

use crate::erasure::fence;
use crate::page::{self, Order, Page, Paged};
use crate::{Store, StoreError};

/// A comment.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `comments`, see migrations/0013_annotation.sql"
)]
pub struct Comment {
    pub id: String,
    pub object_type: String,
    pub object_id: String,
    pub content: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = "id, object_type, object_id, content, created_at, updated_at";

/// What can be commented on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Commented {
    Trace,
    Observation,
    Session,
    Prompt,
}

/// Whether the project has that thing.
pub async fn object_exists(
    store: &Store,
    project: &ProjectId,
    kind: Commented,
    id: &str,
) -> Result<bool, StoreError> {
    let sql = match kind {
        Commented::Trace => "select exists (select from traces where project_id = $1 and id = $2)",
        Commented::Observation => {
            "select exists (select from observations where project_id = $1 and id = $2)"
        }
        Commented::Session => {
            "select exists (select from sessions where project_id = $1 and id = $2)"
        }
        Commented::Prompt => {
            "select exists (select from prompts where project_id = $1 and id = $2)"
        }
    };
    let found = sqlx::query_scalar(sql)
        .bind(project.as_str())
        .bind(id)
        .fetch_one(store.read())
        .await?;
    Ok(found)
}

/// Adds a comment.
pub async fn add(store: &Store, project: &ProjectId, comment: &Comment) -> Result<(), StoreError> {
    let mut transaction = fence::begin(store.write(), project).await?;
    sqlx::query(
        "insert into comments (project_id, id, object_type, object_id, content, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(project.as_str())
    .bind(&comment.id)
    .bind(&comment.object_type)
    .bind(&comment.object_id)
    .bind(&comment.content)
    .bind(comment.created_at)
    .bind(comment.updated_at)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// A page of comments, oldest first; of one kind of things, or of one thing, if asked for.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    object_type: Option<&str>,
    object_id: Option<&str>,
    page: Page,
) -> Result<Paged<Comment>, StoreError> {
    let push = |sql: &mut QueryBuilder<Postgres>| {
        sql.push(" from comments where project_id = ")
            .push_bind(project.as_str().to_owned());
        if let Some(kind) = object_type {
            sql.push(" and object_type = ").push_bind(kind.to_owned());
        }
        if let Some(id) = object_id {
            sql.push(" and object_id = ").push_bind(id.to_owned());
        }
    };
    page::read(store, COLUMNS, push, Order::indexed("created_at, id"), page).await
}

/// The comment of that id.
pub async fn find(
    store: &Store,
    project: &ProjectId,
    id: &str,
) -> Result<Option<Comment>, StoreError> {
    let sql = format!("select {COLUMNS} from comments where project_id = $1 and id = $2");
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(id)
        .fetch_optional(store.read())
        .await?;
    Ok(found)
}
