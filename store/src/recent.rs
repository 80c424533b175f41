//! Whether anything came in lately, in any project.

use chrono::{DateTime, Utc};

use crate::{Store, StoreError};

/// What began since a time.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Activity {
    /// Whether a trace did.
    pub traces: bool,
    /// Whether an observation did.
    pub observations: bool,
}

/// What began since `since`; one look-up per project in indexes.
pub async fn activity(store: &Store, since: DateTime<Utc>) -> Result<Activity, StoreError> {
    let activity = sqlx::query_as(
        "select exists (select 1 from projects p cross join lateral (
                    select 1 from traces t where t.project_id = p.id and t.ts >= $1 limit 1) found) as traces,
                exists (select 1 from projects p cross join lateral (
                    select 1 from observations o
                     where o.project_id = p.id and o.start_time >= $1 limit 1) found) as observations",
    )
    .bind(since)
    .fetch_one(store.read())
    .await?;
    Ok(activity)
}
