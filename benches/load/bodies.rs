//! Request bodies, built before the clock starts: a template is encoded once, and every send patches
//! fresh ids and times into a copy of it, so that the generator costs next to nothing.

use std::fmt::Write;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::json;

/// Begin placeholders of ids and of times; no UTF-8 text holds them.
const ID_MARK: [u8; 2] = [0xa7, 0xfe];
const TIME_MARK: [u8; 2] = [0xb5, 0xf9];
/// Ends every placeholder.
const END_MARK: u8 = 0xa7;
const TRACE: u8 = 1;
const SPAN: u8 = 2;
const START: u8 = 3;
const END: u8 = 4;

/// What the spans of a request are like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Bytes of input and output.
    pub(crate) payload_bytes: usize,
    pub(crate) spans_per_request: usize,
    pub(crate) spans_per_trace: usize,
    /// Whether roots carry user, session, tags and the like of many kinds, for reads to filter by.
    pub(crate) varied: bool,
}

/// How a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Protobuf,
    Json,
}

/// A request with placeholders.
pub(crate) struct Template {
    bytes: Vec<u8>,
    places: Vec<Place>,
    format: Format,
    traces: u64,
    spans: u64,
}

struct Place {
    at: usize,
    what: u8,
    index: u32,
}

/// A number that looks random, and is the same for the same seed.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Words that compress about as well as prose does.
pub(crate) fn prose(seed: u64, bytes: usize) -> String {
    const WORDS: &str = "the customer asked whether their parcel would arrive tomorrow in berlin or \
        by train because weather reports said heavy rain refunds take three working days please \
        answer politely include order number ticket model token latency budget summary question \
        thanks agent tool call result search document context window policy escalate human review";
    let words: Vec<&str> = WORDS.split(' ').collect();
    let mut text = String::with_capacity(bytes + 12);
    for number in 0.. {
        if text.len() >= bytes {
            break;
        }
        let draw = mix(seed.wrapping_mul(31).wrapping_add(number));
        text.push_str(words[usize::try_from(draw % words.len() as u64).unwrap()]);
        text.push(' ');
        if draw.is_multiple_of(11) {
            write!(text, "{:x} ", draw >> 44).unwrap();
        }
    }
    text
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn mark(what: u8) -> [u8; 2] {
    if what >= START { TIME_MARK } else { ID_MARK }
}

fn placeholder(what: u8, index: usize) -> u64 {
    let [a, b] = mark(what);
    let index = u32::try_from(index).unwrap().to_be_bytes();
    u64::from_be_bytes([a, b, what, index[0], index[1], index[2], index[3], END_MARK])
}

/// What roots say of their trace; `seed` decides how common each value is.
fn trace_attributes(seed: u64) -> Vec<KeyValue> {
    let of = |what: &str, kinds: u64| format!("{what}-{}", mix(seed ^ kinds) % kinds);
    let one_in = |kinds: u64| mix(seed ^ 0x5eed).is_multiple_of(kinds);
    let mut tags = vec![of("team", 5)];
    if one_in(1000) {
        tags.push("rare".to_owned());
    }
    let tags = tags.into_iter().map(|tag| AnyValue {
        value: Some(Value::StringValue(tag)),
    });
    let tags = ArrayValue {
        values: tags.collect(),
    };
    vec![
        text("user.id", of("user", 1000)),
        text("session.id", of("session", 20_000)),
        text("langfuse.trace.name", of("flow", 20)),
        attribute("langfuse.trace.tags", Value::ArrayValue(tags)),
        text("langfuse.version", of("1.0", 40)),
        text("langfuse.release", of("release", 40)),
        text("langfuse.trace.metadata.customer", of("customer", 500)),
        text(
            "langfuse.environment",
            if one_in(10) { "staging" } else { "production" },
        ),
    ]
}

const MODELS: [&str; 4] = ["gpt-4o", "gpt-4o-mini", "claude-3-5-sonnet-20241022", "o1"];

fn span(shape: Shape, seed: u64, number: usize) -> Span {
    let trace = number / shape.spans_per_trace;
    let is_root = number.is_multiple_of(shape.spans_per_trace);
    let seed = seed.wrapping_add(number as u64);
    let message = |role: &str, text: String| format!(r#"[{{"role":"{role}","content":"{text}"}}]"#);
    let model = MODELS[usize::try_from(mix(seed) % 4).unwrap()];
    let input = prose(seed, shape.payload_bytes * 2 / 3);
    let output = prose(seed + 7, shape.payload_bytes / 3);
    let mut attributes = vec![
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.provider.name", "openai"),
        text("gen_ai.request.model", model),
        attribute("gen_ai.usage.input_tokens", Value::IntValue(1200)),
        attribute("gen_ai.usage.output_tokens", Value::IntValue(80)),
        attribute("gen_ai.request.temperature", Value::DoubleValue(0.2)),
        text("gen_ai.input.messages", message("user", input)),
        text("gen_ai.output.messages", message("assistant", output)),
    ];
    if is_root && shape.varied {
        attributes.extend(trace_attributes(seed));
    } else if is_root {
        attributes.push(text("user.id", format!("user-{}", mix(seed) % 1000)));
    }
    let id = |what, index| placeholder(what, index).to_be_bytes().to_vec();
    Span {
        trace_id: [id(TRACE, trace), vec![0; 8]].concat(),
        span_id: id(SPAN, number),
        parent_span_id: if is_root {
            Vec::new()
        } else {
            id(SPAN, trace * shape.spans_per_trace)
        },
        name: format!("chat {model}"),
        kind: 3,
        start_time_unix_nano: placeholder(START, number),
        end_time_unix_nano: placeholder(END, number),
        attributes,
        ..Span::default()
    }
}

impl Template {
    /// A request of that shape; different seeds have different texts.
    pub(crate) fn new(shape: Shape, format: Format, seed: u64) -> Self {
        let spans = (0..shape.spans_per_request).map(|number| span(shape, seed << 20, number));
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![text("service.name", "shop-assistant")],
                    ..Resource::default()
                }),
                scope_spans: vec![ScopeSpans {
                    spans: spans.collect(),
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let bytes = match format {
            Format::Protobuf => request.encode_to_vec(),
            Format::Json => json_of(&request).into_bytes(),
        };
        Self {
            places: places(&bytes, format),
            bytes,
            format,
            traces: shape.spans_per_request.div_ceil(shape.spans_per_trace) as u64,
            spans: shape.spans_per_request as u64,
        }
    }

    /// The request as number `number` of run `run`: its traces begin at `start` (Unix nanoseconds).
    pub(crate) fn request(&self, run: u64, number: u64, start: u64) -> Bytes {
        let mut bytes = self.bytes.clone();
        for place in &self.places {
            let index = u64::from(place.index);
            let trace = || mix(run ^ (number * self.traces + index));
            let value = match place.what {
                TRACE => trace(),
                SPAN => mix(!run ^ (number * self.spans + index)) | 1,
                START => start + index * 1_000_000,
                _ => start + index * 1_000_000 + 800_000_000,
            };
            match (self.format, place.what) {
                (Format::Protobuf, TRACE | SPAN) => put(&mut bytes, place.at, &value.to_be_bytes()),
                (Format::Protobuf, _) => put(&mut bytes, place.at, &value.to_le_bytes()),
                (Format::Json, TRACE | SPAN) => {
                    put(&mut bytes, place.at, format!("{value:016x}").as_bytes());
                }
                (Format::Json, _) => put(&mut bytes, place.at, format!("{value:020}").as_bytes()),
            }
            if place.what == TRACE {
                let more = mix(trace());
                match self.format {
                    Format::Protobuf => put(&mut bytes, place.at + 8, &more.to_be_bytes()),
                    Format::Json => {
                        put(&mut bytes, place.at + 16, format!("{more:016x}").as_bytes());
                    }
                }
            }
        }
        bytes.into()
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Where the placeholders are: as bytes (times in the other order), or as digits.
fn places(bytes: &[u8], format: Format) -> Vec<Place> {
    let mut places = Vec::new();
    let mut add = |at: usize, value: u64| {
        let bytes = value.to_be_bytes();
        let (begin, what, index, end) = (&bytes[..2], bytes[2], &bytes[3..7], bytes[7]);
        if begin == mark(what) && end == END_MARK && (TRACE..=END).contains(&what) {
            let index = u32::from_be_bytes(index.try_into().unwrap());
            places.push(Place { at, what, index });
        }
    };
    match format {
        Format::Protobuf => {
            for (at, window) in bytes.windows(8).enumerate() {
                let window: [u8; 8] = window.try_into().unwrap();
                if window[..2] == ID_MARK {
                    add(at, u64::from_be_bytes(window));
                } else if window[6..] == [TIME_MARK[1], TIME_MARK[0]] {
                    add(at, u64::from_le_bytes(window));
                }
            }
        }
        Format::Json => {
            let hex = format!("{:02x}{:02x}", ID_MARK[0], ID_MARK[1]);
            let decimal = placeholder(START, 0).to_string();
            for at in 0..bytes.len().saturating_sub(20) {
                if bytes[at..].starts_with(hex.as_bytes()) {
                    let digits = std::str::from_utf8(&bytes[at..at + 16]).unwrap();
                    if let Ok(value) = u64::from_str_radix(digits, 16) {
                        add(at, value);
                    }
                } else if bytes[at..].starts_with(&decimal.as_bytes()[..4]) && bytes[at - 1] == b'"'
                {
                    let digits = std::str::from_utf8(&bytes[at..at + 20]).unwrap();
                    if let Ok(value) = digits.parse() {
                        add(at, value);
                    }
                }
            }
        }
    }
    places
}

/// OTLP/JSON, by hand: opentelemetry-proto writes it only with features that nothing else needs.
fn json_of(request: &ExportTraceServiceRequest) -> String {
    let value = |value: &Option<AnyValue>| any_json(value.as_ref());
    let attributes = |list: &[KeyValue]| -> Vec<serde_json::Value> {
        list.iter()
            .map(|pair| json!({"key": pair.key, "value": value(&pair.value)}))
            .collect()
    };
    let hex = |bytes: &[u8]| {
        let put = |hex, byte: &u8| format!("{hex}{byte:02x}");
        bytes.iter().fold(String::new(), put)
    };
    let group = &request.resource_spans[0];
    let spans: Vec<_> = group.scope_spans[0]
        .spans
        .iter()
        .map(|span| {
            json!({
                "traceId": hex(&span.trace_id), "spanId": hex(&span.span_id),
                "parentSpanId": hex(&span.parent_span_id), "name": span.name, "kind": span.kind,
                "startTimeUnixNano": span.start_time_unix_nano.to_string(),
                "endTimeUnixNano": span.end_time_unix_nano.to_string(),
                "attributes": attributes(&span.attributes),
            })
        })
        .collect();
    let resource = attributes(&group.resource.as_ref().unwrap().attributes);
    json!({"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [{"spans": spans}]}]})
        .to_string()
}

fn any_json(value: Option<&AnyValue>) -> serde_json::Value {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => json!({"stringValue": text}),
        Some(Value::IntValue(number)) => json!({"intValue": number.to_string()}),
        Some(Value::DoubleValue(number)) => json!({"doubleValue": number}),
        Some(Value::ArrayValue(array)) => {
            let values: Vec<_> = array.values.iter().map(|v| any_json(Some(v))).collect();
            json!({"arrayValue": {"values": values}})
        }
        _ => json!({}),
    }
}

/// Points as Nebula posts them: `points` of one time, of so many series.
pub(crate) fn metric_points(points: usize, series: u64, number: u64, seconds: i64) -> Bytes {
    let at = chrono::DateTime::from_timestamp(seconds, 0)
        .unwrap()
        .to_rfc3339();
    let points: Vec<_> = (0..points as u64)
        .map(|point| {
            let series = (number * points as u64 + point) % series;
            json!({"name": "gpu_utilization", "value": (mix(number ^ point) % 10_000) as f64 / 100.0,
                "timestamp": at, "labels": {"node_id": format!("node-{}", series / 8), "gpu_index": (series % 8).to_string()}})
        })
        .collect();
    json!({ "metrics": points }).to_string().into()
}

/// A batch of Langfuse's `generation-create` events with 1.6 KB of input and output each.
pub(crate) fn generation_events(events: usize, run: u64, number: u64) -> Bytes {
    let event = |index: usize| {
        let seed = mix(run ^ number) ^ index as u64;
        let body = json!({
            "id": format!("{run:x}-{number}-{index}"),
            "traceId": format!("{run:x}-{number}-t{}", index / 8),
            "name": "llm",
            "startTime": "2026-11-20T10:00:00.123Z",
            "endTime": "2026-11-20T10:00:01.456Z",
            "model": "gpt-4o",
            "modelParameters": {"temperature": 0.2},
            "input": [{"role": "user", "content": prose(seed, 1000)}],
            "output": {"role": "assistant", "content": prose(seed + 1, 600)},
            "usageDetails": {"input": 1200, "output": 80},
            "metadata": {"customer": seed % 1000, "tier": "gold"},
        });
        json!({"id": format!("e-{run:x}-{number}-{index}"), "timestamp": "2026-11-20T10:00:01.500Z",
            "type": "generation-create", "body": body})
    };
    let batch: Vec<_> = (0..events).map(event).collect();
    json!({ "batch": batch }).to_string().into()
}
