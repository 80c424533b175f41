//! `GET /v2/observations`: field groups, cursors, filters that search.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{event, ingest};
use crate::harness::Xtrace;

const PATH: &str = "/api/public/v2/observations";

async fn read(xtrace: &Xtrace, query: &str) -> Value {
    let (status, body) = xtrace.get(&format!("{PATH}?{query}")).await;
    assert_eq!(status, StatusCode::OK, "{query}: {body}");
    body
}

fn ids(body: &Value) -> Vec<&str> {
    let rows = body["data"].as_array().unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

fn names(row: &Value) -> Vec<&str> {
    let members = row.as_object().unwrap();
    members.keys().map(String::as_str).collect()
}

/// A trace of a root, a generation below it, and one more that begins with them.
async fn fill(xtrace: &Xtrace) {
    let long = "x".repeat(300);
    let start = "2026-01-15T10:00:00Z";
    ingest(
        xtrace,
        json!([
            event("1", 1, "trace-create", json!({"id": "t", "name": "request", "userId": "ada",
                "sessionId": "s", "tags": ["b", "a"], "release": "r1"})),
            event("2", 1, "span-create", json!({"id": "root", "traceId": "t", "name": "work",
                "startTime": start, "input": {"a": 1}, "metadata": {"long": long, "n": 5}})),
            event("3", 1, "generation-create", json!({"id": "gen", "traceId": "t", "name": "chat",
                "parentObservationId": "root", "startTime": start, "endTime": "2026-01-15T10:00:02Z",
                "completionStartTime": "2026-01-15T10:00:01Z", "model": "gpt-4o",
                "modelParameters": {"temperature": 0.5}, "usageDetails": {"input": 10, "output": 2},
                "output": "The Needle in it, needle@mail.example", "metadata": {"k": "Needle here"}})),
            event("4", 1, "tool-create", json!({"id": "tool", "traceId": "t", "name": "search",
                "parentObservationId": "root", "startTime": start, "output": "foobarneedle",
                "metadata": {"k": "needle here"}})),
        ]),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_has_the_groups_that_were_asked_for_and_no_others() {
    let xtrace = Xtrace::start().await;
    fill(&xtrace).await;
    let body = read(&xtrace, "name=chat").await;
    let row = &body["data"][0];
    let always = [
        "id",
        "traceId",
        "startTime",
        "endTime",
        "projectId",
        "parentObservationId",
        "type",
        "latency",
        "timeToFirstToken",
        "modelId",
        "inputPrice",
        "outputPrice",
        "totalPrice",
    ];
    let basic = [
        "name",
        "level",
        "statusMessage",
        "version",
        "environment",
        "bookmarked",
        "public",
        "userId",
        "sessionId",
        "isRootObservation",
    ];
    assert_eq!(names(row), [&always[..], &basic[..]].concat());
    assert_eq!(
        (&row["userId"], &row["sessionId"]),
        (&json!("ada"), &json!("s"))
    );
    assert_eq!(
        (&row["latency"], &row["timeToFirstToken"]),
        (&json!(2.0), &Value::Null)
    );
    assert_eq!(
        (&row["modelId"], &row["isRootObservation"]),
        (&Value::Null, &json!(false))
    );
    assert_eq!(body["meta"], json!({}));

    let body = read(&xtrace, "name=chat&fields=model,usage,bogus").await;
    let row = &body["data"][0];
    assert_eq!(row.get("name"), None);
    assert_eq!(
        (&row["model"], &row["providedModelName"]),
        (&json!("gpt-4o"), &json!("gpt-4o"))
    );
    assert_eq!(
        (&row["inputPrice"], &row["totalPrice"]),
        (&json!("0.0000025"), &Value::Null)
    );
    assert_eq!(
        row["usageDetails"],
        json!({"input": 10, "output": 2, "total": 12})
    );
    assert_eq!(row["modelParameters"], json!({"temperature": 0.5}));
    assert!(row["totalCost"].as_f64().unwrap() > 0.0);

    // Unknown groups alone are the core; input and output are text.
    let body = read(&xtrace, "name=chat&fields=bogus").await;
    assert_eq!(names(&body["data"][0]), always);
    let body = read(
        &xtrace,
        "name=work&fields=io,time,metrics,prompt,trace_context",
    )
    .await;
    let row = &body["data"][0];
    assert_eq!(
        (&row["input"], &row["output"]),
        (&json!("{\"a\":1}"), &Value::Null)
    );
    assert_eq!(
        (&row["tags"], &row["traceName"]),
        (&json!(["a", "b"]), &json!("request"))
    );
    assert_eq!(
        (&row["release"], &row["promptName"]),
        (&json!("r1"), &Value::Null)
    );
    assert!(row["createdAt"].is_string());
    let body = read(&xtrace, "name=chat&fields=time").await;
    assert_eq!(body["data"][0]["timeToFirstToken"], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_metadata_is_cut_unless_it_is_asked_for() {
    let xtrace = Xtrace::start().await;
    fill(&xtrace).await;
    for (query, chars) in [
        ("fields=metadata", 200),
        ("fields=metadata&expandMetadata=", 200),
        ("fields=metadata&expandMetadata=other", 300),
        ("fields=metadata,io", 300),
    ] {
        let body = read(&xtrace, &format!("name=work&{query}")).await;
        let metadata = &body["data"][0]["metadata"];
        assert_eq!(metadata["long"].as_str().unwrap().len(), chars, "{query}");
        assert_eq!(metadata["n"], 5, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_equal_starts_neither_skip_nor_repeat() {
    let xtrace = Xtrace::start().await;
    let start = "2026-01-15T10:00:00.123456Z";
    let events: Vec<Value> = (0..10)
        .map(|n| {
            let body = json!({"id": format!("o{n}"), "traceId": format!("t{}", n % 3), "startTime": start});
            event(&n.to_string(), 1, "span-create", body)
        })
        .collect();
    ingest(&xtrace, json!(events)).await;
    let mut found = Vec::new();
    let mut query = "limit=3".to_owned();
    for page in 0..4 {
        let body = read(&xtrace, &query).await;
        found.extend(ids(&body).into_iter().map(str::to_owned));
        let cursor = body["meta"].get("cursor");
        assert_eq!(cursor.is_none(), page == 3, "the last page has no cursor");
        if let Some(cursor) = cursor {
            let cursor: String =
                form_urlencoded::byte_serialize(cursor.as_str().unwrap().as_bytes()).collect();
            query = format!("limit=3&cursor={cursor}");
        }
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 10);
    // As many as the limit are the last page.
    assert_eq!(read(&xtrace, "limit=10").await["meta"], json!({}));
    for bad in [
        "cursor=%25%25",
        "cursor=e30",
        "cursor=bnVsbA",
        "limit=1001",
        "limit=-1",
        "limit=x",
    ] {
        let (status, body) = xtrace.get(&format!("{PATH}?{bad}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}: {body}");
    }
    // A cursor of this project shows another project its own rows.
    let other = xtrace.project("other").await;
    let request = xtrace.request_as(&other, reqwest::Method::GET, &format!("{PATH}?{query}"));
    let (status, body) = crate::harness::answer(request).await;
    assert_eq!((status, &body["data"]), (StatusCode::OK, &json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_found_whole() {
    let xtrace = Xtrace::start().await;
    fill(&xtrace).await;
    let find = |column: &str, value: &str| {
        let (kind, key) = match column {
            "metadata" => ("stringObject", json!("k")),
            _ => ("string", Value::Null),
        };
        let filter = json!([{"type": kind, "column": column, "operator": "matches", "value": value,
            "key": key}]);
        let text: String = form_urlencoded::byte_serialize(filter.to_string().as_bytes()).collect();
        format!("filter={text}")
    };
    for (column, value, found) in [
        ("output", "needle", vec!["gen"]),
        ("output", "NEEDLE IN", vec!["gen"]),
        ("output", "needle@mail.example", vec!["gen"]),
        ("output", "needle it", vec![]),
        ("metadata", "needle", vec!["tool"]),
        ("metadata", "Needle", vec!["gen"]),
    ] {
        let body = read(&xtrace, &find(column, value)).await;
        assert_eq!(ids(&body), found, "{column} {value}");
    }
    for (column, value) in [("output", ""), ("output", "--"), ("name", "chat")] {
        let (status, body) = xtrace.get(&format!("{PATH}?{}", find(column, value))).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{column} {value}: {body}");
    }
    // Version 1 can't.
    let (status, _) = xtrace
        .get(&format!(
            "/api/public/observations?{}",
            find("output", "needle")
        ))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let contains =
        json!([{"type": "string", "column": "output", "operator": "contains", "value": "need"}]);
    let text: String = form_urlencoded::byte_serialize(contains.to_string().as_bytes()).collect();
    let (status, body) = xtrace.get(&format!("{PATH}?filter={text}")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains("at least one `matches` or `=`")
    );
    let (status, body) = xtrace.get(&format!("{PATH}?parseIoAsJson=true")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.to_string().contains("parseIoAsJson"));
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_are_physical_or_of_their_application() {
    let xtrace = Xtrace::start().await;
    fill(&xtrace).await;
    let span = json!({"traceId": "5b8aa5a2d2c872e8321cf37308d69df2", "spanId": "051581bf3cb55c13",
        "parentSpanId": "00000000000000aa", "name": "app",
        "startTimeUnixNano": "1768471200000000000", "endTimeUnixNano": "1768471201000000000",
        "attributes": [{"key": "langfuse.internal.is_app_root", "value": {"boolValue": true}}]});
    let export = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
    let (status, body) = xtrace.post("/api/public/otel/v1/traces", &export).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let mut roots = read(&xtrace, "isRootObservation=true").await;
    let rows = roots["data"].as_array_mut().unwrap();
    rows.sort_by_key(|row| row["id"].to_string());
    assert_eq!(ids(&roots), ["051581bf3cb55c13", "root"]);
    assert_eq!(roots["data"][0]["parentObservationId"], "00000000000000aa");
    assert_eq!(ids(&read(&xtrace, "parentObservationId=").await), ["root"]);
    let mut rest = ids(&read(&xtrace, "isRootObservation=false").await).join(" ");
    if rest == "tool gen" {
        rest = "gen tool".to_owned();
    }
    assert_eq!(rest, "gen tool");
    let (status, _) = xtrace.get(&format!("{PATH}?isRootObservation=yes")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_found_by_name_and_number() {
    let xtrace = Xtrace::start().await;
    let text =
        |key: &str, value: Value| json!({"key": key, "value": {"stringValue": value.to_string()}});
    let span = json!({"traceId": "5b8aa5a2d2c872e8321cf37308d69df2", "spanId": "051581bf3cb55c13", "name": "chat",
    "startTimeUnixNano": "1768471200000000000", "endTimeUnixNano": "1768471201000000000",
    "attributes": [
        text("gen_ai.tool.definitions", json!([{"type": "function", "name": "search"}, {"type": "function", "name": "book"}])),
        text("langfuse.observation.output", json!({"role": "assistant", "tool_calls":
            [{"id": "1", "type": "function", "function": {"name": "search", "arguments": "{}"}}]})),
    ]});
    let export = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
    let (status, body) = xtrace.post("/api/public/otel/v1/traces", &export).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    for (filter, found) in [
        (
            json!({"type": "arrayOptions", "column": "toolNames", "operator": "all of", "value": ["book", "search"]}),
            1,
        ),
        (
            json!({"type": "arrayOptions", "column": "calledToolNames", "operator": "any of", "value": ["book"]}),
            0,
        ),
        (
            json!({"type": "arrayOptions", "column": "calledToolNames", "operator": "any of", "value": ["search"]}),
            1,
        ),
        (
            json!({"type": "number", "column": "toolDefinitions", "operator": "=", "value": 2}),
            1,
        ),
        (
            json!({"type": "number", "column": "toolCalls", "operator": ">", "value": 1}),
            0,
        ),
        (
            json!({"type": "boolean", "column": "isExperimentItemRootSpan", "operator": "=", "value": true}),
            0,
        ),
    ] {
        let text: String =
            form_urlencoded::byte_serialize(json!([filter]).to_string().as_bytes()).collect();
        let body = read(&xtrace, &format!("filter={text}")).await;
        assert_eq!(ids(&body).len(), found, "{filter}");
    }
}
