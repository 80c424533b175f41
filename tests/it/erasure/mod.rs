//! Projects that are deleted: nothing is stored for them any more, and nothing stays of what they had, whoever
//! writes, waits or dies meanwhile.

mod writes;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::Utc;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use xtrace_model::{Batch, ProjectId, Trace, TraceId};
use xtrace_store::erasure::{self, Erasure};
use xtrace_store::{
    Options, Retention, Store, StoreError, Writer, WriterLimits, maintenance, projects,
};

use crate::harness::{Keys, SeparateXtrace, Xtrace, answer, new_database};
use crate::process::{output, xtrace as program};

fn id(project: &str) -> ProjectId {
    ProjectId::parse(project).unwrap()
}

/// A database without a server, and a project in it.
async fn store_with(project: &str) -> (String, Store) {
    let url = new_database().await;
    let store = Store::new(&Options::new(&url)).unwrap();
    store.migrate().await.unwrap();
    projects::ensure(&store, &id(project), Utc::now())
        .await
        .unwrap();
    (url, store)
}

async fn upkeep(store: &Store) {
    maintenance::once(store, Retention::default())
        .await
        .unwrap();
}

/// Deletes a project, with its rows.
pub(crate) async fn erase(store: &Store, project: &ProjectId) {
    assert!(erasure::ask(store, project, Utc::now()).await.unwrap());
    while certificate(store, project.as_str())
        .await
        .finished_at
        .is_none()
    {
        upkeep(store).await;
    }
}

/// The last certificate of a project.
async fn certificate(store: &Store, project: &str) -> Erasure {
    let all = erasure::list(store).await.unwrap();
    all.into_iter()
        .find(|erasure| erasure.id == project)
        .unwrap()
}

