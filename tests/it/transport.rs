//! A database over TCP gets rows another way than one on a socket; the rows are the same.

use serde_json::{Value, json};

use crate::harness::{Xtrace, new_database, over_tcp};

async fn rows(xtrace: &Xtrace) -> Vec<Value> {
    let mut connection = xtrace.sql().await;
    let mut all = Vec::new();
    for table in ["traces", "observations"] {
        let sql = format!(
            "select (to_jsonb(r) - 'created_at' - 'updated_at' - 'merge_state')::text from {table} r order by id"
        );
        let found: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        all.extend(
            found
                .iter()
                .map(|row| serde_json::from_str::<Value>(row).unwrap()),
        );
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_the_same_over_tcp_and_over_a_socket() {
    let on_socket = Xtrace::start().await;
    let (tcp_url, _) = over_tcp(&new_database().await).await;
    let on_tcp = Xtrace::start_on(&tcp_url, &[]).await;
    let trace = json!({"id": "t", "timestamp": "2026-01-15T10:00:00Z", "name": "n", "public": true,
        "tags": ["a \"quoted\" one", "comma, brace }", "ü"], "metadata": {"k": [1, {"n": null}]},
        "input": {"text": "line\nbreak \\ and \t tab"}, "latency": 0.1, "totalCost": 1e-7});
    let bare = json!({"id": "o-1", "traceId": "t", "startTime": "0001-01-01T00:00:00Z"});
    let full = json!({"id": "o-2", "traceId": "t", "type": "GENERATION", "startTime": "2026-01-15T10:00:00.123456Z",
        "endTime": "9999-12-31T23:59:59.999999Z", "model": "gpt-4o", "promptName": "p", "promptVersion": -3,
        "usageDetails": {"input": 9_007_199_254_740_993_i64, "output": 2}, "output": "", "level": "ERROR"});
    for xtrace in [&on_socket, &on_tcp] {
        let batch = json!({"trace": trace, "observations": [bare, full]});
        assert_eq!(xtrace.post("/v1/l/batch", &batch).await.0, 200);
        let update = json!({"trace": {"id": "t", "tags": ["later"]}, "observations": [{"id": "o-1", "traceId": "t", "name": "named"}]});
        assert_eq!(xtrace.post("/v1/l/batch", &update).await.0, 200);
    }
    let (socket_rows, tcp_rows) = (rows(&on_socket).await, rows(&on_tcp).await);
    assert_eq!(socket_rows.len(), 3);
    assert_eq!(socket_rows, tcp_rows);
}
