//! Scores as versions 1 and 2 show them (langfuse-api 10.3).

use serde::Serialize;
use serde_json::{Map, Value, json};
use xtrace_model::ProjectId;
use xtrace_store::scores::{ListedScore, ScoreView};

use crate::payload;
use crate::query::iso;

/// A score.
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
    timestamp: String,
    created_at: String,
    updated_at: String,
    /// Version 2 alone.
    #[serde(flatten)]
    subjects: Option<Subjects>,
    /// In lists alone; null for a score whose trace is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Value>,
}

/// What version 2 adds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Subjects {
    session_id: Option<String>,
    dataset_run_id: Option<String>,
}

/// A version of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl Score {
    pub(crate) fn new(project: &ProjectId, view: ScoreView, version: Version) -> Self {
        let subjects = (version == Version::V2).then_some(Subjects {
            session_id: view.session_id,
            dataset_run_id: view.run_id,
        });
        Self {
            id: view.id,
            project_id: project.to_string(),
            environment: view.environment,
            name: view.name,
            value: (view.data_type != "TEXT").then_some(view.value),
            string_value: view.string_value,
            data_type: view.data_type,
            source: view.source,
            author_user_id: None,
            comment: view.comment,
            metadata: payload::metadata_of_any(view.metadata.as_deref()),
            config_id: view.config_id,
            queue_id: view.queue_id,
            execution_trace_id: view.execution_trace_id,
            trace_id: view.trace_id,
            observation_id: view.observation_id,
            timestamp: iso(view.ts),
            created_at: iso(view.created_at),
            updated_at: iso(view.updated_at),
            subjects,
            trace: None,
        }
    }

    /// The same as a row of a list, with what it shows of the score's trace.
    pub(crate) fn listed(
        project: &ProjectId,
        listed: ListedScore,
        version: Version,
        with_trace: bool,
    ) -> Self {
        let mut trace = Value::Null;
        if with_trace && (listed.has_trace || version == Version::V1) {
            trace = json!({
                "userId": listed.trace_user_id,
                "tags": listed.trace_tags.unwrap_or_default(),
                "environment": listed.trace_environment,
            });
            if version == Version::V2 {
                trace["sessionId"] = listed.trace_session_id.into();
            }
        }
        Self {
            trace: Some(trace),
            ..Self::new(project, listed.score, version)
        }
    }
}
