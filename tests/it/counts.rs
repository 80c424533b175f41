//! `totalItems` of lists: exact to ten thousand with any filter, however large the table is.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::harness::{Xtrace, answer};

/// Rows that match, of each kind.
const NEEDLES: usize = 10;
/// Rows that don't: of a third of them, which is what Postgres supposes to hold any text, counts are estimates.
const STRAWS: usize = 70_000;

/// A filter of every kind, on the columns that a list has.
fn filters(name: &'static str, number: &'static str, time: &'static str) -> Vec<Value> {
    let text = |operator: &str, value: &str| json!({"type": "string", "column": name, "operator": operator, "value": value});
    let metadata = |operator: &str, value: &str| json!({"type": "stringObject", "column": "metadata", "key": "kind", "operator": operator, "value": value});
    let options = |kind: &str, column: &str, operator: &str, value: Value| json!({"type": kind, "column": column, "operator": operator, "value": value});
    let tags = "traceTags";
    vec![
        text("=", "the needle"),
        text("contains", "eedl"),
        text("does not contain", "straw"),
        text("starts with", "the need"),
        text("ends with", "dle"),
        metadata("=", "needle"),
        metadata("contains", "eedl"),
        metadata("does not contain", "traw"),
        metadata("starts with", "need"),
        metadata("ends with", "dle"),
        options("stringOptions", name, "any of", json!(["the needle", "x"])),
        options("stringOptions", name, "none of", json!(["a straw", "x"])),
        options("stringOptions", "environment", "any of", json!(["needle"])),
        options("arrayOptions", tags, "any of", json!(["needle", "x"])),
        options("arrayOptions", tags, "all of", json!(["needle"])),
        options("arrayOptions", tags, "none of", json!(["straw"])),
        json!({"type": "number", "column": number, "operator": ">", "value": 5}),
        json!({"type": "datetime", "column": time, "operator": "<", "value": "2026-03-01T12:00:00Z"}),
    ]
}

/// The lists that take filters, or parameters instead, with questions that needles alone answer.
fn questions() -> Vec<(&'static str, Value)> {
    let lists = [
        ("traces", filters("name", "latency", "timestamp")),
        ("observations", filters("name", "latency", "startTime")),
        ("scores", filters("name", "value", "timestamp")),
        ("v2/scores", filters("name", "value", "timestamp")),
        ("scores", filters("traceName", "value", "timestamp")),
    ];
    let of_filters = lists
        .into_iter()
        .flat_map(|(list, filters)| filters.into_iter().map(move |filter| (list, filter)));
    let parameters = [
        ("traces", json!({"name": "the needle"})),
        ("traces", json!({"userId": "needle"})),
        ("traces", json!({"tags": "needle"})),
        ("traces", json!({"environment": "needle"})),
        ("traces", json!({"version": "needle"})),
        ("traces", json!({"toTimestamp": "2026-03-01T12:00:00Z"})),
        ("observations", json!({"name": "the needle"})),
        ("observations", json!({"userId": "needle"})),
        ("observations", json!({"environment": "needle"})),
        ("observations", json!({"type": "GENERATION"})),
        (
            "observations",
            json!({"toStartTime": "2026-03-01T12:00:00Z"}),
        ),
        ("scores", json!({"name": "the needle"})),
        ("scores", json!({"environment": "needle"})),
        ("scores", json!({"operator": ">", "value": "5"})),
        ("scores", json!({"userId": "needle"})),
        ("sessions", json!({"environment": "needle"})),
        ("comments", json!({"objectType": "OBSERVATION"})),
        ("dataset-items", json!({"sourceTraceId": "needle"})),
    ];
    of_filters.chain(parameters).collect()
}

