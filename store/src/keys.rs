//! Projects and the key pairs that open them.

use chrono::{DateTime, Utc};
use xtrace_model::ProjectId;

use crate::{Store, StoreError};

/// A key pair's public half and the hash of its secret.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ApiKey {
    /// The project that it opens.
    pub project_id: String,
    /// SHA-256 over public key, ":" and secret key.
    pub secret_hash: Vec<u8>,
}

/// The key pair of that public key.
pub async fn find(store: &Store, public_key: &str) -> Result<Option<ApiKey>, StoreError> {
    let key = sqlx::query_as("select project_id, secret_hash from api_keys where public_key = $1")
        .bind(public_key)
        .fetch_optional(store.read())
        .await?;
    Ok(key)
}

/// Makes sure that the project is there.
pub async fn ensure_project(
    store: &Store,
    project: &ProjectId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into projects (id, name, created_at) values ($1, $1, $2) on conflict do nothing",
    )
    .bind(project.as_str())
    .bind(now)
    .execute(store.write())
    .await?;
    Ok(())
}

/// Makes a key pair open the project from now on.
pub async fn put(
    store: &Store,
    project: &ProjectId,
    public_key: &str,
    secret_hash: &[u8],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into api_keys (public_key, project_id, secret_hash, created_at)
         values ($1, $2, $3, $4)
         on conflict (public_key) do update
            set project_id = excluded.project_id, secret_hash = excluded.secret_hash",
    )
    .bind(public_key)
    .bind(project.as_str())
    .bind(secret_hash)
    .bind(now)
    .execute(store.write())
    .await?;
    Ok(())
}

/// The display name of a project.
pub async fn project_name(
    store: &Store,
    project: &ProjectId,
) -> Result<Option<String>, StoreError> {
    let name = sqlx::query_scalar("select name from projects where id = $1")
        .bind(project.as_str())
        .fetch_optional(store.read())
        .await?;
    Ok(name)
}
