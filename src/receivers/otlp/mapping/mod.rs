//! From OTLP spans to observations and traces. docs/mapping.md states the rules that the ids in
//! comments (P0, U-5, V-13, …) refer to; one file here holds the rules of one field.

mod attributes;
mod content;
mod events;
mod indexed;
mod kind;
mod leftovers;
mod metadata;
mod model;
mod trace_fields;
mod usage;

use serde_json::{Map, Value, json};
use xtrace_model::observation::{Kind, Level};
use xtrace_model::register::{
    RANK_APP_ROOT, RANK_AS_ROOT, RANK_DERIVED, RANK_EXPLICIT, RANK_TRUE_ROOT,
};
use xtrace_model::text::without_nul;
use xtrace_model::tree::OwnedTree;
use xtrace_model::{
    Batch, Micros, Observation, ObservationId, ProjectId, Register, Stamp, Trace, TraceId, Tree,
    environment, time, tree,
};

use super::wire::{self, ExportTraces, ResourceSpans, ScopeSpans};
use attributes::Attributes;
use content::Sides;
use events::SpanEvents;
use metadata::Domain;
use trace_fields::RootClass;

pub(crate) use trace_fields::{cut, cut_tags};

const LIVEKIT_SCOPE: &str = "livekit-agents";
/// Spans of LiveKit that nobody looks for (rule O-LIVEKIT).
const LIVEKIT_PLUMBING: [&str; 14] = [
    "user_speaking",
    "eou_detection",
    "llm_request_run",
    "tts_node",
    "tts_request",
    "tts_request_run",
    "tts_stream_adapter",
    "agent_speaking",
    "drain_agent_activity",
    "on_exit",
    "on_enter",
    "llm_fallback_adapter",
    "tts_fallback_adapter",
    "start_agent_activity",
];

/// What the request's headers say of its sender.
#[derive(Debug, Clone, Default)]
pub(super) struct Sender {
    /// `x-langfuse-sdk-name`, in lower case.
    pub(super) sdk_name: Option<String>,
    /// `x-langfuse-sdk-version`.
    pub(super) sdk_version: Option<String>,
}

/// Spans of one request, mapped.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) batch: Batch,
    pub(super) rejected: Vec<Rejected>,
}

/// A span that is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejected {
    /// Why, in words that group equal causes.
    pub(super) reason: &'static str,
    /// The span's name, as an example.
    pub(super) span: String,
    /// The name of its instrumentation scope.
    pub(super) scope: String,
}

/// Maps a request. `received` stands in for times that nobody sent.
pub(super) fn map(
    export: ExportTraces<'_>,
    project: ProjectId,
    sender: &Sender,
    received: Micros,
) -> Mapped {
    let mut mapped = Mapped {
        batch: Batch::new(project),
        rejected: Vec::new(),
    };
    for resource_spans in export.resource_spans {
        let ResourceSpans {
            resource,
            scope_spans,
            schema_url,
        } = resource_spans;
        let attributes = Attributes::new(resource.attributes);
        for scope in scope_spans {
            let ScopeSpans {
                scope,
                spans,
                schema_url: scope_schema_url,
            } = scope;
            let mut context = ScopeContext::new(&attributes, scope, sender, received);
            context.resource_dropped = resource.dropped_attributes_count;
            context.resource_schema_url = schema_url.clone().into_owned();
            context.scope_schema_url = scope_schema_url.into_owned();
            for span in spans {
                map_span(span, &attributes, &context, &mut mapped);
            }
        }
    }
    mapped
}

