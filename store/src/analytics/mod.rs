//! Numbers about many rows: counts, sums, percentiles, by dimensions and over time.
//!
//! [`fields`] says what there is, by view; `sql` makes one statement of a question, with the bins of
//! `histogram`; `daily` answers those that sums by day suffice for. Every name is one of ours and every value is bound; a question that would
//! answer more than [`ROWS_MAX`] rows, or take longer than the statement timeout, is refused. Postgres collects no
//! values in memory for one: percentiles and distinct counts are sorted within `work_mem` and temporary files.

mod daily;
pub mod fields;
mod histogram;
mod sql;

use chrono::{DateTime, Utc};
use xtrace_model::ProjectId;

use crate::filter::{Column, ColumnType, Condition};
use crate::{Store, StoreError};
use fields::{Dimension, Measure};

/// Rows of an answer at most.
pub const ROWS_MAX: i64 = 100_000;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum View {
    Traces,
    Observations,
    NumericScores,
    CategoricalScores,
    BooleanScores,
}

/// Which dialect asks: its fields differ a little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Version {
    V1,
    V2,
}

/// What is computed of a measure's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Aggregation {
    Sum,
    Avg,
    Count,
    Max,
    Min,
    P50,
    P75,
    P90,
    P95,
    P99,
    Histogram,
    Uniq,
}

impl Aggregation {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 12] = [
        ("sum", Self::Sum),
        ("avg", Self::Avg),
        ("count", Self::Count),
        ("max", Self::Max),
        ("min", Self::Min),
        ("p50", Self::P50),
        ("p75", Self::P75),
        ("p90", Self::P90),
        ("p95", Self::P95),
        ("p99", Self::P99),
        ("histogram", Self::Histogram),
        ("uniq", Self::Uniq),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, one)| *one == self);
        found.map_or("", |(name, _)| name)
    }
}

/// How long a bucket of time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Granularity {
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

impl Granularity {
    /// Its name, which is Postgres' too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

/// One number of each row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// What is measured.
    pub measure: &'static Measure,
    /// What is computed of it.
    pub aggregation: Aggregation,
}

impl Metric {
    /// What rows call it.
    pub fn name(&self) -> String {
        format!("{}_{}", self.aggregation.name(), self.measure.name)
    }
}

/// What rows are put in order by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OrderKey {
    /// The dimension of that place.
    Dimension(usize),
    /// The bucket of time.
    Time,
    /// The metric of that place.
    Metric(usize),
}

/// A column that conditions name: a dimension, a measure, the time or the metadata of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnalyticsColumn {
    sql: &'static str,
    column_type: ColumnType,
}

impl Column for AnalyticsColumn {
    /// Columns depend on the view: [`fields::column`] finds them.
    fn parse(_name: &str) -> Option<Self> {
        None
    }

    fn column_type(self) -> ColumnType {
        self.column_type
    }

    fn sql(self) -> &'static str {
        self.sql
    }
}

/// A question.
#[derive(Debug)]
pub struct Question {
    /// What is counted.
    pub view: View,
    /// Numbers of each row.
    pub metrics: Vec<Metric>,
    /// What rows are told apart by.
    pub dimensions: Vec<&'static Dimension>,
    /// All of them must hold.
    pub conditions: Vec<Condition<AnalyticsColumn>>,
    /// Rows are told apart by time too.
    pub granularity: Option<Granularity>,
    /// From this time,
    pub from: DateTime<Utc>,
    /// up to and with this one.
    pub to: DateTime<Utc>,
    /// Key, and whether it descends.
    pub order: Vec<(OrderKey, bool)>,
    /// Bins of histograms at most.
    pub bins: i32,
    /// Most rows.
    pub limit: i64,
}

/// A row of an answer, as it is shown.
#[derive(Debug, sqlx::FromRow)]
pub struct Row {
    /// JSON text: dimensions, `time_dimension`, metrics, in that order.
    pub json: String,
    /// Its `time_dimension`, if rows have one.
    pub bucket: Option<String>,
}

/// Rows of an answer. They stay text: taken apart, they would need many times as much memory.
pub type Rows = Vec<Row>;

/// Answers a question.
pub async fn answer(
    store: &Store,
    project: &ProjectId,
    question: &Question,
) -> Result<Rows, StoreError> {
    if let Some(plan) = daily::plan(question) {
        return daily::answer(store, project, question, &plan).await;
    }
    let mut statement = sql::statement(project, question);
    Ok(statement.build_query_as().fetch_all(store.read()).await?)
}
