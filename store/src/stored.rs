//! Documents as rows: what a trace or an observation looks like in the database, and back.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use metrics::counter;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use xtrace_model::observation::{Kind, Level};
use xtrace_model::score::{ScoreSource, ScoreValue, Subject};
use xtrace_model::tree::OwnedTree;
use xtrace_model::usage::{Costs, Usage};
use xtrace_model::{
    Micros, Observation, ObservationId, Register, Score, ScoreId, Stamps, Trace, TraceId, Tree,
    time,
};

use crate::StoreError;

/// The newest form of a state that this program writes and reads. Whoever adds a member or changes the meaning
/// of one raises it: a program that knows no such state leaves the row alone.
const FORM: u32 = 1;

/// What merging further parts needs beyond the visible columns, as JSON text.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MergeState {
    /// None for the first.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    form: Option<u32>,
    #[serde(rename = "s", default)]
    pub(crate) stamps: Stamps,
    /// The metadata, unless it is the visible value with one stamp.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Tree>,
    /// The same for the values that beat computed ones.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    sent: Option<Tree>,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    root_metadata: Option<OwnedTree>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    resource_metadata: Option<Tree>,
    /// The end as sent, where the visible one is not before the start and so differs.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    sent_end: Option<Micros>,
}

impl MergeState {
    pub(crate) fn of_trace(trace: &Trace) -> Self {
        Self {
            stamps: trace.stamps(),
            metadata: Some(trace.metadata.clone()).filter(|tree| !tree.is_empty()),
            root_metadata: Some(trace.root_metadata.clone()).filter(|tree| !tree.is_empty()),
            resource_metadata: Some(trace.resource_metadata.clone())
                .filter(|tree| !tree.is_empty()),
            ..Self::default()
        }
    }

    pub(crate) fn of_observation(observation: &Observation) -> Self {
        let mixed = |tree: &Tree| tree.uniform_stamp().is_none().then(|| tree.clone());
        Self {
            stamps: observation.stamps(),
            metadata: mixed(&observation.metadata),
            sent: mixed(&observation.sent),
            sent_end: observation
                .end
                .copied()
                .filter(|end| Some(*end) != observation.ends()),
            ..Self::default()
        }
    }

    pub(crate) fn of_score(score: &Score) -> Self {
        Self {
            stamps: score.stamps(),
            ..Self::default()
        }
    }

    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("stamps and JSON values serialise")
    }

    fn parse(text: &str) -> Result<Self, Unreadable> {
        let fault = match serde_json::from_str::<Self>(text) {
            Ok(state) if state.form.unwrap_or(FORM) <= FORM => return Ok(state),
            Ok(_) => Unreadable::Newer,
            // Sound JSON of another shape is what a newer program would write.
            Err(error) if error.is_data() => Unreadable::Newer,
            Err(_) => Unreadable::Broken,
        };
        counter!("xtrace_unreadable_states_total").increment(1);
        tracing::error!(
            ?fault,
            "a stored state can't be read; its row stays as it is"
        );
        Err(fault)
    }
}

/// Why a row can't be merged with. It is never written over: what it holds is worth more than what was sent,
/// whose sender learns that it is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// A newer program wrote it, which is to take what was sent.
    Newer,
    /// Nobody can read it.
    Broken,
}

impl From<Unreadable> for StoreError {
    fn from(fault: Unreadable) -> Self {
        let cause = |text: &str| sqlx::Error::Decode(text.into());
        match fault {
            Unreadable::Newer => Self::Unavailable(Some(cause("a newer program wrote the row"))),
            Unreadable::Broken => Self::Refused(cause("the state of the row can't be read")),
        }
    }
}

/// A trace's row, whole.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct TraceRow {
    pub(crate) project_id: String,
    pub(crate) id: String,
    sent_timestamp: Option<DateTime<Utc>>,
    pub(crate) first_start: Option<DateTime<Utc>>,
    pub(crate) last_start: Option<DateTime<Utc>>,
    name: Option<String>,
    user_id: Option<String>,
    session_id: Option<String>,
    release: Option<String>,
    app_version: Option<String>,
    environment: String,
    external_id: Option<String>,
    public: Option<bool>,
    bookmarked: Option<bool>,
    tags: Vec<String>,
    metadata_decoded: bool,
    input: Option<String>,
    output: Option<String>,
    sent_latency: Option<f64>,
    sent_total_cost: Option<f64>,
    merge_state: String,
    pub(crate) created_at: DateTime<Utc>,
    /// Changes whenever the row does.
    pub(crate) version: String,
    /// Whether its sums are of those that changes are added to.
    pub(crate) has_sums: bool,
    /// The days that its observations start on, if those are far apart and known.
    pub(crate) days: Option<Vec<String>>,
}

