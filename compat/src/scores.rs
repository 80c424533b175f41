//! Scores in their v1 shape.

use serde::Serialize;
use serde_json::{Map, Value};
use xtrace_store::scores::ScoreView;

use crate::payload;
use crate::query::iso;

/// A score as `GET /traces/{id}` embeds it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Score {
    id: String,
    project_id: String,
    environment: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    string_value: Option<String>,
    data_type: String,
    source: String,
    author_user_id: Option<String>,
    comment: Option<String>,
    metadata: Map<String, Value>,
    config_id: Option<String>,
    queue_id: Option<String>,
    execution_trace_id: Option<String>,
    trace_id: Option<String>,
    observation_id: Option<String>,
    session_id: Option<String>,
    timestamp: String,
    created_at: String,
    updated_at: String,
}

impl Score {
    pub(crate) fn new(project_id: &str, view: ScoreView) -> Self {
        Self {
            id: view.id,
            project_id: project_id.to_owned(),
            environment: view.environment,
            name: view.name,
            value: (view.data_type != "TEXT").then_some(view.value),
            string_value: view.string_value,
            data_type: view.data_type,
            source: view.source,
            author_user_id: None,
            comment: view.comment,
            metadata: payload::metadata(view.metadata.as_deref(), false),
            config_id: view.config_id,
            queue_id: view.queue_id,
            execution_trace_id: None,
            trace_id: view.trace_id,
            observation_id: view.observation_id,
            session_id: view.session_id,
            timestamp: iso(view.ts),
            created_at: iso(view.created_at),
            updated_at: iso(view.updated_at),
        }
    }
}
