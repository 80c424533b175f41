//! How long observations took: values and how often each is there, of one day, environment, model and
//! measure. The worker and readers put them together by the same rules, so that an answer is the
//! same before and after changes are taken up.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::source::Source;
use super::sql::{DURATIONS, ENTRIES};
use crate::StoreError;

/// Different values of a key; more are rounded.
const VALUES_MAX: usize = 1000;
/// Keys that are in memory at once: each holds some thousand values.
const KEYS_MAX: usize = 256;

/// What values are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::FromRow)]
pub(crate) struct Key {
    /// The day that traces begin on.
    day: NaiveDate,
    /// The day, environment and model of observations.
    pub(crate) date: NaiveDate,
    pub(crate) environment: String,
    pub(crate) model: Option<String>,
    measure: String,
}

/// The columns of a [`Row`] in `latency_daily l`.
pub(crate) const COLUMNS: &str = "l.day, l.date, l.environment, l.model, l.measure, l.total::text as total, l.least, l.greatest, \
    l.micros, l.counts, l.is_rounded";

/// Selects [`Row`]s from changes of single values, up to the sub-query of these. Collects at most what
/// Postgres lets an array hold, of which an answer takes three million different values of a key.
pub(crate) const CHANGES: &str = "select day, date, environment, model, measure, null::text as total, \
    null::bigint as least, null::bigint as greatest, array_agg(micros) as micros, array_agg(count) as counts, \
    false as is_rounded from (";
/// What follows the sub-query.
pub(crate) const CHANGES_GROUPS: &str = ") n group by day, date, environment, model, measure";

/// Appends a query for [`Row`]s: what `push_source`, which appends `(…) p`, holds of durations. `push_more` adds to the
/// condition on entries, which `entry` names, and durations `l`.
pub(crate) fn push_changes(
    sql: &mut QueryBuilder<Postgres>,
    entry: &str,
    push_source: impl FnOnce(&mut QueryBuilder<Postgres>),
    push_more: impl FnOnce(&mut QueryBuilder<Postgres>),
) {
    sql.push(CHANGES);
    sql.push(format_args!(
        "select (p.hour at time zone 'utc')::date as day, {entry}.date, {entry}.environment, {entry}.model, l.measure,
                l.micros, sum(p.n * l.count)::bigint as count
           from "
    ));
    push_source(sql);
    let entries = ENTRIES.replacen(" u(", &format!(" {entry}("), 1);
    let durations = DURATIONS.replace("u.", &format!("{entry}."));
    sql.push(format_args!(
        " cross join lateral {entries} cross join lateral {durations} where true"
    ));
    push_more(sql);
    sql.push(" group by 1, 2, 3, 4, 5, 6 having sum(p.n * l.count) <> 0");
    sql.push(CHANGES_GROUPS);
}

/// A row of `latency_daily`, or changes to it.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Row {
    #[sqlx(flatten)]
    pub(crate) key: Key,
    /// None of changes, and so are the next two.
    total: Option<String>,
    least: Option<i64>,
    greatest: Option<i64>,
    micros: Vec<i64>,
    counts: Vec<i64>,
    is_rounded: bool,
}

/// Values of one key.
#[derive(Debug, Default)]
pub(crate) struct Values {
    /// How often each is there, by microseconds. Below 0 until the change that it was added by is known too.
    pub(crate) counts: BTreeMap<i64, i64>,
    /// The sum of all values.
    pub(crate) total: i128,
    /// The least and the greatest, exact unless the exact one is gone.
    pub(crate) extent: Option<(i64, i64)>,
    is_rounded: bool,
    changes: BTreeMap<i64, i64>,
}

impl Values {
    /// Adds a row. [`Values::settle`] follows when all were added.
    pub(crate) fn add(&mut self, row: &Row) {
        let values = row.micros.iter().copied().zip(row.counts.iter().copied());
        let (Some(least), Some(greatest)) = (row.least, row.greatest) else {
            for (micros, count) in values {
                *self.changes.entry(micros).or_default() += count;
            }
            return;
        };
        for (micros, count) in values {
            *self.counts.entry(micros).or_default() += count;
        }
        self.total += row
            .total
            .as_ref()
            .and_then(|total| total.parse::<i128>().ok())
            .unwrap_or_default();
        self.is_rounded |= row.is_rounded;
        self.extend(least, greatest);
    }

    fn extend(&mut self, least: i64, greatest: i64) {
        let (low, high) = self.extent.unwrap_or((least, greatest));
        self.extent = Some((low.min(least), high.max(greatest)));
    }

    /// Applies changes, and rounds what has too many different values.
    pub(crate) fn settle(&mut self) {
        self.apply_changes();
        if self.counts.len() > VALUES_MAX {
            self.is_rounded = true;
            self.round();
        }
    }

