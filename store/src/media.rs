//! Media: bytes in pieces, what is known of them, and where they are referred to.

use chrono::{DateTime, Utc};
use xtrace_model::ProjectId;

use crate::erasure::fence;
use crate::reading::ROWS_MAX;
use crate::{Store, StoreError};

/// What is known of a file.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `media`, see migrations/0014_media.sql"
)]
pub struct Media {
    pub id: String,
    pub sha256: Vec<u8>,
    pub content_type: String,
    pub content_length: i64,
    pub upload_id: Option<String>,
    pub uploaded_at: Option<DateTime<Utc>>,
    pub upload_http_status: Option<i32>,
    pub upload_http_error: Option<String>,
}

impl Media {
    /// Whether its bytes are here.
    pub fn is_here(&self) -> bool {
        self.upload_id.is_some()
    }
}

/// Where a file is referred to.
#[derive(Debug)]
pub struct Link {
    /// What refers to it.
    pub owner: Owner,
    /// `input`, `output`, `metadata` or `expectedOutput`.
    pub field: String,
}

/// What refers to a file.
#[derive(Debug)]
pub enum Owner {
    /// A trace.
    Trace(String),
    /// An observation: its trace's id and its own.
    Observation(String, String),
    /// An item of a dataset: the dataset's id and its own.
    Item(String, String),
}

/// How an upload went.
#[derive(Debug)]
pub struct Report {
    /// When it ended.
    pub uploaded_at: DateTime<Utc>,
    /// What was answered.
    pub status: i32,
    /// What went wrong.
    pub error: Option<String>,
}

const COLUMNS: &str = "id, sha256, content_type, content_length, upload_id, uploaded_at, \
    upload_http_status, upload_http_error";

/// The files of these ids.
pub async fn find(
    store: &Store,
    project: &ProjectId,
    ids: &[String],
) -> Result<Vec<Media>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from media where project_id = $1 and id = any($2) limit {ROWS_MAX}"
    );
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(ids)
        .fetch_all(store.read())
        .await?;
    Ok(found)
}

/// Notes that a file is announced, and where it is referred to. Once its bytes are here, length and type are
/// those that they came with, whatever is announced.
pub async fn announce(
    store: &Store,
    project: &ProjectId,
    media: &Media,
    link: &Link,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let (kind, owner, part) = match &link.owner {
        Owner::Trace(trace) => ("trace", trace.as_str(), ""),
        Owner::Observation(trace, id) => ("observation", trace.as_str(), id.as_str()),
        Owner::Item(dataset, id) => ("item", dataset.as_str(), id.as_str()),
    };
    let mut transaction = fence::begin(store.write(), project).await?;
    sqlx::query(
        "insert into media (project_id, id, sha256, content_type, content_length, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $6)
         on conflict (project_id, id) do update set updated_at = excluded.updated_at,
            content_type = case when media.upload_id is null then excluded.content_type
                                else media.content_type end,
            content_length = case when media.upload_id is null then excluded.content_length
                                  else media.content_length end",
    )
    .bind(project.as_str())
    .bind(&media.id)
    .bind(&media.sha256)
    .bind(&media.content_type)
    .bind(media.content_length)
    .bind(now)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "insert into media_links (project_id, media_id, owner_kind, owner_id, part_id, field, created_at)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
    )
    .bind(project.as_str())
    .bind(&media.id)
    .bind(kind)
    .bind(owner)
    .bind(part)
    .bind(&link.field)
    .bind(now)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// Notes how an upload went, as its client saw it; whether there is such a file. Only bytes that came make a file
/// one that is here, and no report makes it one that is not.
pub async fn report(
    store: &Store,
    project: &ProjectId,
    id: &str,
    report: &Report,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "update media set
                uploaded_at = case when (upload_id is null) <> $6 then $3 else uploaded_at end,
                upload_http_status = case when upload_id is null and not $6 then $4
                                          else upload_http_status end,
                upload_http_error = case when upload_id is null and not $6 then $5
                                         else upload_http_error end
          where project_id = $1 and id = $2",
    )
    .bind(project.as_str())
    .bind(id)
    .bind(report.uploaded_at)
    .bind(report.status)
    .bind(&report.error)
    .bind(matches!(report.status, 200 | 201))
    .execute(store.write())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Which upload's pieces.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Whose they are.
    pub project: ProjectId,
    /// Its own id.
    pub id: String,
}

/// Keeps one piece of an upload.
pub async fn add_chunk(
    store: &Store,
    upload: &Upload,
    number: i32,
    bytes: &[u8],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut transaction = fence::begin(store.media(), &upload.project).await?;
    sqlx::query(
        "insert into media_chunks (project_id, upload_id, number, bytes, created_at)
         values ($1, $2, $3, $4, $5)",
    )
    .bind(upload.project.as_str())
    .bind(&upload.id)
    .bind(number)
    .bind(bytes)
    .bind(now)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// What an upload is of, as it was announced to the client that sent it.
#[derive(Debug)]
pub struct Announced<'a> {
    /// The file's id.
    pub media: &'a str,
    /// Of the bytes.
    pub content_type: &'a str,
    /// Of the bytes.
    pub content_length: i64,
}

/// Makes an upload the bytes of its file; whether there is such a file.
pub async fn finish(
    store: &Store,
    upload: &Upload,
    announced: &Announced<'_>,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "update media set upload_id = $3, uploaded_at = $4, upload_http_status = 200,
                upload_http_error = null, content_type = $5, content_length = $6
          where project_id = $1 and id = $2",
    )
    .bind(upload.project.as_str())
    .bind(announced.media)
    .bind(&upload.id)
    .bind(now)
    .bind(announced.content_type)
    .bind(announced.content_length)
    .execute(store.media())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes the pieces of an upload that came to nothing.
pub async fn abandon(store: &Store, upload: &Upload) -> Result<(), StoreError> {
    sqlx::query("delete from media_chunks where project_id = $1 and upload_id = $2")
        .bind(upload.project.as_str())
        .bind(&upload.id)
        .execute(store.media())
        .await?;
    Ok(())
}

/// One piece of an upload, if it has so many.
pub async fn chunk(
    store: &Store,
    upload: &Upload,
    number: i32,
) -> Result<Option<Vec<u8>>, StoreError> {
    let find = sqlx::query_scalar(
        "select bytes from media_chunks where project_id = $1 and upload_id = $2 and number = $3",
    )
    .bind(upload.project.as_str())
    .bind(&upload.id)
    .bind(number);
    // Transfers have connections and permits of their own, and wait for no reads.
    Ok(find.fetch_optional(store.media()).await?)
}

/// The key of that name, made of `fresh` if nobody made one yet.
pub async fn signing_key(store: &Store, name: &str, fresh: &[u8]) -> Result<Vec<u8>, StoreError> {
    sqlx::query("insert into signing_keys (name, value) values ($1, $2) on conflict do nothing")
        .bind(name)
        .bind(fresh)
        .execute(store.write())
        .await?;
    let key = sqlx::query_scalar("select value from signing_keys where name = $1")
        .bind(name)
        .fetch_one(store.write())
        .await?;
    Ok(key)
}
