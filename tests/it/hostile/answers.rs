//! Answers have a bound in bytes, and what one project asks leaves room for others: large rows under every
//! list, slow questions, clients that go away, long lists within requests.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use super::arena::{Arena, PEAK_MIB_MAX, succeed};
use crate::harness::{Xtrace, answer};
use crate::routes::{Route, routes};

/// An answer has no more bytes, but for what surrounds its rows.
const ANSWER_BYTES_MAX: usize = 81_000_000;
/// Rows of each kind, and bytes of each row: together more than an answer may have.
const ROWS: usize = 12;
const ROW_BYTES: usize = 8_000_000;

const DEADLINE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(20);
const LOCK: &str = "begin; lock table comments in access exclusive mode";

/// Every route that reads, with a question that finds as much as it can.
const QUESTIONS: [(&str, &str); 39] = [
    ("GET /api/public/annotation-queues", "?limit=100"),
    ("GET /api/public/annotation-queues/{queue_id}", "/q-0"),
    (
        "GET /api/public/annotation-queues/{queue_id}/items",
        "/q-0/items?limit=100",
    ),
    (
        "GET /api/public/annotation-queues/{queue_id}/items/{item_id}",
        "/q-0/items/i-0",
    ),
    ("GET /api/public/comments", "?limit=100"),
    ("GET /api/public/comments/{comment_id}", "/c-0"),
    ("GET /api/public/dataset-items", "?limit=100"),
    ("GET /api/public/dataset-items/{item_id}", "/i-0"),
    (
        "GET /api/public/dataset-run-items",
        "?limit=100&datasetId={dataset}&runName=run-0",
    ),
    ("GET /api/public/datasets", "?limit=100"),
    ("GET /api/public/datasets/{name}", "/d-0"),
    (
        "GET /api/public/datasets/{name}/runs",
        "/d-0/runs?limit=100",
    ),
    (
        "GET /api/public/datasets/{name}/runs/{run}",
        "/d-0/runs/run-0",
    ),
    (
        "GET /api/public/experiment-items",
        "?limit=100&fields=core,io,metadata&fromStartTime=2020-01-01T00:00:00Z",
    ),
    (
        "GET /api/public/experiments",
        "?limit=100&fields=core,metadata&fromStartTime=2020-01-01T00:00:00Z",
    ),
    ("GET /api/public/logs", "?limit=1000"),
    ("GET /api/public/metrics", "?query={query}"),
    ("GET /api/public/metrics/daily", "?limit=100"),
    ("GET /api/public/metrics/names", ""),
    ("GET /api/public/metrics/query", "?name=m"),
    ("GET /api/public/models", "?limit=100"),
    ("GET /api/public/models/{model_id}", "/m-0"),
    ("GET /api/public/observations", "?limit=100"),
    ("GET /api/public/observations/{observation_id}", "/o-0"),
    ("GET /api/public/prompts", "?name=p-0&version=1"),
    ("GET /api/public/score-configs", "?limit=100"),
    ("GET /api/public/score-configs/{config_id}", "/s-0"),
    ("GET /api/public/scores", "?limit=100"),
    ("GET /api/public/scores/{score_id}", "/s-0"),
    ("GET /api/public/sessions", "?limit=100"),
    ("GET /api/public/sessions/{session_id}", "/session"),
    ("GET /api/public/traces", "?limit=100"),
    ("GET /api/public/traces/{trace_id}", "/whole"),
    ("GET /api/public/v2/datasets", "?limit=100"),
    ("GET /api/public/v2/datasets/{name}", "/d-0"),
    ("GET /api/public/v2/metrics", "?query={query}"),
    (
        "GET /api/public/v2/observations",
        "?limit=1000&fields=core,io,metadata",
    ),
    ("GET /api/public/v2/prompts", "?limit=100"),
    ("GET /api/public/v2/prompts/{name}", "/p-0?version=1"),
];

