//! Reading traces and daily usage.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use crate::{Client, Error, parameter};

/// Which traces to list; the defaults list all, newest first.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the names of the query parameters")]
pub struct TraceListQuery {
    pub page: Option<i64>,
    /// 1 to 100.
    pub limit: Option<i64>,
    pub user_id: Option<String>,
    pub name: Option<String>,
    pub session_id: Option<String>,
    /// Inclusive.
    pub from_timestamp: Option<DateTime<Utc>>,
    /// Exclusive.
    pub to_timestamp: Option<DateTime<Utc>>,
    /// `timestamp.desc`, `name.asc` and the like.
    pub order_by: Option<String>,
    /// All of them.
    pub tags: Vec<String>,
    pub version: Option<String>,
    pub release: Option<String>,
    /// Any of them.
    pub environment: Vec<String>,
    /// Field groups: `core`, `io`, `scores`, `observations`, `metrics`.
    pub fields: Option<String>,
    /// A JSON array of conditions.
    pub filter: Option<String>,
}

impl TraceListQuery {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let single = [
            parameter("page", self.page),
            parameter("limit", self.limit),
            parameter("userId", self.user_id.as_deref()),
            parameter("name", self.name.as_deref()),
            parameter("sessionId", self.session_id.as_deref()),
            parameter(
                "fromTimestamp",
                self.from_timestamp.map(|time| time.to_rfc3339()),
            ),
            parameter(
                "toTimestamp",
                self.to_timestamp.map(|time| time.to_rfc3339()),
            ),
            parameter("orderBy", self.order_by.as_deref()),
            parameter("version", self.version.as_deref()),
            parameter("release", self.release.as_deref()),
            parameter("fields", self.fields.as_deref()),
            parameter("filter", self.filter.as_deref()),
        ];
        let tags = self.tags.iter().map(|tag| ("tags", tag.clone()));
        let environments = self
            .environment
            .iter()
            .map(|name| ("environment", name.clone()));
        single
            .into_iter()
            .flatten()
            .chain(tags)
            .chain(environments)
            .collect()
    }
}

/// A page of a list.
#[derive(Debug, Clone, Deserialize)]
pub struct PagedData<T> {
    /// The page's rows.
    pub data: Vec<T>,
    /// Where the page is.
    pub meta: PageMeta,
}

/// Where a page is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageMeta {
    /// Counted from 1.
    pub page: i64,
    /// Rows on a page.
    pub limit: i64,
    /// Rows on all pages.
    pub total_items: i64,
    /// Pages.
    pub total_pages: i64,
}

/// A trace with the ids of its observations and scores.
pub type TraceListItem = Trace<String>;
/// A trace with its observations and scores.
pub type TraceDetail = Trace<Value>;

/// A trace as readers see it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "the fields of the wire format, documented in docs/openapi.yaml"
)]
pub struct Trace<T> {
    pub id: String,
    pub timestamp: DateTime<Utc>,
    pub name: Option<String>,
    pub input: Value,
    pub output: Value,
    pub user_id: Option<String>,
    pub session_id: Option<String>,
    pub release: Option<String>,
    pub version: Option<String>,
    pub metadata: Value,
    pub tags: Vec<String>,
    pub public: bool,
    pub environment: String,
    pub html_path: String,
    /// Seconds.
    pub latency: Option<f64>,
    /// USD.
    pub total_cost: Option<f64>,
    pub observations: Vec<T>,
    pub scores: Vec<T>,
}

/// Which days to list; the defaults list all, newest first.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the names of the query parameters")]
pub struct MetricsDailyQuery {
    pub page: Option<i64>,
    pub limit: Option<i64>,
    pub trace_name: Option<String>,
    pub user_id: Option<String>,
    pub tags: Vec<String>,
    pub environment: Vec<String>,
    pub from_timestamp: Option<DateTime<Utc>>,
    pub to_timestamp: Option<DateTime<Utc>>,
    pub version: Option<String>,
    pub release: Option<String>,
}

/// Usage and cost of one UTC day.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricsDailyItem {
    /// `2026-02-14`.
    pub date: String,
    /// Traces that begin on it.
    pub count_traces: i64,
    /// Observations that begin on it.
    pub count_observations: i64,
    /// USD.
    pub total_cost: f64,
    /// By model.
    pub usage: Vec<ModelUsage>,
}

/// What a model was used for on a day.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct ModelUsage {
    pub model: Option<String>,
    pub input_usage: i64,
    pub output_usage: i64,
    pub total_usage: i64,
    pub count_observations: i64,
    pub count_traces: i64,
    /// USD.
    pub total_cost: f64,
}

impl Client {
    /// Lists traces.
    pub async fn list_traces(
        &self,
        query: &TraceListQuery,
    ) -> Result<PagedData<TraceListItem>, Error> {
        self.get("api/public/traces", &query.parameters()).await
    }

    /// Reads a trace with all that belongs to it.
    pub async fn get_trace(&self, id: impl ToString) -> Result<TraceDetail, Error> {
        let mut url = self.url("api/public/traces/")?;
        if let Ok(mut segments) = url.path_segments_mut() {
            // One segment, whatever characters the id has.
            segments.pop_if_empty().push(&id.to_string());
        }
        self.send(self.http.get(url)).await
    }

    /// Lists usage and cost by day.
    pub async fn metrics_daily(
        &self,
        query: &MetricsDailyQuery,
    ) -> Result<PagedData<MetricsDailyItem>, Error> {
        let single = [
            parameter("page", query.page),
            parameter("limit", query.limit),
            parameter("traceName", query.trace_name.as_deref()),
            parameter("userId", query.user_id.as_deref()),
            parameter(
                "fromTimestamp",
                query.from_timestamp.map(|time| time.to_rfc3339()),
            ),
            parameter(
                "toTimestamp",
                query.to_timestamp.map(|time| time.to_rfc3339()),
            ),
            parameter("version", query.version.as_deref()),
            parameter("release", query.release.as_deref()),
        ];
        let tags = query.tags.iter().map(|tag| ("tags", tag.clone()));
        let environments = query
            .environment
            .iter()
            .map(|name| ("environment", name.clone()));
        let all: Vec<_> = single
            .into_iter()
            .flatten()
            .chain(tags)
            .chain(environments)
            .collect();
        self.get("api/public/metrics/daily", &all).await
    }
}
