//! One span as an observation and as a part of its trace. The stamps chosen here are the rules of
//! precedence between spans, and between versions of a span.

use std::hash::{Hash, Hasher};

use serde_json::{Map, Value};
use xtrace_model::observation::{Kind, Level};
use xtrace_model::register::{
    RANK_APP_ROOT, RANK_AS_ROOT, RANK_DERIVED, RANK_EXPLICIT, RANK_TRUE_ROOT,
};
use xtrace_model::text::without_nul;
use xtrace_model::tree::OwnedTree;
use xtrace_model::{Micros, Observation, Register, Score, Stamp, Trace, Tree, time, tree};

use super::attributes::{self, Attributes};
use super::content::{self, Sides};
use super::context::ScopeContext;
use super::conventions::is_plumbing;
use super::evaluation::{self, Judged};
use super::events::SpanEvents;
use super::identity::{SpanIds, Times};
use super::leftovers::LeftAttributes;
use super::metadata::{self, Domain};
use super::trace_fields::{self, RootClass, cut};
use super::{experiment, kind, leftovers, model, usage};
use crate::receivers::otlp::wire;

/// One span on its way to an observation and a part of its trace.
pub(super) struct SpanMapping<'a> {
    context: &'a ScopeContext,
    resource: &'a Attributes,
    attributes: Attributes,
    events: SpanEvents,
    ids: SpanIds,
    times: Times,
    root: RootClass,
    kind: Kind,
    name: String,
    sides: Sides,
    metadata: Map<String, Value>,
    otel: String,
    status: (i32, String),
    /// Tells versions of the span apart that end together.
    hash: u64,
}

impl<'a> SpanMapping<'a> {
    pub(super) fn new(
        mut span: wire::Span<'_>,
        ids: SpanIds,
        resource: &'a Attributes,
        context: &'a ScopeContext,
    ) -> Self {
        let attributes = Attributes::new(std::mem::take(&mut span.attributes));
        let events = SpanEvents::new(std::mem::take(&mut span.events));
        let times = Times::of(&span, context.received);
        let kind = kind::of(&attributes, &context.source, &span.name);
        let sides = content::extract(&content::Span {
            attributes: &attributes,
            events: &events,
            source: &context.source,
            kind,
        });
        let mut metadata = context.resource_metadata.clone();
        metadata.extend(metadata::of(
            &attributes,
            Domain::Observation,
            &context.source,
        ));
        let name = observation_name(&attributes, &span.name, kind);
        let status = (
            span.status.code,
            without_nul(&span.status.message).into_owned(),
        );
        let rest = leftovers::Rest {
            attributes: LeftAttributes::of(&attributes, &sides),
            over_cap: attributes.over_cap,
            events: &events,
        };
        let otel = leftovers::to_json(span, rest, context);
        let hash = content_hash(&[&otel, &name], ids.parent.as_deref(), &attributes, &sides);
        let root = RootClass::of(&attributes, ids.parent.is_some());
        Self {
            context,
            resource,
            attributes,
            events,
            ids,
            times,
            root,
            kind,
            name,
            sides,
            metadata,
            otel,
            status,
            hash,
        }
    }

    pub(super) fn finish(self) -> (Observation, Trace, Vec<Score>) {
        let (trace, scores) = (self.trace(), self.scores());
        (self.observation(), trace, scores)
    }

    /// What evaluations say of this span.
    fn scores(&self) -> Vec<Score> {
        let environment = self.environment();
        let (start, _) = self.times.ordering();
        let judged = Judged {
            trace: &self.ids.trace,
            span: Some(&self.ids.span),
            time_unix_nano: start.unsigned_abs(),
            received: self.context.received,
            environment: environment.as_deref(),
        };
        evaluation::of_span(&self.attributes, &self.events, judged)
    }

    /// Orders the versions of this span's fields (rule V-13).
    fn version_stamp(&self) -> Stamp {
        let (_, end) = self.times.ordering();
        Stamp::latest(RANK_EXPLICIT, end, self.hash)
    }

    /// Of the earliest begin, whoever says so.
    fn start_stamp(&self) -> Stamp {
        let rank = if self.times.sent {
            RANK_EXPLICIT
        } else {
            RANK_DERIVED
        };
        Stamp::earliest(rank, self.times.start, 0)
    }

