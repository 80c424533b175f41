//! Counts, tokens and costs of days.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use sqlx::{Postgres, QueryBuilder};

use super::super::Aggregation;
use super::{Found, Key, Reader};
use crate::StoreError;
use crate::usage::ENTRIES;

/// What metrics add up, among the columns of `usage_hourly`.
const SUMS: [(&str, Aggregation); 5] = [
    ("count", Aggregation::Count),
    ("inputTokens", Aggregation::Sum),
    ("outputTokens", Aggregation::Sum),
    ("totalTokens", Aggregation::Sum),
    ("totalCost", Aggregation::Sum),
];
/// Sums of one key.
pub(super) type Sums = [f64; SUMS.len()];

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
    let mut sql = QueryBuilder::new(
        "select o.date, o.environment, o.model, sum(o.observations)::bigint as observations,
                sum(o.input_usage)::bigint as input, sum(o.output_usage)::bigint as output,
                sum(o.total_usage)::bigint as total, sum(o.total_cost) as cost",
    );
    reader.push_clean(&mut sql, "usage_hourly");
    add(reader, sql, found).await?;
    if !reader.dirty.is_empty() {
        let mut sql = QueryBuilder::new(
            "select o.date, o.environment, o.model, sum(o.observations)::bigint as observations,
                    coalesce(sum(o.input), 0)::bigint as input, coalesce(sum(o.output), 0)::bigint as output,
                    coalesce(sum(o.total), 0)::bigint as total, coalesce(sum(o.cost), 0) as cost",
        );
        reader.push_dirty(&mut sql, "u.*", ENTRIES);
        add(reader, sql, found).await?;
    }
    let mut sql = QueryBuilder::new(
        "select (o.start_time at time zone 'utc')::date as date, o.environment, o.model,
                count(*) as observations, coalesce(sum(o.input_usage), 0)::bigint as input,
                coalesce(sum(o.output_usage), 0)::bigint as output,
                coalesce(sum(o.total_usage), 0)::bigint as total, coalesce(sum(o.total_cost), 0) as cost",
    );
    reader.push_edges(&mut sql);
    add(reader, sql, found).await
}

async fn add(
    reader: &Reader<'_>,
    mut sql: QueryBuilder<Postgres>,
    found: &mut BTreeMap<Key, Found>,
) -> Result<(), StoreError> {
    sql.push(" group by 1, 2, 3");
    let rows: Vec<Row> = sql.build_query_as().fetch_all(reader.store.read()).await?;
    for row in rows {
        let key = reader.key(row.date, &row.environment, row.model.as_deref());
        let parts = [
            row.observations as f64,
            row.input as f64,
            row.output as f64,
            row.total as f64,
            row.cost,
        ];
        let sums = &mut found.entry(key).or_default().sums;
        for (sum, part) in sums.iter_mut().zip(parts) {
            *sum += part;
        }
    }
    Ok(())
}
