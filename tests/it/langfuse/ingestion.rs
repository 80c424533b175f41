//! Batches of events.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{INGESTION, accepted, event, ingest, trace};
use crate::harness::{Xtrace, answer};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_stored_and_answered_event_by_event() {
    let xtrace = Xtrace::start().await;
    let body = ingest(
        &xtrace,
        json!([
            event("e2", 2, "generation-update", json!({"id": "g", "traceId": "t", "output": "hello",
                "usage": {"promptTokens": 3, "completionTokens": 4}, "endTime": "2026-01-15T10:00:02Z"})),
            event("e1", 1, "generation-create", json!({"id": "g", "traceId": "t", "name": "chat",
                "model": "gpt-4o", "input": [{"role": "user"}], "startTime": "2026-01-15T10:00:01Z"})),
            event("e0", 0, "trace-create", json!({"id": "t", "name": "request", "userId": "ada",
                "sessionId": "s", "tags": ["b", "a"], "metadata": {"k": 1}, "input": {"q": 1}})),
            event("e3", 3, "score-create", json!({"id": "sc", "traceId": "t", "name": "ok", "value": 1,
                "dataType": "BOOLEAN"})),
            event("log", 4, "sdk-log", json!({"log": {}})),
            event("bad", 5, "trace-create", json!({"id": "u", "name": 7})),
            event("odd", 5, "trace-destroy", json!({})),
        ]),
    )
    .await;
    let successes: Vec<&Value> = body["successes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["id"])
        .collect();
    // Creations by time, then updates; what the SDK says of itself is in neither list.
    assert_eq!(successes, ["e0", "e1", "e3", "e2"]);
    let errors: Vec<(&Value, &Value)> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (&row["id"], &row["status"]))
        .collect();
    assert_eq!(
        errors,
        [(&json!("bad"), &json!(400)), (&json!("odd"), &json!(400))]
    );
    let trace = trace(&xtrace, "t").await;
    assert_eq!(
        (
            &trace["name"],
            &trace["userId"],
            &trace["tags"],
            &trace["metadata"]
        ),
        (
            &json!("request"),
            &json!("ada"),
            &json!(["a", "b"]),
            &json!({"k": 1})
        )
    );
    let generation = &trace["observations"][0];
    assert_eq!(
        (
            &generation["type"],
            &generation["name"],
            &generation["output"],
            &generation["latency"]
        ),
        (
            &json!("GENERATION"),
            &json!("chat"),
            &json!("hello"),
            &json!(1.0)
        )
    );
    assert_eq!(
        generation["usageDetails"],
        json!({"input": 3, "output": 4, "total": 7})
    );
    assert!(generation["calculatedTotalCost"].as_f64().unwrap() > 0.0);
    let score = &trace["scores"][0];
    assert_eq!(
        (&score["value"], &score["stringValue"]),
        (&json!(1.0), &json!("True"))
    );
    assert_eq!(
        xtrace.get("/api/public/traces/u").await.0,
        StatusCode::NOT_FOUND
    );
    let (_, session) = xtrace.get("/api/public/sessions/s").await;
    assert_eq!(session["traces"][0]["id"], "t");
    assert_eq!(session["traces"][0].get("observations"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_events_is_their_time_not_their_arrival() {
    let xtrace = Xtrace::start().await;
    let events = [
        event(
            "1",
            1,
            "trace-create",
            json!({"id": "t", "userId": "old", "name": "n", "metadata": {"step": 1, "status": "s"},
            "tags": ["x"], "public": true, "timestamp": "2026-01-15T09:00:00Z"}),
        ),
        event(
            "2",
            2,
            "trace-create",
            json!({"id": "t", "userId": "new", "metadata": {"step": 2, "error": ""},
            "tags": ["a"], "timestamp": "2026-01-15T08:00:00Z"}),
        ),
        event(
            "3",
            3,
            "trace-create",
            json!({"id": "t", "name": null, "input": 0, "output": ""}),
        ),
        event(
            "4",
            1,
            "span-create",
            json!({"id": "o", "traceId": "t", "name": "first", "level": "ERROR",
            "statusMessage": "kept", "endTime": "2026-01-15T09:59:00Z", "input": false}),
        ),
        event(
            "5",
            1,
            "span-update",
            json!({"id": "o", "traceId": "t", "name": "second", "level": null,
            "statusMessage": null, "input": null}),
        ),
        event("6", 4, "agent-create", json!({"id": "a", "traceId": "t"})),
        event(
            "7",
            5,
            "span-update",
            json!({"id": "a", "traceId": "t", "output": "done"}),
        ),
    ];
    let mut orders = vec![events.to_vec(), events.iter().rev().cloned().collect()];
    orders.push([orders[1].clone(), orders[0].clone()].concat());
    for (number, order) in orders.into_iter().enumerate() {
        let keys = xtrace.project(&format!("p{number}")).await;
        for event in order {
            let request = xtrace.request_as(&keys, Method::POST, INGESTION);
            let (status, body) = answer(request.json(&json!({"batch": [event]}))).await;
            assert_eq!((status.as_u16(), &body["errors"]), (207, &json!([])));
        }
        let (_, trace) =
            answer(xtrace.request_as(&keys, Method::GET, "/api/public/traces/t")).await;
        assert_eq!(
            (
                &trace["userId"],
                &trace["name"],
                &trace["public"],
                &trace["timestamp"]
            ),
            (
                &json!("new"),
                &Value::Null,
                &json!(true),
                &json!("2026-01-15T09:00:00.000Z")
            ),
            "order {number}"
        );
        assert_eq!(
            trace["metadata"],
            json!({"step": 2, "status": "s", "error": ""})
        );
        assert_eq!(trace["tags"], json!(["a", "x"]));
        assert_eq!(
            (&trace["input"], &trace["output"]),
            (&json!(0), &Value::Null)
        );
        let observation = |id: &str| {
            let all = trace["observations"].as_array().unwrap();
            all.iter().find(|one| one["id"] == id).unwrap().clone()
        };
        let span = observation("o");
        assert_eq!(
            (
                &span["name"],
                &span["level"],
                &span["statusMessage"],
                &span["input"]
            ),
            (
                &json!("second"),
                &json!("DEFAULT"),
                &json!("kept"),
                &json!(false)
            )
        );
        // An end before the start is the start.
        assert_eq!(span["endTime"], span["startTime"]);
        let agent = observation("a");
        assert_eq!(
            (&agent["type"], &agent["output"]),
            (&json!("AGENT"), &json!("done"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn observations_without_a_trace_find_theirs_or_make_one() {
    let xtrace = Xtrace::start().await;
    let at_once = json!([
        event("1", 1, "span-create", json!({"id": "o", "traceId": "t"})),
        event(
            "2",
            2,
            "span-update",
            json!({"id": "o", "name": "same batch"})
        ),
    ]);
    ingest(&xtrace, at_once).await;
    ingest(
        &xtrace,
        json!([event(
            "3",
            3,
            "span-update",
            json!({"id": "o", "output": "later"})
        )]),
    )
    .await;
    ingest(
        &xtrace,
        json!([event("4", 3, "event-create", json!({"id": "alone"}))]),
    )
    .await;
    let found = trace(&xtrace, "t").await;
    let observation = &found["observations"][0];
    assert_eq!(
        (&observation["name"], &observation["output"]),
        (&json!("same batch"), &json!("later"))
    );
    let alone = trace(&xtrace, "alone").await;
    assert_eq!(alone["observations"][0]["type"], "EVENT");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_comes_in_many_shapes() {
    let xtrace = Xtrace::start().await;
    let shapes = [
        (
            json!({"usage": {"input": 3, "output": 4, "unit": "TOKENS", "inputCost": 1.5}}),
            json!({"input": 3, "output": 4, "total": 7}),
            json!({"input": 1.5, "total": 1.5}),
        ),
        (
            json!({"usage": {"promptTokens": 3, "totalTokens": 9, "inputCost": 1.5}}),
            json!({"input": 3, "total": 9}),
            json!({}),
        ),
        (
            json!({"usageDetails": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}}),
            json!({"input": 6, "input_cached_tokens": 4, "output": 3, "output_reasoning_tokens": 2, "total": 15}),
            json!({}),
        ),
        (
            json!({"usageDetails": {"input": 5, "odd": 1.5, "none": null, "negative": -1, "text": "7"}}),
            json!({"input": 5, "text": 7, "total": 12}),
            json!({}),
        ),
        (
            json!({"usage": {"input": 1, "output": 1, "total": 9}, "usageDetails": {"input": 2, "cache": 3},
            "costDetails": {"input": 0.25, "output": 0.5}}),
            json!({"input": 2, "output": 1, "cache": 3, "total": 9}),
            json!({"input": 0.25, "output": 0.5, "total": 0.75}),
        ),
        (
            json!({"usage": {}, "usageDetails": {}}),
            json!({}),
            json!({}),
        ),
    ];
    for (index, (sent, usage, costs)) in shapes.into_iter().enumerate() {
        let mut body = json!({"id": format!("g{index}"), "traceId": format!("t{index}")});
        for (name, value) in sent.as_object().unwrap() {
            body[name] = value.clone();
        }
        let outcome = ingest(&xtrace, json!([event("e", 1, "generation-create", body)])).await;
        assert_eq!(outcome, accepted(&["e"]), "{sent}");
        let found = trace(&xtrace, &format!("t{index}")).await;
        let found = &found["observations"][0];
        assert_eq!(
            (&found["usageDetails"], &found["costDetails"]),
            (&usage, &costs),
            "{sent}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_can_not_be_are_refused_alone() {
    let xtrace = Xtrace::start().await;
    let bodies = [
        ("trace-create", json!({"id": "x\ry"})),
        ("trace-create", json!({"id": "x".repeat(801)})),
        ("trace-create", json!({"name": "n".repeat(1001)})),
        ("trace-create", json!({"tags": "a"})),
        ("trace-create", json!({"timestamp": "yesterday"})),
        ("trace-create", json!("no object")),
        ("span-create", json!({"traceId": "t"})),
        ("span-create", json!({"id": "s", "level": "LOUD"})),
        ("span-create", json!({"id": "s", "startTime": "2026-01-15"})),
        ("generation-create", json!({"id": "g", "promptName": "p"})),
        (
            "generation-create",
            json!({"id": "g", "usage": {"input": 1.5}}),
        ),
        (
            "generation-create",
            json!({"id": "g", "usage": {"unit": "BUCKETS"}}),
        ),
        (
            "generation-create",
            json!({"id": "g", "modelParameters": [1]}),
        ),
        ("observation-create", json!({"id": "g"})),
        ("score-create", json!({"traceId": "t", "value": 1})),
        ("score-create", json!({"traceId": "t", "name": "n"})),
        ("score-create", json!({"name": "n", "value": 1})),
        (
            "score-create",
            json!({"traceId": "t", "sessionId": "s", "name": "n", "value": 1}),
        ),
        (
            "score-create",
            json!({"observationId": "o", "name": "n", "value": 1}),
        ),
        (
            "score-create",
            json!({"traceId": "t", "name": "n", "value": true}),
        ),
        (
            "score-create",
            json!({"traceId": "t", "name": "n", "value": 2, "dataType": "BOOLEAN"}),
        ),
        (
            "score-create",
            json!({"traceId": "t", "name": "n", "value": "a", "dataType": "NUMERIC"}),
        ),
        (
            "score-create",
            json!({"traceId": "t", "name": "n", "value": 1, "dataType": null}),
        ),
        (
            "score-create",
            json!({"traceId": "t", "name": "n", "value": "", "dataType": "TEXT"}),
        ),
        (
            "score-create",
            json!({"sessionId": "t", "name": "n", "value": "x", "dataType": "CORRECTION"}),
        ),
    ];
    let count = bodies.len();
    let events: Vec<Value> = bodies
        .into_iter()
        .enumerate()
        .map(|(index, (kind, body))| event(&format!("e{index}"), 1, kind, body))
        .chain([
            json!({"timestamp": "2026-01-15T10:00:00Z", "type": "trace-create", "body": {}}),
            json!({"id": "no time", "type": "trace-create", "body": {}}),
            json!({"id": "no body", "timestamp": "2026-01-15T10:00:00Z", "type": "trace-create"}),
            json!(7),
            event(
                "fine",
                1,
                "trace-create",
                json!({"id": "fine", "unknown": 1, "environment": 7}),
            ),
        ])
        .collect();
    let body = ingest(&xtrace, json!(events)).await;
    assert_eq!(
        body["successes"],
        json!([{"id": "fine", "status": 201}]),
        "{body:#}"
    );
    let errors = body["errors"].as_array().unwrap();
    assert_eq!(errors.len(), count + 4);
    for error in errors {
        assert_eq!(
            (&error["status"], &error["message"]),
            (&json!(400), &json!("Invalid request data"))
        );
        assert!(!error["error"].as_str().unwrap().is_empty());
    }
    assert_eq!(errors[count]["id"], "unknown");
    assert_eq!(trace(&xtrace, "fine").await["environment"], "default");
    for whole in [json!({}), json!({"batch": {}}), json!([]), json!(null)] {
        let (status, body) = xtrace.post(INGESTION, &whole).await;
        assert_eq!(
            (status.as_u16(), &body["message"]),
            (400, &json!("Invalid request data"))
        );
        assert!(body["errors"][0].is_string());
    }
    assert_eq!(ingest(&xtrace, json!([])).await, accepted(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_may_hold_any_character() {
    let xtrace = Xtrace::start().await;
    let id = "a b/c&$@=;+,?{}^%`]\">[~<#|é";
    ingest(
        &xtrace,
        json!([event(
            "e",
            1,
            "trace-create",
            json!({"id": id, "name": "odd"})
        )]),
    )
    .await;
    let encoded: String = form_urlencoded::byte_serialize(id.as_bytes())
        .collect::<String>()
        .replace('+', "%20");
    assert_eq!(trace(&xtrace, &encoded).await["name"], "odd");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_clients_send_one_thing_a_request() {
    let xtrace = Xtrace::start().await;
    let send = async |method: Method, path: &str, body: Value| {
        let request = xtrace.request(method, &format!("/api/public/{path}"));
        answer(request.json(&body)).await
    };
    let (status, trace_id) = send(Method::POST, "traces", json!({"id": "t", "name": "old"})).await;
    assert_eq!((status, trace_id), (StatusCode::OK, json!({"id": "t"})));
    let span =
        json!({"id": "s", "traceId": "t", "name": "work", "startTime": "2026-01-15T10:00:00Z"});
    assert_eq!(
        send(Method::POST, "spans", span).await.1,
        json!({"id": "s"})
    );
    let ended = json!({"spanId": "s", "endTime": "2026-01-15T10:00:02Z"});
    assert_eq!(send(Method::PATCH, "spans", ended).await.0, StatusCode::OK);
    let (_, made) = send(
        Method::POST,
        "generations",
        json!({"traceId": "t", "name": "llm", "model": "gpt-4o", "prompt": [{"role": "user"}]}),
    )
    .await;
    let done =
        json!({"generationId": made["id"], "completion": "hello", "usage": {"promptTokens": 3}});
    assert_eq!(
        send(Method::PATCH, "generations", done).await.0,
        StatusCode::OK
    );
    assert_eq!(
        send(
            Method::POST,
            "events",
            json!({"traceId": "t", "name": "seen"})
        )
        .await
        .0,
        StatusCode::OK
    );
    let trace = trace(&xtrace, "t").await;
    let named = |name: &str| {
        let all = trace["observations"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap().clone()
    };
    assert_eq!(named("work")["latency"], 2.0);
    let llm = named("llm");
    assert_eq!(
        (&llm["input"], &llm["output"], &llm["usageDetails"]["input"]),
        (&json!([{"role": "user"}]), &json!("hello"), &json!(3))
    );
    assert_eq!(named("seen")["type"], "EVENT");
    for (path, body) in [
        ("spans", json!({"name": 7})),
        ("events", json!([])),
        ("generations", json!({"usage": {"input": 0.5}})),
    ] {
        let (status, body) = send(Method::POST, path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {body}");
        assert!(body["message"].is_string(), "{path}: {body}");
    }
}

/// Trap 12: what an observation is stored under is its trace for good, whatever a later event names.
#[tokio::test(flavor = "multi_thread")]
async fn an_observation_stays_in_its_trace() {
    let xtrace = Xtrace::start().await;
    let span = |second, kind: &str, trace: &str, name: &str| {
        let body = json!({"id": "o", "traceId": trace, "name": name});
        event(name, second, kind, body)
    };
    ingest(&xtrace, json!([span(1, "span-create", "first", "made")])).await;
    ingest(&xtrace, json!([span(2, "span-update", "second", "ended")])).await;
    ingest(
        &xtrace,
        json!([span(3, "span-update", "third", "ended again")]),
    )
    .await;
    let (_, found) = xtrace.get("/api/public/observations").await;
    assert_eq!(found["meta"]["totalItems"], 1, "{found}");
    assert_eq!(found["data"][0]["traceId"], "first");
    assert_eq!(found["data"][0]["name"], "ended again");
    // Of events that come together, the earliest names it.
    let other = |second, trace: &str| {
        let body = json!({"id": "p", "traceId": trace});
        event(trace, second, "span-update", body)
    };
    ingest(
        &xtrace,
        json!([other(5, "late"), other(4, "early"), other(6, "later")]),
    )
    .await;
    let (_, found) = xtrace.get("/api/public/observations/p").await;
    assert_eq!(found["traceId"], "early");
    // Spans say which trace they are of: the same id in two of them is two observations, and each stays.
    let batch = |trace: &str| json!({"observations": [{"id": "q", "traceId": trace}]});
    for trace in ["one", "two"] {
        assert_eq!(
            xtrace.post("/v1/l/batch", &batch(trace)).await.0,
            StatusCode::OK
        );
    }
    let body = json!({"id": "q", "traceId": "one", "name": "of one"});
    let now = chrono::Utc::now().to_rfc3339();
    let update = json!({"id": "e", "timestamp": now, "type": "span-update", "body": body});
    ingest(&xtrace, json!([update])).await;
    let named = trace(&xtrace, "one").await;
    assert_eq!(named["observations"][0]["name"], "of one");
    assert_eq!(
        trace(&xtrace, "two").await["observations"][0]["name"],
        Value::Null
    );
}
