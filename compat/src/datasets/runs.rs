//! Runs over a dataset (langfuse-api 14.5).

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use xtrace_model::ProjectId;
use xtrace_store::Store;
use xtrace_store::dataset_runs::{self, Run};
use xtrace_store::datasets::Dataset;

use super::{named, run_items};
use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::error::CompatError;
use crate::payload;
use crate::query::{Name, PathNames, Query, iso, meta};

/// The id of a run: what Python's SDK 5 computes too, so that both kinds of clients mean the same run.
pub(super) fn run_id(project: &ProjectId, dataset_id: &str, name: &str) -> String {
    let parts = json!(["langfuse-experiment-v1", project.as_str(), dataset_id, name]);
    let digest = Sha256::digest(parts.to_string());
    let first = u64::from_be_bytes(std::array::from_fn(|at| digest[at]));
    format!("{first:016x}")
}

/// `GET /datasets/{name}/runs`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    name: Name,
    query: Query,
) -> Result<Answer, CompatError> {
    let page = query.page()?;
    let dataset = named(&store, &project, &name).await?;
    let found = dataset_runs::list(&store, &project, &dataset.id, page).await?;
    let meta = meta(page, found.total);
    let rows = found.rows.into_iter().map(|run| view(&run, &dataset));
    Ok(answer::page(rows, &meta))
}

/// `GET /datasets/{name}/runs/{run}`: with all that came of it.
pub(crate) async fn find(
    State(store): State<Store>,
    Project(project): Project,
    PathNames(dataset, run): PathNames,
) -> Result<Answer, CompatError> {
    let (dataset, run) = stored(&store, &project, &dataset, &run).await?;
    let items = dataset_runs::all_items(&store, &project, &run.id).await?;
    let items = items.into_iter();
    let items = items.map(|item| run_items::view(&item, &run.name));
    Ok(Answer::of(&view(&run, &dataset)).list("datasetRunItems", items))
}

/// `DELETE /datasets/{name}/runs/{run}`: traces stay.
pub(crate) async fn delete(
    State(store): State<Store>,
    Project(project): Project,
    PathNames(dataset, run): PathNames,
) -> Result<Json<Value>, CompatError> {
    let (_, run) = stored(&store, &project, &dataset, &run).await?;
    dataset_runs::delete(&store, &project, &run.id).await?;
    Ok(Json(json!({"message": "Dataset run successfully deleted"})))
}

async fn stored(
    store: &Store,
    project: &ProjectId,
    dataset: &Name,
    run: &Name,
) -> Result<(Dataset, Run), CompatError> {
    let missing = || CompatError::NotFound("Dataset run not found".to_owned());
    let dataset = named(store, project, dataset)
        .await
        .map_err(|error| match error {
            CompatError::NotFound(_) => missing(),
            other => other,
        })?;
    for name in run.readings() {
        let id = run_id(project, &dataset.id, &name);
        if let Some(run) = dataset_runs::find(store, project, &id).await? {
            return Ok((dataset, run));
        }
    }
    Err(missing())
}

fn view(run: &Run, dataset: &Dataset) -> Value {
    json!({
        "id": run.id,
        "name": run.name,
        "description": run.description,
        "metadata": run.metadata.as_deref().map_or_else(|| json!({}), payload::stored),
        "datasetId": run.dataset_id,
        "datasetName": dataset.name,
        "createdAt": iso(run.created_at),
        "updatedAt": iso(run.updated_at),
    })
}
