//! OTLP over HTTP (protobuf or JSON) and gRPC, answered in the encoding that it came in.
//!
//! - `receive`: a request's way. `grpc`: one message in its frames. `reply`, `error`: its answer.
//! - `protobuf`, `json` → `wire`: what it says. `mapping`: what that means.
//! - `supplements`: what log records add to the observation of their span.

mod error;
mod grpc;
mod json;
mod mapping;
mod protobuf;
mod protobuf_out;
mod receive;
mod reply;
mod supplements;
mod wire;

use xtrace_model::{Batch, ProjectId};
use xtrace_store::Store;
use xtrace_store::metrics::SeriesKey;

pub(crate) use grpc::is_grpc;
pub(crate) use mapping::{cut, cut_tags};
pub(crate) use receive::transport_of;
pub use receive::{
    logs_over_grpc, logs_over_http, method_not_allowed, metrics_over_grpc, metrics_over_http,
    traces_over_grpc, traces_over_http,
};
pub(crate) use reply::Transport;
pub(crate) use supplements::{Supplements, run as add_supplements};

/// What a body becomes, without a server around it; for the benchmark of its parts.
#[doc(hidden)]
pub fn batch_of(body: &[u8], is_json: bool, project: &ProjectId) -> Option<Batch> {
    let caps = wire::Caps::default();
    let sender = mapping::Sender::default();
    let map = |export| mapping::map(export, project.clone(), &sender, 0).batch;
    if is_json {
        let text = xtrace_model::text::repair_json(body);
        json::decode(&text, caps).ok().map(map)
    } else {
        protobuf::decode(body, caps).ok().map(map)
    }
}

/// The message of a gRPC body, and whether it is compressed; for the fuzzers.
#[doc(hidden)]
pub fn message_of(body: &[u8]) -> Option<(bool, bytes::Bytes)> {
    grpc::message(bytes::Bytes::copy_from_slice(body))
}

/// The same for log records.
#[doc(hidden)]
pub fn batch_of_logs(body: &[u8], is_json: bool, project: &ProjectId) -> Option<Batch> {
    let caps = wire::Caps::default();
    let sender = mapping::Sender::default();
    let map = |export| mapping::map_logs(export, project.clone(), &sender, 0).batch;
    if is_json {
        let text = xtrace_model::text::repair_json(body);
        json::decode(&text, caps).ok().map(map)
    } else {
        protobuf::decode(body, caps).ok().map(map)
    }
}

/// The same for metrics; a store that was never connected knows no series.
#[doc(hidden)]
pub fn batch_of_metrics(
    body: &[u8],
    is_json: bool,
    project: &ProjectId,
    store: &Store,
) -> Option<Batch> {
    let caps = wire::Caps::default();
    let known = store.known_series(SeriesKey::default(), project);
    let map = |export| mapping::map_metrics(export, &known).batch;
    if is_json {
        let text = xtrace_model::text::repair_json(body);
        json::decode(&text, caps).ok().map(map)
    } else {
        protobuf::decode(body, caps).ok().map(map)
    }
}

/// Reports whether a body can be decoded as spans; for the fuzzed property that any bytes get an answer.
#[doc(hidden)]
pub fn decodes(body: &[u8], is_json: bool) -> bool {
    let caps = wire::Caps::default();
    if is_json {
        let text = xtrace_model::text::repair_json(body);
        json::decode::<wire::Span<'_>>(&text, caps).is_ok()
    } else {
        protobuf::decode::<wire::Span<'_>>(body, caps).is_ok()
    }
}

/// The same for log records.
#[doc(hidden)]
pub fn decodes_as_logs(body: &[u8], is_json: bool) -> bool {
    let caps = wire::Caps::default();
    if is_json {
        let text = xtrace_model::text::repair_json(body);
        json::decode::<wire::LogRecord<'_>>(&text, caps).is_ok()
    } else {
        protobuf::decode::<wire::LogRecord<'_>>(body, caps).is_ok()
    }
}

/// The same for metrics.
#[doc(hidden)]
pub fn decodes_as_metrics(body: &[u8], is_json: bool) -> bool {
    let caps = wire::Caps::default();
    if is_json {
        let text = xtrace_model::text::repair_json(body);
        json::decode::<wire::metrics::Metric<'_>>(&text, caps).is_ok()
    } else {
        protobuf::decode::<wire::metrics::Metric<'_>>(body, caps).is_ok()
    }
}