    /// Applies changes.
    pub(crate) fn apply_changes(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        let added = || changes.iter().filter(|(_, count)| **count > 0);
        let removed = || changes.iter().filter(|(_, count)| **count < 0);
        let (least_gone, greatest_gone) = self.extent.map_or((true, true), |(least, greatest)| {
            let is_gone = |bound: &dyn Fn(i64) -> bool| removed().any(|(micros, _)| bound(*micros));
            (
                is_gone(&|micros| micros <= least),
                is_gone(&|micros| micros >= greatest),
            )
        });
        for (micros, count) in &changes {
            self.total += i128::from(*micros) * i128::from(*count);
            *self.counts.entry(*micros).or_default() += count;
        }
        let before = self.extent;
        // Before rounding: what was added is exact, what is left of rounded values is not.
        if self.is_rounded {
            self.round();
        }
        self.counts.retain(|_, count| *count != 0);
        let there = || self.counts.iter().filter(|(_, count)| **count > 0);
        let left = there().next().zip(there().next_back());
        let left = left.map(|((least, _), (greatest, _))| (*least, *greatest));
        self.extent = left.map(|(least_left, greatest_left)| {
            let added_least = added().map(|(micros, _)| *micros).min();
            let added_greatest = added().map(|(micros, _)| *micros).max();
            let kept_least = before.filter(|_| !least_gone).map(|(least, _)| least);
            let kept_greatest = before.filter(|_| !greatest_gone).map(|(_, most)| most);
            if self.is_rounded {
                (
                    exact(kept_least, added_least, least_left, i64::min),
                    exact(kept_greatest, added_greatest, greatest_left, i64::max),
                )
            } else {
                (least_left, greatest_left)
            }
        });
    }

    /// The first and the last value that anything is known of.
    fn ends(&self) -> Option<(i64, i64)> {
        let first = self.counts.first_key_value().map(|(micros, _)| *micros);
        let last = self.counts.last_key_value().map(|(micros, _)| *micros);
        first.zip(last)
    }

    fn round(&mut self) {
        let mut counts = BTreeMap::new();
        for (micros, count) in &self.counts {
            *counts.entry(rounded(*micros)).or_insert(0) += count;
        }
        self.counts = counts;
    }
}

/// An end of the extent of rounded values: an exact one if there is one, else what is left.
fn exact(kept: Option<i64>, added: Option<i64>, left: i64, choose: fn(i64, i64) -> i64) -> i64 {
    match (kept, added) {
        (Some(kept), Some(added)) => choose(kept, added),
        (Some(kept), None) => kept,
        // The rounded value of what was added is among those left.
        (None, Some(added)) if rounded(added) == left => added,
        (None, _) => left,
    }
}

/// The middle of the bucket of 1/128 of its power of two: wrong by 0.4 % at most.
pub(crate) fn rounded(micros: i64) -> i64 {
    rounded_to(micros, 7)
}

/// The middle of its bucket, of which each power of two has 2^`bits`. Buckets of fewer bits are made of whole ones
/// of more, so that rounding in steps is rounding at once.
pub(crate) fn rounded_to(micros: i64, bits: u32) -> i64 {
    let size = micros.unsigned_abs();
    if size < 2 << bits {
        return micros;
    }
    let width = 1_u64 << (size.ilog2() - bits);
    let middle = size - size % width + width / 2;
    // The least integer has no positive counterpart; the middle of its bucket would be beyond it.
    let middle = i64::try_from(middle).unwrap_or(i64::MAX);
    if micros < 0 { -middle } else { middle }
}

/// Adds what a source holds to the values of a project.
pub(super) async fn add(
    connection: &mut PgConnection,
    project: &str,
    source: Source<'_>,
) -> Result<(), StoreError> {
    let mut sql = QueryBuilder::new("");
    push_changes(&mut sql, "u", |sql| source.push(sql, project), |_| ());
    let changes: Vec<Row> = sql.build_query_as().fetch_all(&mut *connection).await?;
    for some in changes.chunks(KEYS_MAX) {
        replace(connection, project, some).await?;
    }
    Ok(())
}