    fn observation(self) -> Observation {
        let stamp = self.version_stamp();
        let text = |text: Option<String>| Register::of(text, stamp);
        let micros = |nanos: i64| nanos.div_euclid(1000);
        let environment = Register::of(self.environment(), stamp);
        let (prompt_name, prompt_version) = self.prompt().unzip();
        let attributes = &self.attributes;
        let usage = usage::of(attributes, &self.context.source);
        let costs = usage::costs(attributes);
        let mut observation = Observation::new(self.ids.trace.clone(), self.ids.span.clone());
        observation.start = Register::new(micros(self.times.start), self.start_stamp());
        let end_stamp = if self.times.sent {
            stamp
        } else {
            self.start_stamp()
        };
        observation.end = Register::new(micros(self.times.end), end_stamp);
        observation.completion_start = Register::of(self.completion_start(), stamp);
        observation.kind = Register::new(self.kind, stamp);
        observation.level.merge(Register::of(self.level(), stamp));
        observation.status_message = text(self.status_message());
        observation.version = text(self.version());
        observation.environment.merge(environment);
        observation.model = text(model::name(attributes));
        observation.model_parameters = text(model::parameters(attributes, &self.context.source));
        observation.prompt_name = text(prompt_name);
        observation.prompt_version = Register::of(prompt_version, stamp);
        observation.usage = Register::of(Some(usage).filter(|usage| !usage.is_empty()), stamp);
        observation.sent_costs = Register::of(Some(costs).filter(|costs| !costs.is_empty()), stamp);
        observation.tool_definitions = text(leftovers::tool_definitions(attributes));
        let root_rank = match self.root {
            RootClass::AsRoot => Some(i32::from(RANK_AS_ROOT)),
            RootClass::AppRoot => Some(i32::from(RANK_APP_ROOT)),
            RootClass::TrueRoot | RootClass::Inner => None,
        };
        observation.root_rank = Register::of(root_rank, stamp);
        observation.experiment = text(experiment::of(attributes));
        observation.metadata_decoded = self.context.source.encodes_metadata();
        observation.parent_id = text(self.ids.parent);
        observation.name = text(Some(self.name).filter(|name| !name.is_empty()));
        observation.input = text(self.sides.input.map(|side| side.text));
        observation.output = text(self.sides.output.map(|side| side.text));
        observation.otel = text(Some(self.otel));
        if let Some(metadata) = tree::as_metadata(storable(self.metadata)) {
            observation.metadata = Tree::new(metadata, stamp);
        }
        observation
    }

    /// What this span says of its trace (section 4.3): explicit values of the latest span win,
    /// then implicit values of the best root, of equals the earliest.
    fn trace(&self) -> Trace {
        let (start, end) = self.times.ordering();
        let explicit =
            Stamp::latest(RANK_EXPLICIT, start, self.ids.order).of_version(end, self.hash);
        let implicit =
            |rank| Stamp::earliest(rank, start, self.ids.order).of_version(end, self.hash);
        let root_rank = match self.root {
            RootClass::TrueRoot => Some(RANK_TRUE_ROOT),
            RootClass::AsRoot => Some(RANK_AS_ROOT),
            RootClass::AppRoot => Some(RANK_APP_ROOT),
            RootClass::Inner => None,
        };
        let mut trace = Trace::new(self.ids.trace.clone());
        self.explicit_fields(&mut trace, explicit);
        let any_rank = implicit(root_rank.unwrap_or(RANK_DERIVED));
        let service_version = self.resource.text("service.version");
        trace
            .version
            .merge(Register::of(cut(service_version), any_rank));
        let release = self.resource.text("langfuse.release");
        trace.release.merge(Register::of(cut(release), any_rank));
        trace
            .environment
            .merge(Register::of(self.environment(), any_rank));
        if let Some(rank) = root_rank {
            self.implicit_fields(&mut trace, implicit(rank));
        }
        let of_resource = tree::as_metadata(storable(self.context.resource_metadata.clone()));
        if let Some(metadata) = of_resource {
            let stamp =
                Stamp::latest(RANK_DERIVED, start, self.ids.order).of_version(end, self.hash);
            trace.resource_metadata = Tree::new(metadata, stamp);
        }
        trace
    }

    fn explicit_fields(&self, trace: &mut Trace, stamp: Stamp) {
        let attributes = &self.attributes;
        let text = |text: Option<String>| Register::of(text, stamp);
        trace.name = text(trace_fields::name(attributes));
        trace.user_id = text(trace_fields::user_id(attributes));
        trace.session_id = text(trace_fields::session_id(attributes));
        trace.version = text(cut(attributes.text("langfuse.version")));
        trace.release = text(cut(attributes.text("langfuse.release")));
        trace.public = Register::of(trace_fields::public(attributes), stamp);
        trace.tags = trace_fields::tags(attributes);
        trace.input = text(attributes.text("langfuse.trace.input"));
        trace.output = text(attributes.text("langfuse.trace.output"));
        trace.metadata_decoded = self.context.source.encodes_metadata();
        let metadata = metadata::of(attributes, Domain::Trace, &self.context.source);
        if let Some(metadata) = tree::as_metadata(storable(metadata)) {
            trace.metadata = Tree::new(metadata, stamp);
        }
    }

    fn implicit_fields(&self, trace: &mut Trace, stamp: Stamp) {
        let side = |side: &Option<content::Content>| side.as_ref().map(|side| side.text.clone());
        let name = Some(self.name.clone()).filter(|name| !name.is_empty());
        trace.name.merge(Register::of(name, stamp));
        trace
            .input
            .merge(Register::of(side(&self.sides.input), stamp));
        trace
            .output
            .merge(Register::of(side(&self.sides.output), stamp));
        let metadata = tree::as_metadata(storable(self.metadata.clone()));
        if let Some(metadata) = metadata {
            trace.root_metadata = OwnedTree::new(metadata, stamp);
        }
    }

