//! OpenTelemetry's conventions for generative AI, old and new.

use serde_json::{Value, json};
use xtrace_model::observation::Kind::{
    self, Agent, Chain, Embedding, Generation, Retriever, Span, Tool,
};

use super::super::attributes::{Attributes, to_text, unfold};
use super::super::content::{self, Content, From, Gate};
use super::{Convention, KindRule, extractor};

pub(super) const CONVENTION: Convention = Convention {
    kinds: &[
        (30, KindRule::Value("gen_ai.operation.name", OPERATIONS)),
        // A span that names a tool or its call.
        (
            70,
            KindRule::Says(&["gen_ai.tool.name", "gen_ai.tool.call.id"], Tool),
        ),
        (
            101,
            KindRule::Says(
                &["gen_ai.request.model", "gen_ai.response.model"],
                Generation,
            ),
        ),
    ],
    content: &[
        // As one event, and as one event a message.
        (
            50,
            extractor(
                Gate::Always,
                From::Function(details_input),
                From::Function(details_output),
            ),
        ),
        (
            60,
            extractor(
                Gate::Always,
                From::Function(message_events),
                From::Function(choice_events),
            ),
        ),
        // As attributes.
        (
            190,
            extractor(Gate::Always, From::Function(input), From::Function(output)),
        ),
        (
            195,
            extractor(
                Gate::Always,
                From::First(&["gen_ai.tool.call.arguments"]),
                From::First(&["gen_ai.tool.call.result"]),
            ),
        ),
        (
            200,
            extractor(
                Gate::Kind(Retriever),
                From::First(&["gen_ai.retrieval.query.text", "reranker.query"]),
                From::First(&["gen_ai.retrieval.documents"]),
            ),
        ),
    ],
    models: &[(20, "gen_ai.response.model"), (40, "gen_ai.request.model")],
    sessions: &[(30, "gen_ai.conversation.id")],
    content_keys: &[
        "gen_ai.system_instructions",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result",
    ],
    ..Convention::NONE
};

const OPERATIONS: &[(&str, Kind)] = &[
    ("chat", Generation),
    ("completion", Generation),
    ("text_completion", Generation),
    ("generate_content", Generation),
    ("generate", Generation),
    ("llm_request", Generation),
    ("response", Generation),
    ("embeddings", Embedding),
    ("embedding", Embedding),
    ("invoke_agent", Agent),
    ("create_agent", Agent),
    ("agent_step", Agent),
    ("invoke_swarm", Agent),
    ("invoke_graph", Agent),
    ("execute_tool", Tool),
    ("retrieval", Retriever),
    ("search_memory", Retriever),
    ("vector_db_retrieve", Retriever),
    ("invoke_workflow", Chain),
    ("execute_task", Chain),
    ("plan", Chain),
    ("fetch_response", Span),
    ("create_memory", Span),
    ("update_memory", Span),
    ("upsert_memory", Span),
    ("delete_memory", Span),
    ("create_memory_store", Span),
    ("delete_memory_store", Span),
];

const MESSAGES: &str = "gen_ai.input.messages";
const ANSWERS: &str = "gen_ai.output.messages";
const SYSTEM: &str = "gen_ai.system_instructions";

/// What a model was sent, by the attributes of a span or of an event.
pub(in super::super) fn input_messages(attributes: &Attributes) -> Option<Content> {
    with_system(attributes, MESSAGES)
}

/// What a model answered, by the attributes of a span or of an event.
pub(in super::super) fn output_messages(attributes: &Attributes) -> Option<Content> {
    let value = attributes.get(ANSWERS)?;
    Some(Content::new(value, vec![ANSWERS.to_owned()]))
}

fn input(span: &content::Span<'_>) -> Option<Content> {
    input_messages(span.attributes)
}

fn output(span: &content::Span<'_>) -> Option<Content> {
    output_messages(span.attributes)
}

fn details_input(span: &content::Span<'_>) -> Option<Content> {
    let told = span.events.details().rev().find_map(input_messages)?;
    Some(Content::of_events(told))
}

fn details_output(span: &content::Span<'_>) -> Option<Content> {
    let told = span.events.details().rev().find_map(output_messages)?;
    Some(Content::of_events(told))
}

fn message_events(span: &content::Span<'_>) -> Option<Content> {
    let messages = span.events.input_messages()?;
    Some(Content::new(&messages, Vec::new()))
}

fn choice_events(span: &content::Span<'_>) -> Option<Content> {
    let choices = span.events.choices()?;
    Some(Content::new(&choices, Vec::new()))
}

/// Rule SYS: system instructions come first, unless the messages have a system message or are no list.
pub(super) fn with_system(attributes: &Attributes, messages: &str) -> Option<Content> {
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
