//! Input and output of a span: an ordered list of extractors. Input comes from the first that has
//! one, output from the first that has one, whichever conventions these are.

use serde_json::{Value, json};

use super::attributes::{Attributes, to_text, unfold};
use super::content_keys::is_message_path;
use super::events::SpanEvents;
use super::{Source, genkit, indexed};
use xtrace_model::observation::Kind;

/// A side's text and the attributes that it was made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Content {
    pub(super) text: String,
    pub(super) keys: Vec<String>,
}

impl Content {
    fn new(value: &Value, keys: Vec<String>) -> Self {
        Self {
            text: to_text(value),
            keys,
        }
    }
}

/// Both sides of a span.
#[derive(Debug, Default)]
pub(super) struct Sides {
    pub(super) input: Option<Content>,
    pub(super) output: Option<Content>,
}

/// What an extractor may look at.
pub(super) struct Span<'a> {
    pub(super) attributes: &'a Attributes,
    pub(super) events: &'a SpanEvents,
    pub(super) source: &'a Source,
    pub(super) kind: Kind,
}

/// How one convention writes a side.
#[derive(Clone, Copy)]
enum From {
    /// Nowhere.
    Nothing,
    /// The first of these keys that says something.
    First(&'static [&'static str]),
    /// The same, where "{}" says nothing either.
    FirstFilled(&'static [&'static str]),
    /// Dotted keys under a prefix.
    Indexed(&'static str),
    /// A function.
    Function(fn(&Span<'_>) -> Option<Content>),
}

/// When an extractor applies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Always,
    /// The instrumentation scope has this name. When it has, the extractors after it and before
    /// the [`LATE`] ones are not asked.
    TerminalScope(&'static str),
    /// The instrumentation scope has this name.
    Scope(&'static str),
    /// The span is no database, HTTP, messaging or RPC call: the keys are common words.
    NoInfrastructure,
    /// The span is of this kind.
    Kind(Kind),
}

struct Extractor {
    gate: Gate,
    input: From,
    output: From,
}

const fn extractor(gate: Gate, input: From, output: From) -> Extractor {
    Extractor {
        gate,
        input,
        output,
    }
}

/// docs/mapping.md, "Input and output", rows 1 to 19 in order.
const EXTRACTORS: &[Extractor] = &[
    // Langfuse SDKs.
    extractor(
        Gate::Always,
        From::First(&["langfuse.observation.input"]),
        From::First(&["langfuse.observation.output"]),
    ),
    // Genkit.
    extractor(
        Gate::TerminalScope(genkit::SCOPE),
        From::Function(genkit_input),
        From::Function(genkit_output),
    ),
    // Vercel AI SDK.
    extractor(
        Gate::TerminalScope("ai"),
        From::Function(vercel_input),
        From::Function(vercel_output),
    ),
    // Flue.
    extractor(
        Gate::Scope("@flue/opentelemetry"),
        From::First(&[
            "flue.turn.input",
            "flue.tool.arguments",
            "flue.task.prompt",
            "flue.workflow.payload",
        ]),
        From::First(&[
            "flue.turn.output",
            "flue.tool.result",
            "flue.task.result",
            "flue.operation.result",
            "flue.workflow.result",
        ]),
    ),
    // GenAI as one event, and as one event a message.
    extractor(
        Gate::Always,
        From::Function(details_input),
        From::Function(details_output),
    ),
    extractor(
        Gate::Always,
        From::Function(messages_input),
        From::Function(messages_output),
    ),
    // Semantic Kernel.
    extractor(
        Gate::Always,
        From::Function(semantic_kernel_input),
        From::Function(semantic_kernel_output),
    ),
    // Google ADK.
    extractor(
        Gate::Always,
        From::FirstFilled(&[
            "gcp.vertex.agent.llm_request",
            "gcp.vertex.agent.tool_call_args",
        ]),
        From::FirstFilled(&[
            "gcp.vertex.agent.llm_response",
            "gcp.vertex.agent.tool_response",
        ]),
    ),
    // Logfire.
    extractor(
        Gate::NoInfrastructure,
        From::First(&["prompt"]),
        From::First(&["all_messages_events"]),
    ),
    // LiveKit.
    extractor(
        Gate::Always,
        From::First(&["lk.input_text", "lk.user_transcript", "lk.chat_ctx"]),
        From::First(&["lk.function_tool.output", "lk.response.text"]),
    ),
    // MLflow.
    extractor(
        Gate::Always,
        From::First(&["mlflow.spanInputs"]),
        From::First(&["mlflow.spanOutputs"]),
    ),
    // OpenLLMetry's decorators.
    extractor(
        Gate::Always,
        From::First(&["traceloop.entity.input"]),
        From::First(&["traceloop.entity.output"]),
    ),
    // OpenInference.
    extractor(
        Gate::Always,
        From::First(&["input.value"]),
        From::First(&["output.value"]),
    ),
    // Plain words.
    extractor(
        Gate::NoInfrastructure,
        From::First(&["input"]),
        From::First(&["output"]),
    ),
    // Pydantic AI's agents.
    extractor(
        Gate::Scope("pydantic-ai"),
        From::Function(pydantic_input),
        From::First(&["final_result"]),
    ),
    // Pydantic AI's tools.
    extractor(
        Gate::Always,
        From::First(&["tool_arguments"]),
        From::First(&["tool_response"]),
    ),
    // OpenLLMetry and LangSmith.
    extractor(
        Gate::Always,
        From::Indexed("gen_ai.prompt"),
        From::Indexed("gen_ai.completion"),
    ),
    // OpenInference's messages.
    extractor(
        Gate::Always,
        From::Indexed("llm.input_messages"),
        From::Indexed("llm.output_messages"),
    ),
    // GenAI as attributes.
    extractor(
        Gate::Always,
        From::Function(gen_ai_input),
        From::Function(gen_ai_output),
    ),
    extractor(
        Gate::Always,
        From::First(&["gen_ai.tool.call.arguments"]),
        From::First(&["gen_ai.tool.call.result"]),
    ),
];

/// Rows 20 to 23: asked whatever the scope is.
const LATE: &[Extractor] = &[
    extractor(
        Gate::Kind(Kind::Retriever),
        From::First(&["gen_ai.retrieval.query.text", "reranker.query"]),
        From::First(&["gen_ai.retrieval.documents"]),
    ),
    extractor(
        Gate::Kind(Kind::Retriever),
        From::Indexed("reranker.input_documents"),
        From::Indexed("retrieval.documents"),
    ),
    extractor(
        Gate::Kind(Kind::Retriever),
        From::Nothing,
        From::Indexed("reranker.output_documents"),
    ),
    extractor(
        Gate::Kind(Kind::Embedding),
        From::First(&["embedding.text", "ai.value", "ai.values"]),
        From::Nothing,
    ),
    extractor(
        Gate::Kind(Kind::Tool),
        From::First(&["tool.parameters"]),
        From::Nothing,
    ),
    extractor(
        Gate::Always,
        From::Indexed("llm.prompts"),
        From::Indexed("llm.choices"),
    ),
];

/// Extracts both sides.
pub(super) fn extract(span: &Span<'_>) -> Sides {
    let mut sides = Sides::default();
    let stop = EXTRACTORS
        .iter()
        .position(|extractor| match extractor.gate {
            Gate::TerminalScope(name) => span.source.scope_name() == Some(name),
            _ => false,
        });
    let asked = &EXTRACTORS[..stop.map_or(EXTRACTORS.len(), |at| at + 1)];
    for extractor in asked
        .iter()
        .chain(LATE)
        .filter(|extractor| applies(extractor.gate, span))
    {
        if sides.input.is_none() {
            sides.input = side(extractor.input, span);
        }
        if sides.output.is_none() {
            sides.output = side(extractor.output, span);
        }
    }
    sides
}

fn applies(gate: Gate, span: &Span<'_>) -> bool {
    match gate {
        Gate::Always => true,
        Gate::TerminalScope(name) | Gate::Scope(name) => span.source.scope_name() == Some(name),
        Gate::Kind(kind) => span.kind == kind,
        Gate::NoInfrastructure => {
            let prefixes = ["db.", "http.", "messaging.", "rpc."];
            !prefixes
                .iter()
                .any(|prefix| span.attributes.under(prefix).next().is_some())
        }
    }
}

fn side(from: From, span: &Span<'_>) -> Option<Content> {
    match from {
        From::Nothing => None,
        From::First(keys) => first(span, keys),
        From::FirstFilled(keys) => keys
            .iter()
            .find_map(|key| first(span, &[key]).filter(|found| found.text != "{}")),
        From::Indexed(prefix) => indexed_side(span.attributes, prefix),
        From::Function(function) => function(span),
    }
}

fn first(span: &Span<'_>, keys: &[&str]) -> Option<Content> {
    let (key, value) = span.attributes.first(keys)?;
    Some(Content::new(value, vec![key.to_owned()]))
}

fn indexed_side(attributes: &Attributes, prefix: &str) -> Option<Content> {
    if let Some(value) = attributes.get(prefix) {
        return Some(Content::new(value, vec![prefix.to_owned()]));
    }
    let (value, keys) = indexed::rebuild(attributes, prefix, |path| is_message_path(prefix, path))?;
    Some(Content::new(&value, keys))
}

fn vercel_input(span: &Span<'_>) -> Option<Content> {
    first(
        span,
        &["ai.prompt.messages", "ai.prompt", "ai.toolCall.args"],
    )
    .or_else(|| gen_ai_input(span))
    .or_else(|| first(span, &["gen_ai.tool.call.arguments"]))
}

/// Rule AI-OUT.
fn vercel_output(span: &Span<'_>) -> Option<Content> {
    let both = ["ai.response.text", "ai.response.toolCalls"];
    if let [Some(text), Some(calls)] = both.map(|key| span.attributes.get(key)) {
        let message = json!({"role": "assistant", "content": text, "tool_calls": unfold(calls)});
        return Some(Content::new(&message, both.map(str::to_owned).to_vec()));
    }
    let keys = [
        "ai.response.text",
        "ai.result.text",
        "ai.toolCall.result",
        "ai.response.object",
        "ai.result.object",
        "ai.response.toolCalls",
        "ai.result.toolCalls",
    ];
    first(span, &keys)
        .or_else(|| gen_ai_output(span))
        .or_else(|| first(span, &["gen_ai.tool.call.result"]))
}

fn details_input(span: &Span<'_>) -> Option<Content> {
    let events = span.events.details().rev();
    events
        .into_iter()
        .find_map(input_messages)
        .map(|content| Content {
            keys: Vec::new(),
            ..content
        })
}

fn details_output(span: &Span<'_>) -> Option<Content> {
    span.events
        .details()
        .rev()
        .find_map(output_messages)
        .map(|content| Content {
            keys: Vec::new(),
            ..content
        })
}

fn messages_input(span: &Span<'_>) -> Option<Content> {
    span.events
        .input_messages()
        .map(|messages| Content::new(&messages, Vec::new()))
}

fn messages_output(span: &Span<'_>) -> Option<Content> {
    span.events
        .choices()
        .map(|choices| Content::new(&choices, Vec::new()))
}

fn genkit_input(span: &Span<'_>) -> Option<Content> {
    let input = genkit::input(span.attributes)?;
    Some(Content::new(&input, vec![genkit::INPUT.to_owned()]))
}

fn genkit_output(span: &Span<'_>) -> Option<Content> {
    let output = genkit::output(span.attributes)?;
    Some(Content::new(&output, vec![genkit::OUTPUT.to_owned()]))
}

fn semantic_kernel_input(span: &Span<'_>) -> Option<Content> {
    let event = span.events.named("gen_ai.content.prompt").next_back()?;
    of_content_event(event, "gen_ai.prompt")
}

fn semantic_kernel_output(span: &Span<'_>) -> Option<Content> {
    let event = span.events.named("gen_ai.content.completion").next_back()?;
    of_content_event(event, "gen_ai.completion")
}

/// What a content event holds under its usual key; else all that it holds.
fn of_content_event(event: &Attributes, key: &str) -> Option<Content> {
    let value = event.get(key).cloned().or_else(|| {
        let all = event.to_object();
        all.as_object().filter(|members| !members.is_empty())?;
        Some(all)
    })?;
    Some(Content::new(&unfold(&value), Vec::new()))
}

fn gen_ai_input(span: &Span<'_>) -> Option<Content> {
    input_messages(span.attributes)
}

fn gen_ai_output(span: &Span<'_>) -> Option<Content> {
    output_messages(span.attributes)
}

fn pydantic_input(span: &Span<'_>) -> Option<Content> {
    const MESSAGES: &str = "pydantic_ai.all_messages";
    span.attributes
        .get(MESSAGES)
        .and_then(|_| with_system(span.attributes, MESSAGES))
}

/// What a model was sent, by the attributes of a span or of an event.
pub(super) fn input_messages(attributes: &Attributes) -> Option<Content> {
    with_system(attributes, "gen_ai.input.messages")
}

/// What a model answered, by the attributes of a span or of an event.
pub(super) fn output_messages(attributes: &Attributes) -> Option<Content> {
    const MESSAGES: &str = "gen_ai.output.messages";
    let value = attributes.get(MESSAGES)?;
    Some(Content::new(value, vec![MESSAGES.to_owned()]))
}

/// Rule SYS: system instructions come first, unless the messages have a system message or are no list.
fn with_system(attributes: &Attributes, messages: &str) -> Option<Content> {
    const SYSTEM: &str = "gen_ai.system_instructions";
    let input = attributes.get(messages);
    let Some(instructions) = attributes.get(SYSTEM) else {
        return input.map(|value| Content::new(value, vec![messages.to_owned()]));
    };
    let system = json!({"role": "system", "content": instruction_text(instructions)});
    let Some(input) = input else {
        return Some(Content::new(&json!([system]), vec![SYSTEM.to_owned()]));
    };
    let is_system = |message: &Value| message.get("role").and_then(Value::as_str) == Some("system");
    match unfold(input) {
        Value::Array(list) if !list.iter().any(is_system) => {
            let all = std::iter::once(system).chain(list).collect();
            Some(Content::new(
                &Value::Array(all),
                vec![messages.to_owned(), SYSTEM.to_owned()],
            ))
        }
        _ => Some(Content::new(input, vec![messages.to_owned()])),
    }
}

fn instruction_text(instructions: &Value) -> String {
    match unfold(instructions) {
        Value::Array(parts) => {
            let part = |part: &Value| to_text(part.get("content").unwrap_or(part));
            parts.iter().map(part).collect::<Vec<_>>().join("\n")
        }
        other => to_text(&other),
    }
}
