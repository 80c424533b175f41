//! Parts in any order, split over any requests, any number of times, give the same rows.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Row;

use crate::harness::{Xtrace, answer};

/// One version of one span of one trace.
fn any_span() -> impl Strategy<Value = Value> {
    let attribute = prop_oneof![
        Just(("langfuse.trace.name", "\"named\"")),
        Just(("langfuse.trace.name", "\"renamed\"")),
        Just(("user.id", "\"ada\"")),
        Just(("langfuse.trace.public", "true")),
        Just(("langfuse.trace.tags", "[\"a\"]")),
        Just(("langfuse.trace.tags", "[\"b\"]")),
        Just(("langfuse.trace.metadata", "{\"a\":{\"x\":1},\"b\":1}")),
        Just(("langfuse.trace.metadata", "{\"a\":{\"y\":2},\"b\":[2]}")),
        Just(("langfuse.observation.metadata", "{\"m\":{\"x\":1}}")),
        Just(("langfuse.observation.metadata", "{\"m\":5,\"n\":1}")),
        Just(("langfuse.observation.input", "in")),
        Just(("langfuse.observation.output", "out")),
        Just(("langfuse.environment", "staging")),
        Just(("langfuse.observation.level", "WARNING")),
        Just(("langfuse.internal.as_root", "true")),
    ];
    let attributes = prop::collection::vec(attribute, 0..5);
    (1..4_u64, 0..3_u64, any::<bool>(), attributes).prop_map(|(id, length, rooted, attributes)| {
        let start = 1_768_471_200_000_000_000 + id * 1000;
        let attributes: Vec<Value> = attributes
            .into_iter()
            .map(|(key, text)| json!({"key": key, "value": {"stringValue": text}}))
            .collect();
        json!({
            "traceId": "0000000000000000000000000000000a", "spanId": format!("{id:016x}"),
            "parentSpanId": if rooted { "" } else { "00000000000000ff" },
            "name": format!("span {id} of length {length}"),
            "startTimeUnixNano": start.to_string(),
            "endTimeUnixNano": (start + length * 1000).to_string(),
            "attributes": attributes,
        })
    })
}

