//! Score configurations: what scores of a name may say.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use xtrace_model::ProjectId;

use crate::erasure::fence;
use crate::page::{Page, Paged};
use crate::reading::ROWS_MAX;
use crate::{Store, StoreError};

/// One label of a categorical score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Category {
    /// What people read.
    pub label: String,
    /// What is computed with.
    pub value: f64,
}

/// A configuration.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `score_configs`, see migrations/0009_score_configs.sql"
)]
pub struct ScoreConfig {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub data_type: String,
    pub min_value: Option<f64>,
    pub max_value: Option<f64>,
    #[sqlx(json(nullable))]
    pub categories: Option<Vec<Category>>,
    pub is_archived: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = "id, name, description, data_type, min_value, max_value, categories, \
    is_archived, created_at, updated_at";

/// A page of configurations, newest first.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    page: Page,
) -> Result<Paged<ScoreConfig>, StoreError> {
    let total = sqlx::query_scalar("select count(*) from score_configs where project_id = $1")
        .bind(project.as_str())
        .fetch_one(store.read())
        .await?;
    let rows = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from score_configs where project_id = $1
          order by created_at desc, id limit $2 offset $3"
    )))
    .bind(project.as_str())
    .bind(page.limit)
    .bind(page.offset())
    .fetch_all(store.read())
    .await?;
    Ok(Paged { rows, total })
}

/// The configurations of these ids.
pub async fn find(
    store: &Store,
    project: &ProjectId,
    ids: &[String],
) -> Result<Vec<ScoreConfig>, StoreError> {
    let rows = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from score_configs where project_id = $1 and id = any($2)
          limit {ROWS_MAX}"
    )))
    .bind(project.as_str())
    .bind(ids)
    .fetch_all(store.read())
    .await?;
    Ok(rows)
}

/// Writes a configuration, new or changed.
pub async fn put(
    store: &Store,
    project: &ProjectId,
    config: &ScoreConfig,
) -> Result<(), StoreError> {
    let mut transaction = fence::begin(store.write(), project).await?;
    sqlx::query(
        "insert into score_configs (project_id, id, name, description, data_type, min_value,
                max_value, categories, is_archived, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict (project_id, id) do update set name = excluded.name,
            description = excluded.description, min_value = excluded.min_value,
            max_value = excluded.max_value, categories = excluded.categories,
            is_archived = excluded.is_archived, updated_at = excluded.updated_at",
    )
    .bind(project.as_str())
    .bind(&config.id)
    .bind(&config.name)
    .bind(&config.description)
    .bind(&config.data_type)
    .bind(config.min_value)
    .bind(config.max_value)
    .bind(config.categories.as_ref().map(Json))
    .bind(config.is_archived)
    .bind(config.created_at)
    .bind(config.updated_at)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}
