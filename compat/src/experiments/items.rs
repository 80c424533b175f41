//! `GET /experiment-items`.

use std::collections::HashMap;

use axum::extract::State;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use xtrace_model::{ProjectId, json as rules};
use xtrace_store::experiments::{self, ExperimentItem, ExperimentQuery};
use xtrace_store::filter::ExperimentItemColumn;
use xtrace_store::{Store, scores};

use super::{LIMIT_DEFAULT, LIMIT_MAX, conditions, groups, range, score_limit};
use crate::answer::{self, Answer};
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
) -> Result<Answer, CompatError> {
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
    let found = experiments::items(&store, &project, &wanted).await?;
    let mut meta = json!({});
    if let Some(last) = found.last() {
        let time = cursor::time(last.start_time);
        let position =
            json!({"v": 1, "lastTime": time, "lastTraceId": last.trace_id, "lastId": last.id});
        meta["cursor"] = cursor::encode(&position).into();
    }
    let with_scores = groups.iter().any(|group| group == "scores");
    let mut scores = HashMap::new();
    if with_scores {
        scores = scores_of(&store, &project, &found.rows, score_limit).await?;
    }
    let rows = found.rows.into_iter().map(|row| {
        let mut shown = element(&row, &groups);
        if with_scores {
            let key = (row.trace_id, row.id);
            shown.rest["scores"] = scores.remove(&key).unwrap_or_default().into();
        }
        shown
    });
    Ok(answer::page(rows, &meta))
}

/// An item; what was said to the model and by it is never taken apart.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    rest: Value,
    #[serde(flatten)]
    io: Option<Io>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Io {
    input: Box<RawValue>,
    output: Box<RawValue>,
    expected_output: Box<RawValue>,
}

fn element(item: &ExperimentItem, groups: &[String]) -> Shown {
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
    let io = has("io").then(|| Io {
        input: payload::value(item.input.as_deref()),
        output: payload::value(item.output.as_deref()),
        expected_output: payload::value(experiment["itemExpectedOutput"].as_str()),
    });
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
    Shown { rest: shown, io }
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