fn map_span(
    span: wire::Span<'_>,
    resource: &Attributes,
    context: &ScopeContext,
    mapped: &mut Mapped,
) {
    match SpanIds::of(&span) {
        Ok(ids) => {
            let (observation, trace) = SpanMapping::new(span, ids, resource, context).finish();
            mapped.batch.bytes += footprint(&observation, &trace);
            mapped.batch.observations.push(observation);
            mapped.batch.traces.push(trace);
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

/// Who produced a span.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    scope_name: String,
    scope_version: String,
    language: Option<String>,
    python_header_version: Option<String>,
}

impl Source {
    /// The name of the instrumentation scope.
    fn scope_name(&self) -> Option<&str> {
        Some(self.scope_name.as_str()).filter(|name| !name.is_empty())
    }

    /// Whether the Langfuse SDK for Python made the span.
    fn is_python_sdk(&self) -> bool {
        self.scope_name == "langfuse-sdk" && self.language.as_deref() == Some("python")
    }

    /// Major and minor version of the scope.
    fn sdk_version(&self) -> Option<(u32, u32)> {
        version(&self.scope_version)
    }

    /// Rule M-10: the Python SDK from 5 on.
    fn encodes_metadata(&self) -> bool {
        let header = self.python_header_version.as_deref().and_then(version);
        let scope = self.sdk_version().filter(|_| self.is_python_sdk());
        header.or(scope).is_some_and(|(major, _)| major >= 5)
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

/// What all spans of one scope share.
#[derive(Debug)]
struct ScopeContext {
    source: Source,
    scope: Value,
    scope_dropped: u32,
    scope_schema_url: String,
    resource: Value,
    resource_dropped: u32,
    resource_schema_url: String,
    resource_metadata: Map<String, Value>,
    received: Micros,
}

impl ScopeContext {
    fn new(
        resource: &Attributes,
        scope: wire::Scope<'_>,
        sender: &Sender,
        received: Micros,
    ) -> Self {
        let name = without_nul(&scope.name).into_owned();
        let version = without_nul(&scope.version).into_owned();
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let attributes = Attributes::new(scope.attributes).to_object();
        let python = sender
            .sdk_name
            .as_deref()
            .is_some_and(|name| name.ends_with("python"));
        let source = Source {
            scope_name: name.clone(),
            scope_version: version.clone(),
            language: resource.text("telemetry.sdk.language"),
            python_header_version: sender.sdk_version.clone().filter(|_| python),
        };
        Self {
            scope: json!({"name": said(&name), "version": said(&version), "attributes": attributes}),
            scope_dropped: scope.dropped_attributes_count,
            scope_schema_url: String::new(),
            resource: resource.to_object(),
            resource_dropped: 0,
            resource_schema_url: String::new(),
            resource_metadata: metadata::of(resource, Domain::Trace, &source),
            source,
            received,
        }
    }
}

/// The ids of a span that can be stored.
struct SpanIds {
    trace: TraceId,
    span: ObservationId,
    parent: Option<String>,
    /// The span id's bits, to order spans that begin together.
    order: u64,
}

impl SpanIds {
    /// Rules V-1 and V-2.
    fn of(span: &wire::Span<'_>) -> Result<Self, &'static str> {
        use wire::WireId;
        let trace = match span.trace_id {
            WireId::Valid(_) => span.trace_id.to_hex(),
            WireId::Absent => return Err("traceId:absent"),
            WireId::Zero => return Err("traceId:all_zero"),
            WireId::Malformed => return Err("traceId:not_an_id (16 non-zero bytes)"),
        };
        let (id, order) = match span.span_id {
            WireId::Valid(bytes) => (span.span_id.to_hex(), u64::from_be_bytes(bytes)),
            WireId::Absent => return Err("spanId:absent"),
            WireId::Zero => return Err("spanId:all_zero"),
            WireId::Malformed => return Err("spanId:not_an_id (8 non-zero bytes)"),
        };
        let ids = trace.zip(id).and_then(|(trace, id)| {
            Some((TraceId::parse(trace).ok()?, ObservationId::parse(id).ok()?))
        });
        let (trace, span_id) = ids.ok_or("traceId:not_an_id (16 non-zero bytes)")?;
        Ok(Self {
            trace,
            span: span_id,
            parent: span.parent_span_id.to_hex(),
            order,
        })
    }
}

/// Times of a span in nanoseconds since the Unix epoch (rule V-8).
#[derive(Clone, Copy)]
struct Times {
    start: i64,
    end: i64,
    /// Whether the span had any time of its own.
    sent: bool,
}

impl Times {
    fn of(span: &wire::Span<'_>, received: Micros) -> Self {
        let nanos = |nanos: u64| i64::try_from(nanos).unwrap_or(i64::MAX);
        let (start, end) = (
            nanos(span.start_time_unix_nano),
            nanos(span.end_time_unix_nano),
        );
        let (start, end, sent) = match (start, end) {
            (0, 0) => (
                received.saturating_mul(1000),
                received.saturating_mul(1000),
                false,
            ),
            (0, end) => (end, end, true),
            (start, end) => (start, end.max(start), true),
        };
        Self { start, end, sent }
    }
}

/// One span on its way to an observation and a part of its trace.
struct SpanMapping<'a> {
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
    fn new(
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
            attributes: leftovers::attributes(&attributes, &sides),
            over_cap: attributes.over_cap,
            events: &events,
        };
        let otel = leftovers::to_json(span, rest, context).to_string();
        let hash = xxhash_rust::xxh3::xxh3_64(
            format!("{otel}\0{name}\0{sides:?}\0{metadata:?}").as_bytes(),
        );
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

    fn finish(self) -> (Observation, Trace) {
        let trace = self.trace();
        (self.observation(), trace)
    }

    /// Orders the versions of this span's fields (rule V-13).
    fn version_stamp(&self) -> Stamp {
        Stamp::latest(RANK_EXPLICIT, self.times.end, self.hash)
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
        observation.end = Register::new(micros(self.times.end), stamp);
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
        let Times { start, end, .. } = self.times;
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

    /// Section 5: each key on the span, then on the resource; none if nobody names one.
    fn environment(&self) -> Option<String> {
        const KEYS: [&str; 3] = [
            "langfuse.environment",
            "deployment.environment.name",
            "deployment.environment",
        ];
        let named = KEYS.iter().find_map(|key| {
            self.attributes
                .text(key)
                .or_else(|| self.resource.text(key))
        });
        named.map(|name| environment::normalise(&name))
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
        let plumbing = || {
            let livekit = self.context.source.scope_name() == Some(LIVEKIT_SCOPE);
            (livekit && LIVEKIT_PLUMBING.contains(&self.name.as_str())).then_some(Level::Debug)
        };
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

fn storable(metadata: Map<String, Value>) -> Value {
    xtrace_model::json::storable(Value::Object(metadata))
}
