//! An observation: one step of a trace, such as a call of a model or of a tool.

use serde_json::Value;

use crate::register::{Register, Stamp};
use crate::stamps::Stamps;
use crate::time::Micros;
use crate::tree::Tree;
use crate::usage::{Costs, Usage};
use crate::{ObservationId, TraceId, environment};

/// What an observation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Work without a more special kind.
    Span,
    /// A call of a model that generates.
    Generation,
    /// A point in time.
    Event,
    /// A step that decides what to do next.
    Agent,
    /// A call of a tool.
    Tool,
    /// A link between steps.
    Chain,
    /// A look-up of documents.
    Retriever,
    /// A judgement.
    Evaluator,
    /// A call of an embedding model.
    Embedding,
    /// A check that may refuse.
    Guardrail,
}

impl Kind {
    /// All kinds with their names on the wire and in the database.
    pub const NAMES: [(Self, &'static str); 10] = [
        (Self::Span, "SPAN"),
        (Self::Generation, "GENERATION"),
        (Self::Event, "EVENT"),
        (Self::Agent, "AGENT"),
        (Self::Tool, "TOOL"),
        (Self::Chain, "CHAIN"),
        (Self::Retriever, "RETRIEVER"),
        (Self::Evaluator, "EVALUATOR"),
        (Self::Embedding, "EMBEDDING"),
        (Self::Guardrail, "GUARDRAIL"),
    ];

    /// The kind of that name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name))
            .map(|(kind, _)| *kind)
    }

    /// The upper-case name.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("SPAN", |(_, name)| name)
    }

    /// Whether its usage is priced: other kinds carry sums of their children's usage.
    pub fn is_priced(self) -> bool {
        matches!(self, Self::Generation | Self::Embedding)
    }
}

/// How much an observation matters to the person on call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plumbing.
    Debug,
    /// Everything that nobody marked.
    Default,
    /// Odd, but it went on.
    Warning,
    /// Failed.
    Error,
}

impl Level {
    /// All levels with their names, by rising severity.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::Debug, "DEBUG"),
        (Self::Default, "DEFAULT"),
        (Self::Warning, "WARNING"),
        (Self::Error, "ERROR"),
    ];

    /// The level of that name or of a common alias, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_uppercase().as_str() {
            "DEBUG" | "TRACE" | "VERBOSE" => Some(Self::Debug),
            "DEFAULT" | "INFO" | "LOG" | "NOTICE" | "OK" | "SUCCESS" => Some(Self::Default),
            "WARNING" | "WARN" => Some(Self::Warning),
            "ERROR" | "FATAL" | "CRITICAL" => Some(Self::Error),
            _ => None,
        }
    }

    /// The upper-case name.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(level, _)| *level == self)
            .map_or("DEFAULT", |(_, name)| name)
    }
}

/// What is known of an observation, whole or in part.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The trace that it is part of.
    pub trace_id: TraceId,
    /// Its name within the trace.
    pub id: ObservationId,
    /// When it began; every part gives one, if only its time of arrival.
    pub start: Register<Micros>,
    /// When it ended; none while it runs.
    pub end: Register<Micros>,
    /// When its first token came.
    pub completion_start: Register<Micros>,
    /// The observation that it ran within.
    pub parent_id: Register<String>,
    /// What it is.
    pub kind: Register<Kind>,
    /// Display name.
    pub name: Register<String>,
    /// How much it matters.
    pub level: Register<Level>,
    /// Why it failed.
    pub status_message: Register<String>,
    /// Version of the application or of a part of it.
    pub version: Register<String>,
    /// `production`, `staging` and the like.
    pub environment: Register<String>,
    /// The model's name as the sender knows it.
    pub model: Register<String>,
    /// JSON text of the model's parameters.
    pub model_parameters: Register<String>,
    /// Name of the prompt that it used.
    pub prompt_name: Register<String>,
    /// Version of the prompt that it used.
    pub prompt_version: Register<i32>,
    /// Counts of tokens or other units, with a total.
    pub usage: Register<Usage>,
    /// Costs in USD as sent.
    pub sent_costs: Register<Costs>,
    /// Raw JSON text, or plain text.
    pub input: Register<String>,
    /// Raw JSON text, or plain text.
    pub output: Register<String>,
    /// JSON text: the tools that the model was offered.
    pub tool_definitions: Register<String>,
    /// How strongly it stands for its trace though it has a parent: [`crate::register::RANK_AS_ROOT`] or
    /// [`crate::register::RANK_APP_ROOT`].
    pub root_rank: Register<i32>,
    /// JSON object as text: the experiment that it is part of.
    pub experiment: Register<String>,
    /// JSON text: what OpenTelemetry sent and no other field holds.
    pub otel: Register<String>,
    /// Values that the sender knows better than we do; members are those of [`Sent`].
    pub sent: Tree,
    /// Metadata.
    pub metadata: Tree,
    /// Whether strings in the metadata are final, rather than JSON text to be parsed by readers.
    pub metadata_decoded: bool,
}

