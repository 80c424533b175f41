//! Logfire, and Pydantic AI, which writes for it.

use super::super::content::{self, Content, From, Gate};
use super::gen_ai::with_system;
use super::{Convention, extractor};
use crate::receivers::otlp::wire;

pub(super) const CONVENTION: Convention = Convention {
    content: &[
        (
            90,
            extractor(
                Gate::NoInfrastructure,
                From::First(&["prompt"]),
                From::First(&["all_messages_events"]),
            ),
        ),
        // Pydantic AI's agents, and its tools.
        (
            160,
            extractor(
                Gate::Scope("pydantic-ai"),
                From::Function(agent_input),
                From::First(&["final_result"]),
            ),
        ),
        (
            170,
            extractor(
                Gate::Always,
                From::First(&["tool_arguments"]),
                From::First(&["tool_response"]),
            ),
        ),
    ],
    content_keys: &[
        "prompt",
        "all_messages_events",
        "events",
        "final_result",
        "pydantic_ai.all_messages",
    ],
    ..Convention::NONE
};

fn agent_input(span: &content::Span<'_>) -> Option<Content> {
    const MESSAGES: &str = "pydantic_ai.all_messages";
    span.attributes.get(MESSAGES)?;
    with_system(span.attributes, MESSAGES)
}

/// Whether a span only stands in for one that still runs (P9f). Its own comes later, under another id.
pub(in super::super) fn is_placeholder(span: &wire::Span<'_>) -> bool {
    span.attributes.iter().any(|pair| {
        pair.key == "logfire.span_type"
            && matches!(&pair.value, wire::AnyValue::Text(text) if text == "pending_span")
    })
}
