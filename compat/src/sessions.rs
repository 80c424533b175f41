//! `GET /sessions` and one session with its traces.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use xtrace_model::time::to_utc;
use xtrace_store::sessions::{self, SessionQuery, SessionView};
use xtrace_store::{Store, traces};

use crate::answer::Answer;
use crate::auth::Project;
use crate::error::CompatError;
use crate::query::{PathId, Query, iso, meta};
use crate::traces::bare;

/// `GET /sessions`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Json<Value>, CompatError> {
    let page = query.page()?;
    let wanted = SessionQuery {
        from: query.time("fromTimestamp")?.map(to_utc),
        to: query.time("toTimestamp")?.map(to_utc),
        environments: query.list("environment"),
    };
    let found = sessions::list(&store, &project, &wanted, page).await?;
    let rows = found.rows.iter();
    let data: Vec<Value> = rows.map(|row| session(row, project.as_str())).collect();
    Ok(Json(json!({"data": data, "meta": meta(page, found.total)})))
}

/// `GET /sessions/{id}`.
pub(crate) async fn find(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
) -> Result<Answer, CompatError> {
    let found = sessions::find(&store, &project, &id).await?;
    let found = found.ok_or_else(|| {
        CompatError::NotFound("Session not found within authorized project".to_owned())
    })?;
    let traces = traces::of_session(&store, &project, &id).await?;
    let traces = traces.into_iter().map(|view| bare(&project, view));
    Ok(Answer::of(&session(&found, project.as_str())).list("traces", traces))
}

fn session(view: &SessionView, project: &str) -> Value {
    json!({
        "id": view.id,
        "createdAt": iso(view.created_at),
        "projectId": project,
        "environment": view.environment,
    })
}