/// Values that the native API takes as sent, where they are otherwise computed.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sent {
    /// Seconds from start to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<f64>,
    /// Seconds from start to the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_first_token: Option<f64>,
    /// USD per unit of input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_price: Option<f64>,
    /// USD per unit of output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_price: Option<f64>,
    /// USD per unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_price: Option<f64>,
    /// What usage counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Id of the model's definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// Id of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_id: Option<String>,
}

macro_rules! observation_registers {
    ($apply:ident) => {
        $apply!(
            start,
            end,
            completion_start,
            parent_id,
            kind,
            name,
            level,
            status_message,
            version,
            environment,
            model,
            model_parameters,
            prompt_name,
            prompt_version,
            usage,
            sent_costs,
            input,
            output,
            tool_definitions,
            root_rank,
            experiment,
            otel
        )
    };
}

impl Observation {
    /// An observation of which only the key is known.
    pub fn new(trace_id: TraceId, id: ObservationId) -> Self {
        Self {
            trace_id,
            id,
            start: Register::default(),
            end: Register::default(),
            completion_start: Register::default(),
            parent_id: Register::default(),
            kind: Register::new(Kind::Span, Stamp::STAND_IN),
            name: Register::default(),
            level: Register::new(Level::Default, Stamp::STAND_IN),
            status_message: Register::default(),
            version: Register::default(),
            environment: Register::new(environment::DEFAULT.to_owned(), Stamp::STAND_IN),
            model: Register::default(),
            model_parameters: Register::default(),
            prompt_name: Register::default(),
            prompt_version: Register::default(),
            usage: Register::default(),
            sent_costs: Register::default(),
            input: Register::default(),
            output: Register::default(),
            tool_definitions: Register::default(),
            root_rank: Register::default(),
            experiment: Register::default(),
            otel: Register::default(),
            sent: Tree::default(),
            metadata: Tree::default(),
            metadata_decoded: false,
        }
    }

    /// Takes in another part of the same observation.
    pub fn merge(&mut self, other: Self) {
        macro_rules! merge_each {
            ($($field:ident),+) => { $(self.$field.merge(other.$field);)+ };
        }
        observation_registers!(merge_each);
        self.sent.merge(other.sent);
        self.metadata.merge(other.metadata);
        self.metadata_decoded |= other.metadata_decoded;
    }

    /// The stamps of all registers, to be stored beside the values.
    pub fn stamps(&self) -> Stamps {
        macro_rules! collect_each {
            ($($field:ident),+) => {
                Stamps::collect([
                    ("metadata", self.metadata.uniform_stamp().unwrap_or(Stamp::NEVER), true),
                    ("sent", self.sent.uniform_stamp().unwrap_or(Stamp::NEVER), true),
                    $((stringify!($field), self.$field.stamp(), self.$field.get().is_some())),+
                ])
            };
        }
        observation_registers!(collect_each)
    }

    /// When it began.
    pub fn begins(&self) -> Micros {
        self.start.copied().unwrap_or_default()
    }

    /// When it ended, never before it began.
    pub fn ends(&self) -> Option<Micros> {
        self.end.copied().map(|end| end.max(self.begins()))
    }

    /// What it is; a span until somebody says more.
    pub fn kind(&self) -> Kind {
        self.kind.copied().unwrap_or(Kind::Span)
    }

    /// How much it matters.
    pub fn level(&self) -> Level {
        self.level.copied().unwrap_or(Level::Default)
    }

    /// Its environment.
    pub fn environment(&self) -> &str {
        self.environment.text().unwrap_or(environment::DEFAULT)
    }

    /// Its model parameters as JSON, for the price list's conditions.
    pub fn parsed_model_parameters(&self) -> Option<Value> {
        serde_json::from_str(self.model_parameters.text()?).ok()
    }
}
