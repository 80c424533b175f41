//! Writing traces and observations.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Client, Error};

/// A trace and observations, stored together or not at all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BatchIngestRequest {
    /// The trace, or more of what is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceIngest>,
    /// Observations, of this trace or of others.
    #[serde(default)]
    pub observations: Vec<ObservationIngest>,
}

/// The answer to everything that is written.
#[derive(Debug, Clone, Deserialize)]
pub struct ApiResponse<T> {
    /// In words.
    pub message: String,
    /// Present on errors only.
    #[serde(default)]
    pub code: Option<String>,
    /// Present if the call answers something.
    #[serde(default)]
    pub data: Option<T>,
}

/// A trace, whole or in part: what is `None` leaves stored values as they are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(
    missing_docs,
    reason = "the fields of the wire format, documented in docs/openapi.yaml"
)]
pub struct TraceIngest {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bookmarked: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Seconds; beats the computed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<f64>,
    /// USD; beats the computed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_cost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
}

impl TraceIngest {
    /// A trace of which only the id is known: 1 to 800 characters, a UUID or any other text.
    pub fn new(id: impl ToString) -> Self {
        Self {
            id: id.to_string(),
            ..Self::default()
        }
    }

    /// Sets the display name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the session that it belongs to.
    #[must_use]
    pub fn with_session_id(mut self, session_id: impl Into<String>) -> Self {
        self.session_id = Some(session_id.into());
        self
    }

    /// Sets one member of the metadata.
    #[must_use]
    pub fn with_metadata_field(mut self, key: &str, value: impl Serialize) -> Self {
        set_member(&mut self.metadata, key, value);
        self
    }

    /// Names the turn of a conversation, in the metadata.
    #[must_use]
    pub fn with_turn_id(self, turn_id: impl Into<String>) -> Self {
        self.with_metadata_field("turn_id", turn_id.into())
    }

    /// Names the run of an agent, in the metadata.
    #[must_use]
    pub fn with_run_id(self, run_id: impl Into<String>) -> Self {
        self.with_metadata_field("run_id", run_id.into())
    }
}

/// An observation, whole or in part: what is `None` leaves stored values as they are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(
    missing_docs,
    reason = "the fields of the wire format, documented in docs/openapi.yaml"
)]
pub struct ObservationIngest {
    pub id: String,
    pub trace_id: String,
    /// `SPAN`, `GENERATION`, `EVENT`, `AGENT`, `TOOL`, `CHAIN`, `RETRIEVER`, `EVALUATOR`,
    /// `EMBEDDING` or `GUARDRAIL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_start_time: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_parameters: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// `{input, output, total, unit}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Value>,
    /// Units by kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_details: Option<Value>,
    /// USD by kind of unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_details: Option<Value>,
    /// `DEBUG`, `DEFAULT`, `WARNING` or `ERROR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_observation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_version: Option<i32>,
    /// USD per unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_price: Option<f64>,
    /// USD per unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_price: Option<f64>,
    /// USD per unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_price: Option<f64>,
    /// USD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calculated_input_cost: Option<f64>,
    /// USD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calculated_output_cost: Option<f64>,
    /// USD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calculated_total_cost: Option<f64>,
    /// Seconds; beats the computed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<f64>,
    /// Seconds; beats the computed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_first_token: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_tokens: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
}

impl ObservationIngest {
    /// An observation of which only the ids are known.
    pub fn new(id: impl ToString, trace_id: impl ToString) -> Self {
        Self {
            id: id.to_string(),
            trace_id: trace_id.to_string(),
            ..Self::default()
        }
    }

    /// Sets what it is.
    #[must_use]
    pub fn with_type(mut self, r#type: impl Into<String>) -> Self {
        self.r#type = Some(r#type.into());
        self
    }

    /// Sets one member of the metadata.
    #[must_use]
    pub fn with_metadata_field(mut self, key: &str, value: impl Serialize) -> Self {
        set_member(&mut self.metadata, key, value);
        self
    }

    /// Names the step of an agent's run, in the metadata.
    #[must_use]
    pub fn with_step_id(self, step_id: impl Into<String>) -> Self {
        self.with_metadata_field("step_id", step_id.into())
    }

    /// Names the step above it, in the metadata.
    #[must_use]
    pub fn with_parent_step_id(self, parent_step_id: impl Into<String>) -> Self {
        self.with_metadata_field("parent_step_id", parent_step_id.into())
    }

    /// Says what kind of step it is, in the metadata.
    #[must_use]
    pub fn with_step_type(self, step_type: impl Into<String>) -> Self {
        self.with_metadata_field("step_type", step_type.into())
    }
}

/// Values that can't be JSON (a map with keys that are no texts) are left out.
fn set_member(metadata: &mut Option<Value>, key: &str, value: impl Serialize) {
    if !matches!(metadata, Some(Value::Object(_))) {
        *metadata = Some(Value::Object(serde_json::Map::new()));
    }
    if let (Some(Value::Object(members)), Ok(value)) = (metadata, serde_json::to_value(value)) {
        members.insert(key.to_owned(), value);
    }
}

impl Client {
    /// Stores a trace and observations; returns once they are committed.
    pub async fn ingest_batch(
        &self,
        batch: &BatchIngestRequest,
    ) -> Result<ApiResponse<Value>, Error> {
        self.send(self.http.post(self.url("v1/l/batch")?).json(batch))
            .await
    }
}
