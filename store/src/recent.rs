//! Whether anything came in lately, in one project or in any.

use chrono::{DateTime, Utc};
use xtrace_model::ProjectId;

use crate::{Store, StoreError};

/// What began since a time.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Activity {
    /// Whether a trace did.
    pub traces: bool,
    /// Whether an observation did.
    pub observations: bool,
}

/// What began since `since`, in any project without one; one look-up per project in indexes.
pub async fn activity(
    store: &Store,
    project: Option<&ProjectId>,
    since: DateTime<Utc>,
) -> Result<Activity, StoreError> {
    let activity = sqlx::query_as(
        "select exists (select 1 from projects p cross join lateral (
                    select 1 from traces t where t.project_id = p.id and t.ts >= $2 limit 1) found
                 where $1::text is null or p.id = $1) as traces,
                exists (select 1 from projects p cross join lateral (
                    select 1 from observations o
                     where o.project_id = p.id and o.start_time >= $2 limit 1) found
                 where $1::text is null or p.id = $1) as observations",
    )
    .bind(project.map(ProjectId::as_str))
    .bind(since)
    .fetch_one(store.read())
    .await?;
    Ok(activity)
}