/// What is stored of each kind before it is copied: one straw, and all needles.
async fn store(xtrace: &Xtrace) {
    let post = async |path: &str, body: Value| {
        let (status, answer) = xtrace.post(path, &body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    };
    post("/api/public/v2/datasets", json!({"name": "set"})).await;
    let needles = (0..NEEDLES).map(|n| (format!("needle-{n}"), "needle", "the needle", 1, 10));
    let straw = ("straw".to_owned(), "straw", "a straw", 2, 1);
    for (id, kind, name, day, seconds) in needles.chain([straw]) {
        let begin = format!("2026-03-0{day}T10:00:00Z");
        let end = format!("2026-03-0{day}T10:00:{seconds:02}Z");
        let trace = json!({"id": id, "name": name, "timestamp": begin, "userId": kind, "sessionId": id,
            "environment": kind, "version": kind, "tags": [kind], "metadata": {"kind": kind}});
        let of_kind = if kind == "needle" {
            "GENERATION"
        } else {
            "SPAN"
        };
        let observation = json!({"id": id, "traceId": id, "name": name, "type": of_kind, "startTime": begin,
            "endTime": end, "environment": kind, "metadata": {"kind": kind}, "input": "same"});
        post(
            "/v1/l/batch",
            json!({"trace": trace, "observations": [observation]}),
        )
        .await;
        let score = json!({"id": id, "traceId": id, "name": name, "value": seconds, "environment": kind,
            "timestamp": begin, "metadata": {"kind": kind}});
        post("/api/public/scores", score).await;
        let item = json!({"datasetName": "set", "id": id, "input": 1, "sourceTraceId": kind});
        post("/api/public/dataset-items", item).await;
        let object = if kind == "needle" {
            "OBSERVATION"
        } else {
            "TRACE"
        };
        let comment =
            json!({"projectId": "default", "objectType": object, "objectId": id, "content": "c"});
        post("/api/public/comments", comment).await;
    }
}

/// A column, and an expression for its value in the copy of number `n`.
type Other<'a> = (&'a str, &'a str);

/// Copies the row of a straw, with other values in some columns.
async fn copy(connection: &mut PgConnection, table: &str, id: &str, others: &[Other<'_>]) {
    let columns: Vec<String> = sqlx::query_scalar(
        "select quote_ident(attname) from pg_attribute
          where attrelid = to_regclass($1) and attnum > 0 and not attisdropped order by attnum",
    )
    .bind(table)
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let value = |column: &String| {
        let other = others.iter().find(|(name, _)| name == column);
        other.map_or_else(|| column.clone(), |(_, value)| (*value).to_owned())
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let statement = format!(
        "insert into {table} ({}) select {} from {table} cross join generate_series(1, {STRAWS}) n where {id} = 'straw'",
        columns.join(", "),
        values.join(", ")
    );
    for statement in [statement, format!("analyze {table}")] {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *connection)
            .await
            .unwrap();
    }
}

async fn list(xtrace: &Xtrace, list: &str, question: &Value, page: i64) -> (i64, usize) {
    let request = xtrace.request(Method::GET, &format!("/api/public/{list}"));
    let request = request.query(&[("limit", 4), ("page", page)]);
    let request = if question.get("column").is_some() {
        request.query(&[("filter", json!([question]).to_string())])
    } else {
        request.query(question)
    };
    let (status, body) = answer(request).await;
    assert_eq!(status, 200, "{list} {question}: {body}");
    let total = body["meta"]["totalItems"].as_i64().unwrap();
    (total, body["data"].as_array().unwrap().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn few_matches_in_a_large_table_are_counted_exactly_with_any_filter() {
    let xtrace = Xtrace::start().await;
    store(&xtrace).await;
    let mut connection = xtrace.sql().await;
    let (id, of_trace) = ("'straw-' || n", [("trace_id", "'straw-' || n")]);
    let session = [("id", id), ("session_id", id)];
    let own = [("id", id)];
    let score = [own[0], of_trace[0]];
    let tables: [(&str, &str, &[Other<'_>]); 5] = [
        ("traces", "id", &session),
        ("observations", "id", &of_trace),
        ("scores", "id", &score),
        ("dataset_items", "id", &own),
        ("comments", "object_id", &own),
    ];
    for (table, key, others) in tables {
        copy(&mut connection, table, key, others).await;
    }
    sqlx::query("analyze sessions")
        .execute(&mut connection)
        .await
        .unwrap();
    let needles = i64::try_from(NEEDLES).unwrap();
    for (name, question) in questions() {
        assert_eq!(
            [
                list(&xtrace, name, &question, 1).await,
                list(&xtrace, name, &question, 3).await
            ],
            [(needles, 4), (needles, NEEDLES - 8)],
            "{name} {question}"
        );
    }
    // Estimates are for what is counted no further: all of them, and most of them.
    for name in [
        "traces",
        "observations",
        "scores",
        "sessions",
        "comments",
        "dataset-items",
    ] {
        let (total, _) = list(&xtrace, name, &json!({}), 1).await;
        assert!(total > 10_000, "{name}: {total}");
    }
    let straws =
        json!({"type": "string", "column": "name", "operator": "contains", "value": "traw"});
    for page in [1, 2] {
        let (total, _) = list(&xtrace, "traces", &straws, page).await;
        assert!(total > 10_000, "{total}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_project_beside_a_large_one_has_exact_counts() {
    let xtrace = Xtrace::start().await;
    store(&xtrace).await;
    let mut connection = xtrace.sql().await;
    // The statistics are of a time when both were as large: Postgres supposes that half of all is of each.
    let fill = |rows: usize| {
        format!(
            "insert into sessions select 'large', 's-{rows}-' || n, 'default', now() from generate_series(1, {rows}) n"
        )
    };
    let statements = [
        "alter table sessions set (autovacuum_enabled = off)".to_owned(),
        fill(NEEDLES + 1),
        "analyze sessions".to_owned(),
        fill(STRAWS),
        "vacuum sessions".to_owned(),
    ];
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let (total, found) = list(&xtrace, "sessions", &json!({}), 1).await;
    assert_eq!(
        (total, found),
        (i64::try_from(NEEDLES).unwrap() + 1, 4),
        "the guess was answered"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_to_count_is_estimated() {
    const ROWS: i64 = 3000;
    let xtrace = Xtrace::start().await;
    store(&xtrace).await;
    let mut connection = xtrace.sql().await;
    // Looking at all of them takes longer than a count may, looking at those of a page does not.
    let statements = [
        format!(
            "insert into sessions select 'default', 's-' || n, 'slow', now() + n * interval '1 ms'
               from generate_series(1, {ROWS}) n"
        ),
        "analyze sessions".to_owned(),
        "alter table sessions rename to all_sessions".to_owned(),
        "create view sessions as select s.* from all_sessions s
          where environment <> 'slow' or pg_sleep(0.01) is not null"
            .to_owned(),
    ];
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    for page in [1, 2] {
        let (total, found) = list(&xtrace, "sessions", &json!({}), page).await;
        assert_eq!(found, 4);
        assert!(total > page * 4, "page {page}: {total}");
    }
}
