//! Reads of scores.

use chrono::{DateTime, Utc};
use xtrace_model::ProjectId;

use crate::{Store, StoreError};

/// A score as readers see it.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `scores`, see migrations/0008_scores_and_content.sql"
)]
pub struct ScoreView {
    pub trace_id: Option<String>,
    pub id: String,
    pub observation_id: Option<String>,
    pub session_id: Option<String>,
    pub run_id: Option<String>,
    pub name: String,
    pub source: String,
    pub data_type: String,
    pub value: f64,
    pub string_value: Option<String>,
    pub comment: Option<String>,
    pub environment: String,
    pub config_id: Option<String>,
    pub queue_id: Option<String>,
    /// JSON text.
    pub metadata: Option<String>,
    pub ts: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Scores of traces and of their observations, without corrections; empty `environments` means all.
pub async fn of_traces(
    store: &Store,
    project: &ProjectId,
    traces: &[String],
    environments: &[String],
) -> Result<Vec<ScoreView>, StoreError> {
    let scores = sqlx::query_as(
        "select trace_id, id, observation_id, session_id, run_id, name, source, data_type, value,
                string_value, comment, environment, config_id, queue_id, metadata, ts, created_at,
                updated_at
           from scores
          where project_id = $1 and trace_id = any($2) and data_type <> 'CORRECTION'
            and (cardinality($3::text[]) = 0 or environment = any($3))
          order by ts desc, id",
    )
    .bind(project.as_str())
    .bind(traces)
    .bind(environments)
    .fetch_all(store.read())
    .await?;
    Ok(scores)
}
