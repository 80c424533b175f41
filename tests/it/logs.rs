//! Log records: in by OTLP in every encoding, out by `GET /api/public/logs`.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Xtrace, answer};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn text(text: &str) -> Value {
    json!({"stringValue": text})
}

fn export(records: &[Value]) -> Value {
    json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": text("shop")}]},
        "schemaUrl": "https://opentelemetry.io/schemas/1.37.0",
        "scopeLogs": [{"scope": {"name": "logger", "version": "2"}, "logRecords": records}],
    }]})
}

/// A record of a second of 2026-01-15T10:00.
fn record(second: u64, severity: i32, body: &str) -> Value {
    let time = (1_768_471_200 + second) * 1_000_000_000 + 123_456_789;
    json!({"timeUnixNano": time.to_string(), "observedTimeUnixNano": (time + 1000).to_string(),
        "severityNumber": severity, "severityText": "s", "body": text(body),
        "attributes": [{"key": "n", "value": {"intValue": second.to_string()}}]})
}

async fn list(xtrace: &Xtrace, query: &str) -> Value {
    let (status, body) = xtrace.get(&format!("/api/public/logs{query}")).await;
    assert_eq!(status, 200, "{query}: {body}");
    body
}

async fn bodies(xtrace: &Xtrace, query: &str) -> Vec<String> {
    let body = list(xtrace, query).await;
    let records = body["data"].as_array().unwrap().iter();
    records
        .map(|record| record["body"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_a_record_is_kept() {
    let xtrace = Xtrace::start().await;
    let mut sent = record(0, 17, "it broke");
    sent["traceId"] = json!(TRACE);
    sent["spanId"] = json!(SPAN);
    sent["eventName"] = json!("order.failed");
    sent["flags"] = json!(257);
    sent["droppedAttributesCount"] = json!(3);
    sent["body"] = json!({"kvlistValue": {"values": [
        {"key": "why", "value": text("no \u{0} stock")},
        {"key": "big", "value": {"intValue": "9007199254740993"}}]}});
    assert_eq!(
        xtrace.post("/v1/logs", &export(&[sent])).await,
        (reqwest::StatusCode::OK, json!({}))
    );
    let mut found = list(&xtrace, "").await["data"][0].take();
    assert_eq!(found["id"].as_str().unwrap().len(), 32);
    found["id"].take();
    assert_eq!(
        found,
        json!({
            "id": null,
            "timestamp": "2026-01-15T10:00:00.123456Z", "observedTimestamp": "2026-01-15T10:00:00.123457Z",
            "timeUnixNano": "1768471200123456789", "observedTimeUnixNano": "1768471200123457789",
            "severityNumber": 17, "severityText": "s", "eventName": "order.failed",
            "body": {"why": "no \u{fffd} stock", "big": 9_007_199_254_740_993_i64},
            "traceId": TRACE, "spanId": SPAN, "flags": 257, "attributes": {"n": 0},
            "droppedAttributesCount": 3, "resourceAttributes": {"service.name": "shop"},
            "scope": {"name": "logger", "version": "2", "attributes": {}},
            "resourceSchemaUrl": "https://opentelemetry.io/schemas/1.37.0", "scopeSchemaUrl": "",
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_found_by_what_they_say() {
    let xtrace = Xtrace::start().await;
    let mut records: Vec<Value> = (0..10)
        .map(|n| record(n, 9, &format!("Step {n}")))
        .collect();
    records[3]["severityNumber"] = json!(13);
    records[4]["severityNumber"] = json!(17);
    records[5]["traceId"] = json!(TRACE);
    records[6]["traceId"] = json!(TRACE);
    records[6]["spanId"] = json!(SPAN);
    // Older senders name events in an attribute.
    records[7]["attributes"] = json!([{"key": "event.name", "value": text("tick")}]);
    assert_eq!(xtrace.post("/v1/logs", &export(&records)).await.0, 200);
    let check = async |query: &str, steps: &[u32]| {
        let expected: Vec<String> = steps.iter().map(|n| format!("Step {n}")).collect();
        assert_eq!(bodies(&xtrace, query).await, expected, "{query}");
    };
    check("", &[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]).await;
    check("?severity=WARN", &[4, 3]).await;
    check("?severity=17", &[4]).await;
    check(&format!("?traceId={TRACE}"), &[6, 5]).await;
    check(&format!("?traceId={TRACE}&spanId={SPAN}"), &[6]).await;
    check("?eventName=tick", &[7]).await;
    check("?text=STEP%201", &[1]).await;
    check("?text=100%25", &[]).await;
    check("?fromTimestamp=2026-01-15T10:00:08Z", &[9, 8]).await;
    check(
        "?fromTimestamp=2026-01-15T10:00:03Z&toTimestamp=2026-01-15T10:00:05Z",
        &[4, 3],
    )
    .await;
    // Page by page, nothing twice and nothing left out.
    let mut query = "?limit=4".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = list(&xtrace, &query).await;
        pages.push(page["data"].as_array().unwrap().len());
        let Some(cursor) = page["meta"]["cursor"].as_str() else {
            break;
        };
        query = format!("?limit=4&cursor={cursor}");
    }
    assert_eq!(pages, [4, 4, 2]);
    for bad in [
        "?limit=0",
        "?limit=1001",
        "?severity=LOUD",
        "?cursor=x",
        "?fromTimestamp=now",
        "?text=%00",
        "?spanId=%00",
        "?traceId=%00",
    ] {
        let (status, body) = xtrace.get(&format!("/api/public/logs{bad}")).await;
        assert_eq!(status, 400, "{bad}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_adds_nothing_and_equal_records_are_all_kept() {
    let xtrace = Xtrace::start().await;
    let alike = export(&[
        record(1, 9, "retrying"),
        record(1, 9, "retrying"),
        record(2, 9, "done"),
    ]);
    for _ in 0..3 {
        assert_eq!(xtrace.post("/v1/logs", &alike).await.0, 200);
    }
    assert_eq!(bodies(&xtrace, "").await, ["done", "retrying", "retrying"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_records_are_kept_too() {
    let xtrace = Xtrace::start().await;
    let records = [
        json!({"body": text("no time"), "observedTimeUnixNano": "1768471200000000000"}),
        json!({"body": text("bad ids"), "timeUnixNano": "1768471201000000000", "traceId": "xyz", "spanId": SPAN}),
        json!({"body": text("wild severity"), "timeUnixNano": "1768471202000000000", "severityNumber": -7}),
        json!({"body": text("year 2262"), "timeUnixNano": "18446744073709551615"}),
        json!({"body": null, "timeUnixNano": "1768471203000000000"}),
        json!({}),
    ];
    assert_eq!(xtrace.post("/v1/logs", &export(&records)).await.0, 200);
    let found = list(&xtrace, "").await;
    assert_eq!(
        found["data"].as_array().unwrap().len(),
        records.len(),
        "{found}"
    );
    let of = |body: &str| {
        let records = found["data"].as_array().unwrap();
        records
            .iter()
            .find(|record| record["body"] == body)
            .unwrap()
    };
    assert_eq!(of("no time")["timestamp"], "2026-01-15T10:00:00.000000Z");
    assert_eq!(
        (&of("bad ids")["traceId"], &of("bad ids")["spanId"]),
        (&Value::Null, &Value::Null)
    );
    // A span's payload is no log's.
    let spans = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "n"}]}]}]});
    assert_eq!(
        xtrace.post("/v1/logs", &spans).await,
        (reqwest::StatusCode::OK, json!({}))
    );
    for bad in [
        "[]",
        "{",
        r#"{"resourceLogs": 1}"#,
        r#"{"resourceLogs": [{"scopeLogs": [{"logRecords": [null]}]}]}"#,
    ] {
        let request = xtrace
            .request(Method::POST, "/v1/logs")
            .header("content-type", "application/json");
        let (status, body) = answer(request.body(bad)).await;
        let empty = bad.contains("null");
        assert_eq!(status, if empty { 200 } else { 400 }, "{bad}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_says_the_same_as_json() {
    let (json_side, protobuf_side) = (Xtrace::start().await, Xtrace::start().await);
    let mut sent = record(0, 17, "same");
    sent["traceId"] = json!(TRACE);
    sent["spanId"] = json!(SPAN);
    sent["eventName"] = json!("e");
    sent["flags"] = json!(1);
    sent["droppedAttributesCount"] = json!(2);
    assert_eq!(json_side.post("/v1/logs", &export(&[sent])).await.0, 200);
    let value = |value| Some(AnyValue { value: Some(value) });
    let pair = |key: &str, of| KeyValue {
        key: key.to_owned(),
        value: value(of),
        ..KeyValue::default()
    };
    let string = |text: &str| any_value::Value::StringValue(text.to_owned());
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect()
    };
    let log_record = LogRecord {
        time_unix_nano: 1_768_471_200_123_456_789,
        observed_time_unix_nano: 1_768_471_200_123_457_789,
        severity_number: 17,
        severity_text: "s".to_owned(),
        body: value(string("same")),
        attributes: vec![pair("n", any_value::Value::IntValue(0))],
        dropped_attributes_count: 2,
        flags: 1,
        trace_id: bytes(TRACE),
        span_id: bytes(SPAN),
        event_name: "e".to_owned(),
    };
    let mut scope_logs = ScopeLogs {
        log_records: vec![log_record],
        ..ScopeLogs::default()
    };
    let scope = scope_logs.scope.get_or_insert_default();
    (scope.name, scope.version) = ("logger".to_owned(), "2".to_owned());
    let mut resource_logs = ResourceLogs {
        scope_logs: vec![scope_logs],
        schema_url: "https://opentelemetry.io/schemas/1.37.0".to_owned(),
        ..ResourceLogs::default()
    };
    resource_logs.resource.get_or_insert_default().attributes =
        vec![pair("service.name", string("shop"))];
    let body = ExportLogsServiceRequest {
        resource_logs: vec![resource_logs],
    }
    .encode_to_vec();
    let request = protobuf_side
        .request(Method::POST, "/api/public/otel/v1/logs")
        .header("content-type", "application/x-protobuf");
    let answered = request.body(body).send().await.unwrap();
    assert_eq!(answered.status(), 200);
    assert!(answered.bytes().await.unwrap().is_empty());
    assert_eq!(list(&json_side, "").await, list(&protobuf_side, "").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_belong_to_a_project() {
    let xtrace = Xtrace::start().await;
    let other = xtrace.project("other").await;
    assert_eq!(
        xtrace
            .post("/v1/logs", &export(&[record(0, 9, "mine")]))
            .await
            .0,
        200
    );
    let (status, theirs) = answer(xtrace.request_as(&other, Method::GET, "/api/public/logs")).await;
    assert_eq!((status.as_u16(), &theirs["data"]), (200, &json!([])));
    let anonymous = xtrace.http.get(format!("{}/api/public/logs", xtrace.url));
    assert_eq!(anonymous.send().await.unwrap().status(), 401);
}

fn message(trace: &str, content: &str) -> Value {
    let mut record = record(0, 9, content);
    record["traceId"] = json!(trace);
    record["spanId"] = json!(SPAN);
    record["eventName"] = json!("gen_ai.user.message");
    export(&[record])
}

fn span(trace: &str) -> Value {
    let time = "1768471200000000000";
    json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": trace, "spanId": SPAN,
        "name": "chat", "startTimeUnixNano": time, "endTimeUnixNano": time}]}]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_requests_missed_is_added_by_the_next_round() {
    let one = Xtrace::start().await;
    let two = Xtrace::start_on(&one.database_url, &[]).await;
    // The server that takes the span has never heard of the record.
    assert_eq!(one.post("/v1/logs", &message(TRACE, "hello")).await.0, 200);
    assert_eq!(two.post("/v1/traces", &span(TRACE)).await.0, 200);
    let path = format!("/api/public/observations/{SPAN}");
    assert_eq!(two.get(&path).await.1["input"], Value::Null);
    // The first round is run at start.
    let three = Xtrace::start_on(&one.database_url, &[]).await;
    let expected = json!([{"role": "user", "content": "hello"}]);
    for _ in 0..100 {
        if three.get(&path).await.1["input"] == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the record was not added");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_spans_that_race_meet() {
    let xtrace = Xtrace::start().await;
    let traces: Vec<String> = (1..=60).map(|n| format!("{n:032x}")).collect();
    let sent = traces.iter().flat_map(|trace| {
        let requests = [
            ("/v1/logs", message(trace, "first")),
            ("/v1/traces", span(trace)),
            ("/v1/logs", message(trace, "second")),
        ];
        requests.map(|(path, body)| {
            let xtrace = &xtrace;
            async move { xtrace.post(path, &body).await.0 }
        })
    });
    let statuses = futures_util::future::join_all(sent).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    for trace in &traces {
        let (_, trace) = xtrace.get(&format!("/api/public/traces/{trace}")).await;
        let mut said: Vec<&str> = trace["observations"][0]["input"]
            .as_array()
            .unwrap_or_else(|| panic!("{trace}"))
            .iter()
            .map(|message| message["content"].as_str().unwrap())
            .collect();
        said.sort_unstable();
        assert_eq!(said, ["first", "second"], "{trace}");
        assert_eq!(trace["input"], trace["observations"][0]["input"]);
    }
    let mut sql = xtrace.sql().await;
    let waiting: i64 = sqlx::query_scalar("select count(*) from pending_content")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    assert_eq!(waiting, 0, "no note is left behind");
}
