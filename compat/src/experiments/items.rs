//! `GET /experiment-items`.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use xtrace_model::{ProjectId, json as rules};
use xtrace_store::experiments::{self, ExperimentItem, ExperimentQuery};
use xtrace_store::filter::ExperimentItemColumn;
use xtrace_store::{Store, scores};

use super::{LIMIT_DEFAULT, LIMIT_MAX, conditions, groups, range, score_limit};
use crate::auth::Project;
use crate::cursor::{self, Cursor};
use crate::error::CompatError;
use crate::payload;
use crate::query::{Query, iso};
use crate::scores::v3;

const PARAMETERS: [(&str, ExperimentItemColumn); 4] = [
    ("experimentId", ExperimentItemColumn::ExperimentId),
    ("experimentName", ExperimentItemColumn::ExperimentName),
    ("experimentItemId", ExperimentItemColumn::ExperimentItemId),
    ("datasetId", ExperimentItemColumn::DatasetId),
];
const GROUPS: [&str; 7] = [
    "core",
    "dataset",
    "io",
    "metadata",
    "itemMetadata",
    "experimentMetadata",
    "scores",
];

/// `GET /experiment-items`.
pub(crate) async fn items(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Json<Value>, CompatError> {
    let (from, to) = range(&query)?;
    let groups = groups(&query, &GROUPS, &["core", "dataset"])?;
    let limit = query.whole_up_to("limit", LIMIT_DEFAULT, LIMIT_MAX)?;
    let score_limit = score_limit(&query)?;
    let after = match Cursor::versioned(&query)? {
        None => None,
        Some(cursor) => Some((
            cursor.time("lastTime")?,
            cursor.text("lastTraceId")?,
            cursor.text("lastId")?,
        )),
    };
    let wanted = ExperimentQuery {
        from,
        to,
        conditions: conditions(&query, &PARAMETERS)?,
        after,
        limit,
    };
    let mut rows = experiments::items(&store, &project, &wanted).await?;
    let mut meta = json!({});
    if let Some(last) = cursor::cut(&mut rows, limit) {
        let time = cursor::time(last.start_time);
        let position =
            json!({"v": 1, "lastTime": time, "lastTraceId": last.trace_id, "lastId": last.id});
        meta["cursor"] = cursor::encode(&position).into();
    }
    let mut data: Vec<Value> = rows.iter().map(|row| element(row, &groups)).collect();
    if groups.iter().any(|group| group == "scores") {
        let mut scores = scores_of(&store, &project, &rows, score_limit).await?;
        for (row, shown) in rows.iter().zip(&mut data) {
            let key = (row.trace_id.clone(), row.id.clone());
            shown["scores"] = scores.remove(&key).unwrap_or_default().into();
        }
    }
    Ok(Json(json!({"data": data, "meta": meta})))
}

fn element(item: &ExperimentItem, groups: &[String]) -> Value {
    let has = |group: &str| groups.iter().any(|wanted| wanted == group);
    let experiment = rules::parse(&item.experiment).unwrap_or_default();
    // Values of metadata may be JSON text within.
    let object = |name: &str| {
        let text = experiment.get(name)?.to_string();
        Some(payload::metadata(Some(&text), false))
    };
    let text = |name: &str| experiment[name].as_str().unwrap_or_default();
    let mut shown = json!({
        "id": item.id,
        "traceId": item.trace_id,
        "startTime": iso(item.start_time),
        "endTime": item.end_time.map(iso),
        "level": item.level,
        "environment": item.environment,
        "experimentId": text("id"),
        "experimentName": text("name"),
        "experimentItemId": text("itemId"),
    });
    if has("dataset") {
        shown["experimentDatasetId"] = experiment["datasetId"].clone();
        shown["experimentItemVersion"] = experiment["itemVersion"].clone();
    }
    if has("io") {
        let parsed = |text: Option<&str>| json!(payload::value(text));
        shown["input"] = parsed(item.input.as_deref());
        shown["output"] = parsed(item.output.as_deref());
        shown["expectedOutput"] = parsed(experiment["itemExpectedOutput"].as_str());
    }
    if has("metadata") {
        let metadata = payload::metadata(item.metadata.as_deref(), item.metadata_decoded);
        shown["metadata"] = Value::Object(metadata);
    }
    if has("itemMetadata") {
        shown["experimentItemMetadata"] = object("itemMetadata").into();
    }
    if has("experimentMetadata") {
        shown["experimentMetadata"] = object("metadata").into();
        shown["experimentDescription"] = experiment["description"].clone();
    }
    shown
}

/// Scores of items and of their traces as a whole.
async fn scores_of(
    store: &Store,
    project: &ProjectId,
    rows: &[ExperimentItem],
    limit: usize,
) -> Result<HashMap<(String, String), Vec<Value>>, CompatError> {
    let traces: Vec<String> = rows.iter().map(|row| row.trace_id.clone()).collect();
    let groups = ["core".to_owned(), "subject".to_owned()];
    let mut by_item: HashMap<(String, String), Vec<Value>> = HashMap::new();
    for score in scores::of_traces(store, project, &traces, &[]).await? {
        let is_of = |row: &&ExperimentItem| {
            score.trace_id.as_ref() == Some(&row.trace_id)
                && score.observation_id.as_ref().is_none_or(|id| *id == row.id)
        };
        for row in rows.iter().filter(is_of) {
            let key = (row.trace_id.clone(), row.id.clone());
            let of_item = by_item.entry(key).or_default();
            if of_item.len() < limit {
                of_item.push(v3::element(project, score.clone(), &groups));
            }
        }
    }
    Ok(by_item)
}
