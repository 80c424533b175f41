//! `GET /metrics` and `GET /v2/metrics`: numbers about many rows (langfuse-api 11.2, 11.3).
//!
//! - `parse`: the question. `filters`: its conditions. `rows`: the answer, with buckets that nothing is in.

mod filters;
mod parse;
mod rows;

use axum::extract::State;
use serde_json::json;
use xtrace_model::ProjectId;
use xtrace_store::Store;
use xtrace_store::analytics::{self, ROWS_MAX, Version};

use crate::answer::Answer;
use crate::auth::Project;
use crate::error::CompatError;
use crate::query::Query;

/// `GET /metrics`.
pub(crate) async fn answer_v1(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    answer(&store, &project, &query, Version::V1).await
}

/// `GET /v2/metrics`.
pub(crate) async fn answer_v2(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    answer(&store, &project, &query, Version::V2).await
}

async fn answer(
    store: &Store,
    project: &ProjectId,
    query: &Query,
    version: Version,
) -> Result<Answer, CompatError> {
    let parsed = parse::parse(query, version)?;
    let mut rows = analytics::answer(store, project, &parsed.question).await?;
    if parsed.row_limit.is_none() && rows.len() > usize::try_from(ROWS_MAX).unwrap_or(usize::MAX) {
        return Err(CompatError::TooLarge(format!(
            "The answer has more than {ROWS_MAX} rows. Add filters, fewer dimensions, or config.row_limit"
        )));
    }
    if parsed.fills {
        rows = rows::fill(store, rows, &parsed).await?;
    }
    if let Some(limit) = parsed.row_limit {
        rows.truncate(limit);
    }
    Ok(Answer::of(&json!({})).list("data", rows.into_iter().map(rows::shown)))
}