/// Routes that read nothing of a project's rows, or the same as one of the others.
const OTHERS: [&str; 17] = [
    "GET /api/internal/erasures",
    "GET /api/internal/rate_limit_stats",
    "GET /api/public/health",
    "GET /api/public/media/download/{token}",
    "GET /api/public/media/{media_id}",
    "GET /api/public/organizations/apiKeys",
    "GET /api/public/organizations/projects",
    "GET /api/public/projects",
    "GET /api/public/projects/{project_id}/apiKeys",
    "GET /api/public/ready",
    "GET /api/public/v2/scores",
    "GET /api/public/v2/scores/{score_id}",
    "GET /api/public/v3/scores",
    "GET /healthz",
    "GET /metrics",
    "GET /readyz",
    "GET /api/public/v3/scores",
];

/// The path of a question: the route's, up to its first parameter.
fn path(route: &str, question: &str, dataset: &str) -> String {
    let path = route.trim_start_matches("GET ");
    let fixed = path.split("/{").next().unwrap();
    let query = json!({"view": "observations", "metrics": [{"measure": "count", "aggregation": "count"}],
        "dimensions": [{"field": "name"}], "fromTimestamp": "2020-01-01T00:00:00Z",
        "toTimestamp": "2040-01-01T00:00:00Z", "filters": []});
    let query: String = form_urlencoded::byte_serialize(query.to_string().as_bytes()).collect();
    let question = question
        .replace("{query}", &query)
        .replace("{dataset}", dataset);
    format!("{fixed}{question}")
}

#[test]
fn every_route_that_reads_is_asked() {
    let listed: BTreeSet<String> = routes()
        .iter()
        .filter(|route| route.method == "GET")
        .map(Route::name)
        .collect();
    let asked = QUESTIONS.iter().map(|(route, _)| *route);
    let known: BTreeSet<String> = asked.chain(OTHERS).map(str::to_owned).collect();
    assert_eq!(
        listed, known,
        "add new routes to QUESTIONS, or say in OTHERS that they have no rows"
    );
}

/// Rows of every kind, small first, then made large where they lie.
async fn fill(arena: &Arena) -> String {
    let post = async |path: &str, body: Value| {
        succeed(
            arena
                .attack(Method::POST, &format!("/api/public{path}"))
                .json(&body),
        )
        .await
    };
    let rows = (0..ROWS).map(
        |n| json!({"id": format!("t-{n}"), "name": "t", "sessionId": "session", "input": "i"}),
    );
    for trace in rows.chain([json!({"id": "whole", "name": "t"})]) {
        let request = arena.attack(Method::POST, "/v1/l/batch");
        succeed(request.json(&json!({ "trace": trace }))).await;
    }
    let observation = |n: usize| json!({"id": format!("o-{n}"), "traceId": "whole", "input": "i"});
    let all: Vec<Value> = (0..ROWS).map(observation).collect();
    succeed(
        arena
            .attack(Method::POST, "/v1/l/batch")
            .json(&json!({"observations": all})),
    )
    .await;
    let mut dataset = String::new();
    for n in 0..ROWS {
        let made = post("/v2/datasets", json!({"name": format!("d-{n}")})).await;
        if n == 0 {
            dataset = made["id"].as_str().unwrap().to_owned();
        }
        post(
            "/dataset-items",
            json!({"datasetName": "d-0", "id": format!("i-{n}"), "input": 1}),
        )
        .await;
        post(
            "/dataset-run-items",
            json!({"runName": format!("run-{n}"), "datasetItemId": "i-0", "traceId": "t-0"}),
        )
        .await;
        post(
            "/scores",
            json!({"id": format!("s-{n}"), "name": "s", "traceId": "t-0", "value": 1}),
        )
        .await;
        post(
            "/v2/prompts",
            json!({"name": format!("p-{n}"), "type": "text", "prompt": "p", "config": {}}),
        )
        .await;
        let config = post(
            "/score-configs",
            json!({"name": format!("c {n}"), "dataType": "NUMERIC"}),
        )
        .await;
        post(
            "/annotation-queues",
            json!({"name": format!("q {n}"), "scoreConfigIds": [config["id"]]}),
        )
        .await;
        post("/models", json!({"modelName": format!("m {n}"), "matchPattern": format!("m{n}"), "unit": "TOKENS", "inputPrice": 1})).await;
        post("/comments", json!({"projectId": "attacker", "objectType": "TRACE", "objectId": "t-0", "content": "c"})).await;
    }
    let mut connection = arena.sql().await;
    for statement in enlarging() {
        run(&mut connection, &statement).await;
    }
    dataset
}

