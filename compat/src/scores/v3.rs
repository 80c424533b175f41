//! `GET /v3/scores`: strict, by cursor, values of their own type (langfuse-api 10.5).

use axum::extract::State;
use serde_json::{Map, Value, json};
use xtrace_model::ProjectId;
use xtrace_store::Store;
use xtrace_store::filter::{Condition, Order, ScoreColumn, Test};
use xtrace_store::scores::{self, ScoreView};

use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::cursor::{self, Cursor};
use crate::error::{CompatError, issue};
use crate::payload;
use crate::query::{Query, iso};

const LIMIT_DEFAULT: i64 = 50;
const LIMIT_MAX: i64 = 100;
/// Parameters that name several values, with what they name.
const LISTS: [(&str, ScoreColumn); 9] = [
    ("id", ScoreColumn::Id),
    ("name", ScoreColumn::Name),
    ("environment", ScoreColumn::Environment),
    ("configId", ScoreColumn::ConfigId),
    ("queueId", ScoreColumn::QueueId),
    ("authorUserId", ScoreColumn::AuthorUserId),
    ("traceId", ScoreColumn::TraceId),
    ("sessionId", ScoreColumn::SessionId),
    ("observationId", ScoreColumn::ObservationId),
];
const OTHERS: [&str; 13] = [
    "limit",
    "cursor",
    "fields",
    "source",
    "dataType",
    "value",
    "valueMin",
    "valueMax",
    "experimentId",
    "fromTimestamp",
    "toTimestamp",
    "userId",
    "traceTags",
];
const GROUPS: [&str; 4] = ["core", "details", "annotation", "subject"];
const TYPES: [&str; 5] = ["NUMERIC", "CATEGORICAL", "BOOLEAN", "TEXT", "CORRECTION"];
const SOURCES: [&str; 3] = ["API", "EVAL", "ANNOTATION"];

/// `GET /v3/scores`.
pub(crate) async fn list_v3(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    check_names(&query)?;
    let groups = groups(&query)?;
    let limit = query.whole_up_to("limit", LIMIT_DEFAULT, LIMIT_MAX)?;
    let conditions = conditions(&query)?;
    let before = match Cursor::versioned(&query)? {
        None => None,
        Some(cursor) => Some((cursor.time("lastTimestamp")?, cursor.text("lastId")?)),
    };
    let found = scores::list_before(&store, &project, &conditions, before.as_ref(), limit).await?;
    let mut meta = json!({ "limit": limit });
    if let Some(last) = found.last() {
        let time = cursor::time(last.ts);
        let position = json!({"v": 1, "lastTimestamp": time, "lastId": last.id});
        meta["cursor"] = cursor::encode(&position).into();
    }
    let rows = found.rows.into_iter();
    let rows = rows.map(|row| element(&project, row, &groups));
    Ok(answer::page(rows, &meta))
}

fn bad(message: impl Into<String>) -> CompatError {
    CompatError::BadRequest(message.into())
}

fn check_names(query: &Query) -> Result<(), CompatError> {
    let lists = LISTS.iter().map(|(list, _)| *list);
    let known: Vec<&str> = OTHERS.into_iter().chain(lists).collect();
    query.only(&known)?;
    if ["userId", "traceTags"]
        .iter()
        .any(|name| !query.list(name).is_empty())
    {
        return Err(bad(
            "userId and traceTags are not supported here. Use v2 (GET /api/public/v2/scores) to filter by trace properties.",
        ));
    }
    Ok(())
}

fn groups(query: &Query) -> Result<Vec<String>, CompatError> {
    let groups = query.list("fields");
    match groups
        .iter()
        .find(|group| !GROUPS.contains(&group.as_str()))
    {
        Some(_) => Err(CompatError::Invalid(issue::not_an_option(
            "fields", &GROUPS,
        ))),
        None => Ok(groups),
    }
}

