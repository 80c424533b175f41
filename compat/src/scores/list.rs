//! `GET /scores`, `GET /v2/scores`, one score, and its end.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use xtrace_model::ProjectId;
use xtrace_store::Store;
use xtrace_store::filter::{Condition, Order, ScoreColumn, Test};
use xtrace_store::scores::{self, Scope};

use super::view::{Score, Version};
use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::error::{CompatError, issue};
use crate::filter;
use crate::query::{PathId, Query, meta};

const TYPES: [&str; 5] = ["NUMERIC", "CATEGORICAL", "BOOLEAN", "TEXT", "CORRECTION"];
const OPERATORS: [(&str, Order); 6] = [
    ("<", Order::Less),
    (">", Order::Greater),
    ("<=", Order::AtMost),
    (">=", Order::AtLeast),
    ("!=", Order::NotEqual),
    ("=", Order::Equal),
];

/// `GET /scores`.
pub(crate) async fn list_v1(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    list(&store, project, &query, Version::V1, true).await
}

/// `GET /v2/scores`.
pub(crate) async fn list_v2(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    let groups = query.list("fields");
    let with_trace = groups.is_empty() || groups.iter().any(|group| group == "trace");
    if !groups.is_empty() && !groups.iter().any(|group| group == "score") {
        return Err(CompatError::BadRequest(
            "Scores needs to be selected always.".to_owned(),
        ));
    }
    let of_trace = query.text("userId").is_some() || !query.list("traceTags").is_empty();
    if of_trace && !with_trace {
        return Err(CompatError::BadRequest(
            "Cannot filter by trace properties unless 'trace' field group is included.".to_owned(),
        ));
    }
    list(&store, project, &query, Version::V2, with_trace).await
}

async fn list(
    store: &Store,
    project: ProjectId,
    query: &Query,
    version: Version,
    with_trace: bool,
) -> Result<Answer, CompatError> {
    let page = query.page()?;
    let mut simple = conditions(query, version)?;
    let advanced = filter::parse(query)?;
    // What is asked of the trace stays beside any filter.
    let kept = of_trace(query);
    simple.retain(|condition| !kept.iter().any(|other| other.column == condition.column));
    let mut conditions = filter::with_simple(advanced, simple);
    conditions.extend(kept);
    let scope = match version {
        Version::V1 => Scope::OfTraces,
        Version::V2 => Scope::All,
    };
    let found = scores::list(store, &project, scope, &conditions, page).await?;
    let meta = meta(page, found.total);
    let rows = found.rows.into_iter();
    let rows = rows.map(|row| Score::listed(&project, row, version, with_trace));
    Ok(answer::page(rows, &meta))
}

/// Conditions on the score's trace.
fn of_trace(query: &Query) -> Vec<Condition<ScoreColumn>> {
    let mut conditions = Vec::new();
    let user = query.text("userId");
    conditions.extend(user.map(|user| Condition::equals(ScoreColumn::UserId, user)));
    let tags = query.list("traceTags");
    if !tags.is_empty() {
        conditions.push(Condition::new(
            ScoreColumn::TraceTags,
            Test::ContainsAll(tags),
        ));
    }
    // Of scores of a user's or of tagged traces, the environment is the trace's too.
    let environments = query.list("environment");
    if !conditions.is_empty() && !environments.is_empty() {
        let test = Test::OneOf(environments, false);
        conditions.push(Condition::new(ScoreColumn::TraceEnvironment, test));
    }
    conditions
}

fn conditions(query: &Query, version: Version) -> Result<Vec<Condition<ScoreColumn>>, CompatError> {
    let mut conditions = Vec::new();
    let mut equal = vec![
        ("name", ScoreColumn::Name),
        ("configId", ScoreColumn::ConfigId),
        ("queueId", ScoreColumn::QueueId),
    ];
    let mut any_of = vec![
        ("environment", ScoreColumn::Environment),
        ("scoreIds", ScoreColumn::Id),
    ];
    if version == Version::V2 {
        equal.extend([
            ("sessionId", ScoreColumn::SessionId),
            ("traceId", ScoreColumn::TraceId),
            ("datasetRunId", ScoreColumn::DatasetRunId),
        ]);
        any_of.push(("observationId", ScoreColumn::ObservationId));
    }
    for (name, column) in equal {
        let text = query.text(name);
        conditions.extend(text.map(|text| Condition::equals(column, text)));
    }
    for (name, column) in any_of {
        let values = query.list(name);
        if !values.is_empty() {
            conditions.push(Condition::new(column, Test::OneOf(values, false)));
        }
    }
    let named = [
        ("dataType", ScoreColumn::DataType, &TYPES[..]),
        (
            "source",
            ScoreColumn::Source,
            &["API", "EVAL", "ANNOTATION"][..],
        ),
    ];
    for (name, column, options) in named {
        let option = query.option(name, options)?;
        conditions.extend(option.map(|option| Condition::equals(column, option)));
    }
    let range = [
        ("fromTimestamp", Order::AtLeast),
        ("toTimestamp", Order::Less),
    ];
    for (name, order) in range {
        let time = query.time(name)?;
        let condition = |time| Condition::new(ScoreColumn::Timestamp, Test::Time(order, time));
        conditions.extend(time.map(condition));
    }
    conditions.extend(value(query)?);
    Ok(conditions)
}

/// `value` and `operator` mean something together alone.
fn value(query: &Query) -> Result<Option<Condition<ScoreColumn>>, CompatError> {
    let names = OPERATORS.map(|(name, _)| name);
    let operator = query.option("operator", &names)?;
    let value = match query.text("value").filter(|text| !text.is_empty()) {
        Some(text) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Some(number),
            _ => return Err(CompatError::Invalid(issue::not_a_number("value"))),
        },
        None => None,
    };
    let order = operator.and_then(|name| OPERATORS.iter().find(|(known, _)| *known == name));
    Ok(order
        .zip(value)
        .map(|((_, order), value)| Condition::new(ScoreColumn::Value, Test::Number(*order, value))))
}

/// `GET /scores/{id}`: corrections are not known here.
pub(crate) async fn find_v1(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
) -> Result<Json<Score>, CompatError> {
    let found = scores::find(&store, &project, &id).await?;
    let found = found.filter(|score| score.data_type != "CORRECTION" && score.trace_id.is_some());
    let score = found.ok_or_else(missing)?;
    Ok(Json(Score::new(&project, score, Version::V1)))
}

/// `GET /v2/scores/{id}`.
pub(crate) async fn find_v2(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
) -> Result<Json<Score>, CompatError> {
    let score = scores::find(&store, &project, &id).await?;
    let score = score.ok_or_else(missing)?;
    Ok(Json(Score::new(&project, score, Version::V2)))
}

fn missing() -> CompatError {
    CompatError::NotFound("Score not found".to_owned())
}

/// `DELETE /scores/{id}`: an unknown one is gone already.
pub(crate) async fn delete(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
) -> Result<(StatusCode, Json<Value>), CompatError> {
    scores::delete(&store, &project, &id).await?;
    let body = json!({"message": "Score deletion queued successfully"});
    Ok((StatusCode::ACCEPTED, Json(body)))
}
