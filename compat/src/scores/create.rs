//! `POST /scores`, and the body that it shares with `score-create` (langfuse-api 10.1, 10.2).

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use serde_json::{Value, json};
use xtrace_model::score::{ScoreSource, ScoreValue, Subject};
use xtrace_model::{
    Batch, ProjectId, Register, Score, ScoreId, environment, ids, json as rules, time,
};
use xtrace_store::score_configs::{self, ScoreConfig};
use xtrace_store::{Store, StoreError};

use crate::Compat;
use crate::auth::{ScoreProject, Sender};
use crate::body::{Issue, JsonBody, Object};
use crate::error::{CompatError, issue};
use crate::ingestion::When;

const TEXT_CHARS_MAX: usize = 500;
/// Scores of a request.
const SCORES_MAX: usize = 10_000;
/// Faults that an answer words; their number says how many there were.
const WORDED_MAX: usize = 100;
const TYPES: [&str; 5] = ["NUMERIC", "CATEGORICAL", "BOOLEAN", "TEXT", "CORRECTION"];
/// The name that every correction has.
const CORRECTED: &str = "output";

/// A score as it was sent, not held against its configuration yet.
pub(crate) struct ScoreBody {
    score: Score,
    value: Value,
    data_type: Option<&'static str>,
    config_id: Option<String>,
    when: When,
}

impl ScoreBody {
    pub(crate) fn parse(body: Object<'_>, when: &When) -> Result<Self, Issue> {
        let id = body.text("id")?.filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let id = ScoreId::parse(id)
            .map_err(|fault| issue::custom(&[json!("id")], &fault.to_string()))?;
        let stamp = when.latest();
        let mut score = Score::new(id);
        score.name = Register::new(body.required_text("name", 1)?, stamp);
        score.subject = Register::new(subject(body)?, when.first(true));
        let timestamp = body.time("timestamp")?;
        score.timestamp = Register::new(
            timestamp.unwrap_or(when.time),
            when.first(timestamp.is_some()),
        );
        let named = body.get("environment").and_then(Value::as_str);
        score.environment.merge(Register::of(
            named.map(environment::normalise),
            when.first(true),
        ));
        score.comment = if body.is_null("comment") {
            Register::cleared(stamp)
        } else {
            Register::of(body.text("comment")?, stamp)
        };
        let metadata = body.get("metadata").cloned().map(rules::storable);
        score.metadata = Register::of(metadata.map(|value| value.to_string()), stamp);
        let config_id = body.text("configId")?.filter(|id| !id.is_empty());
        score.config_id = Register::of(config_id.clone(), stamp);
        score.queue_id = Register::of(body.text("queueId")?, stamp);
        score.execution_trace_id = Register::of(id_of(body, "executionTraceId")?, stamp);
        if body.is_null("dataType") {
            return Err(issue::not_an_option("dataType", &TYPES));
        }
        let data_type = body.option("dataType", &TYPES)?;
        let source = body.option("source", &["API", "EVAL", "ANNOTATION"])?;
        if source == Some("ANNOTATION") && config_id.is_none() && data_type != Some("CORRECTION") {
            return Err(issue::custom(
                &[json!("configId")],
                "configId is required for annotation scores",
            ));
        }
        let source = source.and_then(ScoreSource::parse);
        score.source.merge(Register::of(source, stamp));
        let Some(value) = body.sent("value").cloned() else {
            return Err(issue::missing(&["value"], "number"));
        };
        let mut parsed = Self {
            score,
            value,
            data_type,
            config_id,
            when: *when,
        };
        // A configuration may give the value another type; what none can save fails here.
        if parsed.config_id.is_none() {
            parsed.set_value(data_type, None)?;
        } else if !matches!(parsed.value, Value::Number(_) | Value::String(_)) {
            return Err(issue::wrong_type(&["value"], "number", &parsed.value));
        }
        Ok(parsed)
    }

    fn set_value(
        &mut self,
        data_type: Option<&str>,
        config: Option<&ScoreConfig>,
    ) -> Result<(), Issue> {
        let stamp = self.when.latest();
        let value = value_of(&self.value, data_type, config)?;
        if let ScoreValue::Correction(_) = value {
            if self.config_id.is_some() {
                return Err(issue::custom(
                    &[json!("configId")],
                    "corrections have no configuration",
                ));
            }
            if !matches!(self.score.subject.get(), Some(Subject::Trace { .. })) {
                return Err(issue::custom(
                    &[json!("traceId")],
                    "only traces and observations are corrected",
                ));
            }
            self.score.name = Register::new(CORRECTED.to_owned(), stamp);
        }
        self.score.value = Register::new(value, stamp);
        Ok(())
    }