    fn environment(&self) -> Option<String> {
        trace_fields::environment(&self.attributes, self.resource)
    }

    fn version(&self) -> Option<String> {
        let own = self.attributes.text("langfuse.version");
        cut(own.or_else(|| self.resource.text("service.version")))
    }

    /// Rule O-LEVEL; none means "default", which never hides what another version said.
    fn level(&self) -> Option<Level> {
        let named = self
            .attributes
            .str("langfuse.observation.level")
            .and_then(Level::parse);
        let plumbing = || is_plumbing(&self.context.source, &self.name).then_some(Level::Debug);
        named
            .or_else(|| (self.status.0 == 2).then_some(Level::Error))
            .or_else(plumbing)
    }

    fn status_message(&self) -> Option<String> {
        let sent = self.attributes.text("langfuse.observation.status_message");
        let of_status = || Some(self.status.1.clone()).filter(|message| !message.is_empty());
        let of_error = || {
            let failed = self.level() == Some(Level::Error);
            failed.then(|| {
                self.events
                    .exception()
                    .or_else(|| self.attributes.text("error.type"))
            })?
        };
        sent.or_else(of_status).or_else(of_error)
    }

    fn completion_start(&self) -> Option<Micros> {
        let start = self.times.start.div_euclid(1000);
        let attributes = &self.attributes;
        let seconds = |key: &str| {
            attributes
                .get(key)
                .and_then(Value::as_f64)
                .filter(|n| n.is_finite())
        };
        if let Some(text) = attributes.str("langfuse.observation.completion_start_time") {
            // Old SDKs encode the text twice.
            return time::parse_rfc3339(text.trim_matches('"'));
        }
        for key in ["ai.response.msToFirstChunk", "ai.stream.msToFirstChunk"] {
            if let Some(ms) = seconds(key) {
                return Some(start.saturating_add(micros_of(ms.ceil(), 1e3)));
            }
        }
        if let Some(time) = seconds("gen_ai.response.time_to_first_chunk") {
            return Some(start.saturating_add(micros_of(time, 1e6)));
        }
        if let Some(time) = seconds("gen_ai.server.time_to_first_token").filter(|time| *time > 0.0)
        {
            let strands = self.context.source.scope_name() == Some("strands.telemetry.tracer");
            return Some(start.saturating_add(micros_of(time, if strands { 1e3 } else { 1e6 })));
        }
        self.events
            .first_token_unix_nano()
            .map(time::from_unix_nanos)
    }

    /// Name and version of the prompt that a generation used; both or none.
    fn prompt(&self) -> Option<(String, i32)> {
        if self.kind != Kind::Generation {
            return None;
        }
        let attributes = &self.attributes;
        let vercel = attributes
            .get("ai.telemetry.metadata.langfusePrompt")
            .and_then(attributes::as_object);
        let member = |name: &str| vercel.as_ref().and_then(|prompt| prompt.get(name)).cloned();
        let first = |keys: [&str; 2]| attributes.first(&keys).map(|(_, value)| value.clone());
        let name = first(["langfuse.observation.prompt.name", "langfuse.prompt.name"])
            .or_else(|| member("name"))?;
        let version = first([
            "langfuse.observation.prompt.version",
            "langfuse.prompt.version",
        ])
        .or_else(|| member("version"))?;
        Some((
            attributes::to_text(&name),
            attributes::to_text(&version).parse().ok()?,
        ))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "saturates, which is as good as any other end"
)]
fn micros_of(amount: f64, micros_each: f64) -> Micros {
    (amount * micros_each) as Micros
}

/// Rule O-NAME.
fn observation_name(attributes: &Attributes, span_name: &str, kind: Kind) -> String {
    let has_model = model::name(attributes).is_some();
    let tool = attributes
        .text("gen_ai.tool.name")
        .filter(|_| kind == Kind::Tool || !has_model);
    let vercel = || {
        let operation = attributes.text("ai.operationId")?;
        Some(match attributes.text("ai.telemetry.functionId") {
            Some(function) => format!("{function}:{operation}"),
            None => operation,
        })
    };
    let name = tool
        .or_else(|| attributes.first_text(&["genkit:name", "logfire.msg", "ai.toolCall.name"]))
        .or_else(vercel)
        .unwrap_or_else(|| without_nul(span_name).into_owned());
    cut(Some(name)).unwrap_or_default()
}

/// Of everything that decides what a span is mapped to, for versions that start and end at the same times: two
/// that differ only in what this leaves out would be kept in their order of arrival.
///
/// What is left over holds the resource, the scope and the events, but not every attribute.
fn content_hash(
    texts: &[&str],
    parent: Option<&str>,
    attributes: &Attributes,
    sides: &Sides,
) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
    (texts, parent, attributes.content_hash()).hash(&mut hasher);
    for side in [&sides.input, &sides.output] {
        side.as_ref().map(|side| &side.text).hash(&mut hasher);
    }
    hasher.finish()
}

fn storable(metadata: Map<String, Value>) -> Value {
    xtrace_model::json::storable(Value::Object(metadata))
}
