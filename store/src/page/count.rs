//! How many rows a list has: counted up to a bound, and an estimate beyond.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::types::Json;
use sqlx::{Execute, Postgres, QueryBuilder, Row};

use super::Page;
use crate::{Store, StoreError};

/// Up to here rows are counted. What the planner guesses is never taken for a count: of a text within
/// another it supposes a third of the table, and of two conditions that they have nothing to do with each
/// other.
pub const EXACT_MAX: i64 = 10_000;
/// How long a count may take. After that the planner's guess is answered, and rows still have most of the time
/// that a statement has.
const COUNTING_MAX: Duration = Duration::from_secs(5);
/// How long an estimate is given again: who turns pages does not wait for a count on each of them.
const KNOWN_FOR: Duration = Duration::from_mins(1);
/// Estimates that are known at once.
const KNOWN_MAX: usize = 10_000;

/// How many rows a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// This number.
    Exact(i64),
    /// More than [`EXACT_MAX`], or more than could be counted in time; about this number.
    About(i64),
}

impl Count {
    /// Whether there is nothing on that page.
    pub(crate) fn ends_before(self, page: Page) -> bool {
        matches!(self, Self::Exact(rows) if rows <= page.offset())
    }

    /// Whether so few rows match that all of them can be sorted.
    pub(crate) fn is_few(self) -> bool {
        let (Self::Exact(rows) | Self::About(rows)) = self;
        rows <= EXACT_MAX
    }
}

/// Counts the rows that a query's `from` clause and conditions, which `push` appends, yield.
pub(crate) async fn count(
    store: &Store,
    push: impl Fn(&mut QueryBuilder<Postgres>),
) -> Result<Count, StoreError> {
    let mut list = QueryBuilder::new("");
    push(&mut list);
    let key = store.estimates().key(&mut list);
    if let Some(rows) = store.estimates().known(key) {
        return Ok(Count::About(rows));
    }
    let mut sql = QueryBuilder::new("select count(*) from (select 1");
    push(&mut sql);
    sql.push(" limit ")
        .push_bind(EXACT_MAX + 1)
        .push(") counted");
    let counted = store.read().row_within(COUNTING_MAX, sql.build()).await?;
    let counted: Option<i64> = counted.map(|row| row.try_get(0)).transpose()?;
    if let Some(rows) = counted.filter(|rows| *rows <= EXACT_MAX) {
        return Ok(Count::Exact(rows));
    }
    let mut sql = QueryBuilder::new("explain (format json) select 1");
    push(&mut sql);
    let plan: Json<Value> = sql.build_query_scalar().fetch_one(store.read()).await?;
    let guess = plan.0.pointer("/0/Plan/Plan Rows").and_then(Value::as_i64);
    let rows = guess.unwrap_or_default().max(counted.unwrap_or_default());
    store.estimates().remember(key, rows);
    Ok(Count::About(rows))
}

/// Lists that were found to have many rows, and about how many.
#[derive(Debug, Default)]
pub(crate) struct Estimates {
    hashing: RandomState,
    known: Mutex<HashMap<u64, (Instant, i64)>>,
}

impl Estimates {
    /// What stands for a list: its statement and all values in it, the project among them.
    fn key(&self, list: &mut QueryBuilder<Postgres>) -> u64 {
        let mut hashed = Hashed(self.hashing.build_hasher());
        list.sql().as_str().hash(&mut hashed.0);
        let arguments = list.build().take_arguments();
        // Arguments can be shown, but not compared.
        let _ = write!(hashed, "{arguments:?}");
        hashed.0.finish()
    }

    fn known(&self, key: u64) -> Option<i64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, rows) = known.get(&key)?;
        (since.elapsed() < KNOWN_FOR).then_some(*rows)
    }

    fn remember(&self, key: u64, rows: i64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, (since, _)| since.elapsed() < KNOWN_FOR);
        }
        if known.len() < KNOWN_MAX {
            known.insert(key, (Instant::now(), rows));
        }
    }
}

/// What is written to it is hashed.
struct Hashed<H>(H);

impl<H: Hasher> Write for Hashed<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_differ_in_a_value_are_counted_apart() {
        let estimates = Estimates::default();
        let key = |project: &str, name: Option<&str>| {
            let mut sql = QueryBuilder::new(" from traces where project_id = ");
            sql.push_bind(project.to_owned());
            if let Some(name) = name {
                sql.push(" and name = ").push_bind(name.to_owned());
            }
            estimates.key(&mut sql)
        };
        let lists = [
            ("a", None),
            ("b", None),
            ("a", Some("x")),
            ("a", Some("y")),
            ("b", Some("x")),
        ];
        for (place, (project, name)) in lists.into_iter().enumerate() {
            let one = key(project, name);
            assert_eq!(estimates.known(one), None, "{project} {name:?}");
            assert_eq!(one, key(project, name));
            estimates.remember(one, i64::try_from(place).unwrap());
            assert_eq!(estimates.known(one), i64::try_from(place).ok());
        }
    }
}
