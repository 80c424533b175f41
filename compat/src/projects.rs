//! `GET /projects`: the caller's project. SDKs ask it to check their credentials.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use xtrace_store::{Store, projects};

use crate::auth::Project;
use crate::error::CompatError;

/// `GET /projects`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
) -> Result<Json<Value>, CompatError> {
    let found = projects::find(&store, &project).await?;
    let days = found.as_ref().and_then(|found| found.traces_retention_days);
    let (name, metadata) = found.map_or_else(
        || (project.to_string(), json!({})),
        |found| (found.name, found.metadata),
    );
    // There are no organizations here; clients require one.
    let organization = json!({"id": "xtrace", "name": "xtrace"});
    let mut row = json!({"id": project.as_str(), "name": name, "organization": organization, "metadata": metadata});
    if let Some(days) = days {
        row["retentionDays"] = days.into();
    }
    Ok(Json(json!({"data": [row]})))
}
