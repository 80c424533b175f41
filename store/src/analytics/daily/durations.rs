//! How long observations of days took: as many values as there are, or a few thousand rounded ones an hour.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde_json::{Value, json};
use sqlx::{Postgres, QueryBuilder};

use super::super::Aggregation;
use super::{Found, Key, Reader, number};
use crate::StoreError;
use crate::usage::{DURATIONS, ENTRIES};

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
    total: f64,
    extent: Option<(i64, i64)>,
}

impl Durations {
    fn add(&mut self, row: &Row) {
        let counts = row.counts.iter().flatten().copied();
        let counts = counts.chain(std::iter::repeat(1));
        self.values.extend(row.micros.iter().copied().zip(counts));
        self.is_sorted = false;
        self.total += row.total;
        let (least, greatest) = self.extent.unwrap_or((row.least, row.greatest));
        self.extent = Some((least.min(row.least), greatest.max(row.greatest)));
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
            Aggregation::Sum => number(self.total / 1000.0),
            Aggregation::Avg => number(self.total / 1000.0 / self.count() as f64),
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

#[derive(sqlx::FromRow)]
struct Row {
    date: NaiveDate,
    environment: String,
    model: Option<String>,
    total: f64,
    least: i64,
    greatest: i64,
    micros: Vec<i64>,
    counts: Option<Vec<i64>>,
}

pub(super) async fn read(
    reader: &Reader<'_>,
    place: usize,
    found: &mut BTreeMap<Key, Found>,
) -> Result<(), StoreError> {
    const MANY: &str = "select o.date, o.environment, o.model, sum(o.count * o.micros::float8) as total, \
        min(o.micros) as least, max(o.micros) as greatest, array_agg(o.micros) as micros, \
        array_agg(o.count) as counts";
    let (measure, end) = MEASURES[place];
    let mut sql = QueryBuilder::new(
        "select o.date, o.environment, o.model, o.total, o.least, o.greatest, o.micros, o.counts",
    );
    reader.push_clean(&mut sql, "latency_hourly");
    sql.push(" and o.measure = ").push_bind(measure);
    add(reader, place, sql, found).await?;
    if !reader.dirty.is_empty() {
        let mut sql = QueryBuilder::new(MANY);
        let columns = "u.date, u.environment, u.model, l.measure, l.micros, l.count";
        let entries = format!("{ENTRIES} cross join lateral {DURATIONS}");
        reader.push_dirty(&mut sql, columns, &entries);
        sql.push(" and o.measure = ").push_bind(measure);
        sql.push(" group by 1, 2, 3");
        add(reader, place, sql, found).await?;
    }
    let mut sql = QueryBuilder::new(MANY);
    sql.push(format_args!(
        " from (select (o.start_time at time zone 'utc')::date as date, o.environment, o.model, 1::bigint as count,
                (extract(epoch from {end} - o.start_time) * 1000000)::bigint as micros"
    ));
    reader.push_edges(&mut sql);
    sql.push(format_args!(" and {end} is not null) o group by 1, 2, 3"));
    add(reader, place, sql, found).await
}

async fn add(
    reader: &Reader<'_>,
    place: usize,
    mut sql: QueryBuilder<Postgres>,
    found: &mut BTreeMap<Key, Found>,
) -> Result<(), StoreError> {
    let rows: Vec<Row> = sql.build_query_as().fetch_all(reader.store.read()).await?;
    for row in rows {
        let key = reader.key(row.date, &row.environment, row.model.as_deref());
        found.entry(key).or_default().durations[place].add(&row);
    }
    Ok(())
}
