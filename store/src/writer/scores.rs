//! Scores of a transaction, merged with those that are stored. Written after everything else and in
//! the order of their keys, so that writers can't wait for each other in a circle.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection};
use xtrace_model::score::{ScoreSource, ScoreValue, Subject};
use xtrace_model::{Batch, ProjectId, Score, ScoreId, time};

use super::insert::{Method, Rows};
use crate::StoreError;
use crate::stored::{MergeState, SCORE_COLUMNS, ScoreRow};

const COLUMNS: &[&str] = &[
    "project_id",
    "id",
    "trace_id",
    "observation_id",
    "session_id",
    "run_id",
    "name",
    "source",
    "data_type",
    "value",
    "string_value",
    "comment",
    "environment",
    "config_id",
    "queue_id",
    "execution_trace_id",
    "metadata",
    "ts",
    "merge_state",
    "created_at",
    "updated_at",
];

type Key<'a> = (&'a ProjectId, &'a ScoreId);

/// Writes the scores of all batches; how many are new or changed.
pub(super) async fn write(
    connection: &mut PgConnection,
    batches: &[&Batch],
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let came = combined(batches);
    if came.is_empty() {
        return Ok(0);
    }
    let mut known = read(connection, came.keys().copied()).await?;
    let mut new = Rows::new("scores", COLUMNS, Method::Insert);
    let mut replaced = Rows::new("scores", COLUMNS, Method::Insert);
    let mut count = 0;
    for ((project, id), score) in came {
        let name = (project.as_str().to_owned(), id.as_str().to_owned());
        let Some(row) = known.remove(&name) else {
            encode(&mut new, project, &score, now, now);
            count += 1;
            continue;
        };
        let (created_at, version) = (row.created_at, row.version.clone());
        let Some(stored) = row.into_score()? else {
            continue;
        };
        let mut merged = stored.clone();
        merged.merge(score);
        if merged != stored {
            encode(&mut replaced, project, &merged, created_at, now);
            replaced.text(Some(&version));
            count += 1;
        }
    }
    new.insert(connection).await?;
    // They are locked since they were read: none is missed.
    replaced.replace(connection).await?;
    Ok(count)
}

/// Parts of one score merge before the database sees them.
fn combined<'a>(batches: &[&'a Batch]) -> BTreeMap<Key<'a>, Score> {
    let mut scores: BTreeMap<Key<'a>, Score> = BTreeMap::new();
    for batch in batches {
        for score in &batch.scores {
            match scores.entry((&batch.project, &score.id)) {
                Entry::Occupied(mut known) => known.get_mut().merge(score.clone()),
                Entry::Vacant(new) => drop(new.insert(score.clone())),
            }
        }
    }
    scores
}

async fn read<'a>(
    connection: &mut PgConnection,
    keys: impl Iterator<Item = Key<'a>>,
) -> Result<HashMap<(String, String), ScoreRow>, StoreError> {
    let (projects, ids): (Vec<&str>, Vec<&str>) = keys
        .map(|(project, id)| (project.as_str(), id.as_str()))
        .unzip();
    let sql = format!(
        "select {SCORE_COLUMNS}
           from unnest($1::text[], $2::text[]) with ordinality k(project_id, id, at)
           join scores s on s.project_id = k.project_id and s.id = k.id order by k.at for update of s"
    );
    let rows: Vec<ScoreRow> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(projects)
        .bind(ids)
        .fetch_all(connection)
        .await?;
    let named = rows
        .into_iter()
        .map(|row| ((row.project_id.clone(), row.id.clone()), row));
    Ok(named.collect())
}

fn encode(
    rows: &mut Rows,
    project: &ProjectId,
    score: &Score,
    created_at: DateTime<Utc>,
    now: DateTime<Utc>,
) {
    let (trace, observation, session, run) = match score.subject.get() {
        Some(Subject::Trace {
            trace_id,
            observation_id,
        }) => (Some(trace_id), observation_id.as_ref(), None, None),
        Some(Subject::Session(id)) => (None, None, Some(id), None),
        Some(Subject::Run(id)) => (None, None, None, Some(id)),
        None => (None, None, None, None),
    };
    let value = score.value.get();
    rows.row()
        .text(Some(project.as_str()))
        .text(Some(score.id.as_str()))
        .text(trace.map(String::as_str))
        .text(observation.map(String::as_str))
        .text(session.map(String::as_str))
        .text(run.map(String::as_str))
        .text(Some(score.name.text().unwrap_or_default()))
        .text(Some(
            score.source.copied().unwrap_or(ScoreSource::Api).name(),
        ))
        .text(Some(value.map_or("NUMERIC", ScoreValue::data_type)))
        .float8(Some(value.map_or(0.0, ScoreValue::number)))
        .text(value.and_then(ScoreValue::text))
        .text(score.comment.text())
        .text(score.environment.text())
        .text(score.config_id.text())
        .text(score.queue_id.text())
        .text(score.execution_trace_id.text())
        .text(score.metadata.text())
        .time(Some(
            score
                .timestamp
                .copied()
                .unwrap_or_else(|| time::from_utc(now)),
        ))
        .text(Some(&MergeState::of_score(score).to_text()))
        .time(Some(time::from_utc(created_at)))
        .time(Some(time::from_utc(now)));
}
