//! Our protobuf decoder against prost's, through the server: random spans, encoded by the official
//! types, arrive whole.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use prost::Message;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::Xtrace;

fn any_value() -> impl Strategy<Value = any_value::Value> {
    use any_value::Value as Kind;
    let leaf = prop_oneof![
        "[a-zé]{0,8}".prop_map(Kind::StringValue),
        any::<bool>().prop_map(Kind::BoolValue),
        any::<i64>().prop_map(Kind::IntValue),
        (-1e9..1e9_f64).prop_map(Kind::DoubleValue),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop::collection::vec(inner, 0..3).prop_map(|values| {
            let values = values
                .into_iter()
                .map(|value| AnyValue { value: Some(value) })
                .collect();
            Kind::ArrayValue(ArrayValue { values })
        })
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    prop::collection::btree_map("vendor\\.[a-z]{1,6}", any_value(), 0..6).prop_map(|members| {
        let pair = |(key, value)| KeyValue {
            key,
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        };
        members.into_iter().map(pair).collect()
    })
}

fn any_span(number: u64) -> impl Strategy<Value = Span> {
    (
        attributes(),
        attributes(),
        "[a-z ]{1,20}",
        any::<u32>(),
        0..6_i32,
    )
        .prop_map(move |(attributes, of_event, name, flags, kind)| Span {
            trace_id: vec![7; 16],
            span_id: (number + 1).to_be_bytes().to_vec(),
            name,
            flags,
            kind,
            start_time_unix_nano: 1_768_471_200_000_000_000,
            end_time_unix_nano: 1_768_471_200_000_000_000 + u64::from(flags),
            attributes,
            events: vec![span::Event {
                time_unix_nano: 5,
                name: "e".into(),
                attributes: of_event,
                dropped_attributes_count: flags,
            }],
            status: Some(Status {
                code: kind % 3,
                message: "m".into(),
            }),
            ..Span::default()
        })
}

fn to_json(value: &AnyValue) -> Value {
    use any_value::Value as Kind;
    match value.value.as_ref().unwrap() {
        Kind::StringValue(text) => json!(text),
        Kind::BoolValue(truth) => json!(truth),
        Kind::IntValue(number) => json!(number),
        Kind::DoubleValue(number) => json!(number),
        Kind::ArrayValue(list) => list.values.iter().map(to_json).collect(),
        other => panic!("{other:?}"),
    }
}

fn object(attributes: &[KeyValue]) -> Value {
    let pair = |pair: &KeyValue| (pair.key.clone(), to_json(pair.value.as_ref().unwrap()));
    Value::Object(attributes.iter().map(pair).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prost_encodes_is_decoded_whole() {
    let xtrace = Xtrace::start().await;
    let mut runner = TestRunner::new(Config::default());
    let spans: Vec<Span> = (0..200)
        .map(|n| any_span(n).new_tree(&mut runner).unwrap().current())
        .collect();
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: spans.clone(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    let sent = xtrace
        .request(Method::POST, "/v1/traces")
        .body(request.encode_to_vec());
    let response = sent
        .header("content-type", "application/x-protobuf")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.unwrap().is_empty());
    let mut connection = xtrace.sql().await;
    for span in spans {
        let id = format!(
            "{:016x}",
            u64::from_be_bytes(span.span_id.try_into().unwrap())
        );
        let otel: String = sqlx::query_scalar("select otel from observations where id = $1")
            .bind(&id)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let otel: Value = serde_json::from_str(&otel).unwrap();
        assert_eq!(otel["attributes"], object(&span.attributes));
        assert_eq!(
            otel["events"][0]["attributes"],
            object(&span.events[0].attributes)
        );
        assert_eq!(otel["kind"], span.kind);
        assert_eq!(
            otel.get("flags").cloned().unwrap_or(json!(0)),
            json!(span.flags)
        );
        assert_eq!(
            otel["endTimeUnixNano"],
            json!(span.end_time_unix_nano.to_string())
        );
        assert_eq!(
            otel["status"],
            json!({"code": span.status.unwrap().code, "message": "m"})
        );
    }
}
