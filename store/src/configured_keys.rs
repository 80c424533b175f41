//! The key pair of the configuration: opened at start, ended when another one takes its place.

use chrono::{DateTime, Utc};
use xtrace_model::ProjectId;

use crate::erasure::fence;
use crate::keys::{display_secret, hash_key_pair};
use crate::{Store, StoreError};

/// What became of the configured pair.
#[derive(Debug, PartialEq, Eq)]
pub enum Configured {
    /// It opens the project; configured pairs from before have ended.
    Open {
        /// Public keys of those.
        ended: Vec<String>,
    },
    /// It was revoked, or its time is over, and it stays closed.
    Closed,
    /// Its public key is that of another project, which keeps it.
    OfAnother,
}

/// Makes a pair the configured one of a project.
pub async fn configure(
    store: &Store,
    project: &ProjectId,
    (public_key, secret_key): (&str, &str),
    now: DateTime<Utc>,
) -> Result<Configured, StoreError> {
    let mut transaction = fence::begin(store.write(), project).await?;
    // Two processes that start together meet here, on the row that the second one waits for.
    let stored: (String, Option<DateTime<Utc>>) = sqlx::query_as(
        "insert into api_keys (public_key, project_id, secret_hash, created_at, id, display_secret, source)
         values ($1, $2, $3, $4, $5, $6, 'configured')
         on conflict (public_key) do update set public_key = excluded.public_key
         returning project_id, expires_at",
    )
    .bind(public_key)
    .bind(project.as_str())
    .bind(hash_key_pair(public_key, secret_key).as_slice())
    .bind(now)
    .bind(uuid::Uuid::new_v4().to_string())
    .bind(display_secret(secret_key))
    .fetch_one(&mut *transaction)
    .await?;
    let (owner, expires_at) = stored;
    if owner != project.as_str() {
        return Ok(Configured::OfAnother);
    }
    if expires_at.is_some_and(|end| end <= now) {
        return Ok(Configured::Closed);
    }
    sqlx::query(
        "update api_keys set secret_hash = $3, display_secret = $4, source = 'configured'
          where project_id = $1 and public_key = $2",
    )
    .bind(project.as_str())
    .bind(public_key)
    .bind(hash_key_pair(public_key, secret_key).as_slice())
    .bind(display_secret(secret_key))
    .execute(&mut *transaction)
    .await?;
    // One with an end has been replaced, and ends by itself.
    let ended = sqlx::query_scalar(
        "delete from api_keys
          where project_id = $1 and source = 'configured' and public_key <> $2
            and expires_at is null
          returning public_key",
    )
    .bind(project.as_str())
    .bind(public_key)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    store.keys_changed();
    Ok(Configured::Open { ended })
}