    /// Holds the score against its configuration.
    fn check(mut self, config: Option<&ScoreConfig>) -> Result<Score, ConfigFault> {
        if self.config_id.is_none() {
            return Ok(self.score);
        }
        let config = config.ok_or(ConfigFault::Missing)?;
        if config.is_archived {
            return Err(ConfigFault::Broken(
                "Config is archived and cannot be used to create new scores. Please restore the config first."
                    .to_owned(),
            ));
        }
        if let Some(sent) = self.data_type.filter(|sent| *sent != config.data_type) {
            return Err(ConfigFault::Broken(format!(
                "Data type mismatch based on config: expected {}, got {sent}",
                config.data_type
            )));
        }
        let invalid = |why: &str| {
            ConfigFault::Broken(format!(
                "Ingested score body not valid against provided config: {why}"
            ))
        };
        self.set_value(Some(&config.data_type), Some(config))
            .map_err(|issue| invalid(issue["message"].as_str().unwrap_or_default()))?;
        if let Some(ScoreValue::Numeric(number)) = self.score.value.get() {
            if config.min_value.is_some_and(|min| *number < min) {
                return Err(invalid("the value is below the minimum"));
            }
            if config.max_value.is_some_and(|max| *number > max) {
                return Err(invalid("the value is above the maximum"));
            }
        }
        let stamp = self.when.latest();
        self.score.name = Register::new(config.name.clone(), stamp);
        Ok(self.score)
    }
}

/// The id of something else; most are in an index, which holds no long texts.
fn id_of(body: Object<'_>, name: &str) -> Result<Option<String>, Issue> {
    let id = body.text(name)?.filter(|id| !id.is_empty());
    if let Some(fault) = id.as_deref().and_then(|id| ids::check(id).err()) {
        return Err(issue::custom(&[json!(name)], &fault.to_string()));
    }
    Ok(id)
}

/// Exactly one thing is judged.
fn subject(body: Object<'_>) -> Result<Subject, Issue> {
    const MESSAGE: &str = "Provide exactly one of the following: traceId (with optional \
        observationId), sessionId or datasetRunId. ObservationId requires traceId.";
    let said = |name: &str| id_of(body, name);
    let (trace, observation) = (said("traceId")?, said("observationId")?);
    let (session, run) = (said("sessionId")?, said("datasetRunId")?);
    match (trace, observation, session, run) {
        (Some(trace_id), observation_id, None, None) => Ok(Subject::Trace {
            trace_id,
            observation_id,
        }),
        (None, None, Some(session), None) => Ok(Subject::Session(session)),
        (None, None, None, Some(run)) => Ok(Subject::Run(run)),
        _ => Err(issue::custom(&[], MESSAGE)),
    }
}

fn value_of(
    value: &Value,
    data_type: Option<&str>,
    config: Option<&ScoreConfig>,
) -> Result<ScoreValue, Issue> {
    let number = || {
        let number = value.as_f64().filter(|number| number.is_finite());
        number.ok_or_else(|| issue::wrong_type(&["value"], "number", value))
    };
    let text = || match value {
        Value::String(text) => Ok(xtrace_model::text::without_nul(text).into_owned()),
        other => Err(issue::wrong_type(&["value"], "string", other)),
    };
    match data_type {
        None if value.is_string() => value_of(value, Some("CATEGORICAL"), config),
        None | Some("NUMERIC") => Ok(ScoreValue::Numeric(number()?)),
        Some("BOOLEAN") => match number()? {
            0.0 => Ok(ScoreValue::Boolean(false)),
            1.0 => Ok(ScoreValue::Boolean(true)),
            _ => Err(issue::custom(
                &[json!("value")],
                "Boolean values must be 0 or 1",
            )),
        },
        Some("CATEGORICAL") => categorical(text()?, config),
        Some("TEXT") => {
            let text = text()?;
            match text.chars().count() {
                0 => Err(issue::short("value", 1)),
                chars if chars > TEXT_CHARS_MAX => Err(issue::long("value", TEXT_CHARS_MAX)),
                _ => Ok(ScoreValue::Text(text)),
            }
        }
        Some(_) => Ok(ScoreValue::Correction(text()?)),
    }
}

fn categorical(label: String, config: Option<&ScoreConfig>) -> Result<ScoreValue, Issue> {
    let categories = config.and_then(|config| config.categories.as_ref());
    let Some(categories) = categories else {
        return Ok(ScoreValue::Categorical(label, 0.0));
    };
    let known = categories.iter().find(|category| category.label == label);
    match known {
        Some(category) => Ok(ScoreValue::Categorical(label, category.value)),
        None => Err(issue::custom(
            &[json!("value")],
            "the value is none of the categories",
        )),
    }
}

/// Why a score breaks its configuration.
#[derive(Debug)]
pub(crate) enum ConfigFault {
    Missing,
    Broken(String),
}

