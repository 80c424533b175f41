//! From OTLP spans to observations and traces. docs/mapping.md states the rules that the ids in
//! comments (P0, U-5, V-13, …) refer to; one file here holds the rules of one field, and one in
//! [`conventions`] what one emitter calls things.

mod attributes;
mod content;
mod content_keys;
mod context;
mod conventions;
mod evaluation;
mod events;
mod experiment;
mod identity;
mod indexed;
mod kind;
mod leftovers;
mod log_content;
mod logs;
mod metadata;
mod metrics;
mod model;
mod span;
mod trace_fields;
mod usage;

use std::collections::HashMap;

use xtrace_model::text::without_nul;
use xtrace_model::{Batch, Micros, Observation, ProjectId, Trace, TraceId};

use super::wire::{self, Export, OfResource, OfScope};
use attributes::Attributes;
use context::{Resource, ScopeContext, Source};
use identity::SpanIds;
use span::SpanMapping;

pub(super) use context::Sender;
pub(super) use log_content::{CONTENT_EVENTS, StoredRecord, StoredSpan, supplement};
pub(super) use logs::map_logs;
pub(super) use metrics::map_metrics;
pub(crate) use trace_fields::{cut, cut_tags};

/// Spans of one request, mapped.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) batch: Batch,
    pub(super) rejected: Vec<Rejected>,
}

/// A span or data point that is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejected {
    /// Why, in words that group equal causes.
    pub(super) reason: &'static str,
    /// The name of the span or metric, as an example.
    pub(super) span: String,
    /// The name of its instrumentation scope.
    pub(super) scope: String,
}

impl Rejected {
    /// Data points of series that are too many.
    pub(super) fn by_limit(metric: &str) -> Self {
        Self {
            reason: "series limit: this metric or the project has too many series already",
            span: metric.to_owned(),
            scope: String::new(),
        }
    }

    /// A span, or what it says of its trace, that Postgres can't hold.
    pub(super) fn by_database(id: String) -> Self {
        Self {
            reason: "refused by the database",
            span: id,
            scope: String::new(),
        }
    }
}

/// Maps a request. `received` stands in for times that nobody sent.
pub(super) fn map(
    export: Export<'_, wire::Span<'_>>,
    project: ProjectId,
    sender: &Sender,
    received: Micros,
) -> Mapped {
    let mut mapped = Mapped {
        batch: Batch::new(project),
        rejected: Vec::new(),
    };
    let scopes = export.resources.iter().flat_map(|spans| &spans.scopes);
    let spans = scopes.map(|scope| scope.items.len()).sum();
    mapped.batch.observations.reserve_exact(spans);
    let mut traces = HashMap::new();
    each_item(export, sender, received, |span, resource, context| {
        map_span(span, resource, context, &mut traces, &mut mapped);
    });
    mapped
}

/// Visits the items of a request, with the attributes of their resource and what their scope shares.
fn each_item<T>(
    export: Export<'_, T>,
    sender: &Sender,
    received: Micros,
    mut visit: impl FnMut(T, &Attributes, &ScopeContext),
) {
    for of_resource in export.resources {
        let OfResource {
            resource,
            scopes,
            schema_url,
        } = of_resource;
        let resource = Resource {
            attributes: Attributes::new(resource.attributes),
            dropped_attributes_count: resource.dropped_attributes_count,
            schema_url: schema_url.into_owned(),
        };
        for of_scope in scopes {
            let OfScope {
                scope,
                items,
                schema_url,
            } = of_scope;
            let schema_url = schema_url.into_owned();
            let context = ScopeContext::new(&resource, scope, schema_url, sender, received);
            for item in items {
                visit(item, &resource.attributes, &context);
            }
        }
    }
}

fn map_span(
    span: wire::Span<'_>,
    resource: &Attributes,
    context: &ScopeContext,
    traces: &mut HashMap<TraceId, usize>,
    mapped: &mut Mapped,
) {
    if conventions::is_placeholder(&span) {
        return;
    }
    match SpanIds::of(&span) {
        Ok(ids) => {
            let mapping = SpanMapping::new(span, ids, resource, context);
            let (observation, trace, scores) = mapping.finish();
            mapped.batch.scores.extend(scores);
            mapped.batch.bytes += footprint(&observation, &trace);
            mapped.batch.observations.push(observation);
            // Spans of a trace mostly come together: its parts are merged here, not by the writer.
            match traces.get(&trace.id) {
                Some(at) => mapped.batch.traces[*at].merge(trace),
                None => {
                    traces.insert(trace.id.clone(), mapped.batch.traces.len());
                    mapped.batch.traces.push(trace);
                }
            }
        }
        Err(reason) => mapped.rejected.push(Rejected {
            reason,
            span: without_nul(&span.name).into_owned(),
            scope: context.source.scope_name().unwrap_or_default().to_owned(),
        }),
    }
}

/// Bytes that the documents hold: what grows with the request, and a round sum for the rest.
fn footprint(observation: &Observation, trace: &Trace) -> usize {
    let text = |text: Option<&str>| text.map_or(0, str::len);
    3000 + text(observation.input.text())
        + text(observation.output.text())
        + text(observation.otel.text())
        + text(observation.tool_definitions.text())
        + text(trace.input.text())
        + text(trace.output.text())
}