/// The columns of [`TraceRow`]. Collects at most the days that the entries of one trace name.
pub(crate) const TRACE_COLUMNS: &str = "t.project_id, t.id, t.sent_timestamp, t.first_start, \
    t.last_start, t.name, t.user_id, t.session_id, t.release, t.version as app_version, \
    t.environment, t.external_id, t.public, t.bookmarked, t.tags, t.metadata_decoded, t.input, t.output, \
    t.sent_latency, t.sent_total_cost, t.merge_state, t.created_at, \
    t.xmin::text as version, t.sums is not null as has_sums, case when t.last_start - t.first_start > interval '2 days' then ( \
        select case when bool_and(u.environment <> '(many)') then array_agg(distinct u.date) end \
          from jsonb_to_recordset(t.usage) u(date text, environment text)) end as days";

fn micros(time: Option<DateTime<Utc>>) -> Option<i64> {
    time.map(time::from_utc)
}

impl TraceRow {
    /// The document; `None` if the row's id is none, which no write makes.
    pub(crate) fn into_trace(self) -> Result<Option<Trace>, Unreadable> {
        let state = MergeState::parse(&self.merge_state)?;
        let stamps = &state.stamps;
        let Ok(id) = TraceId::parse(self.id) else {
            return Ok(None);
        };
        Ok(Some(Trace {
            id,
            timestamp: Register::restore(micros(self.sent_timestamp), stamps, "timestamp"),
            name: Register::restore(self.name, stamps, "name"),
            user_id: Register::restore(self.user_id, stamps, "user_id"),
            session_id: Register::restore(self.session_id, stamps, "session_id"),
            release: Register::restore(self.release, stamps, "release"),
            version: Register::restore(self.app_version, stamps, "version"),
            environment: Register::restore(Some(self.environment), stamps, "environment"),
            external_id: Register::restore(self.external_id, stamps, "external_id"),
            public: Register::restore(self.public, stamps, "public"),
            bookmarked: Register::restore(self.bookmarked, stamps, "bookmarked"),
            input: Register::restore(self.input, stamps, "input"),
            output: Register::restore(self.output, stamps, "output"),
            sent_latency: Register::restore(self.sent_latency, stamps, "sent_latency"),
            sent_total_cost: Register::restore(self.sent_total_cost, stamps, "sent_total_cost"),
            root_metadata: state.root_metadata.unwrap_or_default(),
            tags: BTreeSet::from_iter(self.tags),
            metadata: state.metadata.unwrap_or_default(),
            resource_metadata: state.resource_metadata.unwrap_or_default(),
            metadata_decoded: self.metadata_decoded,
        }))
    }
}

/// An observation's row, without what is computed from it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct ObservationRow {
    pub(crate) project_id: String,
    pub(crate) trace_id: String,
    pub(crate) id: String,
    pub(crate) start_time: DateTime<Utc>,
    end_time: Option<DateTime<Utc>>,
    completion_start_time: Option<DateTime<Utc>>,
    parent_id: Option<String>,
    r#type: String,
    name: Option<String>,
    level: String,
    status_message: Option<String>,
    version: Option<String>,
    environment: String,
    model: Option<String>,
    model_parameters: Option<String>,
    prompt_name: Option<String>,
    prompt_version: Option<i32>,
    usage_details: Option<Json<Usage>>,
    sent_costs: Option<Json<Costs>>,
    input: Option<String>,
    output: Option<String>,
    metadata: Option<Json<Value>>,
    metadata_decoded: bool,
    tool_definitions: Option<String>,
    otel: Option<String>,
    root_rank: Option<i32>,
    experiment: Option<String>,
    sent: Option<String>,
    merge_state: String,
    pub(crate) created_at: DateTime<Utc>,
}

/// The columns of [`ObservationRow`].
pub(crate) const OBSERVATION_COLUMNS: &str = "o.project_id, o.trace_id, o.id, o.start_time, \
    o.end_time, o.completion_start_time, o.parent_id, o.type, o.name, o.level, o.status_message, \
    o.version, o.environment, o.model, o.model_parameters, o.prompt_name, o.prompt_version, \
    o.usage_details, o.sent_costs, o.input, o.output, o.metadata, o.metadata_decoded, \
    o.tool_definitions, o.otel, o.root_rank, \
    o.experiment::text as experiment, o.sent, o.merge_state, o.created_at";

