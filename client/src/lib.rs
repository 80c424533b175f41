//! Async client for [xtrace](https://github.com/lipish/xtrace), the AI observability service.
//!
//! ```no_run
//! # async fn example() -> Result<(), xtrace_client::Error> {
//! use xtrace_client::{BatchIngestRequest, Client, ObservationIngest, TraceIngest};
//!
//! let client = Client::new("http://127.0.0.1:8742/", "token")?;
//! let trace = TraceIngest::new("order-17").with_name("checkout");
//! let step = ObservationIngest::new("step-1", "order-17").with_type("GENERATION");
//! let batch = BatchIngestRequest { trace: Some(trace), observations: vec![step] };
//! client.ingest_batch(&batch).await?;
//! let trace = client.get_trace("order-17").await?;
//! assert_eq!(trace.name.as_deref(), Some("checkout"));
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `tracing`, `XtraceLayer` turns `tracing` events and spans into metric points.

mod error;
mod ingest;
#[cfg(feature = "tracing")]
mod layer;
mod metrics;
mod traces;

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, Url};
use serde::de::DeserializeOwned;

pub use error::Error;
pub use ingest::{ApiResponse, BatchIngestRequest, ObservationIngest, TraceIngest};
#[cfg(feature = "tracing")]
pub use layer::{SPAN_DURATION_METRIC, XtraceLayer, current_trace_id};
pub use metrics::{
    MetricPoint, MetricValuePoint, MetricsQueryMeta, MetricsQueryParams, MetricsQueryResponse,
    MetricsSeries,
};
pub use traces::{
    MetricsDailyItem, MetricsDailyQuery, ModelUsage, PageMeta, PagedData, Trace, TraceDetail,
    TraceListItem, TraceListQuery,
};

/// A handle on one xtrace server; clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    base_url: Url,
    http: reqwest::Client,
}

impl Client {
    /// A client of the server at `base_url`, with the server's API token.
    pub fn new(base_url: &str, bearer_token: &str) -> Result<Self, Error> {
        let mut base_url = Url::parse(base_url)?;
        // Paths are joined to it, so it must end like a directory.
        if !base_url.path().ends_with('/') {
            base_url.set_path(&format!("{}/", base_url.path()));
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {bearer_token}"))
            .map_err(|_| Error::InvalidToken)?;
        authorization.set_sensitive(true);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, authorization)]);
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .timeout(Duration::from_secs(30))
            .build()?;
        Ok(Self { base_url, http })
    }

    /// Asks whether the server's process lives.
    pub async fn healthz(&self) -> Result<(), Error> {
        let response = self.http.get(self.url("healthz")?).send().await?;
        error::check(response).await.map(|_| ())
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        Ok(self.base_url.join(path)?)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Error> {
        self.send(self.http.get(self.url(path)?).query(query)).await
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let response = error::check(request.send().await?).await?;
        Ok(response.json().await?)
    }
}

/// A query parameter that is sent when it has a value.
fn parameter(name: &'static str, value: Option<impl ToString>) -> Option<(&'static str, String)> {
    value.map(|value| (name, value.to_string()))
}
