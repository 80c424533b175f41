//! `GET /experiments`.

use std::collections::HashMap;

use axum::extract::State;
use serde_json::{Value, json};
use xtrace_model::ProjectId;
use xtrace_store::experiments::{self, Experiment, ExperimentQuery};
use xtrace_store::filter::ExperimentColumn;
use xtrace_store::{Store, scores};

use super::{LIMIT_DEFAULT, LIMIT_MAX, conditions, groups, range, score_limit};
use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::cursor::{self, Cursor};
use crate::error::CompatError;
use crate::payload;
use crate::query::{Query, iso};
use crate::scores::v3;

const PARAMETERS: [(&str, ExperimentColumn); 3] = [
    ("id", ExperimentColumn::Id),
    ("name", ExperimentColumn::Name),
    ("datasetId", ExperimentColumn::DatasetId),
];

/// `GET /experiments`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    let (from, to) = range(&query)?;
    let groups = groups(&query, &["core", "metadata", "scores"], &["core"])?;
    let limit = query.whole_up_to("limit", LIMIT_DEFAULT, LIMIT_MAX)?;
    let score_limit = score_limit(&query)?;
    let after = match Cursor::versioned(&query)? {
        None => None,
        Some(cursor) => Some((cursor.time("lastTime")?, cursor.text("lastExperimentId")?)),
    };
    let wanted = ExperimentQuery {
        from,
        to,
        conditions: conditions(&query, &PARAMETERS)?,
        after,
        limit,
    };
    let found = experiments::list(&store, &project, &wanted).await?;
    let mut meta = json!({});
    if let Some(last) = found.last() {
        let time = cursor::time(last.last_start);
        let position = json!({"v": 1, "lastTime": time, "lastExperimentId": last.id});
        meta["cursor"] = cursor::encode(&position).into();
    }
    let has = |group: &str| groups.iter().any(|wanted| wanted == group);
    let mut scores = HashMap::new();
    if has("scores") {
        scores = scores_of(&store, &project, &found.rows, score_limit).await?;
    }
    let rows = found.rows.into_iter().map(|row| {
        let mut shown = element(&row);
        if has("metadata") {
            let metadata = row.metadata.as_deref();
            shown["metadata"] = metadata
                .map(|text| payload::metadata(Some(text), false))
                .into();
        }
        if has("scores") {
            shown["scores"] = scores.remove(&row.id).unwrap_or_default().into();
        }
        shown
    });
    Ok(answer::page(rows, &meta))
}

fn element(experiment: &Experiment) -> Value {
    json!({
        "id": experiment.id,
        "name": experiment.name.as_deref().unwrap_or_default(),
        "description": experiment.description,
        "startTime": iso(experiment.start_time),
        "endTime": iso(experiment.end_time),
        "itemCount": experiment.item_count,
        "datasetId": experiment.dataset_id,
    })
}

/// Scores of whole experiments.
async fn scores_of(
    store: &Store,
    project: &ProjectId,
    rows: &[Experiment],
    limit: usize,
) -> Result<HashMap<String, Vec<Value>>, CompatError> {
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    let groups = ["core".to_owned(), "subject".to_owned()];
    let mut by_run: HashMap<String, Vec<Value>> = HashMap::new();
    for score in scores::of_runs(store, project, &ids).await? {
        let of_run = by_run
            .entry(score.run_id.clone().unwrap_or_default())
            .or_default();
        if of_run.len() < limit {
            of_run.push(v3::element(project, score, &groups));
        }
    }
    Ok(by_run)
}
