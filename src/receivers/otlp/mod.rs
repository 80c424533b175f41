//! OTLP over HTTP: traces in protobuf or JSON, answered in the encoding that they came in.

mod json;
mod mapping;
mod protobuf;
mod reply;
mod traces;
mod wire;

use xtrace_model::{Batch, ProjectId};

pub(crate) use mapping::{cut, cut_tags};
pub use traces::{method_not_allowed, not_found, receive as receive_traces};

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

/// Reports whether a body can be decoded; for the fuzzed property that any bytes get an answer.
#[doc(hidden)]
pub fn decodes(body: &[u8], is_json: bool) -> bool {
    let caps = wire::Caps::default();
    if is_json {
        json::decode(&xtrace_model::text::repair_json(body), caps).is_ok()
    } else {
        protobuf::decode(body, caps).is_ok()
    }
}
