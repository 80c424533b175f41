//! Datasets and their items, of which every version is kept.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Postgres, QueryBuilder};
use xtrace_model::ProjectId;

use crate::erasure::fence;
use crate::page::{self, Order, Page, Paged};
use crate::{Store, StoreError};

/// A dataset.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `datasets`, see migrations/0015_datasets.sql"
)]
pub struct Dataset {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    /// JSON text, as the schemas.
    pub metadata: Option<String>,
    pub input_schema: Option<String>,
    pub expected_output_schema: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A version of an item.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `dataset_items`, see migrations/0015_datasets.sql"
)]
pub struct Item {
    pub id: String,
    pub dataset_id: String,
    pub status: String,
    /// JSON text, as expected output and metadata.
    pub input: Option<String>,
    pub expected_output: Option<String>,
    pub metadata: Option<String>,
    pub source_trace_id: Option<String>,
    pub source_observation_id: Option<String>,
    pub created_at: DateTime<Utc>,
    pub valid_from: DateTime<Utc>,
}

/// An item with the name of its dataset.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct NamedItem {
    /// The item.
    #[sqlx(flatten)]
    pub item: Item,
    /// Its dataset's.
    pub dataset_name: String,
}

const DATASET: &str = "d.id, d.name, d.description, d.metadata, d.input_schema, \
    d.expected_output_schema, d.created_at, d.updated_at";
const ITEM: &str = "i.id, i.dataset_id, i.status, i.input, i.expected_output, i.metadata, \
    i.source_trace_id, i.source_observation_id, i.created_at, i.valid_from";

/// A page of datasets, newest first.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    page: Page,
) -> Result<Paged<Dataset>, StoreError> {
    let push = |sql: &mut QueryBuilder<Postgres>| {
        sql.push(" from datasets d where d.project_id = ")
            .push_bind(project.as_str().to_owned());
    };
    page::read(
        store,
        DATASET,
        push,
        Order::indexed("d.created_at desc, d.id"),
        page,
    )
    .await
}

/// The dataset of that name.
pub async fn find(
    store: &Store,
    project: &ProjectId,
    name: &str,
) -> Result<Option<Dataset>, StoreError> {
    let sql = format!("select {DATASET} from datasets d where d.project_id = $1 and d.name = $2");
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(name)
        .fetch_optional(store.read())
        .await?;
    Ok(found)
}

/// Writes a dataset, new or changed; returns it as it is now. Its name is its key.
pub async fn put(
    store: &Store,
    project: &ProjectId,
    dataset: &Dataset,
) -> Result<Dataset, StoreError> {
    let mut transaction = fence::begin(store.write(), project).await?;
    let sql = format!(
        "insert into datasets as d (project_id, id, name, description, metadata, input_schema,
                expected_output_schema, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (project_id, name) do update set description = excluded.description,
            metadata = excluded.metadata, input_schema = excluded.input_schema,
            expected_output_schema = excluded.expected_output_schema, updated_at = excluded.updated_at
         returning {DATASET}"
    );
    let written = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(&dataset.id)
        .bind(&dataset.name)
        .bind(&dataset.description)
        .bind(&dataset.metadata)
        .bind(&dataset.input_schema)
        .bind(&dataset.expected_output_schema)
        .bind(dataset.created_at)
        .bind(dataset.updated_at)
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(written)
}

/// Which items are meant; every condition that is there must hold.
#[derive(Debug, Default)]
pub struct ItemQuery {
    /// Of this dataset.
    pub dataset_id: Option<String>,
    /// Made of this trace.
    pub source_trace_id: Option<String>,
    /// Made of this observation.
    pub source_observation_id: Option<String>,
    /// As they were then; else as they are now.
    pub at: Option<DateTime<Utc>>,
}

/// A page of active items, newest first.
pub async fn items(
    store: &Store,
    project: &ProjectId,
    query: &ItemQuery,
    page: Page,
) -> Result<Paged<NamedItem>, StoreError> {
    let push = |sql: &mut QueryBuilder<Postgres>| push_items(sql, project, query);
    page::read(
        store,
        &format!("{ITEM}, d.name as dataset_name"),
        push,
        Order::indexed("i.created_at desc, i.id"),
        page,
    )
    .await
}

