//! Stored observations at today's prices: traces are locked, priced anew, and written where that differs.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use xtrace_model::{ProjectId, TraceId};

use super::changes::{self, ChangedObservation};
use super::combine::Group;
use super::flush;
use super::known;
use crate::{Store, StoreError};

/// Traces of one transaction.
const TRACES_MAX: i64 = 200;

/// Prices observations anew, of the project's traces that begin from the first time up to and not including
/// the second; how many had other costs.
pub async fn reprice(
    store: &Store,
    project: &ProjectId,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<u64, StoreError> {
    let mut changed = 0;
    let mut after = (from, String::new());
    loop {
        let traces: Vec<(DateTime<Utc>, String)> = sqlx::query_as(
            "select ts, id from traces where project_id = $1 and ts >= $2 and ts < $3 and (ts, id) > ($2, $4)
              order by ts, id limit $5",
        )
        .bind(project.as_str())
        .bind(after.0)
        .bind(to)
        .bind(&after.1)
        .bind(TRACES_MAX)
        .fetch_all(store.background())
        .await?;
        let Some(last) = traces.last().cloned() else {
            return Ok(changed);
        };
        after = last;
        let ids = traces.into_iter().map(|(_, id)| id);
        changed += some(store, project, ids.collect()).await?;
    }
}

async fn some(store: &Store, project: &ProjectId, ids: Vec<String>) -> Result<u64, StoreError> {
    let book = store.price_book(project).await?;
    let ids = ids.into_iter().filter_map(|id| TraceId::parse(id).ok());
    let ids: BTreeSet<TraceId> = ids.collect();
    let now = Utc::now();
    let mut transaction = store.write().begin().await?;
    let groups: Vec<_> = ids.iter().map(|id| Group::bare((project, id))).collect();
    let mut known = known::read(
        &mut transaction,
        &groups,
        known::Look::Readable,
        &BTreeSet::new(),
    )
    .await?;
    known::add_all_observations(&mut transaction, &groups, &mut known).await?;
    let mut written = Vec::new();
    for group in &groups {
        let Some(trace) = known.get_mut(&known::name(group.key())) else {
            continue;
        };
        let stored: BTreeMap<_, _> = std::mem::take(&mut trace.observations)
            .into_iter()
            .collect();
        let observations: Vec<ChangedObservation<'_>> = stored
            .into_values()
            .filter_map(|stored| changes::priced_anew(stored, &book))
            .collect();
        if !observations.is_empty() {
            let mut change = changes::unchanged(group, trace);
            change.observations = observations;
            written.push(change);
        }
    }
    let count = written
        .iter()
        .map(|change| change.observations.len() as u64)
        .sum();
    if count > 0 {
        flush::write_changes(&mut transaction, store.method(), &known, written, now).await?;
    }
    transaction.commit().await?;
    Ok(count)
}