impl ObservationRow {
    /// The document; `None` if the row's ids are none, which no write makes.
    pub(crate) fn into_observation(self) -> Result<Option<Observation>, Unreadable> {
        let state = MergeState::parse(&self.merge_state)?;
        let stamps = &state.stamps;
        let tree = |mixed: Option<Tree>, value: Option<Value>, field: &str| {
            let uniform = || value.map(|value| Tree::new(value, stamps.of(field)));
            mixed.or_else(uniform).unwrap_or_default()
        };
        let metadata = tree(
            state.metadata,
            self.metadata.map(|value| value.0),
            "metadata",
        );
        let sent = self.sent.and_then(|text| serde_json::from_str(&text).ok());
        let sent = tree(state.sent, sent, "sent");
        let kind = Kind::parse(&self.r#type).unwrap_or(Kind::Span);
        let level = Level::parse(&self.level).unwrap_or(Level::Default);
        let ids = TraceId::parse(self.trace_id)
            .ok()
            .zip(ObservationId::parse(self.id).ok());
        let Some((trace_id, id)) = ids else {
            return Ok(None);
        };
        Ok(Some(Observation {
            trace_id,
            id,
            start: Register::restore(micros(Some(self.start_time)), stamps, "start"),
            end: Register::restore(state.sent_end.or(micros(self.end_time)), stamps, "end"),
            completion_start: Register::restore(
                micros(self.completion_start_time),
                stamps,
                "completion_start",
            ),
            parent_id: Register::restore(self.parent_id, stamps, "parent_id"),
            kind: Register::restore(Some(kind), stamps, "kind"),
            name: Register::restore(self.name, stamps, "name"),
            level: Register::restore(Some(level), stamps, "level"),
            status_message: Register::restore(self.status_message, stamps, "status_message"),
            version: Register::restore(self.version, stamps, "version"),
            environment: Register::restore(Some(self.environment), stamps, "environment"),
            model: Register::restore(self.model, stamps, "model"),
            model_parameters: Register::restore(self.model_parameters, stamps, "model_parameters"),
            prompt_name: Register::restore(self.prompt_name, stamps, "prompt_name"),
            prompt_version: Register::restore(self.prompt_version, stamps, "prompt_version"),
            usage: Register::restore(self.usage_details.map(|usage| usage.0), stamps, "usage"),
            sent_costs: Register::restore(
                self.sent_costs.map(|costs| costs.0),
                stamps,
                "sent_costs",
            ),
            input: Register::restore(self.input, stamps, "input"),
            output: Register::restore(self.output, stamps, "output"),
            tool_definitions: Register::restore(self.tool_definitions, stamps, "tool_definitions"),
            root_rank: Register::restore(self.root_rank, stamps, "root_rank"),
            experiment: Register::restore(self.experiment, stamps, "experiment"),
            otel: Register::restore(self.otel, stamps, "otel"),
            sent,
            metadata,
            metadata_decoded: self.metadata_decoded,
        }))
    }
}

/// A score's row, whole.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct ScoreRow {
    pub(crate) project_id: String,
    pub(crate) id: String,
    trace_id: Option<String>,
    observation_id: Option<String>,
    session_id: Option<String>,
    run_id: Option<String>,
    name: String,
    source: String,
    data_type: String,
    value: f64,
    string_value: Option<String>,
    comment: Option<String>,
    environment: String,
    config_id: Option<String>,
    queue_id: Option<String>,
    execution_trace_id: Option<String>,
    metadata: Option<String>,
    ts: DateTime<Utc>,
    merge_state: String,
    pub(crate) created_at: DateTime<Utc>,
    /// Changes whenever the row does.
    pub(crate) version: String,
}

/// The columns of [`ScoreRow`].
pub(crate) const SCORE_COLUMNS: &str = "s.project_id, s.id, s.trace_id, s.observation_id, \
    s.session_id, s.run_id, s.name, s.source, s.data_type, s.value, s.string_value, s.comment, \
    s.environment, s.config_id, s.queue_id, s.execution_trace_id, s.metadata, s.ts, s.merge_state, \
    s.created_at, s.xmin::text as version";

impl ScoreRow {
    /// The document; `None` if the row's id is none, which no write makes.
    pub(crate) fn into_score(self) -> Result<Option<Score>, Unreadable> {
        let state = MergeState::parse(&self.merge_state)?;
        let stamps = &state.stamps;
        let observation_id = self.observation_id;
        let of_trace = self.trace_id.map(|trace_id| Subject::Trace {
            trace_id,
            observation_id,
        });
        let subject = of_trace
            .or(self.session_id.map(Subject::Session))
            .or(self.run_id.map(Subject::Run));
        let value = ScoreValue::restore(&self.data_type, self.value, self.string_value);
        let source = ScoreSource::parse(&self.source).unwrap_or(ScoreSource::Api);
        let Ok(id) = ScoreId::parse(self.id) else {
            return Ok(None);
        };
        Ok(Some(Score {
            id,
            subject: Register::restore(subject, stamps, "subject"),
            timestamp: Register::restore(micros(Some(self.ts)), stamps, "timestamp"),
            environment: Register::restore(Some(self.environment), stamps, "environment"),
            name: Register::restore(Some(self.name), stamps, "name"),
            value: Register::restore(Some(value), stamps, "value"),
            source: Register::restore(Some(source), stamps, "source"),
            comment: Register::restore(self.comment, stamps, "comment"),
            metadata: Register::restore(self.metadata, stamps, "metadata"),
            config_id: Register::restore(self.config_id, stamps, "config_id"),
            queue_id: Register::restore(self.queue_id, stamps, "queue_id"),
            execution_trace_id: Register::restore(
                self.execution_trace_id,
                stamps,
                "execution_trace_id",
            ),
        }))
    }
}

/// Sum over the kinds of unit whose name contains `word`, in any case; `None` without such a kind.
pub(crate) fn sum_like<T: Copy>(
    units: &BTreeMap<String, T>,
    word: &str,
    add: impl Fn(T, T) -> T,
) -> Option<T> {
    let names = |kind: &str| {
        let mut parts = kind.as_bytes().windows(word.len());
        parts.any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    let matching = units.iter().filter(|(kind, _)| names(kind));
    matching.map(|(_, units)| *units).reduce(add)
}
