//! Writing and reading metrics.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ApiResponse, Client, Error, parameter};

/// One number of one series at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricPoint {
    /// The metric, 1 to 255 characters.
    pub name: String,
    /// What tells its series apart.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What was measured.
    pub value: f64,
    /// When.
    pub timestamp: DateTime<Utc>,
}

#[derive(Serialize)]
struct MetricsBatch<'a> {
    metrics: &'a [MetricPoint],
}

/// What to read of a metric.
#[derive(Debug, Clone, Default)]
pub struct MetricsQueryParams {
    /// The metric.
    pub name: String,
    /// First time, inclusive; an hour before `to` without.
    pub from: Option<DateTime<Utc>>,
    /// Last time, inclusive; now without.
    pub to: Option<DateTime<Utc>>,
    /// Labels that a series must have.
    pub labels: BTreeMap<String, String>,
    /// Width of a bucket: `30s`, `1m` (the default), `5m`, `1h`, `1d`.
    pub step: Option<String>,
    /// `avg` (the default), `max`, `min`, `sum`, `last`, `count`, `p50`, `p90`, `p95`, `p99`,
    /// `rate` or `increase`.
    pub agg: Option<String>,
    /// Label keys, comma-separated; without, every label set is a series.
    pub group_by: Option<String>,
    /// Only this environment.
    pub environment: Option<String>,
}

/// Series, and how fresh they are.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MetricsQueryResponse {
    /// The series, those with the newest data first.
    pub data: Vec<MetricsSeries>,
    /// About all of them.
    pub meta: MetricsQueryMeta,
}

/// Buckets of one label set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MetricsSeries {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Buckets that hold points, in order of time.
    pub values: Vec<MetricValuePoint>,
}

/// One bucket.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MetricValuePoint {
    /// When the bucket begins.
    pub timestamp: DateTime<Utc>,
    /// Its aggregated value.
    pub value: f64,
}

/// About an answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MetricsQueryMeta {
    /// The newest point of the series; none without data.
    #[serde(default)]
    pub latest_ts: Option<DateTime<Utc>>,
    /// How many series.
    pub series_count: usize,
    /// Whether the server's limits left something out.
    pub truncated: bool,
}

#[derive(Deserialize)]
struct Names {
    data: Vec<String>,
}

impl Client {
    /// Stores points; returns once they are committed.
    pub async fn push_metrics(&self, metrics: &[MetricPoint]) -> Result<ApiResponse<Value>, Error> {
        let request = self.http.post(self.url("v1/metrics/batch")?);
        self.send(request.json(&MetricsBatch { metrics })).await
    }

    /// Reads a metric, bucketed and aggregated.
    pub async fn query_metrics(
        &self,
        query: &MetricsQueryParams,
    ) -> Result<MetricsQueryResponse, Error> {
        let labels = (!query.labels.is_empty()).then(|| serde_json::json!(query.labels));
        let all = [
            Some(("name", query.name.clone())),
            parameter("from", query.from.map(|time| time.to_rfc3339())),
            parameter("to", query.to.map(|time| time.to_rfc3339())),
            parameter("labels", labels),
            parameter("step", query.step.as_deref()),
            parameter("agg", query.agg.as_deref()),
            parameter("group_by", query.group_by.as_deref()),
            parameter("environment", query.environment.as_deref()),
        ];
        let all: Vec<_> = all.into_iter().flatten().collect();
        self.get("api/public/metrics/query", &all).await
    }

    /// Lists the names of all metrics, sorted.
    pub async fn list_metric_names(&self) -> Result<Vec<String>, Error> {
        let names: Names = self.get("api/public/metrics/names", &[]).await?;
        Ok(names.data)
    }
}
