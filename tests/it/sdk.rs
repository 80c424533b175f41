//! The Rust SDK of this repository against the server.

use std::collections::BTreeMap;

use chrono::{TimeDelta, Utc};
use serde_json::json;
use tracing_subscriber::layer::SubscriberExt;
use xtrace_client::{
    BatchIngestRequest, Client, Error, MetricPoint, MetricsDailyQuery, MetricsQueryParams,
    ObservationIngest, TraceIngest, TraceListQuery, XtraceLayer, current_trace_id,
};

use crate::harness::{TOKEN, Xtrace};

#[tokio::test(flavor = "multi_thread")]
async fn everything_written_is_read_back() {
    let xtrace = Xtrace::start().await;
    let client = Client::new(&xtrace.url, TOKEN).unwrap();
    client.healthz().await.unwrap();
    let trace = TraceIngest::new("order/17 ü")
        .with_name("checkout")
        .with_run_id("r-1");
    let mut step = ObservationIngest::new("step-1", "order/17 ü").with_type("generation");
    step.model = Some("gpt-4o".to_owned());
    step.usage_details = Some(json!({"input": 1000, "output": 100}));
    let batch = BatchIngestRequest {
        trace: Some(trace),
        observations: vec![step],
    };
    client.ingest_batch(&batch).await.unwrap();

    let query = TraceListQuery {
        name: Some("checkout".to_owned()),
        ..TraceListQuery::default()
    };
    let page = client.list_traces(&query).await.unwrap();
    assert_eq!(
        (page.meta.total_items, page.data[0].observations.as_slice()),
        (1, &["step-1".to_owned()][..])
    );
    let trace = client.get_trace("order/17 ü").await.unwrap();
    assert_eq!(trace.metadata["run_id"], "r-1");
    assert_eq!(trace.observations[0]["type"], "GENERATION");
    let daily = client
        .metrics_daily(&MetricsDailyQuery::default())
        .await
        .unwrap();
    assert_eq!(daily.data[0].usage[0].input_usage, 1000);
    assert!((daily.data[0].total_cost - 0.0035).abs() < 1e-9);

    let now = Utc::now();
    let point = |value: f64, ago_s: i64| MetricPoint {
        name: "depth".to_owned(),
        labels: BTreeMap::from([("node".to_owned(), "1".to_owned())]),
        value,
        timestamp: now - TimeDelta::seconds(ago_s),
    };
    client
        .push_metrics(&[point(1.0, 2), point(3.0, 1)])
        .await
        .unwrap();
    let names = client.list_metric_names().await.unwrap();
    // Behind it are those that observations make.
    assert_eq!(names[0], "depth", "{names:?}");
    let query = MetricsQueryParams {
        name: "depth".to_owned(),
        agg: Some("max".to_owned()),
        step: Some("1d".to_owned()),
        ..MetricsQueryParams::default()
    };
    let found = client.query_metrics(&query).await.unwrap();
    let newest = found.meta.latest_ts.unwrap();
    assert!((newest - (now - TimeDelta::seconds(1))).abs() < TimeDelta::milliseconds(1));
    assert!(
        found.data[0]
            .values
            .iter()
            .any(|bucket| (bucket.value - 3.0).abs() < 1e-9)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why() {
    let xtrace = Xtrace::start().await;
    let stranger = Client::new(&xtrace.url, "wrong").unwrap();
    let refused = stranger.list_metric_names().await.unwrap_err();
    assert!(!refused.is_retryable());
    let Error::Refused {
        status,
        code,
        message,
        ..
    } = refused
    else {
        panic!("{refused}")
    };
    assert_eq!(
        (status.as_u16(), code.as_deref()),
        (401, Some("UNAUTHORIZED"))
    );
    assert_eq!(message, "unknown credentials");
    assert!(matches!(
        Client::new("nowhere", "t"),
        Err(Error::InvalidBaseUrl(_))
    ));
    assert!(matches!(
        Client::new(&xtrace.url, "a\nb"),
        Err(Error::InvalidToken)
    ));
    let nobody = Client::new("http://127.0.0.1:1", "t").unwrap();
    assert!(nobody.healthz().await.unwrap_err().is_retryable());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layer_turns_events_and_spans_into_points() {
    let xtrace = Xtrace::start().await;
    let client = Client::new(&xtrace.url, TOKEN).unwrap();
    let subscriber = tracing_subscriber::registry().with(XtraceLayer::new(client.clone()));
    tracing::subscriber::with_default(subscriber, || {
        assert_eq!(current_trace_id(), None);
        let outer = tracing::info_span!("outer", session_id = "s-1").entered();
        let trace_id = current_trace_id().unwrap();
        let inner = tracing::info_span!("inner").entered();
        assert_eq!(current_trace_id().as_deref(), Some(trace_id.as_str()));
        tracing::info!(metric = "tokens", value = 512, model = "gpt-4o");
        drop((inner, outer));
        assert_eq!(current_trace_id(), None);
    });
    let query = |name: &str| MetricsQueryParams {
        name: name.to_owned(),
        step: Some("1d".to_owned()),
        to: Some(Utc::now() + TimeDelta::minutes(1)),
        ..MetricsQueryParams::default()
    };
    let mut found = client.query_metrics(&query("span_duration")).await.unwrap();
    for _ in 0..100 {
        if found.data.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        found = client.query_metrics(&query("span_duration")).await.unwrap();
    }
    let names: Vec<&str> = found
        .data
        .iter()
        .map(|series| series.labels["span_name"].as_str())
        .collect();
    assert!(
        names.contains(&"outer") && names.contains(&"inner"),
        "{names:?}"
    );
    let tokens = client.query_metrics(&query("tokens")).await.unwrap();
    let labels = &tokens.data[0].labels;
    assert_eq!(
        (labels["model"].as_str(), labels["session_id"].as_str()),
        ("gpt-4o", "s-1")
    );
    assert!(labels.contains_key("trace_id"));
}
