//! Bodies of spans, generations and their kin.

use serde_json::Value;
use xtrace_model::observation::{Kind, Level};
use xtrace_model::{Batch, Micros, Observation, ObservationId, Register, Trace, TraceId, json};

use super::event::{Event, EventKind, When, check_id};
use super::trace::{environment_of, metadata, nullable};
use super::usage;
use crate::body::{Issue, Object, content};
use crate::error::issue;

const LEVELS: [&str; 4] = ["DEBUG", "DEFAULT", "WARNING", "ERROR"];

/// A part of an observation, which may not know its trace yet.
pub(super) struct ObservationPart {
    pub(super) id: String,
    pub(super) trace_id: Option<String>,
    document: Observation,
    when: When,
}

impl ObservationPart {
    pub(super) fn parse(event: &Event<'_>) -> Result<Self, Issue> {
        let EventKind::Observation { kind, .. } = event.kind else {
            unreachable!("only observations are parsed as such")
        };
        let body = event.body;
        // Only the oldest shape may leave its id out.
        let id = match (kind, body.text("id")?) {
            (_, Some(id)) if !id.is_empty() => id,
            (None, _) => uuid::Uuid::new_v4().to_string(),
            (Some(_), _) => body.required_text("id", 1)?,
        };
        Self::parse_body(body, id, kind, event.kind.is_update(), event.when())
    }

    /// `kind` is what the event or path says; without it the body has a `type`.
    pub(super) fn parse_body(
        body: Object<'_>,
        id: String,
        kind: Option<Kind>,
        is_update: bool,
        when: When,
    ) -> Result<Self, Issue> {
        check_id("id", &id)?;
        let trace_id = body.text("traceId")?.filter(|id| !id.is_empty());
        let kind = match kind {
            Some(kind) => kind,
            None => legacy_kind(body)?,
        };
        let document = document(body, &id, kind, is_update, when)?;
        if let Some(trace) = &trace_id {
            check_id("traceId", trace)?;
            TraceId::parse(trace.as_str())
                .map_err(|fault| issue::custom(&[Value::from("traceId")], &fault.to_string()))?;
        }
        Ok(Self {
            id,
            trace_id,
            document,
            when,
        })
    }

    /// Whether an update told it.
    pub(super) fn is_update(&self) -> bool {
        self.when.is_update
    }

    /// When it was told.
    pub(super) fn told(&self) -> Micros {
        self.when.time
    }

    /// Adds it to a batch, as an observation of this trace.
    pub(super) fn put(mut self, trace: String, batch: &mut Batch) -> Result<(), Issue> {
        let trace_id = TraceId::parse(trace)
            .map_err(|fault| issue::custom(&[Value::from("traceId")], &fault.to_string()))?;
        // A trace that nobody else tells of begins when this was told, in its environment.
        let mut trace = Trace::new(trace_id.clone());
        if let Some(environment) = self.document.environment.text() {
            let stamp = self.when.first(false);
            trace
                .environment
                .merge(Register::new(environment.to_owned(), stamp));
        }
        self.document.trace_id = trace_id;
        batch.traces.push(trace);
        batch.observations.push(self.document);
        Ok(())
    }
}

fn legacy_kind(body: Object<'_>) -> Result<Kind, Issue> {
    let name = body.required_text("type", 1)?;
    Kind::parse(&name).ok_or_else(|| issue::not_an_option("type", &["GENERATION", "SPAN", "EVENT"]))
}

fn document(
    body: Object<'_>,
    id: &str,
    kind: Kind,
    is_update: bool,
    when: When,
) -> Result<Observation, Issue> {
    let stamp = when.latest();
    let odd_id =
        |fault: xtrace_model::ids::IdError| issue::custom(&[Value::from("id")], &fault.to_string());
    // The trace is set when it is known.
    let unknown = TraceId::parse("-").map_err(odd_id)?;
    let mut part = Observation::new(unknown, ObservationId::parse(id).map_err(odd_id)?);
    let text = |name: &str| Ok::<_, Issue>(Register::of(body.text(name)?, stamp));
    let start = body.time("startTime")?;
    part.start = Register::new(start.unwrap_or(when.time), when.first(start.is_some()));
    part.end = Register::of(body.time("endTime")?, stamp);
    part.completion_start = Register::of(body.time("completionStartTime")?, stamp);
    let kind_stamp = if is_update { when.derived() } else { stamp };
    part.kind.merge(Register::new(kind, kind_stamp));
    part.name = nullable(body, "name", when)?;
    part.model = nullable(body, "model", when)?;
    part.level.merge(level(body, when)?);
    part.status_message = text("statusMessage")?;
    part.version = text("version")?;
    let parent = body.text("parentObservationId")?;
    part.parent_id = Register::of(parent.filter(|id| !id.is_empty()), stamp);
    part.environment.merge(environment_of(body, when));
    part.input = Register::of(content(body.get("input")), stamp);
    part.output = Register::of(content(body.get("output")), stamp);
    part.metadata = metadata(body.get("metadata"), when);
    let parameters = body.object("modelParameters")?;
    let parameters = parameters.filter(|object| !object.members().is_empty());
    let parameters =
        parameters.map(|object| json::storable(Value::Object(object.members().clone())));
    part.model_parameters = Register::of(parameters.map(|value| value.to_string()), stamp);
    let (usage, costs) = usage::of(body)?;
    part.usage = Register::of(usage, stamp);
    part.sent_costs = Register::of(costs, stamp);
    prompt(body, &mut part, when)?;
    Ok(part)
}

/// An explicit null is the default level.
fn level(body: Object<'_>, when: When) -> Result<Register<Level>, Issue> {
    if body.is_null("level") {
        return Ok(Register::new(Level::Default, when.latest()));
    }
    let name = body.option("level", &LEVELS)?;
    Ok(Register::of(name.and_then(Level::parse), when.latest()))
}

/// Name and version of a prompt come together.
fn prompt(body: Object<'_>, part: &mut Observation, when: When) -> Result<(), Issue> {
    let name = body.text("promptName")?.filter(|name| !name.is_empty());
    let version = body.whole("promptVersion")?;
    match (name, version) {
        (Some(name), Some(version)) => {
            let version = i32::try_from(version).map_err(|_| issue::not_whole("promptVersion"))?;
            part.prompt_name = Register::new(name, when.latest());
            part.prompt_version = Register::new(version, when.latest());
            Ok(())
        }
        (None, None) => Ok(()),
        _ => Err(issue::custom(
            &[],
            "promptName and promptVersion must be set together",
        )),
    }
}