/// Sends everything at once, by turns to two servers on one database.
async fn send_at_once(servers: [&Xtrace; 2], project: &str, requests: &[Vec<Value>]) {
    let keys = &servers[0].project(project).await;
    let sent = requests
        .iter()
        .enumerate()
        .map(|(number, spans)| async move {
            let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
            let server = servers[number % 2];
            let request = server.request_as(keys, Method::POST, "/v1/traces");
            answer(request.json(&body)).await.0
        });
    let statuses = futures_util::future::join_all(sent).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

async fn send(xtrace: &Xtrace, project: &str, requests: &[Vec<Value>]) {
    let keys = xtrace.project(project).await;
    for spans in requests {
        let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
        let request = xtrace
            .request_as(&keys, Method::POST, "/v1/traces")
            .json(&request);
        assert_eq!(answer(request).await.0, 200);
    }
}

/// The rows of a project without the clock's columns, as text.
async fn rows(xtrace: &Xtrace, project: &str) -> Vec<String> {
    let mut connection = xtrace.sql().await;
    let mut all = Vec::new();
    for table in ["traces", "observations", "scores"] {
        let sql = format!(
            "select (to_jsonb(r) - 'project_id' - 'created_at' - 'updated_at' - 'merge_state')::text as row
               from {table} r where project_id = $1 order by id"
        );
        let found = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(project)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        all.extend(found.iter().map(|row| row.get::<String, _>("row")));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_arrival_does_not_matter() {
    let xtrace = Xtrace::start().await;
    let second = Xtrace::start_on(&xtrace.database_url, &[]).await;
    let mut runner = TestRunner::new(Config::default());
    let strategy = (prop::collection::vec(any_span(), 2..7), any::<u64>());
    for case in 0..40 {
        let (spans, seed) = strategy.new_tree(&mut runner).unwrap().current();
        let alone: Vec<Vec<Value>> = spans.iter().map(|span| vec![span.clone()]).collect();
        send(&xtrace, &format!("{case}-alone"), &alone).await;
        send(
            &xtrace,
            &format!("{case}-together"),
            std::slice::from_ref(&spans),
        )
        .await;
        let mut turned = alone.clone();
        turned.reverse();
        turned.rotate_left(usize::try_from(seed % spans.len() as u64).unwrap());
        turned.extend(alone);
        send(&xtrace, &format!("{case}-turned"), &turned).await;
        send_at_once([&xtrace, &second], &format!("{case}-raced"), &turned).await;
        let expected = rows(&xtrace, &format!("{case}-alone")).await;
        for other in ["together", "turned", "raced"] {
            let found = rows(&xtrace, &format!("{case}-{other}")).await;
            assert_eq!(expected, found, "{other}: {}", json!(spans));
        }
    }
}

/// Attributes that are mapped to a field each, to metadata or to nothing.
const SINGLE_ATTRIBUTES: [&str; 18] = [
    "langfuse.trace.name",
    "user.id",
    "session.id",
    "langfuse.trace.input",
    "langfuse.trace.metadata.key",
    "langfuse.observation.metadata.key",
    "langfuse.observation.input",
    "langfuse.observation.level",
    "langfuse.environment",
    "langfuse.release",
    "langfuse.version",
    "gen_ai.tool.definitions",
    "gen_ai.request.model",
    "gen_ai.usage.input_tokens",
    "langfuse.experiment.name",
    "traceloop.association.properties.key",
    "ai.telemetry.metadata.key",
    "other",
];

/// Versions of a span that start and end together are told apart by everything that they say.
#[tokio::test(flavor = "multi_thread")]
async fn versions_that_differ_in_one_thing_only_are_ordered_by_it() {
    let xtrace = Xtrace::start().await;
    let attribute = |key: &str, value: &str| json!({"attributes": [{"key": key, "value": {"stringValue": value}}]});
    let evaluation = |score: f64| {
        json!({"events": [{"name": "gen_ai.evaluation.result", "timeUnixNano": "1768471200000000001",
            "attributes": [
                {"key": "gen_ai.evaluation.name", "value": {"stringValue": "quality"}},
                {"key": "gen_ai.evaluation.score.value", "value": {"doubleValue": score}}]}]})
    };
    let mut pairs: Vec<(String, [Value; 2])> = SINGLE_ATTRIBUTES
        .iter()
        .map(|key| {
            (
                (*key).to_owned(),
                ["1", "2"].map(|value| attribute(key, value)),
            )
        })
        .collect();
    let parents = ["00000000000000fe", "00000000000000ff"];
    pairs.push((
        "parent".to_owned(),
        parents.map(|id| json!({"parentSpanId": id})),
    ));
    pairs.push((
        "name".to_owned(),
        ["a", "b"].map(|name| json!({"name": name})),
    ));
    pairs.push((
        "status".to_owned(),
        [1, 2].map(|code| json!({"status": {"code": code}})),
    ));
    pairs.push(("evaluation".to_owned(), [0.25, 0.5].map(evaluation)));
    for (number, (what, versions)) in pairs.into_iter().enumerate() {
        let versions = versions.map(|version| {
            let mut span = json!({"traceId": "0000000000000000000000000000000a",
                "spanId": "0000000000000001", "name": "n",
                "startTimeUnixNano": "1768471200000000000", "endTimeUnixNano": "1768471200000001000"});
            span.as_object_mut()
                .unwrap()
                .extend(version.as_object().unwrap().clone());
            vec![span]
        });
        let mut backwards = versions.clone();
        backwards.reverse();
        let (one, other) = (format!("{number}-forwards"), format!("{number}-backwards"));
        send(&xtrace, &one, &versions).await;
        send(&xtrace, &other, &backwards).await;
        assert_eq!(
            rows(&xtrace, &one).await,
            rows(&xtrace, &other).await,
            "{what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_writes_nothing() {
    let xtrace = Xtrace::start().await;
    // Of today, whose partition is there: a row of an old day may move when that of its day is made.
    let start = chrono::Utc::now().timestamp_nanos_opt().unwrap();
    let (start, end) = (start.to_string(), (start + 999).to_string());
    let spans = json!([{"traceId": "0000000000000000000000000000000a", "spanId": "00000000000000aa",
        "name": "n", "startTimeUnixNano": start, "endTimeUnixNano": end,
        "attributes": [{"key": "langfuse.observation.metadata.a", "value": {"doubleValue": 1e5}}]}]);
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    let mut connection = xtrace.sql().await;
    let mut versions = Vec::new();
    for _ in 0..3 {
        assert_eq!(
            xtrace.post("/v1/traces", &request).await,
            (StatusCode::OK, json!({}))
        );
        // The transaction that wrote the row.
        let mut version = Vec::new();
        for sql in [
            "select xmin::text from traces",
            "select xmin::text from observations",
        ] {
            let written: String = sqlx::query_scalar(sql)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            version.push(written);
        }
        versions.push(version);
    }
    assert_eq!(versions[0], versions[1]);
    assert_eq!(versions[0], versions[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_database_agree() {
    let one = Xtrace::start().await;
    let two = Xtrace::start_on(&one.database_url, &[]).await;
    let span = |n: u32| {
        json!({"traceId": "0000000000000000000000000000000a", "spanId": format!("{n:016x}"),
            "name": "n", "startTimeUnixNano": "1768471200000000000",
            "endTimeUnixNano": (1_768_471_200_000_000_000_u64 + u64::from(n) * 1_000_000).to_string()})
    };
    let requests = (1..=40).map(|n| {
        let server = if n % 2 == 0 { &one } else { &two };
        let spans = json!([span(n), span(n / 2 + 1)]);
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
        async move { server.post("/v1/traces", &body).await.0 }
    });
    let statuses = futures_util::future::join_all(requests).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let (_, trace) = two
        .get("/api/public/traces/0000000000000000000000000000000a")
        .await;
    assert_eq!(trace["observations"].as_array().unwrap().len(), 40);
    assert!(
        (trace["latency"].as_f64().unwrap() - 0.04).abs() < 1e-9,
        "{}",
        trace["latency"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_never_wait_for_each_other_in_a_circle() {
    let one = Xtrace::start().await;
    let two = Xtrace::start_on(&one.database_url, &[]).await;
    let span = |trace: u32, n: u32| {
        // Traces go from one session to another, in no order of either's keys.
        let session = format!("s-{:03}", (trace * 37 + n * 11) % 101);
        json!({"traceId": format!("{trace:032x}"), "spanId": format!("{n:016x}"), "name": "n",
            "startTimeUnixNano": "1768471200000000000",
            "endTimeUnixNano": (1_768_471_200_000_000_000_u64 + u64::from(n)).to_string(),
            "attributes": [{"key": "session.id", "value": {"stringValue": session}}]})
    };
    // The same traces in every request, forwards and backwards, some known, some new.
    let requests = (1..=60_u32).map(|n| {
        let server = if n % 2 == 0 { &one } else { &two };
        let mut spans: Vec<Value> = (n / 4 + 1..n / 4 + 20)
            .map(|t| span(t, n % 7 + 1))
            .collect();
        if n % 3 == 0 {
            spans.reverse();
        }
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
        async move { server.post("/v1/traces", &body).await.0 }
    });
    let statuses = futures_util::future::join_all(requests).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let mut connection = one.sql().await;
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    let deadlocks: i64 = sqlx::query_scalar(deadlocks)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(deadlocks, 0);
}
