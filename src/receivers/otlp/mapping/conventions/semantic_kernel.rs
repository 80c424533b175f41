//! Microsoft's Semantic Kernel, which once wrote content as two events of its own.

use super::super::attributes::{Attributes, unfold};
use super::super::content::{self, Content, From, Gate};
use super::{Convention, extractor};

pub(super) const CONVENTION: Convention = Convention {
    content: &[(
        70,
        extractor(Gate::Always, From::Function(input), From::Function(output)),
    )],
    ..Convention::NONE
};

fn input(span: &content::Span<'_>) -> Option<Content> {
    let event = span.events.named("gen_ai.content.prompt").next_back()?;
    of_event(event, "gen_ai.prompt")
}

fn output(span: &content::Span<'_>) -> Option<Content> {
    let event = span.events.named("gen_ai.content.completion").next_back()?;
    of_event(event, "gen_ai.completion")
}

/// What a content event holds under its usual key; else all that it holds.
fn of_event(event: &Attributes, key: &str) -> Option<Content> {
    let value = event.get(key).cloned().or_else(|| {
        let all = event.to_object();
        all.as_object().filter(|members| !members.is_empty())?;
        Some(all)
    })?;
    Some(Content::new(&unfold(&value), Vec::new()))
}