/// Puts what is stored of some keys together with changes to them.
async fn replace(
    connection: &mut PgConnection,
    project: &str,
    changes: &[Row],
) -> Result<(), StoreError> {
    let mut values: BTreeMap<&Key, Values> = BTreeMap::new();
    let stored = take(connection, project, changes).await?;
    for row in stored.iter().chain(changes) {
        values.entry(&row.key).or_default().add(row);
    }
    for (key, mut values) in values {
        values.settle();
        let Some((first, last)) = values.ends() else {
            continue;
        };
        let (least, greatest) = values.extent.unwrap_or((first, last));
        let (micros, counts): (Vec<i64>, Vec<i64>) = values.counts.into_iter().unzip();
        sqlx::query(
            "insert into latency_daily (project_id, day, environment, date, model, measure, total, least, greatest,
                    micros, counts, is_rounded)
             values ($1, $2, $3, $4, $5, $6, $7::text::numeric, $8, $9, $10, $11, $12)",
        )
        .bind(project)
        .bind(key.day)
        .bind(&key.environment)
        .bind(key.date)
        .bind(&key.model)
        .bind(&key.measure)
        .bind(values.total.to_string())
        .bind(least)
        .bind(greatest)
        .bind(micros)
        .bind(counts)
        .bind(values.is_rounded)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Deletes what is stored of these keys, and returns it.
async fn take(
    connection: &mut PgConnection,
    project: &str,
    changes: &[Row],
) -> Result<Vec<Row>, StoreError> {
    let mut sql = QueryBuilder::new("delete from latency_daily l using unnest(");
    let keys = || changes.iter().map(|row| &row.key);
    sql.push_bind(keys().map(|key| key.day).collect::<Vec<_>>());
    sql.push("::date[], ");
    sql.push_bind(keys().map(|key| key.date).collect::<Vec<_>>());
    sql.push("::date[], ");
    sql.push_bind(
        keys()
            .map(|key| key.environment.clone())
            .collect::<Vec<_>>(),
    );
    sql.push("::text[], ");
    sql.push_bind(keys().map(|key| key.model.clone()).collect::<Vec<_>>());
    sql.push("::text[], ");
    sql.push_bind(keys().map(|key| key.measure.clone()).collect::<Vec<_>>());
    sql.push(
        "::text[]) k(day, date, environment, model, measure)
          where l.day = k.day and l.date = k.date and l.environment = k.environment
            and l.model is not distinct from k.model and l.measure = k.measure and l.project_id = ",
    );
    sql.push_bind(project.to_owned());
    sql.push(format_args!(" returning {COLUMNS}"));
    Ok(sql.build_query_as().fetch_all(connection).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stored: Option<&Values>, values: &[(i64, i64)]) -> Row {
        let day = NaiveDate::MIN;
        let key = Key {
            day,
            date: day,
            environment: String::new(),
            model: None,
            measure: String::new(),
        };
        let (micros, counts) = match stored {
            Some(stored) => stored.counts.clone().into_iter().unzip(),
            None => values.iter().copied().unzip(),
        };
        Row {
            key,
            total: stored.map(|stored| stored.total.to_string()),
            least: stored.and_then(|stored| Some(stored.extent?.0)),
            greatest: stored.and_then(|stored| Some(stored.extent?.1)),
            micros,
            counts,
            is_rounded: stored.is_some_and(|stored| stored.is_rounded),
        }
    }

    /// Puts changes together in steps, each stored before the next, as the worker does.
    fn stored(steps: &[Vec<(i64, i64)>]) -> Values {
        let mut before: Option<Values> = None;
        for step in steps {
            let mut values = Values::default();
            if let Some(before) = before.filter(|before| !before.counts.is_empty()) {
                values.add(&row(Some(&before), &[]));
            }
            values.add(&row(None, step));
            values.settle();
            before = Some(values);
        }
        before.unwrap()
    }

    #[test]
    fn values_are_the_same_however_changes_are_cut() {
        let all: Vec<(i64, i64)> = (0..3000).map(|n| (1000 + n * n * 7, 1)).collect();
        for size in [1, 900, 1000, 1001, 3000] {
            let parts: Vec<_> = all.chunks(size.max(100)).map(<[_]>::to_vec).collect();
            let (cut, whole) = (stored(&parts), stored(std::slice::from_ref(&all)));
            assert_eq!(cut.counts, whole.counts);
            assert_eq!((cut.total, cut.extent), (whole.total, whole.extent));
            assert_eq!(cut.extent, Some((1000, 1000 + 2999 * 2999 * 7)));
        }
    }

    #[test]
    fn what_was_added_can_be_taken_away_again() {
        let all: Vec<(i64, i64)> = (0..3000).map(|n| (1000 + n * n * 7, 1)).collect();
        let gone =
            |values: &[(i64, i64)]| values.iter().map(|(at, _)| (*at, -1)).collect::<Vec<_>>();
        let nothing = stored(&[all.clone(), gone(&all)]);
        assert!(nothing.counts.is_empty() && nothing.extent.is_none());
        assert_eq!(nothing.total, 0);
        let some = stored(&[all.clone(), gone(&all[2000..])]);
        assert_eq!(some.counts.values().sum::<i64>(), 2000);
        let (least, greatest) = some.extent.unwrap();
        let exact = f64::from(1000 + 1999 * 1999 * 7);
        assert_eq!(least, 1000);
        assert!(
            (greatest as f64 - exact).abs() / exact < 0.004,
            "{greatest}"
        );
        // The other way around, as when a later change is taken up first.
        let few = stored(&[vec![(5, -1)], vec![(5, 1), (7, 2)]]);
        assert_eq!(
            (few.counts, few.extent, few.total),
            (BTreeMap::from([(7, 2)]), Some((7, 7)), 14)
        );
    }
}
