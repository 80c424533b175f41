//! Deletes that really delete.

use reqwest::Method;
use serde_json::{Value, json};

use super::{INGESTION, event};
use crate::harness::{Xtrace, answer};

#[tokio::test(flavor = "multi_thread")]
async fn deleted_traces_are_gone_with_all_that_was_theirs() {
    let xtrace = Xtrace::start().await;
    let other = xtrace.project("other").await;
    let events = json!({"batch": [
        event("1", 1, "trace-create", json!({"id": "t", "sessionId": "s"})),
        event("2", 1, "span-create", json!({"id": "o", "traceId": "t"})),
        event("3", 1, "score-create", json!({"id": "sc", "traceId": "t", "name": "n", "value": 1})),
        event("4", 1, "trace-create", json!({"id": "stays"})),
    ]});
    assert_eq!(xtrace.post(INGESTION, &events).await.0, 207);
    assert_eq!(
        answer(
            xtrace
                .request_as(&other, Method::POST, INGESTION)
                .json(&events)
        )
        .await
        .0,
        207
    );
    let (status, body) = answer(xtrace.request(Method::DELETE, "/api/public/traces/t")).await;
    assert_eq!(
        (status.as_u16(), body),
        (200, json!({"message": "Trace deleted successfully"}))
    );
    for path in ["traces/t", "observations/o", "scores/sc"] {
        assert_eq!(
            xtrace.get(&format!("/api/public/{path}")).await.0,
            404,
            "{path}"
        );
        let theirs = xtrace.request_as(&other, Method::GET, &format!("/api/public/{path}"));
        assert_eq!(answer(theirs).await.0, 200, "{path} of another project");
    }
    let (_, session) = xtrace.get("/api/public/sessions/s").await;
    assert_eq!(session["traces"], json!([]));
    let delete = |ids: Value| {
        answer(
            xtrace
                .request(Method::DELETE, "/api/public/traces")
                .json(&json!({"traceIds": ids})),
        )
    };
    assert_eq!(delete(json!(["stays", "unknown"])).await.0, 200);
    assert_eq!(xtrace.get("/api/public/traces/stays").await.0, 404);
    assert_eq!(
        delete(json!([])).await.1["error"][0]["message"],
        "At least 1 traceId is required."
    );
    assert_eq!(delete(json!(vec!["x"; 1001])).await.0, 400);
    assert_eq!(delete(json!("t")).await.0, 400);
}
