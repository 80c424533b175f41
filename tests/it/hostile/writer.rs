//! The write queue: what Postgres would refuse, more than a share of it, rows that can't be merged with, and a
//! database that falls silent.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use xtrace_store::{Store, StoreError, Writer, WriterLimits};

use super::arena::{Arena, succeed};
use crate::harness::{Xtrace, new_database, over_tcp, refuse_poison};

const INGESTION: &str = "/api/public/ingestion";

/// A text that compression doesn't make fit into an index entry.
fn noise(bytes: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let random: Vec<u8> = (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect();
    let mut text = BASE64_STANDARD.encode(random);
    text.truncate(bytes);
    text
}

fn span(number: usize, attributes: &[(&str, &str)]) -> Value {
    let attributes: Vec<Value> = attributes
        .iter()
        .map(|(key, text)| json!({"key": key, "value": {"stringValue": text}}))
        .collect();
    json!({"traceId": format!("{:032x}", number + 1), "spanId": format!("{:016x}", number + 1), "name": "n",
        "startTimeUnixNano": "1768471200000000000", "endTimeUnixNano": "1768471200000000999",
        "attributes": attributes})
}

fn export(spans: &[Value]) -> Value {
    json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
}

fn event(kind: &str, body: &Value) -> Value {
    json!({"batch": [{"id": "e", "type": kind, "timestamp": "2026-01-15T10:00:00Z", "body": body}]})
}

/// Everything that is known to be too much for Postgres, through every intake that takes such a thing.
fn poisons() -> Vec<(&'static str, String)> {
    let long = noise(5000);
    let nul = "{\"a\\u0000\":1,\"output\":2}";
    let mut all = Vec::new();
    for number in [
        "1e-9223372036854775808",
        "1e9223372036854775807",
        "-0.1e-99999",
    ] {
        let metadata = format!("{{\"n\":{number}}}");
        let native =
            format!(r#"{{"observations":[{{"id":"o","traceId":"t","metadata":{metadata}}}]}}"#);
        let trace = format!(
            r#"{{"batch":[{{"id":"e","type":"trace-create","timestamp":"2026-01-15T10:00:00Z",
                "body":{{"id":"t","metadata":{metadata}}}}}]}}"#
        );
        let attributes = [
            ("langfuse.observation.metadata", metadata.as_str()),
            ("langfuse.trace.metadata", metadata.as_str()),
        ];
        all.push(("/v1/l/batch", native));
        all.push((INGESTION, trace));
        all.push(("/v1/traces", export(&[span(1, &attributes)]).to_string()));
    }
    for attributes in [
        [("langfuse.experiment.id", long.as_str())],
        [("langfuse.observation.usage_details", nul)],
        [("langfuse.observation.cost_details", nul)],
        [("langfuse.trace.tags", "[\"a\\u0000\"]")],
        [("langfuse.observation.model.parameters", nul)],
        [("session.id", long.as_str())],
        [("user.id", long.as_str())],
        [("langfuse.trace.name", long.as_str())],
        [("langfuse.environment", long.as_str())],
        [("gen_ai.request.model", long.as_str())],
    ] {
        all.push(("/v1/traces", export(&[span(2, &attributes)]).to_string()));
    }
    for subject in ["traceId", "sessionId", "datasetRunId"] {
        let body = json!({"name": "n", "value": 1, subject: long});
        all.push(("/api/public/scores", body.to_string()));
        all.push((INGESTION, event("score-create", &body).to_string()));
    }
    let body = json!({"name": "n", "value": 1, "traceId": "t", "observationId": long});
    all.push(("/api/public/scores", body.to_string()));
    let native = json!({"trace": {"id": "t", "sessionId": long, "environment": long, "version": long, "release": long},
        "observations": [{"id": "o", "traceId": "t", "model": long, "usage": {"input": 9e18}}]});
    all.push(("/v1/l/batch", native.to_string()));
    let generation =
        json!({"id": "g", "traceId": "t", "model": long, "usageDetails": {"a\u{0}": i64::MAX}});
    all.push((
        INGESTION,
        event("generation-create", &generation).to_string(),
    ));
    all.push((
        "/v1/traces",
        export(&[span(3, &[])])
            .to_string()
            .replace("\"n\"", "\"n\\u0000\""),
    ));
    // The longest ids that there are, in one key.
    let ids = json!({"observations": [{"id": noise(800), "traceId": noise(800)}]});
    all.push(("/v1/l/batch", ids.to_string()));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_known_input_is_refused_by_the_database() {
    let xtrace = Xtrace::start().await;
    // The longest id that a project can have.
    let keys = xtrace.project(&noise(200)).await;
    for (path, body) in poisons() {
        let request = xtrace.request_as(&keys, Method::POST, path);
        let request = request.header("content-type", "application/json");
        let response = request.body(body.clone()).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        let case = format!("{path} {}: {status} {text}", &body[..body.len().min(200)]);
        // Taken, or refused by its form, but never found out by the database.
        assert!(!text.contains("refused by the database"), "{case}");
        assert!(!text.contains("can't hold"), "{case}");
        assert!(!text.contains("can't be stored"), "{case}");
        assert!(!text.contains("rejectedSpans"), "{case}");
        assert!(!status.is_server_error(), "{case}");
    }
    // The least exponent there is stays to be read, as text.
    let (_, found) =
        crate::harness::answer(xtrace.request_as(&keys, Method::GET, "/api/public/traces/t")).await;
    let metadata = &found["metadata"]["n"];
    assert!(metadata.is_string() || metadata.is_number(), "{found}");
}

