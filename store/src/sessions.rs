//! Reads of sessions.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::ProjectId;

use crate::page::{self, Order, Page, Paged};
use crate::{Store, StoreError};

/// A session: traces that belong together, such as a conversation.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct SessionView {
    /// Its name within the project.
    pub id: String,
    /// When its first trace came.
    pub created_at: DateTime<Utc>,
    /// Of its first trace.
    pub environment: String,
}

/// What is asked for; every condition that is there must hold.
#[derive(Debug, Clone, Default)]
pub struct SessionQuery {
    /// Created at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Created before this time.
    pub to: Option<DateTime<Utc>>,
    /// In one of these environments; empty means any.
    pub environments: Vec<String>,
}

/// A page of sessions, newest first.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    query: &SessionQuery,
    page: Page,
) -> Result<Paged<SessionView>, StoreError> {
    let order = Order {
        by: "created_at desc, id",
        is_indexed: query.environments.is_empty(),
    };
    let push = |sql: &mut QueryBuilder<Postgres>| push_from(sql, project, query);
    page::read(store, "id, created_at, environment", push, order, page).await
}

fn push_from(sql: &mut QueryBuilder<Postgres>, project: &ProjectId, query: &SessionQuery) {
    sql.push(" from sessions where project_id = ")
        .push_bind(project.as_str().to_owned());
    if let Some(from) = query.from {
        sql.push(" and created_at >= ").push_bind(from);
    }
    if let Some(to) = query.to {
        sql.push(" and created_at < ").push_bind(to);
    }
    if !query.environments.is_empty() {
        sql.push(" and environment = any(")
            .push_bind(query.environments.clone())
            .push(")");
    }
}

/// The session of that id.
pub async fn find(
    store: &Store,
    project: &ProjectId,
    id: &str,
) -> Result<Option<SessionView>, StoreError> {
    let found = sqlx::query_as(
        "select id, created_at, environment from sessions where project_id = $1 and id = $2",
    )
    .bind(project.as_str())
    .bind(id)
    .fetch_optional(store.read())
    .await?;
    Ok(found)
}