/// Waits until a project's certificate says that nothing is left.
async fn until_finished(store: &Store, project: &str) -> Erasure {
    let began = Instant::now();
    loop {
        let found = certificate(store, project).await;
        if found.finished_at.is_some() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_mins(2), "{found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every table of rows that have owners, as the database says.
async fn owned_tables(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid
          where a.attname = 'project_id' and c.relkind in ('r', 'p') and not c.relispartition order by 1",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

/// How many rows a project has in each table that has any of its.
async fn rows(connection: &mut PgConnection, project: &str) -> BTreeMap<String, i64> {
    let mut rows = BTreeMap::new();
    for table in owned_tables(connection).await {
        let count = format!("select count(*) from {table} where project_id = $1");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(count))
            .bind(project)
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        if count > 0 {
            rows.insert(table, count);
        }
    }
    rows
}

/// Gives a project a row in every table, whatever its columns are.
async fn fill(connection: &mut PgConnection, project: &str) {
    for table in owned_tables(connection).await {
        let columns: Vec<(String, String)> = sqlx::query_as(
            "select attname::text, format_type(atttypid, null) from pg_attribute
              where attrelid = $1::regclass and attnum > 0 and not attisdropped and attnotnull
                and not atthasdef and attidentity = ''",
        )
        .bind(&table)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let values: Vec<&str> = columns
            .iter()
            .map(|(_, kind)| match kind.as_str() {
                "text" => "$1",
                "jsonb" => "'{}'",
                "bytea" => "'\\x00'",
                "boolean" => "false",
                "date" => "current_date",
                "timestamp with time zone" => "now()",
                "integer" | "bigint" | "smallint" | "numeric" | "double precision" => "1",
                list if list.ends_with("[]") => "'{}'",
                other => panic!("a value of {other} is needed for {table}"),
            })
            .collect();
        let (names, values) = (names.join(", "), values.join(", "));
        let insert = format!("insert into {table} ({names}) values ({values})");
        sqlx::query(AssertSqlSafe(insert))
            .bind(project)
            .execute(&mut *connection)
            .await
            .unwrap_or_else(|error| panic!("{table}: {error}"));
    }
}

/// A table that a newer program added is one of them.
#[tokio::test(flavor = "multi_thread")]
async fn every_table_is_emptied_of_the_project_and_of_no_other() {
    let (url, store) = store_with("gone").await;
    projects::ensure(&store, &id("stays"), Utc::now())
        .await
        .unwrap();
    let mut sql = PgConnection::connect(&url).await.unwrap();
    sqlx::query("create table \"Later things\" (project_id text not null, number int)")
        .execute(&mut sql)
        .await
        .unwrap();
    sqlx::query("alter table \"Later things\" rename to later_things")
        .execute(&mut sql)
        .await
        .unwrap();
    fill(&mut sql, "gone").await;
    fill(&mut sql, "stays").await;
    let (before, others) = (rows(&mut sql, "gone").await, rows(&mut sql, "stays").await);
    assert_eq!(before.len(), owned_tables(&mut sql).await.len());
    assert!(before.len() > 30, "{before:?}");
    assert!(erasure::ask(&store, &id("gone"), Utc::now()).await.unwrap());
    // Asked twice, and worked on by two.
    assert!(erasure::ask(&store, &id("gone"), Utc::now()).await.unwrap());
    let other = Store::new(&Options::new(&url)).unwrap();
    futures_util::future::join(upkeep(&store), upkeep(&other)).await;
    upkeep(&store).await;
    let certificate = certificate(&store, "gone").await;
    assert!(certificate.finished_at.is_some());
    assert_eq!(rows(&mut sql, "gone").await, BTreeMap::new());
    assert_eq!(rows(&mut sql, "stays").await, others);
    // The end of a trace is a change of usage: that is a row of its own, which goes too.
    let mut expected = before;
    *expected.get_mut("usage_dirty").unwrap() += 1;
    assert_eq!(certificate.counts, json!(expected));
    assert!(!erasure::ask(&store, &id("gone"), Utc::now()).await.unwrap());
}

/// Requests of two projects wait together, and one of them is deleted meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_transaction_with_a_deleted_project_is_served() {
    let (_, store) = store_with("gone").await;
    projects::ensure(&store, &id("open"), Utc::now())
        .await
        .unwrap();
    let (writer, _) = Writer::start(store.clone(), WriterLimits::default());
    let submit = async |project: &str, number: usize| {
        let mut batch = Batch::new(id(project));
        let trace = TraceId::parse(format!("{project}-{number}")).unwrap();
        batch.traces.push(Trace::new(trace));
        writer.submit(batch).await
    };
    assert!(submit("gone", 0).await.is_ok());
    assert!(erasure::ask(&store, &id("gone"), Utc::now()).await.unwrap());
    let both = (0..200)
        .map(|number| futures_util::future::join(submit("gone", number), submit("open", number)));
    for (gone, open) in futures_util::future::join_all(both).await {
        assert!(matches!(gone, Err(StoreError::ProjectGone)), "{gone:?}");
        open.unwrap();
    }
}

/// A transaction that asked whether the project takes rows, before it did no more.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_began_before_are_waited_for() {
    let (url, store) = store_with("gone").await;
    let mut sql = PgConnection::connect(&url).await.unwrap();
    fill(&mut sql, "gone").await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut slow = connection.begin().await.unwrap();
    sqlx::query("select id from projects where id = 'gone'")
        .execute(&mut *slow)
        .await
        .unwrap();
    assert!(erasure::ask(&store, &id("gone"), Utc::now()).await.unwrap());
    let working = tokio::spawn({
        let store = store.clone();
        async move { upkeep(&store).await }
    });
    let began = Instant::now();
    while !rows(&mut sql, "gone").await.is_empty() {
        assert!(began.elapsed() < Duration::from_mins(1), "rows stay");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sqlx::query(
        "insert into comments (project_id, id, object_type, object_id, content, created_at, updated_at)
         values ('gone', 'late', 'TRACE', 't', '', now(), now())",
    )
    .execute(&mut *slow)
    .await
    .unwrap();
    assert!(certificate(&store, "gone").await.finished_at.is_none());
    slow.commit().await.unwrap();
    working.await.unwrap();
    while certificate(&store, "gone").await.finished_at.is_none() {
        upkeep(&store).await;
    }
    assert_eq!(certificate(&store, "gone").await.counts["comments"], 2);
    assert_eq!(rows(&mut sql, "gone").await, BTreeMap::new());
}

/// Through every intake, by two processes that know the key, until both refuse it.
#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_is_written_to_without_a_pause_is_erased() {
    let url = new_database().await;
    let (xtrace, other) = (
        Xtrace::start_on(&url, &[]).await,
        Xtrace::start_on(&url, &[]).await,
    );
    let keys = xtrace.project("busy").await;
    let stay = xtrace.project("stays").await;
    let load = |server: usize, keys: Keys| {
        let (server, keys) = ([&xtrace, &other][server], keys);
        async move {
            for number in 0.. {
                let trace = format!("t-{server}-{number}", server = server.url);
                let mut refused = 0;
                let bodies = intakes(&trace);
                for (path, body) in &bodies {
                    let post = server.request_as(&keys, Method::POST, path).json(body);
                    let (status, answered) = answer(post).await;
                    assert!(
                        status.is_success() || [401, 404].contains(&status.as_u16()),
                        "{path}: {status} {answered}"
                    );
                    refused += usize::from(status == StatusCode::UNAUTHORIZED);
                }
                if refused == bodies.len() {
                    return;
                }
            }
        }
    };
    let deletion = async {
        let mut sql = xtrace.sql().await;
        while rows(&mut sql, "busy").await.len() < 10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let delete = xtrace.administer(Method::DELETE, "/api/public/projects/busy");
        let (status, body) = answer(delete).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        // This process knows at once.
        let own = xtrace.request_as(&keys, Method::GET, "/api/public/traces");
        assert_eq!(answer(own).await.0, StatusCode::UNAUTHORIZED);
    };
    let all = futures_util::future::join4(
        load(0, keys.clone()),
        load(1, keys.clone()),
        load(1, keys.clone()),
        deletion,
    );
    tokio::time::timeout(Duration::from_mins(3), all)
        .await
        .unwrap();
    let certificate = until_finished(&xtrace.store, "busy").await;
    let mut sql = xtrace.sql().await;
    assert_eq!(rows(&mut sql, "busy").await, BTreeMap::new());
    assert!(
        certificate.counts["observations"].as_i64() > Some(0),
        "{certificate:?}"
    );
    // Administrators read it, and others are served as ever.
    let (status, all) = answer(xtrace.administer(Method::GET, "/api/internal/erasures")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(all["data"][0]["deleted"], certificate.counts);
    assert_eq!(all["data"][0]["name"], "busy");
    let (status, _) = xtrace.get("/api/internal/erasures").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (path, body) = &intakes("t")[0];
    let post = xtrace.request_as(&stay, Method::POST, path).json(body);
    assert!(answer(post).await.0.is_success());
}

fn intakes(trace: &str) -> Vec<(&'static str, Value)> {
    let now = Utc::now();
    let nanos = now.timestamp_nanos_opt().unwrap().to_string();
    let span = json!({"traceId": "0123456789abcdef0123456789abcdef", "spanId": "0123456789abcdef", "name": trace,
        "startTimeUnixNano": nanos, "endTimeUnixNano": nanos});
    let record = json!({"timeUnixNano": nanos, "traceId": "0123456789abcdef0123456789abcdef",
        "spanId": "fedcba9876543210", "body": {"stringValue": trace},
        "eventName": "gen_ai.client.inference.operation.details",
        "attributes": [{"key": "gen_ai.input.messages", "value": {"stringValue": "[]"}}]});
    let gauge = json!({"name": "g", "gauge": {"dataPoints": [{"timeUnixNano": nanos, "asDouble": 1,
        "exemplars": [{"timeUnixNano": nanos, "asDouble": 1, "traceId": "0123456789abcdef0123456789abcdef",
            "spanId": "0123456789abcdef"}]}]}});
    let event = json!({"id": trace, "type": "generation-create", "timestamp": now,
        "body": {"id": trace, "traceId": trace, "startTime": now, "usage": {"input": 1}}});
    vec![
        (
            "/v1/l/batch",
            json!({"trace": {"id": trace, "sessionId": trace}, "observations": [{"id": trace, "traceId": trace, "startTime": now}]}),
        ),
        ("/api/public/ingestion", json!({"batch": [event]})),
        (
            "/v1/traces",
            json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}),
        ),
        (
            "/v1/logs",
            json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}),
        ),
        (
            "/v1/metrics",
            json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [gauge]}]}]}),
        ),
        (
            "/v1/metrics/batch",
            json!({"metrics": [{"name": "m", "value": 1, "timestamp": now}]}),
        ),
        (
            "/api/public/scores",
            json!({"traceId": trace, "name": "n", "value": 1}),
        ),
        (
            "/api/public/v2/prompts",
            json!({"name": trace.replace(['/', ':'], "-"), "prompt": "x"}),
        ),
        ("/api/public/v2/datasets", json!({"name": "d"})),
        (
            "/api/public/dataset-items",
            json!({"datasetName": "d", "input": trace}),
        ),
        (
            "/api/public/media",
            json!({"traceId": trace, "contentType": "image/png", "contentLength": 1, "field": "input",
                "sha256Hash": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_goes_on_after_the_kill_of_its_process() {
    const ROWS: i64 = 20_000;
    let url = new_database().await;
    let store = Store::new(&Options::new(&url)).unwrap();
    let xtrace = SeparateXtrace::start_on(&url).await;
    projects::ensure(&store, &id("large"), Utc::now())
        .await
        .unwrap();
    let mut sql = PgConnection::connect(&url).await.unwrap();
    sqlx::query(
        "insert into comments (project_id, id, object_type, object_id, content, created_at, updated_at)
         select 'large', n::text, 'TRACE', 't', repeat('c', 300), now(), now() from generate_series(1, $1) n",
    )
    .bind(ROWS)
    .execute(&mut sql)
    .await
    .unwrap();
    // Somebody holds a row, so that the process can't be done before it is killed.
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut held = connection.begin().await.unwrap();
    sqlx::query("select from comments where project_id = 'large' and id = '7' for update")
        .execute(&mut *held)
        .await
        .unwrap();
    let delete = xtrace
        .http
        .delete(format!("{}/api/public/projects/large", xtrace.url))
        .bearer_auth(crate::harness::ADMIN_TOKEN);
    assert_eq!(answer(delete).await.0, StatusCode::ACCEPTED);
    let began = Instant::now();
    while certificate(&store, "large").await.counts == json!({}) {
        assert!(began.elapsed() < Duration::from_mins(1), "nothing goes");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    xtrace.kill().await;
    let left = rows(&mut sql, "large").await;
    let counted = certificate(&store, "large").await.counts["comments"]
        .as_i64()
        .unwrap();
    assert_eq!(counted + left["comments"], ROWS, "what went is counted");
    let _again = SeparateXtrace::start_on(&url).await;
    held.rollback().await.unwrap();
    let certificate = until_finished(&store, "large").await;
    assert_eq!(certificate.counts, json!({"comments": ROWS}));
    assert_eq!(rows(&mut sql, "large").await, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_free_again_once_nothing_is_left_of_it() {
    let xtrace = Xtrace::start().await;
    let keys = xtrace.project("twice").await;
    let mut connection = xtrace.sql().await;
    fill(&mut connection, "twice").await;
    let mut held = connection.begin().await.unwrap();
    sqlx::query("select from comments where project_id = 'twice' for update")
        .execute(&mut *held)
        .await
        .unwrap();
    let delete = || answer(xtrace.administer(Method::DELETE, "/api/public/projects/twice"));
    assert_eq!(delete().await.0, StatusCode::ACCEPTED);
    // While it is being deleted it is as if it were gone, and its id is taken.
    assert_eq!(delete().await.0, StatusCode::ACCEPTED);
    for (method, path) in [
        (Method::GET, "/api/public/projects/twice/apiKeys"),
        (Method::POST, "/api/public/projects/twice/apiKeys"),
        (Method::PUT, "/api/public/projects/twice"),
    ] {
        let request = xtrace.administer(method, path);
        let (status, body) = answer(request.json(&json!({"name": "twice"}))).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {body}");
    }
    let all = xtrace.administer(Method::GET, "/api/public/organizations/projects");
    let (_, all) = answer(all).await;
    assert_eq!(all["projects"].as_array().unwrap().len(), 1, "{all}");
    let again = projects::ensure(&xtrace.store, &id("twice"), Utc::now()).await;
    assert!(matches!(again, Err(StoreError::ProjectGone)), "{again:?}");
    let run = async |arguments: &[&str]| {
        let mut command = program();
        let database = ["--database-url", &xtrace.database_url];
        output(command.args(arguments).args(database)).await
    };
    let (code, _, said) = run(&["keys", "create", "--project", "twice"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is being deleted"), "{said}");
    held.rollback().await.unwrap();
    until_finished(&xtrace.store, "twice").await;
    assert_eq!(delete().await.0, StatusCode::NOT_FOUND);
    let (code, said, _) = run(&["erasures"]).await;
    assert_eq!(code, Some(0));
    assert!(
        said.contains("twice\ttwice\t") && said.contains("\"comments\":1,"),
        "{said}"
    );
    xtrace.project("twice").await;
    let read = || answer(xtrace.request_as(&keys, Method::GET, "/api/public/comments"));
    let began = Instant::now();
    while read().await.0 != StatusCode::OK {
        assert!(
            began.elapsed() < Duration::from_mins(1),
            "the key is not known again"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(read().await.1["data"], json!([]));
}

/// The project of the API token, which needs no key.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_deleted_default_project_opens_nothing() {
    let xtrace = Xtrace::start().await;
    let mut connection = xtrace.sql().await;
    fill(&mut connection, "default").await;
    let mut held = connection.begin().await.unwrap();
    sqlx::query("select from comments where project_id = 'default' for update")
        .execute(&mut *held)
        .await
        .unwrap();
    assert_eq!(xtrace.get("/api/public/traces").await.0, StatusCode::OK);
    assert!(
        erasure::ask(&xtrace.store, &id("default"), Utc::now())
            .await
            .unwrap()
    );
    let refused = async |xtrace: &Xtrace| {
        let began = Instant::now();
        while xtrace.get("/api/public/traces").await.0 != StatusCode::UNAUTHORIZED {
            assert!(
                began.elapsed() < Duration::from_mins(1),
                "it is not refused"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    refused(&xtrace).await;
    // A server that starts meanwhile serves, finishes, and opens nothing either.
    let second = Xtrace::start_on(&xtrace.database_url, &[]).await;
    refused(&second).await;
    held.rollback().await.unwrap();
    until_finished(&xtrace.store, "default").await;
    refused(&second).await;
    let all = second.administer(Method::GET, "/api/internal/erasures");
    assert_eq!(answer(all).await.0, StatusCode::OK);
    let third = Xtrace::start_on(&xtrace.database_url, &[]).await;
    assert_eq!(third.get("/api/public/traces").await.0, StatusCode::OK);
}

/// Rows that an older program left.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_project_go_after_a_day() {
    let (url, store) = store_with("made").await;
    let mut sql = PgConnection::connect(&url).await.unwrap();
    for project in ["made", "made-later", "nobody"] {
        projects::ensure(&store, &id(project), Utc::now())
            .await
            .unwrap();
        fill(&mut sql, project).await;
    }
    for statement in [
        "delete from api_keys where project_id <> 'made'",
        "delete from projects where id <> 'made'",
    ] {
        sqlx::query(statement).execute(&mut sql).await.unwrap();
    }
    let made = rows(&mut sql, "made").await;
    upkeep(&store).await;
    let since = "update orphans set seen_at = seen_at - interval '23 hours 59 minutes'";
    let moved = sqlx::query(since).execute(&mut sql).await.unwrap();
    assert_eq!(moved.rows_affected(), 2);
    upkeep(&store).await;
    let before = rows(&mut sql, "nobody").await;
    assert_eq!(before.len(), made.len() - 1, "{before:?}");
    let since = "update orphans set seen_at = seen_at - interval '2 minutes'";
    sqlx::query(since).execute(&mut sql).await.unwrap();
    projects::ensure(&store, &id("made-later"), Utc::now())
        .await
        .unwrap();
    upkeep(&store).await;
    assert_eq!(rows(&mut sql, "nobody").await, BTreeMap::new());
    let certificate = certificate(&store, "nobody").await;
    assert!(certificate.finished_at.is_some() && certificate.name.is_none());
    assert_eq!(certificate.counts["observations"], 1);
    // Those of projects stay, whenever they were made.
    assert_eq!(rows(&mut sql, "made").await, made);
    assert_eq!(rows(&mut sql, "made-later").await, before);
    assert_eq!(erasure::list(&store).await.unwrap().len(), 1);
}
