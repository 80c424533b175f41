//! Stored rows as JSON, in the shape that `expected.json` has.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::series;
use crate::harness::Xtrace;

/// All rows of a project: `traces` and `observations`, and `scores` and `series` if there are any.
pub(super) async fn dump(xtrace: &Xtrace, project: &str) -> Map<String, Value> {
    let mut connection = xtrace.sql().await;
    let mut dump = Map::new();
    dump.insert(
        "traces".to_owned(),
        rows(&mut connection, project, TRACES, trace).await,
    );
    let observations = rows(&mut connection, project, OBSERVATIONS, observation).await;
    dump.insert("observations".to_owned(), observations);
    let scores = rows(&mut connection, project, SCORES, score).await;
    if scores != json!([]) {
        dump.insert("scores".to_owned(), scores);
    }
    let series = series::dump(xtrace, &mut connection, project).await;
    if !series.is_empty() {
        dump.insert("series".to_owned(), series.into());
    }
    dump
}

const TRACES: &str =
    "select *, metadata::text as metadata_text from traces where project_id = $1 order by id";
const OBSERVATIONS: &str =
    "select *, metadata::text as metadata_text, usage_details::text as usage_text,
        sent_costs::text as sent_text, cost_details::text as cost_text,
        experiment::text as experiment_text
   from observations where project_id = $1 order by trace_id, start_time, id";
const SCORES: &str = "select * from scores where project_id = $1 order by trace_id, id";
async fn rows(
    connection: &mut PgConnection,
    project: &str,
    sql: &'static str,
    shape: fn(&PgRow) -> Value,
) -> Value {
    let rows = sqlx::query(sql)
        .bind(project)
        .fetch_all(connection)
        .await
        .unwrap();
    Value::Array(rows.iter().map(shape).collect())
}

fn text(row: &PgRow, column: &str) -> Option<String> {
    row.get(column)
}

fn time(row: &PgRow, column: &str) -> Option<String> {
    let time: Option<DateTime<Utc>> = row.get(column);
    time.map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// JSON text of an object, array or string is shown parsed, any other text as it is.
fn unfolded(text: Option<String>) -> Value {
    let Some(text) = text else { return Value::Null };
    let parsed = if text.starts_with(['{', '[', '"']) {
        serde_json::from_str(&text).ok()
    } else {
        None
    };
    parsed.unwrap_or(Value::String(text))
}

fn parsed(row: &PgRow, column: &str) -> Value {
    text(row, column).map_or(json!({}), |text| serde_json::from_str(&text).unwrap())
}

fn metadata(row: &PgRow) -> Value {
    let Value::Object(members) = parsed(row, "metadata_text") else {
        return json!({});
    };
    let unfold = |value: Value| match value {
        Value::String(text) => unfolded(Some(text)),
        other => other,
    };
    Value::Object(
        members
            .into_iter()
            .map(|(key, value)| (key, unfold(value)))
            .collect(),
    )
}

fn trace(row: &PgRow) -> Value {
    json!({
        "id": text(row, "id"),
        "timestamp": time(row, "ts"),
        "endTime": time(row, "last_end"),
        "name": text(row, "name"),
        "userId": text(row, "user_id"),
        "sessionId": text(row, "session_id"),
        "release": text(row, "release"),
        "version": text(row, "version"),
        "environment": text(row, "environment"),
        "externalId": text(row, "external_id"),
        "tags": row.get::<Vec<String>, _>("tags"),
        "public": row.get::<Option<bool>, _>("public").unwrap_or(false),
        "bookmarked": row.get::<Option<bool>, _>("bookmarked").unwrap_or(false),
        "input": unfolded(text(row, "input")),
        "output": unfolded(text(row, "output")),
        "metadata": metadata(row),
        "sentLatency": row.get::<Option<f64>, _>("sent_latency"),
        "sentTotalCost": row.get::<Option<f64>, _>("sent_total_cost"),
    })
}

fn observation(row: &PgRow) -> Value {
    let mut json = json!({
        "id": text(row, "id"),
        "traceId": text(row, "trace_id"),
        "parentObservationId": text(row, "parent_id"),
        "type": text(row, "type"),
        "name": text(row, "name"),
        "startTime": time(row, "start_time"),
        "endTime": time(row, "end_time"),
        "completionStartTime": time(row, "completion_start_time"),
        "level": text(row, "level"),
        "statusMessage": text(row, "status_message"),
        "version": text(row, "version"),
        "environment": text(row, "environment"),
        "model": text(row, "model"),
        "modelParameters": parsed(row, "model_parameters"),
        "promptName": text(row, "prompt_name"),
        "promptVersion": row.get::<Option<i32>, _>("prompt_version"),
        "usageDetails": parsed(row, "usage_text"),
        "costDetails": parsed(row, "sent_text"),
        "input": unfolded(text(row, "input")),
        "output": unfolded(text(row, "output")),
        "metadata": metadata(row),
    });
    if text(row, "sent_text").is_none() && text(row, "cost_text").is_some() {
        json["computedCostDetails"] = parsed(row, "cost_text");
    }
    if let Some(tools) = text(row, "tool_definitions") {
        json["toolDefinitions"] = unfolded(Some(tools));
    }
    if let Some(experiment) = text(row, "experiment_text") {
        json["experiment"] = unfolded(Some(experiment));
    }
    if let Some(sent) = text(row, "sent") {
        json["sent"] = unfolded(Some(sent));
    }
    if let Some(Value::Object(mut otel)) = text(row, "otel").map(|otel| unfolded(Some(otel))) {
        for (member, name) in [
            ("attributes", "attributes"),
            ("resource", "resourceAttributes"),
            ("scope", "scope"),
        ] {
            json[name] = otel.shift_remove(member).unwrap_or_default();
        }
        json["otel"] = Value::Object(otel);
    }
    json
}

fn score(row: &PgRow) -> Value {
    json!({
        "id": text(row, "id"),
        "traceId": text(row, "trace_id"),
        "observationId": text(row, "observation_id"),
        "sessionId": text(row, "session_id"),
        "datasetRunId": text(row, "run_id"),
        "name": text(row, "name"),
        "source": text(row, "source"),
        "dataType": text(row, "data_type"),
        "value": row.get::<f64, _>("value"),
        "stringValue": text(row, "string_value"),
        "comment": text(row, "comment"),
        "environment": text(row, "environment"),
        "configId": text(row, "config_id"),
        "queueId": text(row, "queue_id"),
        "metadata": unfolded(text(row, "metadata")),
        "timestamp": time(row, "ts"),
    })
}
