//! Reads of metrics: names from the dictionary, and points bucketed and aggregated in SQL.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use xtrace_model::ProjectId;

use crate::{Store, StoreError};

/// Series of an answer at most; those with the newest data are chosen.
pub const SERIES_MAX: i64 = 50;
/// Buckets of a series at most; the newest are chosen.
pub const BUCKETS_MAX: i64 = 1000;

/// How the points of a bucket become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the query parameter")]
pub enum Aggregation {
    Avg,
    Max,
    Min,
    Sum,
    Last,
    Count,
    P50,
    P90,
    P95,
    P99,
    Rate,
    Increase,
}

impl Aggregation {
    /// All aggregations by their names.
    pub const NAMES: [(&'static str, Self); 12] = [
        ("avg", Self::Avg),
        ("max", Self::Max),
        ("min", Self::Min),
        ("sum", Self::Sum),
        ("last", Self::Last),
        ("count", Self::Count),
        ("p50", Self::P50),
        ("p90", Self::P90),
        ("p95", Self::P95),
        ("p99", Self::P99),
        ("rate", Self::Rate),
        ("increase", Self::Increase),
    ];

    /// The expression over `value`, `ts` and `grown` (growth since the series' point before).
    fn sql(self) -> &'static str {
        match self {
            Self::Avg => "avg(value)",
            Self::Max => "max(value)",
            Self::Min => "min(value)",
            Self::Sum => "sum(value)",
            Self::Last => "(array_agg(value order by ts desc, series_id))[1]",
            Self::Count => "count(*)::float8",
            Self::P50 => "percentile_cont(0.5) within group (order by value)",
            Self::P90 => "percentile_cont(0.9) within group (order by value)",
            Self::P95 => "percentile_cont(0.95) within group (order by value)",
            Self::P99 => "percentile_cont(0.99) within group (order by value)",
            Self::Rate => "sum(grown) / $8",
            Self::Increase => "sum(grown)",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct MetricsQuery {
    /// The metric's name.
    pub name: String,
    /// First time, inclusive.
    pub from: DateTime<Utc>,
    /// Last time, inclusive.
    pub to: DateTime<Utc>,
    /// Labels that a series must have, compared as text.
    pub labels: BTreeMap<String, String>,
    /// The environment, if only one counts.
    pub environment: Option<String>,
    /// Seconds of a bucket; buckets begin at its multiples since the Unix epoch.
    pub step_s: i64,
    /// How the points of a bucket become one value.
    pub aggregation: Aggregation,
    /// Label keys that make a series of the answer; `None` means every label set is one.
    pub group_by: Option<Vec<String>>,
}

/// One value of the answer.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Bucket {
    /// Labels of the series.
    pub labels: Json<BTreeMap<String, String>>,
    /// When the bucket begins.
    pub bucket: DateTime<Utc>,
    /// The aggregated value.
    pub value: f64,
    /// Newest point of the series within the range.
    pub latest: DateTime<Utc>,
    /// Whether something was left out.
    pub truncated: bool,
}

/// Names of all metrics, sorted; found by skipping through the dictionary's index.
pub async fn names(store: &Store, project: &ProjectId) -> Result<Vec<String>, StoreError> {
    let names = sqlx::query_scalar(include_str!("sql/metric_names.sql"))
        .bind(project.as_str())
        .fetch_all(store.read())
        .await?;
    Ok(names)
}

/// Buckets by series, series with the newest data first, buckets in order of time.
pub async fn query(
    store: &Store,
    project: &ProjectId,
    query: &MetricsQuery,
) -> Result<Vec<Bucket>, StoreError> {
    let sql = include_str!("sql/metric_query.sql").replace("{aggregate}", query.aggregation.sql());
    let buckets = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(&query.name)
        .bind(Json(&query.labels))
        .bind(&query.environment)
        .bind(query.from)
        .bind(query.to)
        .bind(&query.group_by)
        .bind(query.step_s as f64)
        .bind(SERIES_MAX)
        .bind(BUCKETS_MAX)
        .fetch_all(store.read())
        .await?;
    Ok(buckets)
}