/// All active items of a dataset, newest first.
pub async fn all_items(
    store: &Store,
    project: &ProjectId,
    dataset_id: &str,
) -> Result<Vec<NamedItem>, StoreError> {
    let query = ItemQuery {
        dataset_id: Some(dataset_id.to_owned()),
        ..ItemQuery::default()
    };
    let mut rows = QueryBuilder::new(format!("select {ITEM}, d.name as dataset_name"));
    push_items(&mut rows, project, &query);
    rows.push(" order by i.created_at desc, i.id");
    page::all(store, rows).await
}

/// The ids of all active items of a dataset, newest first.
pub async fn item_ids(
    store: &Store,
    project: &ProjectId,
    dataset_ids: &[String],
) -> Result<Vec<(String, String)>, StoreError> {
    let mut sql = QueryBuilder::new("select dataset_id, id from dataset_items where project_id = ");
    sql.push_bind(project.as_str().to_owned())
        .push(" and dataset_id = any(")
        .push_bind(dataset_ids.to_vec());
    sql.push(") and status = 'ACTIVE' and valid_to is null order by created_at desc, id");
    page::all(store, sql).await
}

fn push_items(sql: &mut QueryBuilder<Postgres>, project: &ProjectId, query: &ItemQuery) {
    sql.push(
        " from dataset_items i join datasets d on d.project_id = i.project_id and d.id = i.dataset_id
           where i.status = 'ACTIVE' and i.project_id = ",
    )
    .push_bind(project.as_str().to_owned());
    match query.at {
        None => {
            sql.push(" and i.valid_to is null");
        }
        Some(at) => {
            sql.push(" and i.valid_from <= ").push_bind(at);
            sql.push(" and coalesce(i.valid_to > ").push_bind(at);
            sql.push(", true)");
        }
    }
    let equal = [
        (" and i.dataset_id = ", &query.dataset_id),
        (" and i.source_trace_id = ", &query.source_trace_id),
        (
            " and i.source_observation_id = ",
            &query.source_observation_id,
        ),
    ];
    for (condition, value) in equal {
        if let Some(value) = value {
            sql.push(condition).push_bind(value.clone());
        }
    }
}

/// The item of that id, archived or not: as it is now, or as it was.
pub async fn item(
    store: &Store,
    project: &ProjectId,
    id: &str,
    at: Option<DateTime<Utc>>,
) -> Result<Option<NamedItem>, StoreError> {
    let sql = format!(
        "select {ITEM}, d.name as dataset_name
           from dataset_items i join datasets d on d.project_id = i.project_id and d.id = i.dataset_id
          where i.project_id = $1 and i.id = $2
            and case when $3::timestamptz is null then i.valid_to is null
                else i.valid_from <= $3 and coalesce(i.valid_to > $3, true) end"
    );
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(id)
        .bind(at)
        .fetch_optional(store.read())
        .await?;
    Ok(found)
}

/// Makes this the newest version of an item.
pub async fn put_item(store: &Store, project: &ProjectId, item: &Item) -> Result<(), StoreError> {
    let mut transaction = fence::begin(store.write(), project).await?;
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 1))")
        .bind(project.as_str())
        .bind(&item.id)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "update dataset_items set valid_to = $3 where project_id = $1 and id = $2 and valid_to is null",
    )
    .bind(project.as_str())
    .bind(&item.id)
    .bind(item.valid_from)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "insert into dataset_items (project_id, id, dataset_id, status, input, expected_output, metadata,
                source_trace_id, source_observation_id, created_at, valid_from)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(project.as_str())
    .bind(&item.id)
    .bind(&item.dataset_id)
    .bind(&item.status)
    .bind(&item.input)
    .bind(&item.expected_output)
    .bind(&item.metadata)
    .bind(&item.source_trace_id)
    .bind(&item.source_observation_id)
    .bind(item.created_at)
    .bind(item.valid_from)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// Ends an item; whether there was one.
pub async fn delete_item(
    store: &Store,
    project: &ProjectId,
    id: &str,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "update dataset_items set valid_to = $3 where project_id = $1 and id = $2 and valid_to is null",
    )
    .bind(project.as_str())
    .bind(id)
    .bind(now)
    .execute(store.write())
    .await?;
    Ok(done.rows_affected() > 0)
}
