//! Sums of large traces, as their rows keep them for the next change: the column `sums` holds what the other
//! columns don't say. It counts only if it was written with the rest of its row, which older programs, that
//! know no such column, write without it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Number;
use sqlx::PgConnection;
use xtrace_model::time;

use super::combine::TraceKey;
use super::exact::Exact;
use super::rollup::{Part, Rollup};
use super::usage::{Precision, Usage};
use crate::StoreError;

type Time = DateTime<Utc>;

/// The column `sums`.
#[derive(Serialize, Deserialize)]
struct State {
    /// When the row was written, as its `updated_at` says.
    at: Time,
    precision: Precision,
    input_cost: Number,
    output_cost: Number,
    priced: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    doubt: Option<Doubt>,
}

/// An observation that was the first or the last has moved, and which of the others is that now only all of
/// them tell. Until the background has looked, the trace's times reach too far. What is added meanwhile is
/// noted here, so that the look need not hold anybody up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Doubt {
    /// Another one after each move.
    pub(super) number: i64,
    pub(super) added: Times,
}

/// The times that observations reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub(super) struct Times {
    first_start: Option<Time>,
    last_start: Option<Time>,
    last_end: Option<Time>,
}

impl Times {
    /// Whether there are any observations.
    pub(super) fn are_known(&self) -> bool {
        self.first_start.is_some()
    }
}

impl Doubt {
    pub(super) fn after(last: Option<&Self>, now: Time) -> Self {
        let number = last.map_or(i64::MIN, |last| last.number + 1);
        Self {
            number: number.max(time::from_utc(now)),
            added: Times::default(),
        }
    }

    pub(super) fn add(&mut self, part: &Part) {
        let first = self.added.first_start.unwrap_or(part.start_time);
        self.added.first_start = Some(first.min(part.start_time));
        self.added.last_start = self.added.last_start.max(Some(part.start_time));
        self.added.last_end = self.added.last_end.max(part.end_time);
    }
}

impl Rollup {
    /// The column `sums` of a row that is written now; none of a small trace.
    pub(super) fn sums(&self, now: Time) -> Option<String> {
        let state = State {
            // As Postgres keeps it.
            at: time::to_utc(time::from_utc(now)),
            precision: self.usage.precision,
            input_cost: self.input_cost.exact.to_number(),
            output_cost: self.output_cost.exact.to_number(),
            priced: self.priced,
            doubt: self.doubt.clone(),
        };
        self.is_large()
            .then(|| serde_json::to_string(&state).expect("numbers serialise"))
    }

    /// Ends a doubt: these are the times of all observations that were there when it was read.
    pub(super) fn resolve(&mut self, found: &Times) {
        let added = self
            .doubt
            .take()
            .map(|doubt| doubt.added)
            .unwrap_or_default();
        let first = [found.first_start, added.first_start];
        self.first_start = first.into_iter().flatten().min();
        self.last_start = found.last_start.max(added.last_start);
        self.last_end = found.last_end.max(added.last_end);
    }
}

/// A large trace's row.
#[derive(sqlx::FromRow)]
struct Row {
    project_id: String,
    id: String,
    first_start: Option<Time>,
    last_start: Option<Time>,
    last_end: Option<Time>,
    debug_count: i32,
    default_count: i32,
    warning_count: i32,
    error_count: i32,
    usage: String,
    sums: String,
    updated_at: Time,
    version: String,
}

/// The sums of large traces that changes may be added to.
pub(super) async fn read(
    connection: &mut PgConnection,
    keys: &[TraceKey<'_>],
) -> Result<Vec<((String, String), Stored)>, StoreError> {
    let (projects, ids): (Vec<&str>, Vec<&str>) = keys
        .iter()
        .map(|(project, id)| (project.as_str(), id.as_str()))
        .unzip();
    let rows: Vec<Row> = sqlx::query_as(
        "select t.project_id, t.id, t.first_start, t.last_start, t.last_end, t.debug_count, t.default_count,
                t.warning_count, t.error_count, t.usage::text as usage, t.sums, t.updated_at,
                t.xmin::text as version
           from unnest($1::text[], $2::text[]) k(project_id, id)
           join traces t on t.project_id = k.project_id and t.id = k.id
          where t.sums is not null",
    )
    .bind(projects)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let stored = |row: Row| {
        let version = row.version.clone();
        let name = (row.project_id.clone(), row.id.clone());
        Some((
            name,
            Stored {
                version,
                rollup: row.into_rollup()?,
            },
        ))
    };
    Ok(rows.into_iter().filter_map(stored).collect())
}

/// Sums as they are stored.
pub(super) struct Stored {
    /// Of the row that they were read from.
    pub(super) version: String,
    pub(super) rollup: Rollup,
}

impl Row {
    /// None if the row was written by a program that knows no such sums, or can't be read.
    fn into_rollup(self) -> Option<Rollup> {
        let state: State = serde_json::from_str(&self.sums).ok()?;
        let mut rollup = Rollup {
            first_start: self.first_start,
            last_start: self.last_start,
            last_end: self.last_end,
            levels: [
                self.debug_count,
                self.default_count,
                self.warning_count,
                self.error_count,
            ],
            usage: Usage::parse(&self.usage, state.precision)?,
            priced: state.priced,
            doubt: state.doubt,
            ..Rollup::default()
        };
        rollup.input_cost.exact = Exact::parse(&state.input_cost)?;
        rollup.output_cost.exact = Exact::parse(&state.output_cost)?;
        (state.at == self.updated_at && rollup.is_large()).then_some(rollup)
    }
}
