//! How long observations of days took: as many values as there are, or a thousand or so rounded ones of each
//! day, environment and model.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::{Postgres, QueryBuilder};

use super::super::Aggregation;
use super::{Found, Key, Reader, number};
use crate::StoreError;
use crate::usage::latency::{self, Row, Values};
use crate::usage::source;

/// Measures whose values are kept, and the end that each is measured to.
pub(super) const MEASURES: [(&str, &str); 2] = [
    ("latency", "o.end_time"),
    ("timeToFirstToken", "o.completion_start_time"),
];

/// Where the values of a measure are, if they are kept.
pub(super) fn place(measure: &str) -> Option<usize> {
    MEASURES.iter().position(|(name, _)| *name == measure)
}

/// Values of one key and measure, in microseconds; answers are in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Durations {
    /// And how many of each.
    values: Vec<(i64, i64)>,
    is_sorted: bool,
    total: i128,
    extent: Option<(i64, i64)>,
}

impl Durations {
    fn add(&mut self, values: Values) {
        let there = values.counts.into_iter().filter(|(_, count)| *count > 0);
        self.values.extend(there);
        self.is_sorted = false;
        self.total += values.total;
        self.extent = match (self.extent, values.extent) {
            (Some((low, high)), Some((least, greatest))) => {
                Some((low.min(least), high.max(greatest)))
            }
            (known, new) => known.or(new),
        };
    }

    /// The sum in milliseconds.
    fn sum(&self) -> f64 {
        self.total as f64 / 1000.0
    }

    fn count(&self) -> i64 {
        self.values.iter().map(|(_, count)| count).sum()
    }

    /// What the same aggregation of all rows would answer, but for rounding.
    pub(super) fn aggregate(&mut self, aggregation: Aggregation, bins: i32) -> Value {
        let Some((least, greatest)) = self.extent else {
            return match aggregation {
                Aggregation::Sum | Aggregation::Count => json!(0),
                Aggregation::Histogram => json!([]),
                _ => Value::Null,
            };
        };
        match aggregation {
            Aggregation::Count | Aggregation::Uniq => json!(self.count()),
            Aggregation::Sum => number(self.sum()),
            Aggregation::Avg => number(self.sum() / self.count() as f64),
            Aggregation::Min => number(milliseconds(least)),
            Aggregation::Max => number(milliseconds(greatest)),
            Aggregation::P50 => number(self.percentile(0.5)),
            Aggregation::P75 => number(self.percentile(0.75)),
            Aggregation::P90 => number(self.percentile(0.9)),
            Aggregation::P95 => number(self.percentile(0.95)),
            Aggregation::P99 => number(self.percentile(0.99)),
            Aggregation::Histogram => {
                self.histogram(milliseconds(least), milliseconds(greatest), bins)
            }
        }
    }

    /// Between the two values that the fraction lies between, as `percentile_cont` has it.
    fn percentile(&mut self, fraction: f64) -> f64 {
        if !self.is_sorted {
            self.values.sort_unstable();
            self.is_sorted = true;
        }
        let place = fraction * (self.count() - 1) as f64;
        let at = |place: f64| {
            let mut before = 0.0;
            let holds = |(_, count): &&(i64, i64)| {
                before += *count as f64;
                before > place
            };
            let found = self.values.iter().find(holds).or(self.values.last());
            found.map_or(0.0, |(micros, _)| milliseconds(*micros))
        };
        let (low, high) = (at(place.floor()), at(place.ceil()));
        low + (high - low) * place.fract()
    }

    /// Bins of equal width as `[lower, upper, height]`; empty ones are left out.
    fn histogram(&self, least: f64, greatest: f64, bins: i32) -> Value {
        if least >= greatest {
            return json!([[number(least), number(greatest), self.count()]]);
        }
        let (width, bins) = (greatest - least, f64::from(bins));
        let mut heights: BTreeMap<i64, i64> = BTreeMap::new();
        for (micros, count) in &self.values {
            let bin = ((milliseconds(*micros) - least) / width * bins).floor();
            #[expect(clippy::cast_possible_truncation, reason = "less than there are bins")]
            let bin = bin.clamp(0.0, bins - 1.0) as i64;
            *heights.entry(bin).or_default() += count;
        }
        let edge = |bin: i64| number(least + bin as f64 * width / bins);
        let bin = |(bin, height): (i64, i64)| json!([edge(bin), edge(bin + 1), height]);
        heights.into_iter().map(bin).collect()
    }
}

fn milliseconds(micros: i64) -> f64 {
    micros as f64 / 1000.0
}

pub(super) async fn read(
    reader: &Reader<'_>,
    place: usize,
    found: &mut BTreeMap<Key, Found>,
) -> Result<(), StoreError> {
    for (mut sql, is_stored) in [
        (whole_days(reader, place), true),
        (edges(reader, place), false),
    ] {
        let rows: Vec<Row> = sql.build_query_as().fetch_all(reader.store.read()).await?;
        // Sums and changes of a key make one set of values, as the worker will make of them.
        let mut keys: BTreeMap<latency::Key, Values> = BTreeMap::new();
        for row in rows {
            keys.entry(row.key.clone()).or_default().add(&row);
        }
        for (key, mut values) in keys {
            if is_stored {
                values.settle();
            } else {
                values.apply_changes();
            }
            if values.extent.is_some() {
                let key = reader.key(key.date, &key.environment, key.model.as_deref());
                found.entry(key).or_default().durations[place].add(values);
            }
        }
    }
    Ok(())
}

/// Sums, and what changed since.
fn whole_days(reader: &Reader<'_>, place: usize) -> QueryBuilder<Postgres> {
    let (measure, _) = MEASURES[place];
    let mut sql = QueryBuilder::new("");
    source::push_unknown(&mut sql, reader.project);
    let columns = latency::COLUMNS.replace("l.", "o.");
    sql.push(format_args!(
        "(select {columns} from latency_daily o where "
    ));
    reader.push_project(&mut sql, "o.project_id");
    sql.push(" and o.measure = ").push_bind(measure);
    reader.push_days(&mut sql);
    source::push_known(&mut sql, "o.day");
    sql.push(") union all (");
    let push_source = |sql: &mut QueryBuilder<Postgres>| reader.push_unsummed(sql);
    latency::push_changes(&mut sql, "o", push_source, |sql| {
        sql.push(" and l.measure = ").push_bind(measure);
        reader.push_days(sql);
    });
    sql.push(")");
    sql
}

/// The observations of parts of a day.
fn edges(reader: &Reader<'_>, place: usize) -> QueryBuilder<Postgres> {
    let (measure, end) = MEASURES[place];
    let mut sql = QueryBuilder::new(latency::CHANGES);
    sql.push(format_args!(
        "select date as day, date, environment, model, measure, micros, count(*) as count
           from (select (o.start_time at time zone 'utc')::date as date, o.environment, o.model, '{measure}' as measure,
                        (extract(epoch from {end} - o.start_time) * 1000000)::bigint as micros"
    ));
    reader.push_edges(&mut sql);
    sql.push(format_args!(
        " and {end} is not null) o group by 1, 2, 3, 4, 5, 6"
    ));
    sql.push(latency::CHANGES_GROUPS);
    sql
}
