//! Drives xtrace with the published client 0.0.15: `published-client URL TOKEN`. Exits 0 if every
//! call does what its users rely on.

use std::collections::HashMap;

use chrono::{Duration, Utc};
use serde_json::json;
use uuid::Uuid;
use xtrace_client::{
    BatchIngestRequest, Client, MetricPoint, MetricsDailyQuery, MetricsQueryParams,
    ObservationIngest, TraceIngest, TraceListQuery,
};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let (url, token) = (arguments.next().unwrap(), arguments.next().unwrap());
    let client = Client::new(&url, &token).unwrap();
    client.healthz().await.unwrap();

    let trace_id = Uuid::new_v4();
    let mut trace = TraceIngest::new(trace_id).with_session_id("s-1").with_turn_id("turn-1");
    trace.name = Some("published".to_owned());
    trace.tags = vec!["b".to_owned(), "a".to_owned()];
    let mut observation = ObservationIngest::new(Uuid::new_v4(), trace_id).with_step_id("1");
    observation.r#type = Some("generation".to_owned());
    observation.model = Some("gpt-4o".to_owned());
    observation.start_time = Some(Utc::now() - Duration::seconds(1));
    observation.end_time = Some(Utc::now());
    observation.prompt_tokens = Some(10);
    observation.completion_tokens = Some(2);
    observation.prompt_version = Some("3".to_owned());
    observation.input = Some(json!([{"role": "user", "content": "hi"}]));
    let batch = BatchIngestRequest { trace: Some(trace), observations: vec![observation] };
    let answer = client.ingest_batch(&batch).await.unwrap();
    assert_eq!((answer.message.as_str(), answer.code), ("Request Successful.", None));

    let query = TraceListQuery { name: Some("published".to_owned()), ..Default::default() };
    let traces = client.list_traces(&query).await.unwrap();
    assert_eq!((traces.meta.total_items, traces.data[0].id), (1, trace_id));
    assert_eq!(traces.data[0].tags, ["a", "b"]);
    let found = client.get_trace(trace_id).await.unwrap();
    assert_eq!(found.session_id.as_deref(), Some("s-1"));
    assert_eq!(found.metadata["turn_id"], "turn-1");
    assert_eq!(found.observations[0]["promptTokens"], 10);
    assert!(found.total_cost.unwrap() > 0.0);
    let daily = client.metrics_daily(&MetricsDailyQuery::default()).await.unwrap();
    assert_eq!((daily.data.len(), daily.data[0].count_traces), (1, 1));

    let point = |value: f64, age_s: i64| MetricPoint {
        name: "queue_depth".to_owned(),
        labels: HashMap::from([("node_id".to_owned(), "node-1".to_owned())]),
        value,
        timestamp: Utc::now() - Duration::seconds(age_s),
    };
    client.push_metrics(&[point(4.0, 120), point(6.0, 1)]).await.unwrap();
    let names = client.list_metric_names().await.unwrap();
    assert_eq!(names[0], "queue_depth");
    let query = MetricsQueryParams {
        name: "queue_depth".to_owned(),
        labels: Some(HashMap::from([("node_id".to_owned(), "node-1".to_owned())])),
        step: Some("1h".to_owned()),
        agg: Some("max".to_owned()),
        ..Default::default()
    };
    let found = client.query_metrics(&query).await.unwrap();
    assert_eq!(found.meta.series_count, 1);
    assert!(found.meta.latest_ts.is_some());
    let greatest = found.data[0].values.iter().map(|point| point.value).fold(0.0, f64::max);
    assert!((greatest - 6.0).abs() < 1e-9);

    let stranger = Client::new(&url, "wrong").unwrap();
    assert!(stranger.list_metric_names().await.is_err());
    // OTLP ids come without hyphens; this client lists them and asks with hyphens.
    for trace in client.list_traces(&TraceListQuery::default()).await.unwrap().data {
        assert_eq!(client.get_trace(trace.id).await.unwrap().id, trace.id);
    }
}