/// Options in any case; unknown ones are refused.
fn options(query: &Query, name: &str, known: &[&'static str]) -> Result<Vec<String>, CompatError> {
    let upper = |text: String| text.to_uppercase();
    let options: Vec<String> = query.list(name).into_iter().map(upper).collect();
    if options.iter().all(|one| known.contains(&one.as_str())) {
        return Ok(options);
    }
    Err(CompatError::Invalid(issue::not_an_option(name, known)))
}

fn conditions(query: &Query) -> Result<Vec<Condition<ScoreColumn>>, CompatError> {
    let any = |column, values: Vec<String>| Condition::new(column, Test::OneOf(values, false));
    let has = |name: &str| !query.list(name).is_empty();
    if has("observationId") && !has("traceId") {
        return Err(bad("observationId requires traceId"));
    }
    let subjects = ["traceId", "sessionId", "experimentId"];
    if subjects.iter().filter(|name| has(name)).count() > 1 {
        return Err(bad(
            "traceId, sessionId and experimentId are mutually exclusive",
        ));
    }
    let mut conditions = Vec::new();
    for (name, column) in LISTS {
        if has(name) {
            conditions.push(any(column, query.list(name)));
        }
    }
    if has("experimentId") {
        conditions.push(any(ScoreColumn::DatasetRunId, query.list("experimentId")));
    }
    let sources = options(query, "source", &SOURCES)?;
    if !sources.is_empty() {
        conditions.push(any(ScoreColumn::Source, sources));
    }
    let types = options(query, "dataType", &TYPES)?;
    conditions.extend(values(query, &types)?);
    if !types.is_empty() {
        conditions.push(any(ScoreColumn::DataType, types));
    }
    let range = [
        ("fromTimestamp", Order::AtLeast),
        ("toTimestamp", Order::Less),
    ];
    for (name, order) in range {
        let time = query.lenient_time(name)?;
        let condition = |time| Condition::new(ScoreColumn::Timestamp, Test::Time(order, time));
        conditions.extend(time.map(condition));
    }
    Ok(conditions)
}

/// Values are those of one type.
fn values(query: &Query, types: &[String]) -> Result<Vec<Condition<ScoreColumn>>, CompatError> {
    let mut conditions = Vec::new();
    let wanted = query.list("value");
    if !wanted.is_empty() {
        let test = match types {
            [one] if one == "NUMERIC" => {
                let numbers: Option<Vec<f64>> = wanted.iter().map(|text| finite(text)).collect();
                let numbers = numbers.ok_or_else(|| bad("value must be numbers"))?;
                Condition::new(ScoreColumn::Value, Test::NumberOneOf(numbers))
            }
            [one] if one == "BOOLEAN" => {
                let truths: Option<Vec<f64>> = wanted.iter().map(|text| truth(text)).collect();
                let truths = truths.ok_or_else(|| bad("value must be true or false"))?;
                Condition::new(ScoreColumn::Value, Test::NumberOneOf(truths))
            }
            [one] if one == "CATEGORICAL" => {
                Condition::new(ScoreColumn::StringValue, Test::OneOf(wanted, false))
            }
            _ => {
                return Err(bad(
                    "value requires exactly one dataType of NUMERIC, BOOLEAN or CATEGORICAL",
                ));
            }
        };
        conditions.push(test);
    }
    for (name, order) in [("valueMin", Order::AtLeast), ("valueMax", Order::AtMost)] {
        let Some(text) = query.text(name).filter(|text| !text.is_empty()) else {
            continue;
        };
        if types != ["NUMERIC"] {
            return Err(bad("valueMin and valueMax require dataType=NUMERIC"));
        }
        let number = finite(text).ok_or_else(|| CompatError::Invalid(issue::not_a_number(name)))?;
        conditions.push(Condition::new(
            ScoreColumn::Value,
            Test::Number(order, number),
        ));
    }
    Ok(conditions)
}

fn finite(text: &str) -> Option<f64> {
    text.trim()
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
}

fn truth(text: &str) -> Option<f64> {
    match text {
        "true" => Some(1.0),
        "false" => Some(0.0),
        _ => None,
    }
}

pub(crate) fn element(project: &ProjectId, score: ScoreView, groups: &[String]) -> Value {
    let wants = |group: &str| groups.iter().any(|wanted| wanted == group);
    let value = match score.data_type.as_str() {
        "NUMERIC" => json!(score.value),
        "BOOLEAN" => json!(score.value != 0.0),
        _ => json!(score.string_value.clone().unwrap_or_default()),
    };
    let mut element = json!({
        "id": score.id,
        "projectId": project.as_str(),
        "name": score.name,
        "dataType": score.data_type,
        "value": value,
        "source": score.source,
        "timestamp": iso(score.ts),
        "environment": score.environment,
        "createdAt": iso(score.created_at),
        "updatedAt": iso(score.updated_at),
    });
    if wants("details") {
        element["comment"] = score.comment.clone().into();
        element["configId"] = score.config_id.clone().into();
        let metadata: Map<String, Value> = payload::metadata_of_any(score.metadata.as_deref());
        element["metadata"] = Value::Object(metadata);
    }
    if wants("annotation") {
        element["authorUserId"] = Value::Null;
        element["queueId"] = score.queue_id.clone().into();
    }
    if wants("subject") {
        element["subject"] = subject(&score);
    }
    element
}

fn subject(score: &ScoreView) -> Value {
    match (&score.run_id, &score.observation_id, &score.session_id) {
        (Some(run), ..) => json!({"kind": "experiment", "id": run}),
        (None, Some(observation), _) => {
            json!({"kind": "observation", "id": observation, "traceId": score.trace_id})
        }
        (None, None, Some(session)) => json!({"kind": "session", "id": session}),
        (None, None, None) => json!({"kind": "trace", "id": score.trace_id}),
    }
}
