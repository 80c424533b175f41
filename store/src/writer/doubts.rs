//! Traces whose times are in doubt: in the background all of their observations are looked at, which holds
//! nobody up; see [`super::sums::Doubt`].

use std::collections::BTreeSet;
use std::time::Instant;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use xtrace_model::{ProjectId, TraceId};

use super::changes::{self, Change};
use super::combine::{Group, TraceKey};
use super::known::{self, Look};
use super::sums::{self, Times};
use super::{flush, insert};
use crate::background::Pulse;
use crate::{Store, StoreError};

/// Traces that one round looks at.
const TRACES_MAX: i64 = 100;

/// Notes the traces that are to be looked at.
pub(super) async fn mark(
    connection: &mut PgConnection,
    changes: &[Change<'_>],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let doubtful = changes
        .iter()
        .filter(|change| change.rollup.doubt.is_some());
    let keys: Vec<_> = doubtful.map(Change::key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let (projects, ids): (Vec<&str>, Vec<&str>) = keys
        .iter()
        .map(|(project, id)| (project.as_str(), id.as_str()))
        .unzip();
    sqlx::query(
        "insert into trace_doubts (project_id, trace_id, marked_at)
         select k.project_id, k.id, $3 from unnest($1::text[], $2::text[]) k(project_id, id)
             on conflict do nothing",
    )
    .bind(projects)
    .bind(ids)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Looks at the traces that were noted, one of every project before the next of any; the first failure.
pub async fn settle_doubts(store: &Store, pulse: &Pulse) -> Result<(), StoreError> {
    let noted: Vec<(String, String)> = sqlx::query_as(
        "select project_id, trace_id from trace_doubts
          order by row_number() over (partition by project_id order by marked_at), project_id limit $1",
    )
    .bind(TRACES_MAX)
    .fetch_all(store.background())
    .await?;
    let mut outcome = Ok(());
    for (project, id) in noted {
        let began = Instant::now();
        let (Ok(project), Ok(id)) = (ProjectId::parse(project), TraceId::parse(id)) else {
            continue;
        };
        let settled = settle(store, (&project, &id)).await;
        outcome = outcome.and(settled);
        pulse.alive();
        // Half of the time belongs to others.
        tokio::time::sleep(began.elapsed()).await;
    }
    outcome
}

/// Looks at one trace. If another observation moves meanwhile, it stays noted.
async fn settle(store: &Store, key: TraceKey<'_>) -> Result<(), StoreError> {
    let mut connection = store.background().acquire().await?;
    let before = sums::read(&mut connection, &[key]).await?.pop();
    let doubt = before.and_then(|(_, sums)| Some((sums.rollup.doubt.clone()?, sums.rollup)));
    let mut found = None;
    if let Some((doubt, rollup)) = doubt {
        // A statement that begins after the doubt was read: what it doesn't see is added to the doubt.
        let times: Times = sqlx::query_as(
            "select min(start_time) as first_start, max(start_time) as last_start, max(end_time) as last_end
               from observations where project_id = $1 and trace_id = $2 and start_time between $3 and $4",
        )
        .bind(key.0.as_str())
        .bind(key.1.as_str())
        .bind(rollup.first_start)
        .bind(rollup.last_start)
        .fetch_one(&mut *connection)
        .await?;
        found = Some((doubt.number, times)).filter(|(_, times)| times.are_known());
    }
    drop(connection);
    finish(store, key, found).await
}

async fn finish(
    store: &Store,
    key: TraceKey<'_>,
    found: Option<(i64, Times)>,
) -> Result<(), StoreError> {
    let now = Utc::now();
    let mut transaction = store.write().begin().await?;
    let group = Group::bare(key);
    let known = known::read(
        &mut transaction,
        std::slice::from_ref(&group),
        Look::Readable,
        &BTreeSet::new(),
    )
    .await?;
    let stored = sums::read(&mut transaction, &[key]).await?.pop();
    let doubt = stored
        .as_ref()
        .and_then(|(_, sums)| sums.rollup.doubt.as_ref());
    let sql = match (&found, doubt) {
        (_, None) => FORGET,
        (Some((number, _)), Some(doubt)) if doubt.number == *number => FORGET,
        _ => PUT_OFF,
    };
    if let (FORGET, Some(_), Some((_, times))) = (sql, doubt, found)
        && let (Some(trace), Some((_, sums))) = (known.get(&known::name(key)), stored)
    {
        let mut change = changes::unchanged(&group, trace);
        change.rollup = sums.rollup;
        change.rollup.resolve(&times);
        flush::write_traces(&mut transaction, insert::Method::Insert, &[change], now).await?;
    }
    sqlx::query(sql)
        .bind(key.0.as_str())
        .bind(key.1.as_str())
        .bind(now)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

const FORGET: &str =
    "delete from trace_doubts where project_id = $1 and trace_id = $2 and marked_at <= $3";
const PUT_OFF: &str =
    "update trace_doubts set marked_at = $3 where project_id = $1 and trace_id = $2";
