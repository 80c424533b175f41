//! `GET /metrics`: beside the other paths with credentials, or on a listener of its own.

use serde_json::json;

use crate::harness::{Xtrace, free_port};

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted() {
    let address = format!("127.0.0.1:{}", free_port());
    let xtrace = Xtrace::start_with(&["--metrics-addr", &address]).await;
    let batch = json!({"trace": {"id": "t"}, "observations": [{"id": "o", "traceId": "t"}]});
    assert_eq!(xtrace.post("/v1/l/batch", &batch).await.0, 200);
    assert_eq!(xtrace.post("/v1/l/batch", &batch).await.0, 200);
    let spans = json!([{"traceId": "00", "spanId": "00", "name": "nameless"}]);
    let export = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    assert_eq!(xtrace.post("/v1/traces", &export).await.0, 200);
    assert_eq!(xtrace.get("/no/such/path").await.0, 404);

    let without = xtrace
        .http
        .get(format!("{}/metrics", xtrace.url))
        .send()
        .await
        .unwrap();
    assert_eq!(without.status(), 401);
    // The token of exporters does not see what other projects do.
    assert_eq!(xtrace.get("/metrics").await.0, 403);
    let (status, text) = xtrace.text("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "xtrace_accepted_total{signal=\"observations\"} ",
        "xtrace_refused_total{cause=",
        "xtrace_committed_rows_total{table=\"traces\"} ",
        "xtrace_transaction_rows_bucket{le=\"10\"} ",
        "xtrace_commit_seconds_count ",
        "xtrace_queue_seconds_count ",
        "xtrace_queue_bytes ",
        "xtrace_queue_age_seconds ",
        "xtrace_pool_connections{pool=\"write\",state=\"used\"} ",
        "xtrace_request_seconds_count{method=\"POST\",route=\"/v1/l/batch\",status=\"200\"} ",
        "xtrace_request_seconds_count{method=\"GET\",route=\"none\",status=\"404\"} ",
        "xtrace_build_info{version=",
        "# HELP xtrace_accepted_total ",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let open = xtrace
        .http
        .get(format!("http://{address}/metrics"))
        .send()
        .await
        .unwrap();
    assert_eq!(open.status(), 200);
    assert!(open.text().await.unwrap().contains("xtrace_accepted_total"));
}