/// Makes Postgres refuse what has this name, since no input is known that it refuses.
async fn poison(connection: &mut PgConnection) {
    for table in ["traces", "observations"] {
        refuse_poison(connection, table).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_costs_its_sender_alone() {
    let arena = Arena::start().await;
    poison(&mut arena.sql().await).await;
    let attack = async {
        let request = |from: usize| {
            let observations: Vec<Value> = (from..from + 2000)
                .map(|n| json!({"id": format!("o-{n}"), "traceId": format!("t-{}", n / 10), "name": "poison"}))
                .collect();
            let body = json!({"observations": observations});
            arena.attack(Method::POST, "/v1/l/batch").json(&body).send()
        };
        let answers = join_all((0..4).map(|n| request(n * 2000))).await;
        for answer in answers {
            // Not one by one, which would take thousands of transactions.
            assert_eq!(answer.unwrap().status(), StatusCode::BAD_REQUEST);
        }
    };
    let ((), report) = arena.watch(attack).await;
    report.assert_undisturbed();
    arena.assert_sums_are_right(&report).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sound_beside_poison_is_stored() {
    let xtrace = Xtrace::start().await;
    poison(&mut xtrace.sql().await).await;
    let observations: Vec<Value> = (0..3000)
        .map(|n| {
            let name = if n % 300 == 7 { "poison" } else { "sound" };
            json!({"id": format!("o-{n}"), "traceId": format!("t-{}", n / 10), "name": name})
        })
        .collect();
    let (status, body) = xtrace
        .post("/v1/l/batch", &json!({"observations": observations}))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.to_string().contains("o-307"), "{body}");
    let (_, found) = xtrace.get("/api/public/observations?limit=1").await;
    assert_eq!(found["meta"]["totalItems"], 2990);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_project_leaves_room_and_writers_for_another() {
    let arena = Arena::start().await;
    let attack = async {
        let request = |number: usize| {
            let observations: Vec<Value> = (0..3000)
                .map(|n| json!({"id": format!("o-{number}-{n}"), "traceId": format!("t-{number}-{}", n / 50)}))
                .collect();
            let body = json!({"observations": observations});
            arena.attack(Method::POST, "/v1/l/batch").json(&body)
        };
        for round in 0..6 {
            let answers = (0..6).map(|n| request(round * 6 + n).send());
            for answer in join_all(answers).await {
                let status = answer.unwrap().status();
                let is_expected = [200, 429, 503].contains(&status.as_u16());
                assert!(is_expected, "{status}");
            }
        }
    };
    let ((), report) = arena.watch(attack).await;
    report.assert_served();
    arena.assert_sums_are_right(&report).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_is_whole_though_it_is_written_in_parts() {
    let xtrace = Xtrace::start().await;
    let observations: Vec<Value> = (0..12_000)
        .map(|n| json!({"id": format!("o-{n}"), "traceId": format!("t-{}", n % 3), "usage": {"input": 1}}))
        .collect();
    let body = json!({"observations": observations});
    for _ in 0..2 {
        let began = Instant::now();
        let (status, answer) = xtrace.post("/v1/l/batch", &body).await;
        assert_eq!(
            status,
            StatusCode::OK,
            "{answer} after {:?}",
            began.elapsed()
        );
    }
    let mut connection = xtrace.sql().await;
    let sums: Vec<(i64, i32)> =
        sqlx::query_as("select input_usage, default_count from traces order by id")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(sums, [(4000, 4000); 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn observations_without_a_trace_find_one_again() {
    let xtrace = Xtrace::start().await;
    let mut connection = xtrace.sql().await;
    let spans = [span(1, &[]), span(2, &[])];
    let one = |n: u32| {
        let mut span = span(1, &[("gen_ai.usage.input_tokens", "5")]);
        span["spanId"] = json!(format!("{n:016x}"));
        span
    };
    let body = export(&[one(10), one(11)]);
    assert_eq!(xtrace.post("/v1/traces", &body).await.0, StatusCode::OK);
    sqlx::query("delete from traces")
        .execute(&mut connection)
        .await
        .unwrap();
    // One of them comes again, with others in the same transaction.
    let requests = [export(&[one(10)]), export(&spans), export(&[one(12)])];
    let sent = requests.iter().map(|body| xtrace.post("/v1/traces", body));
    for (status, body) in join_all(sent).await {
        assert_eq!((status, body), (StatusCode::OK, json!({})));
    }
    // The one that did not come again counts too.
    let (count, sum): (i32, i64) =
        sqlx::query_as("select default_count, input_usage from traces where id = $1")
            .bind(format!("{:032x}", 2))
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!((count, sum), (4, 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_there_for_ever_is_refused_alone() {
    let xtrace = Xtrace::start().await;
    let mut connection = xtrace.sql().await;
    sqlx::query("create unique index stubborn on traces ((name)) where name = 'stubborn'")
        .execute(&mut connection)
        .await
        .unwrap();
    let named = |id: &str, name: &str| json!({"trace": {"id": id, "name": name}});
    let first = xtrace.post("/v1/l/batch", &named("t-0", "stubborn")).await;
    assert_eq!(first.0, StatusCode::OK);
    let requests: Vec<(Value, StatusCode)> = (1..30)
        .map(|n| {
            let (name, status) = if n == 7 {
                ("stubborn", StatusCode::BAD_REQUEST)
            } else {
                ("sound", StatusCode::OK)
            };
            (named(&format!("t-{n}"), name), status)
        })
        .collect();
    let sent = requests.iter().map(|(body, expected)| {
        let xtrace = &xtrace;
        async move { (xtrace.post("/v1/l/batch", body).await.0, expected) }
    });
    for (status, expected) in join_all(sent).await {
        assert_eq!(status, *expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_metadata_outlives_the_next_part() {
    let xtrace = Xtrace::start().await;
    for depth in [40, 93, 100, 119] {
        let deep = format!("{}1{}", "{\"k\":".repeat(depth), "}".repeat(depth));
        let id = format!("{depth:032x}");
        let mut first = span(1, &[("langfuse.trace.metadata", deep.as_str())]);
        first["traceId"] = json!(id);
        let mut second = first.clone();
        second["spanId"] = json!("00000000000000ee");
        second["attributes"] = json!([{"key": "langfuse.trace.metadata",
            "value": {"stringValue": "{\"late\":true}"}}]);
        for span in [first, second] {
            let (status, body) = xtrace.post("/v1/traces", &export(&[span])).await;
            assert_eq!((status, body), (StatusCode::OK, json!({})));
        }
        let mut connection = xtrace.sql().await;
        let metadata: String =
            sqlx::query_scalar("select metadata::text from traces where id = $1")
                .bind(&id)
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!(metadata.matches("\"k\"").count(), depth, "{metadata}");
        assert!(metadata.contains("\"late\": true"), "{metadata}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_can_not_be_read_are_never_written_over() {
    let xtrace = Xtrace::start().await;
    let mut connection = xtrace.sql().await;
    let cases = [
        // Broken: nobody can read it. Newer: the program that wrote it is to take what comes.
        ("{\"s\":", StatusCode::BAD_REQUEST),
        (
            "{\"f\":2,\"s\":[\"1\",{}]}",
            StatusCode::SERVICE_UNAVAILABLE,
        ),
        (
            "{\"s\":[\"1\",{}],\"later\":1}",
            StatusCode::SERVICE_UNAVAILABLE,
        ),
    ];
    for (number, (state, expected)) in cases.into_iter().enumerate() {
        let id = format!("t-{number}");
        let body = json!({"trace": {"id": id, "metadata": {"kept": 1}}});
        assert_eq!(xtrace.post("/v1/l/batch", &body).await.0, StatusCode::OK);
        sqlx::query("update traces set merge_state = $2 where id = $1")
            .bind(&id)
            .bind(state)
            .execute(&mut connection)
            .await
            .unwrap();
        let update = json!({"trace": {"id": id, "metadata": {"new": 1}}});
        let other = json!({"trace": {"id": format!("other-{number}")}});
        let (updated, others) = tokio::join!(
            xtrace.post("/v1/l/batch", &update),
            join_all((0..10).map(|_| xtrace.post("/v1/l/batch", &other)))
        );
        assert_eq!(updated.0, expected, "{state}: {}", updated.1);
        assert!(
            others.iter().all(|(status, _)| *status == 200),
            "{others:?}"
        );
        let kept: (String, String) =
            sqlx::query_as("select merge_state, metadata::text from traces where id = $1")
                .bind(&id)
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!(kept, (state.to_owned(), "{\"kept\": 1}".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_costs_of_any_size_add_up() {
    let arena = Arena::start().await;
    let attack = async {
        for n in 0..3 {
            let usage = json!({"input": i64::MAX, "output": i64::MAX, "input_other": i64::MAX, "total": i64::MAX});
            let costs = json!({"input": 1.7e308, "total": 1.7e308});
            let one = json!({"id": format!("o-{n}"), "traceId": format!("t-{n}"), "type": "GENERATION",
                "usageDetails": usage, "costDetails": costs, "startTime": "2026-01-15T10:00:00Z"});
            let body = json!({"trace": {"id": format!("t-{n}"), "totalCost": 1.7e308}, "observations": [one]});
            succeed(arena.attack(Method::POST, "/v1/l/batch").json(&body)).await;
        }
        let path = "/api/public/metrics/daily";
        succeed(arena.attack(Method::GET, path)).await
    };
    let (daily, report) = arena.watch(attack).await;
    let total: f64 = daily["data"][0]["usage"][0]["totalUsage"].as_f64().unwrap();
    assert!((total - 3.0 * 2_f64.powi(53)).abs() < 10.0, "{daily}");
    report.assert_undisturbed();
    arena.assert_sums_are_right(&report).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_falls_silent_is_connected_to_again() {
    let (url, silences) = over_tcp(&new_database().await).await;
    let xtrace = Xtrace::start_on(&url, &[]).await;
    let write = |id: String| {
        let body = json!({"trace": {"id": id}});
        let xtrace = &xtrace;
        async move { xtrace.post("/v1/l/batch", &body).await.0 }
    };
    for n in 0..20 {
        assert_eq!(write(format!("before-{n}")).await, StatusCode::OK);
    }
    silences.send_modify(|count| *count += 1);
    let began = Instant::now();
    let mut refused = 0;
    // Every writer has a connection of its own that is dead; each has to notice.
    for n in 0..20 {
        while write(format!("after-{n}")).await != StatusCode::OK {
            refused += 1;
            assert!(
                began.elapsed() < Duration::from_mins(5),
                "no write since the line fell silent"
            );
        }
    }
    eprintln!("{refused} writes were refused in {:?}", began.elapsed());
    let stored: i64 = sqlx::query_scalar("select count(*) from traces")
        .fetch_one(&mut xtrace.sql().await)
        .await
        .unwrap();
    assert_eq!(stored, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_name_what_a_statement_hit_and_no_values() {
    let url = new_database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query("create table secrets (secret text primary key, number int)")
        .execute(&mut connection)
        .await
        .unwrap();
    let statements = [
        ("insert into secrets values ('s3cret'), ('s3cret')", "23505"),
        ("insert into secrets values (null)", "23502"),
        ("select 's3cret'::int", "22P02"),
        ("select '{\"a\": s3cret}'::jsonb", "22P02"),
    ];
    for (statement, code) in statements {
        let cause = sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap_err();
        let said = StoreError::from(cause).for_log();
        assert!(said.starts_with(&format!("sqlstate {code}")), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_tells_how_it_is() {
    let xtrace = Xtrace::start().await;
    let store = Store::new(&xtrace_store::Options::new(&xtrace.database_url)).unwrap();
    let (writer, end) = Writer::start(store, WriterLimits::default());
    let health = writer.health();
    assert_eq!(
        (health.writers, health.writers_max, health.panics),
        (4, 4, 0)
    );
    assert_eq!(health.age, Duration::ZERO);
    drop(writer);
    end.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_any_size_cost_their_own_project_alone() {
    let arena = Arena::start().await;
    let models = "/api/public/models";
    let model = |name: &str, pattern: &str| json!({"modelName": name, "matchPattern": pattern, "inputPrice": 1});
    succeed(
        arena
            .attack(Method::POST, models)
            .json(&model("good", "^good$")),
    )
    .await;
    // Rows that an earlier program let in: they spoil no others.
    let mut connection = arena.sql().await;
    for (id, pattern) in [("bad", "("), ("huge", "(?:[a-z]{100}){200}")] {
        sqlx::query(
            "insert into models (project_id, id, model_name, match_pattern, unit, pricing_tiers, created_at, updated_at)
             values ('attacker', $1, $1, $2, 'TOKENS', '[]', now(), now())",
        )
        .bind(id)
        .bind(pattern)
        .execute(&mut connection)
        .await
        .unwrap();
    }
    let attack = async {
        let refused = [
            model("a", "(?:[a-z]{100}){200}"),
            model("b", &"x".repeat(1001)),
            model(&noise(2000), "x"),
            json!({"modelName": "c", "matchPattern": "x", "pricingTiers": vec![json!({}); 21]}),
        ];
        for body in refused {
            let answer = arena.attack(Method::POST, models).json(&body).send();
            assert_eq!(answer.await.unwrap().status(), StatusCode::BAD_REQUEST);
        }
        // Names of any length, each another one.
        for round in 0..10 {
            let observations: Vec<Value> = (0..20)
                .map(|n| {
                    let model = format!("{round}-{n}-{}", "m".repeat(200_000));
                    json!({"id": format!("o-{round}-{n}"), "traceId": "t", "model": model})
                })
                .collect();
            let body = json!({"observations": observations});
            succeed(arena.attack(Method::POST, "/v1/l/batch").json(&body)).await;
        }
        let one = json!({"id": "priced", "traceId": "t", "type": "GENERATION", "model": "good",
            "usageDetails": {"input": 7}});
        let body = json!({"observations": [one]});
        succeed(arena.attack(Method::POST, "/v1/l/batch").json(&body)).await;
        let path = "/api/public/observations/priced";
        succeed(arena.attack(Method::GET, path)).await
    };
    let (priced, report) = arena.watch(attack).await;
    assert_eq!(priced["calculatedTotalCost"], 7.0, "{priced}");
    report.assert_undisturbed();
    arena.assert_sums_are_right(&report).await;
}