async fn run(connection: &mut PgConnection, statement: &str) {
    let done = sqlx::query(AssertSqlSafe(statement.to_owned()))
        .execute(connection)
        .await;
    let done = done.unwrap_or_else(|error| panic!("{error}: {statement}"));
    assert!(done.rows_affected() > 0, "nothing changed: {statement}");
}

fn enlarging() -> Vec<String> {
    let long = format!("repeat('a', {ROW_BYTES})");
    let json = format!("'{{\"long\":\"' || {long} || '\"}}'");
    let number = "(row_number() over (order by id) - 1)";
    let renumbered = |table: &str, prefix: &str| {
        format!(
            "update {table} a set id = '{prefix}-' || b.n from (select id, {number} as n from {table}
              where project_id = 'attacker') b where a.project_id = 'attacker' and a.id = b.id"
        )
    };
    let large = |table: &str, column: &str, value: &str| {
        format!("update {table} set {column} = {value} where project_id = 'attacker'")
    };
    vec![
        renumbered("comments", "c"),
        renumbered("score_configs", "s"),
        renumbered("annotation_queues", "q"),
        renumbered("models", "m"),
        large("traces", "input", &long) + " and id <> 'whole'",
        large("observations", "input", &long),
        large("observations", "experiment", "jsonb_build_object('id', id, 'metadata', jsonb_build_object('a', 'b'))"),
        large("dataset_items", "input", &format!("'\"' || {long} || '\"'")),
        large("datasets", "metadata", &json),
        large("dataset_runs", "metadata", &json),
        large("scores", "metadata", &json),
        large("prompts", "config", &json),
        large("score_configs", "description", &long),
        large("annotation_queues", "description", &long),
        large("models", "tokenizer_config", &json),
        format!("insert into annotation_queue_items (project_id, id, queue_id, object_type, object_id, status, created_at, updated_at)
                 select 'attacker', 'i-' || n, 'q-0', 'TRACE', {long}, 'PENDING', now(), now() from generate_series(0, {ROWS}) n"),
        format!("insert into logs (project_id, id, ts, created_at, severity, body, attributes, rest)
                 select 'attacker', lpad(to_hex(n), 32, '0'), date_trunc('day', now()) + n * interval '1 ms', now(), 9, to_jsonb({long}), '{{}}', '{{}}'
                   from generate_series(1, {ROWS}) n"),
    ]
}

/// Asks once; the bytes of the answer, which is a whole one or a refusal that says what to do.
async fn ask(arena: &Arena, path: &str) -> (StatusCode, usize, Option<String>) {
    let response = arena.attack(Method::GET, path).send().await.unwrap();
    let status = response.status();
    let waits = response.headers().contains_key("retry-after");
    let body = response.bytes().await.unwrap();
    let words = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    match status.as_u16() {
        200 => {}
        404 => assert!(
            path.contains("/m-0") || path.contains("name=m"),
            "{path}: {words}"
        ),
        422 => assert!(
            words.contains("Ask for less") || words.contains("too large"),
            "{path}: {words}"
        ),
        429 => assert!(waits, "{path}: {words}"),
        _ => panic!("{path}: {status} {words}"),
    }
    assert!(
        body.len() < ANSWER_BYTES_MAX,
        "{path}: {} bytes",
        body.len()
    );
    let cursor = serde_json::from_slice::<Value>(&body).unwrap_or_default()["meta"]["cursor"]
        .as_str()
        .map(str::to_owned);
    (status, body.len(), cursor)
}

#[tokio::test(flavor = "multi_thread")]
async fn large_rows_get_bounded_answers_everywhere() {
    let arena = Arena::start().await;
    let dataset = fill(&arena).await;
    let paths: Vec<String> = QUESTIONS
        .iter()
        .map(|(route, question)| path(route, question, &dataset))
        .collect();
    let mut refused = BTreeSet::new();
    for path in &paths {
        let (status, bytes, cursor) = ask(&arena, path).await;
        if status == 422 {
            refused.insert(path.split('?').next().unwrap());
        } else {
            assert_eq!(status, 200, "{path}");
        }
        // Where there is a cursor, pages end early and lead to the next one.
        if let Some(mut cursor) = cursor {
            let mut all = bytes;
            loop {
                let (status, bytes, next) = ask(&arena, &format!("{path}&cursor={cursor}")).await;
                assert_eq!(status, 200, "{path}");
                all += bytes;
                match next {
                    Some(next) => cursor = next,
                    None => break,
                }
            }
            assert!(all > ROWS * ROW_BYTES, "{path}: {all} bytes on all pages");
        }
    }
    let lists = [
        "annotation-queues",
        "dataset-items",
        "datasets",
        "datasets/d-0",
        "datasets/d-0/runs",
        "models",
        "observations",
        "score-configs",
        "scores",
        "sessions/session",
        "traces",
        "traces/whole",
        "v2/datasets",
        "v2/prompts",
        "annotation-queues/q-0/items",
    ];
    let expected: BTreeSet<String> = lists
        .iter()
        .map(|list| format!("/api/public/{list}"))
        .collect();
    let refused: BTreeSet<String> = refused.into_iter().map(str::to_owned).collect();
    assert_eq!(refused, expected);
    // All of them at once: they wait for each other or are told to come again, and memory stays bounded.
    let (_, report) = arena
        .watch(join_all(paths.iter().map(|path| ask(&arena, path))))
        .await;
    report.assert_served();
    let peak = arena.xtrace.peak_mib();
    assert!(peak <= PEAK_MIB_MAX, "memory rose to {peak} MiB");
}

/// Connections of the server whose list of comments waits for a lock; the background looks at comments too.
async fn waiting(connection: &mut PgConnection) -> Vec<i32> {
    sqlx::query_scalar(
        "select pid from pg_stat_activity
          where datname = current_database() and application_name = 'xtrace' and wait_event_type = 'Lock'
            and query like '%from comments where project_id%'",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

/// Waits until so many statements wait for a lock.
async fn wait_for(connection: &mut PgConnection, count: usize) -> Vec<i32> {
    let began = Instant::now();
    loop {
        let found = waiting(connection).await;
        if found.len() == count {
            return found;
        }
        assert!(
            began.elapsed() < DEADLINE,
            "{count} statements never waited"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_do_not_end_leave_connections_to_others() {
    let arena = Arena::start().await;
    let (mut locks, mut looks) = (arena.sql().await, arena.sql().await);
    sqlx::raw_sql(LOCK).execute(&mut locks).await.unwrap();
    let ask = || answer(arena.attack(Method::GET, "/api/public/comments"));
    let attack = async {
        let asked = join_all((0..24).map(|_| ask()));
        let unlock = async {
            wait_for(&mut looks, 4).await;
            for _ in 0..50 {
                let found = waiting(&mut looks).await.len();
                assert!(found <= 4, "{found} of 8 connections are one project's");
                tokio::time::sleep(PAUSE).await;
            }
            sqlx::raw_sql("commit").execute(&mut locks).await.unwrap();
        };
        futures_util::join!(asked, unlock).0
    };
    let (answers, report) = arena.watch(attack).await;
    report.assert_served();
    for (status, body) in answers {
        // On a busy machine some waited for the lock, or for their turn, as long as they may.
        assert!(
            [200, 429, 503].contains(&status.as_u16()),
            "{status} {body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statement_of_a_client_that_has_gone_ends() {
    let xtrace = Xtrace::start().await;
    let (mut locks, mut looks) = (xtrace.sql().await, xtrace.sql().await);
    sqlx::raw_sql(LOCK).execute(&mut locks).await.unwrap();
    let client = tokio::spawn(xtrace.request(Method::GET, "/api/public/comments").send());
    let pid = wait_for(&mut looks, 1).await[0];
    client.abort();
    // A statement that ran to its end would have left its connection to the pool.
    let began = Instant::now();
    let exists = "select exists (select from pg_stat_activity where pid = $1)";
    while sqlx::query_scalar(exists)
        .bind(pid)
        .fetch_one(&mut looks)
        .await
        .unwrap()
    {
        assert!(began.elapsed() < DEADLINE, "the connection stays");
        tokio::time::sleep(PAUSE).await;
    }
    sqlx::raw_sql("commit").execute(&mut locks).await.unwrap();
    let (status, body) = xtrace.get("/api/public/comments").await;
    assert_eq!(status, 200, "{body}");
}
