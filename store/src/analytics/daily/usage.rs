//! Counts, tokens and costs of days.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde_json::Value;
use sqlx::{Postgres, QueryBuilder};

use super::super::Aggregation;
use super::{Found, Key, Reader, number};
use crate::StoreError;
use crate::usage::source;
use crate::usage::sql::{ENTRIES, float, sum_of_floats, whole};

/// What metrics add up, among the columns of `usage_daily`.
const SUMS: [(&str, Aggregation); 5] = [
    ("count", Aggregation::Count),
    ("inputTokens", Aggregation::Sum),
    ("outputTokens", Aggregation::Sum),
    ("totalTokens", Aggregation::Sum),
    ("totalCost", Aggregation::Sum),
];

/// Sums of one key: whole numbers, then the cost.
#[derive(Debug, Default)]
pub(super) struct Sums([i64; SUMS.len() - 1], f64);

impl Sums {
    pub(super) fn value(&self, place: usize) -> Value {
        let whole = self.0.get(place).map(|sum| Value::from(*sum));
        whole.unwrap_or_else(|| number(self.1))
    }

    fn add(&mut self, row: &Row) {
        let parts = [row.observations, row.input, row.output, row.total];
        for (sum, part) in self.0.iter_mut().zip(parts) {
            *sum = sum.saturating_add(part);
        }
        self.1 = (self.1 + row.cost).min(f64::MAX);
    }
}

/// Where the sum of a measure is, if it is kept.
pub(super) fn place(measure: &str, aggregation: Aggregation) -> Option<usize> {
    SUMS.iter().position(|sum| *sum == (measure, aggregation))
}

#[derive(sqlx::FromRow)]
struct Row {
    date: NaiveDate,
    environment: String,
    model: Option<String>,
    observations: i64,
    input: i64,
    output: i64,
    total: i64,
    cost: f64,
}

pub(super) async fn read(
    reader: &Reader<'_>,
    found: &mut BTreeMap<Key, Found>,
) -> Result<(), StoreError> {
    let mut sql = QueryBuilder::new("");
    source::push_unknown(&mut sql, reader.project);
    sql.push(format_args!(
        "select s.date, s.environment, s.model, {} as observations, {} as input, {} as output, {} as total, {} as cost
           from (",
        whole("sum(s.observations)"),
        whole("sum(s.input)"),
        whole("sum(s.output)"),
        whole("sum(s.total)"),
        float("sum(s.cost)"),
    ));
    push_whole_days(&mut sql, reader);
    // As when all is read from rows: a decimal of each would take longer than reading it.
    sql.push(format_args!(
        " union all
          select (o.start_time at time zone 'utc')::date, o.environment, o.model, count(*), sum(o.input_usage),
                 sum(o.output_usage), sum(o.total_usage), ({})::numeric",
        sum_of_floats("o.total_cost")
    ));
    reader.push_edges(&mut sql);
    sql.push(" group by 1, 2, 3");
    // In order: floats add up differently in another one.
    sql.push(") s group by 1, 2, 3 having sum(s.observations) > 0 order by 1, 2, 3");
    let rows: Vec<Row> = sql.build_query_as().fetch_all(reader.store.read()).await?;
    for row in rows {
        let key = reader.key(row.date, &row.environment, row.model.as_deref());
        found.entry(key).or_default().sums.add(&row);
    }
    Ok(())
}

/// Sums, and usage that is not in them.
fn push_whole_days(sql: &mut QueryBuilder<Postgres>, reader: &Reader<'_>) {
    sql.push(
        "select o.date, o.environment, o.model, sum(o.observations) as observations, sum(o.input_usage) as input,
                sum(o.output_usage) as output, sum(o.total_usage) as total, sum(o.cost) as cost
           from usage_daily o where ",
    );
    reader.push_project(sql, "o.project_id");
    reader.push_days(sql);
    source::push_known(sql, "o.day");
    sql.push(
        " group by 1, 2, 3
          union all
          select o.date, o.environment, o.model, p.n * o.observations, p.n * o.input, p.n * o.output, p.n * o.total,
                 p.n * o.cost
            from ",
    );
    reader.push_unsummed(sql);
    let entries = ENTRIES.replacen(" u(", " o(", 1);
    sql.push(format_args!(" cross join lateral {entries} where true"));
    reader.push_days(sql);
}
