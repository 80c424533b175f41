//! Deletes that really delete.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::{INGESTION, event};
use crate::harness::{Keys, Xtrace, answer};

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

/// How many rows a project has of each kind.
async fn counts(xtrace: &Xtrace, project: &str) -> Vec<i64> {
    let mut sql = xtrace.sql().await;
    let mut counts = Vec::new();
    for table in [
        "traces",
        "observations",
        "logs",
        "scores",
        "pending_content",
        "media_links",
        "comments",
        "annotation_queue_items",
    ] {
        let count = format!("select count(*) from {table} where project_id = $1");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(count))
            .bind(project)
            .fetch_one(&mut sql)
            .await
            .unwrap();
        counts.push(count);
    }
    counts
}

/// A trace `t` with much of everything, some of it under the ids of another trace's.
async fn fill(xtrace: &Xtrace, project: &str, keys: &Keys) {
    let observations = |trace: &str, numbers: std::ops::Range<u32>| -> Vec<Value> {
        numbers
            .map(|number| {
                json!({"id": format!("o-{number}"), "traceId": trace, "startTime": "2026-01-15T10:00:00Z"})
            })
            .collect()
    };
    for body in [observations("t", 0..1300), observations("stays", 0..1)] {
        let post = xtrace.request_as(keys, Method::POST, "/v1/l/batch");
        let (status, body) = answer(post.json(&json!({"observations": body}))).await;
        assert_eq!(status, 200, "{body}");
    }
    let mut sql = xtrace.sql().await;
    for statement in [
        "insert into logs (project_id, ts, id, severity, trace_id, attributes, rest, created_at)
         select $1, timestamptz '2026-01-15' + n * interval '1 min', n::text, 0, 't', '{}', '', now()
           from generate_series(1, 1300) n",
        "insert into scores (project_id, id, trace_id, name, source, data_type, value, environment, ts, merge_state,
                created_at, updated_at)
         select $1, n::text, 't', 'n', 'API', 'NUMERIC', 1, 'default', now(), '', now(), now()
           from generate_series(1, 1300) n",
        "insert into pending_content select $1, 't', n::text, now() from generate_series(1, 1300) n",
        "insert into media_links select $1, n::text, 'trace', 't', '', 'input', now() from generate_series(1, 1300) n",
        "insert into comments
         select $1, kind || id, kind, id, 'c', now(), now()
           from (values ('TRACE', 't'), ('TRACE', 'stays'), ('OBSERVATION', 'o-0'), ('OBSERVATION', 'o-1299'),
                        ('SESSION', 't')) k(kind, id)",
        "insert into annotation_queue_items
         select $1, kind || id, 'q', kind, id, 'PENDING', null, now(), now()
           from (values ('TRACE', 't'), ('TRACE', 'stays'), ('OBSERVATION', 'o-0'), ('OBSERVATION', 'o-1'),
                        ('OBSERVATION', 'o-1299')) k(kind, id)",
    ] {
        sqlx::query(statement)
            .bind(project)
            .execute(&mut sql)
            .await
            .unwrap();
    }
}

/// What people said of it too, however much it is; nothing of other traces, and nothing of other projects.
#[tokio::test(flavor = "multi_thread")]
async fn large_traces_go_in_parts_with_all_that_was_said_of_them() {
    let xtrace = Xtrace::start().await;
    let (own, other) = (xtrace.project("own").await, xtrace.project("other").await);
    fill(&xtrace, "own", &own).await;
    fill(&xtrace, "other", &other).await;
    let before = counts(&xtrace, "other").await;
    assert_eq!(before, [2, 1301, 1300, 1300, 1300, 1300, 5, 5]);
    let delete = xtrace.request_as(&own, Method::DELETE, "/api/public/traces/t");
    assert_eq!(answer(delete).await.0, 200);
    // Of the trace that stays, its observation of an id that was deleted elsewhere, and the session.
    assert_eq!(counts(&xtrace, "own").await, [1, 1, 0, 0, 0, 0, 3, 2]);
    assert_eq!(counts(&xtrace, "other").await, before);
    // Nothing holds it up to be stored again.
    let again = xtrace.request_as(&own, Method::POST, "/v1/l/batch");
    let body = json!({"observations": [{"id": "o-7", "traceId": "t", "startTime": "2026-01-15T10:00:00Z"}]});
    assert_eq!(answer(again.json(&body)).await.0, 200);
    let (_, trace) = answer(xtrace.request_as(&own, Method::GET, "/api/public/traces/t")).await;
    assert_eq!(trace["observations"].as_array().unwrap().len(), 1);
}

/// However a trace ended: what was said of it follows within a day.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_of_what_is_gone_goes() {
    let xtrace = Xtrace::start().await;
    let own = xtrace.project("own").await;
    fill(&xtrace, "own", &own).await;
    let mut sql = xtrace.sql().await;
    // As retention and older programs end them.
    for statement in [
        "delete from observations where trace_id = 't'",
        "delete from traces where id = 't'",
        "update comments set created_at = now() - interval '2 days' where object_id <> 'o-1299'",
        "update annotation_queue_items set updated_at = now() - interval '2 days' where object_id <> 'o-1299'",
    ] {
        sqlx::query(statement).execute(&mut sql).await.unwrap();
    }
    xtrace_store::maintenance::once(&xtrace.store, xtrace_store::Retention::default())
        .await
        .unwrap();
    let left = async |sql: &mut sqlx::PgConnection, table: &str| -> Vec<String> {
        let ids = format!("select object_type || ' ' || object_id from {table} order by 1");
        sqlx::query_scalar(AssertSqlSafe(ids))
            .fetch_all(sql)
            .await
            .unwrap()
    };
    // The youngest have a day.
    assert_eq!(
        left(&mut sql, "comments").await,
        [
            "OBSERVATION o-0",
            "OBSERVATION o-1299",
            "SESSION t",
            "TRACE stays"
        ]
    );
    assert_eq!(
        left(&mut sql, "annotation_queue_items").await,
        ["OBSERVATION o-0", "OBSERVATION o-1299", "TRACE stays"]
    );
}
