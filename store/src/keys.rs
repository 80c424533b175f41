//! The key pairs that open a project.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use xtrace_model::ProjectId;
use xtrace_model::caller::Scopes;

use crate::erasure::fence;
use crate::error::{UNIQUE_VIOLATION, is_sqlstate};
use crate::reading::ROWS_MAX;
use crate::{Store, StoreError};

/// A key pair's public half and the hash of its secret.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ApiKey {
    /// The project that it opens.
    pub project_id: String,
    /// SHA-256 over public key, ":" and secret key.
    pub secret_hash: Vec<u8>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key pair as lists show it.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(missing_docs, reason = "columns of the table `api_keys`")]
pub struct ApiKeySummary {
    pub id: String,
    pub project_id: String,
    pub public_key: String,
    pub display_secret: String,
    pub name: Option<String>,
    pub scopes: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub source: Option<String>,
}

/// A key pair that is to be.
#[derive(Debug)]
pub struct NewKey {
    /// Names it; unique among all projects.
    pub public_key: String,
    /// Proves it; only its hash is kept.
    pub secret_key: String,
    /// What people call it.
    pub name: Option<String>,
    /// What it may do.
    pub scopes: Scopes,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

/// There is a key of that public half.
#[derive(Debug)]
pub struct Taken;

/// A new key pair: a public and a secret key, in the form that Langfuse's clients expect.
pub fn fresh_pair() -> (String, String) {
    let made = |prefix: &str| format!("{prefix}-lf-{}", uuid::Uuid::new_v4());
    (made("pk"), made("sk"))
}

/// What is stored of a secret key.
pub fn hash_key_pair(public: &str, secret: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(public)
        .chain_update(":")
        .chain_update(secret)
        .finalize()
        .into()
}

/// The end of a secret, to recognise it by; of a short one that would be too much of it.
pub fn display_secret(secret: &str) -> String {
    const CHARS_MIN: usize = 32;
    if secret.chars().count() < CHARS_MIN {
        return "sk-lf-...".to_owned();
    }
    let end: Vec<char> = secret.chars().rev().take(4).collect();
    let end: String = end.into_iter().rev().collect();
    format!("sk-lf-...{end}")
}

/// The key pair of that public key.
pub async fn find(store: &Store, public_key: &str) -> Result<Option<ApiKey>, StoreError> {
    let key = sqlx::query_as(
        "select k.project_id, k.secret_hash, k.scopes, k.expires_at
           from api_keys k join projects p on p.id = k.project_id
          where k.public_key = $1 and p.deleting_at is null",
    )
    .bind(public_key)
    .fetch_optional(store.access());
    Ok(store.access_answer(key).await?)
}

/// Makes a key pair open the project from now on; that of another project stays as it is.
pub async fn put(
    store: &Store,
    project: &ProjectId,
    public_key: &str,
    secret_key: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut transaction = fence::begin(store.write(), project).await?;
    sqlx::query(
        "insert into api_keys (public_key, project_id, secret_hash, created_at, id, display_secret)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (public_key) do update set secret_hash = excluded.secret_hash,
            display_secret = excluded.display_secret
          where api_keys.project_id = excluded.project_id",
    )
    .bind(public_key)
    .bind(project.as_str())
    .bind(hash_key_pair(public_key, secret_key).as_slice())
    .bind(now)
    .bind(uuid::Uuid::new_v4().to_string())
    .bind(display_secret(secret_key))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    store.keys_changed();
    Ok(())
}

/// The source is read so that it may be missing: lists are shown of older schemas too.
const SUMMARY: &str = "id, project_id, public_key, display_secret, name, scopes, created_at, expires_at, \
    to_jsonb(api_keys) ->> 'source' as source";

/// Adds a key pair.
pub async fn add(
    store: &Store,
    project: &ProjectId,
    key: &NewKey,
    now: DateTime<Utc>,
) -> Result<Result<ApiKeySummary, Taken>, StoreError> {
    let sql = format!(
        "insert into api_keys (public_key, project_id, secret_hash, created_at, id, display_secret, name,
                scopes, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning {SUMMARY}"
    );
    let mut transaction = fence::begin(store.write(), project).await?;
    let added = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(&key.public_key)
        .bind(project.as_str())
        .bind(hash_key_pair(&key.public_key, &key.secret_key).as_slice())
        .bind(now)
        .bind(uuid::Uuid::new_v4().to_string())
        .bind(display_secret(&key.secret_key))
        .bind(&key.name)
        .bind(key.scopes.names())
        .bind(key.expires_at)
        .fetch_one(&mut *transaction)
        .await;
    match added {
        Ok(summary) => {
            transaction.commit().await?;
            Ok(Ok(summary))
        }
        Err(error) if is_sqlstate(&error, &[UNIQUE_VIOLATION]) => Ok(Err(Taken)),
        Err(error) => Err(error.into()),
    }
}

/// All key pairs of a project, or of all projects, oldest first.
pub async fn list(
    store: &Store,
    project: Option<&ProjectId>,
) -> Result<Vec<ApiKeySummary>, StoreError> {
    let sql = format!(
        "select {SUMMARY} from api_keys where $1::text is null or project_id = $1
          order by created_at, public_key limit {ROWS_MAX}"
    );
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(project.map(ProjectId::as_str))
        .fetch_all(store.read())
        .await?;
    Ok(found)
}

/// Ends a key pair, named by its id or its public key; whether there was one. That of a configuration
/// keeps its row, closed, so that the next start does not open it again.
pub async fn revoke(
    store: &Store,
    project: Option<&ProjectId>,
    name: &str,
) -> Result<bool, StoreError> {
    let project = project.map(ProjectId::as_str);
    let ended: u64 = sqlx::query(
        "update api_keys set expires_at = now()
          where (id = $1 or public_key = $1) and ($2::text is null or project_id = $2)
            and to_jsonb(api_keys) ->> 'source' = 'configured'
            and (expires_at is null or expires_at > now())",
    )
    .bind(name)
    .bind(project)
    .execute(store.write())
    .await?
    .rows_affected();
    let deleted = sqlx::query(
        "delete from api_keys
          where (id = $1 or public_key = $1) and ($2::text is null or project_id = $2)
            and to_jsonb(api_keys) ->> 'source' is distinct from 'configured'",
    )
    .bind(name)
    .bind(project)
    .execute(store.write())
    .await?
    .rows_affected();
    store.keys_changed();
    Ok(ended + deleted > 0)
}

/// Puts a new pair in the place of one, with its project, name, scopes and source; the old one ends at a
/// time. Whether there was an open one of that id or public key, and its public key.
pub async fn rotate(
    store: &Store,
    name: &str,
    (public_key, secret_key): (&str, &str),
    (now, old_ends_at): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Option<String>, StoreError> {
    let mut transaction = store.write().begin().await?;
    let old: Option<(String, String)> = sqlx::query_as(
        "insert into api_keys (public_key, project_id, secret_hash, created_at, id, display_secret, name,
                scopes, expires_at, source)
         select $2, project_id, $3, $4, $5, $6, name, scopes, expires_at, source from api_keys
          where (id = $1 or public_key = $1) and (expires_at is null or expires_at > $4)
            and exists (select from projects p where p.id = project_id and p.deleting_at is null)
          limit 1
         returning project_id, (select public_key from api_keys where id = $1 or public_key = $1 limit 1)",
    )
    .bind(name)
    .bind(public_key)
    .bind(hash_key_pair(public_key, secret_key).as_slice())
    .bind(now)
    .bind(uuid::Uuid::new_v4().to_string())
    .bind(display_secret(secret_key))
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((project, old)) = old else {
        return Ok(None);
    };
    sqlx::query(
        "update api_keys set expires_at = least(expires_at, $3)
          where project_id = $1 and public_key = $2",
    )
    .bind(project)
    .bind(&old)
    .bind(old_ends_at)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    store.keys_changed();
    Ok(Some(old))
}
