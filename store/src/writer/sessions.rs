//! Rows of sessions, made before everything else of a transaction and in order of their keys. The triggers on
//! `traces` make them too, but statement by statement: two writers, each with a new session that the other's
//! next statement needs, would wait for each other.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use xtrace_model::ProjectId;

use super::changes::Change;
use crate::StoreError;

/// Sessions that are remembered at most.
const KNOWN_MAX: usize = 50_000;
/// Longer names have no row: an entry of an index would not hold them. The triggers' rule.
const NAME_BYTES_MAX: usize = 2000;

/// A session of a project.
pub(super) type Key = (ProjectId, String);

/// Sessions whose rows are committed. A row that is gone since is made by the triggers.
#[derive(Debug, Default)]
pub(super) struct KnownSessions(HashSet<(ProjectId, String)>);

impl KnownSessions {
    /// Makes the rows that may be missing; their keys, to be remembered once they are committed.
    pub(super) async fn make(
        &self,
        connection: &mut PgConnection,
        changes: &[Change<'_>],
    ) -> Result<Vec<Key>, StoreError> {
        let mut missing: BTreeMap<Key, (&str, DateTime<Utc>)> = BTreeMap::new();
        for change in changes {
            let Some(session) = change.trace.session_id.text() else {
                continue;
            };
            let key = (change.project.clone(), session.to_owned());
            if session.len() >= NAME_BYTES_MAX || self.0.contains(&key) {
                continue;
            }
            let first = (change.trace.environment(), change.created_at);
            let known = missing.entry(key).or_insert(first);
            if first.1 < known.1 {
                *known = first;
            }
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        insert(connection, &missing).await?;
        Ok(missing.into_keys().collect())
    }

    pub(super) fn remember(&mut self, made: Vec<Key>) {
        if self.0.len() + made.len() > KNOWN_MAX {
            self.0.clear();
        }
        self.0.extend(made);
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

async fn insert(
    connection: &mut PgConnection,
    sessions: &BTreeMap<Key, (&str, DateTime<Utc>)>,
) -> Result<(), StoreError> {
    let projects: Vec<&str> = sessions
        .keys()
        .map(|(project, _)| project.as_str())
        .collect();
    let ids: Vec<&str> = sessions.keys().map(|(_, id)| id.as_str()).collect();
    let (environments, times): (Vec<&str>, Vec<DateTime<Utc>>) = sessions.values().copied().unzip();
    sqlx::query(
        "insert into sessions (project_id, id, environment, created_at)
         select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
             on conflict do nothing",
    )
    .bind(projects)
    .bind(ids)
    .bind(environments)
    .bind(times)
    .execute(connection)
    .await?;
    Ok(())
}