impl std::fmt::Display for ConfigFault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => formatter.write_str(
                "The configId you provided does not match a valid config in this project",
            ),
            Self::Broken(why) => formatter.write_str(why),
        }
    }
}

impl From<ConfigFault> for CompatError {
    fn from(fault: ConfigFault) -> Self {
        match fault {
            ConfigFault::Missing => Self::NotFound(fault.to_string()),
            ConfigFault::Broken(why) => Self::BadRequest(why),
        }
    }
}

/// The scores, each held against its configuration.
pub(crate) async fn checked(
    store: &Store,
    project: &ProjectId,
    bodies: Vec<ScoreBody>,
) -> Result<Vec<Result<Score, ConfigFault>>, StoreError> {
    let mut ids: Vec<String> = bodies
        .iter()
        .filter_map(|body| body.config_id.clone())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let mut configs = HashMap::new();
    if !ids.is_empty() {
        let found = score_configs::find(store, project, &ids).await?;
        configs.extend(found.into_iter().map(|config| (config.id.clone(), config)));
    }
    let checked = bodies.into_iter().map(|body| {
        let config = body.config_id.as_ref().and_then(|id| configs.get(id));
        body.check(config)
    });
    Ok(checked.collect())
}

/// `POST /scores`: one score, or a list of them.
pub(crate) async fn create(
    State(compat): State<Compat>,
    ScoreProject(project, sender): ScoreProject,
    JsonBody(body): JsonBody,
) -> Result<Response, CompatError> {
    match body {
        Value::Array(items) => create_all(&compat, (project, sender), &items).await,
        single => create_one(&compat, (project, sender), &single).await,
    }
}

fn parse(value: &Value, sender: Sender) -> Result<ScoreBody, Issue> {
    let body = Object::of(value, "")?;
    if body.get("source").and_then(Value::as_str) == Some("EVAL") {
        return Err(issue::not_an_option("source", &["API", "ANNOTATION"]));
    }
    if let Some(odd) = body.sent("environment").filter(|value| !value.is_string()) {
        return Err(issue::wrong_type(&["environment"], "string", odd));
    }
    let hash = xxhash_rust::xxh3::xxh3_64(value.to_string().as_bytes());
    let now = time::from_utc(Utc::now());
    ScoreBody::parse(body, &When::now(now, hash).said_by(sender))
}

async fn create_one(
    compat: &Compat,
    (project, sender): (ProjectId, Sender),
    value: &Value,
) -> Result<Response, CompatError> {
    let body = parse(value, sender).map_err(CompatError::Invalid)?;
    let mut checked = checked(&compat.store, &project, vec![body]).await?;
    let score = checked.remove(0)?;
    let id = score.id.as_str().to_owned();
    submit(compat, project, vec![score]).await?;
    Ok(Json(json!({ "id": id })).into_response())
}

/// Each is taken or refused on its own; a client never sends a 207 again.
async fn create_all(
    compat: &Compat,
    (project, sender): (ProjectId, Sender),
    items: &[Value],
) -> Result<Response, CompatError> {
    if items.len() > SCORES_MAX {
        return Err(CompatError::BodyTooLarge(format!(
            "A request may have {SCORES_MAX} scores; send them in parts"
        )));
    }
    let mut bodies = Vec::new();
    let mut errors = Vec::new();
    let mut rejected = 0;
    let mut reject = |message: &dyn Fn() -> Value| {
        rejected += 1;
        if rejected <= WORDED_MAX {
            errors.push(json!({"message": message()}));
        }
    };
    for item in items {
        match parse(item, sender) {
            Ok(body) => bodies.push(body),
            Err(issue) => reject(&|| issue["message"].clone()),
        }
    }
    let mut scores = Vec::new();
    for checked in checked(&compat.store, &project, bodies).await? {
        match checked {
            Ok(score) => scores.push(score),
            Err(fault) => reject(&|| fault.to_string().into()),
        }
    }
    let accepted = scores.len();
    submit(compat, project, scores).await?;
    if rejected == 0 {
        let body = Json(json!({"message": "Accepted"}));
        return Ok((StatusCode::ACCEPTED, body).into_response());
    }
    let body = json!({"accepted": accepted, "rejected": rejected, "errors": errors});
    Ok((StatusCode::MULTI_STATUS, Json(body)).into_response())
}

async fn submit(
    compat: &Compat,
    project: ProjectId,
    scores: Vec<Score>,
) -> Result<(), CompatError> {
    let mut batch = Batch::new(project);
    batch.bytes = scores.len() * 1000;
    batch.scores = scores;
    let committed = compat.writer.submit(batch).await?;
    match committed.refused.first() {
        None => Ok(()),
        Some(id) => Err(CompatError::BadRequest(format!(
            "Score {id} holds a value that can't be stored"
        ))),
    }
}
