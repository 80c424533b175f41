//! Models of projects: what they are called, and what they cost.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgExecutor};
use xtrace_model::ProjectId;

use crate::erasure::fence;
use crate::error::{UNIQUE_VIOLATION, is_sqlstate};
use crate::{Store, StoreError, price_book};

/// A model of a project.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `models`, see migrations/0017_models.sql"
)]
pub struct ProjectModel {
    pub id: String,
    pub model_name: String,
    pub match_pattern: String,
    pub start_date: Option<DateTime<Utc>>,
    pub unit: String,
    pub tokenizer_id: Option<String>,
    /// JSON text.
    pub tokenizer_config: Option<String>,
    /// JSON text: tiers, as in the built-in price list.
    pub pricing_tiers: String,
    pub created_at: DateTime<Utc>,
}

const COLUMNS: &str = "id, model_name, match_pattern, start_date, unit, tokenizer_id, \
    tokenizer_config, pricing_tiers, created_at";

/// Models of a project at most.
pub const MODELS_MAX: usize = 1_000;

/// Why a model can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutFault {
    /// Another model of the project has that name.
    NameTaken,
    /// The project has [`MODELS_MAX`] already.
    TooMany,
    /// The patterns of all its models are too large together.
    TooLarge,
}

/// All models of a project, in the order that they are matched in: the latest start first.
pub async fn all(store: &Store, project: &ProjectId) -> Result<Vec<ProjectModel>, StoreError> {
    select(store.read(), project, COLUMNS).await
}

/// What prices need of them, over a connection that is at hand: writers don't wait for readers.
pub(crate) async fn read(
    executor: impl PgExecutor<'_>,
    project: &ProjectId,
) -> Result<Vec<ProjectModel>, StoreError> {
    let columns = COLUMNS.replace("tokenizer_config", "null::text as tokenizer_config");
    select(executor, project, &columns).await
}

/// The model of that id.
pub async fn find(
    store: &Store,
    project: &ProjectId,
    id: &str,
) -> Result<Option<ProjectModel>, StoreError> {
    let sql = format!("select {COLUMNS} from models where project_id = $1 and id = $2");
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(id)
        .fetch_optional(store.read())
        .await?;
    Ok(found)
}

async fn select(
    executor: impl PgExecutor<'_>,
    project: &ProjectId,
    columns: &str,
) -> Result<Vec<ProjectModel>, StoreError> {
    let sql = format!(
        "select {columns} from models where project_id = $1 order by start_date desc nulls last, id
          limit {MODELS_MAX}"
    );
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .fetch_all(executor)
        .await?;
    Ok(found)
}

/// Writes a model, new or changed; it holds for what is written from now on.
pub async fn put(
    store: &Store,
    project: &ProjectId,
    model: &ProjectModel,
    now: DateTime<Utc>,
) -> Result<Result<(), PutFault>, StoreError> {
    if let Err(fault) = check_fit(store, project, model).await? {
        return Ok(Err(fault));
    }
    let mut transaction = fence::begin(store.write(), project).await?;
    let written = sqlx::query(
        "insert into models (project_id, id, model_name, match_pattern, start_date, unit, tokenizer_id,
                tokenizer_config, pricing_tiers, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict (project_id, id) do update set model_name = excluded.model_name,
            match_pattern = excluded.match_pattern, start_date = excluded.start_date,
            unit = excluded.unit, tokenizer_id = excluded.tokenizer_id,
            tokenizer_config = excluded.tokenizer_config, pricing_tiers = excluded.pricing_tiers,
            updated_at = excluded.updated_at",
    )
    .bind(project.as_str())
    .bind(&model.id)
    .bind(&model.model_name)
    .bind(&model.match_pattern)
    .bind(model.start_date)
    .bind(&model.unit)
    .bind(&model.tokenizer_id)
    .bind(&model.tokenizer_config)
    .bind(&model.pricing_tiers)
    .bind(model.created_at)
    .bind(now)
    .execute(&mut *transaction)
    .await;
    let written = match written {
        Ok(_) => transaction.commit().await,
        Err(error) => Err(error),
    };
    store.price_books().forget(project);
    match written {
        Ok(()) => Ok(Ok(())),
        Err(error) if is_sqlstate(&error, &[UNIQUE_VIOLATION]) => Ok(Err(PutFault::NameTaken)),
        Err(error) => Err(error.into()),
    }
}

/// Whether a project may have this model beside its others.
async fn check_fit(
    store: &Store,
    project: &ProjectId,
    model: &ProjectModel,
) -> Result<Result<(), PutFault>, StoreError> {
    let mut models = read(store.write(), project).await?;
    models.retain(|other| other.id != model.id);
    if models.len() >= MODELS_MAX {
        return Ok(Err(PutFault::TooMany));
    }
    models.push(model.clone());
    let fit = tokio::task::spawn_blocking(move || price_book::fit(&models));
    match fit.await {
        Ok(true) => Ok(Ok(())),
        Ok(false) => Ok(Err(PutFault::TooLarge)),
        Err(_) => Err(StoreError::Internal(sqlx::Error::WorkerCrashed)),
    }
}

/// Removes a model; whether there was one.
pub async fn delete(store: &Store, project: &ProjectId, id: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("delete from models where project_id = $1 and id = $2")
        .bind(project.as_str())
        .bind(id)
        .execute(store.write())
        .await?;
    store.price_books().forget(project);
    Ok(done.rows_affected() > 0)
}
