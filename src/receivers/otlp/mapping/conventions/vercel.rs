//! The Vercel AI SDK: an outer span for a call of the SDK, inner ones for calls of the model.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use xtrace_model::observation::Kind::{self, Embedding, Generation, Span, Tool};
use xtrace_model::usage;

use super::super::Source;
use super::super::attributes::{Attributes, as_object, to_text, unfold};
use super::super::content::{self, Content, From, Gate};
use super::gen_ai::{input_messages, output_messages};
use super::{Convention, KindRule, extractor};

/// Its instrumentation scope.
pub(in super::super) const SCOPE: &str = "ai";

pub(super) const CONVENTION: Convention = Convention {
    kinds: &[(50, KindRule::Function(kind))],
    content: &[(
        30,
        extractor(
            Gate::TerminalScope(SCOPE),
            From::Function(input),
            From::Function(output),
        ),
    )],
    models: &[(30, "ai.model.id")],
    users: &[(50, "ai.telemetry.metadata.userId")],
    sessions: &[(60, "ai.telemetry.metadata.sessionId")],
    tags: &[(50, "ai.telemetry.metadata.tags")],
    content_prefixes: &["ai.prompt", "ai.response.", "ai.result.", "ai.toolCall."],
    ..Convention::NONE
};

/// P5 and P6: the inner spans call models; the outer ones repeat their usage, so they are plain spans.
fn kind(attributes: &Attributes, _: &Source) -> Option<Kind> {
    const GENERATING: [&str; 4] = [
        "ai.generateText.doGenerate",
        "ai.streamText.doStream",
        "ai.generateObject.doGenerate",
        "ai.streamObject.doStream",
    ];
    const EMBEDDING: [&str; 2] = ["ai.embed.doEmbed", "ai.embedMany.doEmbed"];
    const OUTER: [&str; 6] = [
        "ai.generateText",
        "ai.streamText",
        "ai.generateObject",
        "ai.streamObject",
        "ai.embed",
        "ai.embedMany",
    ];
    const MODELS: [&str; 4] = [
        "langfuse.observation.model.name",
        "ai.model.id",
        "gen_ai.request.model",
        "gen_ai.response.model",
    ];
    let operation = attributes.str("operation.name").unwrap_or_default();
    let id = attributes.str("ai.operationId").unwrap_or_default();
    let is = |name: &&str| operation.starts_with(*name) || id == *name;
    let has_model = MODELS.iter().any(|key| attributes.says(key));
    if GENERATING.iter().any(&is) {
        return has_model.then_some(Generation);
    }
    if EMBEDDING.iter().any(is) {
        return has_model.then_some(Embedding);
    }
    let first_word = operation.split(' ').next().unwrap_or_default();
    let either = |name: &str| first_word == name || id == name;
    if either("ai.toolCall") {
        return Some(Tool);
    }
    OUTER.iter().any(|name| either(name)).then_some(Span)
}

fn input(span: &content::Span<'_>) -> Option<Content> {
    content::first(
        span,
        &["ai.prompt.messages", "ai.prompt", "ai.toolCall.args"],
    )
    .or_else(|| input_messages(span.attributes))
    .or_else(|| content::first(span, &["gen_ai.tool.call.arguments"]))
}

/// Rule AI-OUT.
fn output(span: &content::Span<'_>) -> Option<Content> {
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
    content::first(span, &keys)
        .or_else(|| output_messages(span.attributes))
        .or_else(|| content::first(span, &["gen_ai.tool.call.result"]))
}

/// Parameters of the model: a fixed list, values as JavaScript prints them.
pub(in super::super) fn parameters(attributes: &Attributes) -> Map<String, Value> {
    const SOURCES: [(&str, &[&str]); 9] = [
        ("maxSteps", &["ai.settings.maxSteps"]),
        ("toolChoice", &["ai.prompt.toolChoice"]),
        ("maxTokens", &["gen_ai.request.max_tokens"]),
        (
            "finishReason",
            &["gen_ai.response.finish_reasons", "gen_ai.finishReason"],
        ),
        ("system", &["gen_ai.system", "ai.model.provider"]),
        ("maxRetries", &["ai.settings.maxRetries"]),
        ("mode", &["ai.settings.mode"]),
        ("temperature", &["gen_ai.request.temperature"]),
        (
            "service_tier",
            &[
                "ai.response.providerMetadata.openai.serviceTier",
                "gen_ai.request.service_tier",
            ],
        ),
    ];
    let found = SOURCES.iter().filter_map(|(name, keys)| {
        let (_, value) = attributes.first(keys)?;
        Some(((*name).to_owned(), Value::String(javascript_text(value))))
    });
    found.collect()
}

fn javascript_text(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(to_text).collect::<Vec<_>>().join(","),
        other => to_text(other),
    }
}

/// Whether a span is around the calls of the model, which report the usage.
fn is_outer_call(attributes: &Attributes) -> bool {
    let operation = attributes.str("ai.operationId");
    operation.is_some_and(|operation| !operation.contains(".do"))
}

/// U-3: usage that it reports in places of its own.
pub(in super::super) fn add_usage(attributes: &Attributes, reported: &mut BTreeMap<String, i64>) {
    const OWN: [(&str, &str); 3] = [
        ("ai.usage.tokens", "total_tokens"),
        ("ai.usage.cachedInputTokens", "input_cached_tokens"),
        ("ai.usage.reasoningTokens", "reasoning_tokens"),
    ];
    const PROVIDER: [(&[&str], &str); 9] = [
        (&["openai", "cachedPromptTokens"], "input_cached_tokens"),
        (&["openai", "reasoningTokens"], "reasoning_tokens"),
        (
            &["openai", "acceptedPredictionTokens"],
            "accepted_prediction_tokens",
        ),
        (
            &["openai", "rejectedPredictionTokens"],
            "rejected_prediction_tokens",
        ),
        (
            &["anthropic", "usage", "cache_read_input_tokens"],
            "input_cached_tokens",
        ),
        (
            &["anthropic", "usage", "cache_creation_input_tokens"],
            "input_cache_creation",
        ),
        (
            &["bedrock", "usage", "cacheReadInputTokens"],
            "input_cached_tokens",
        ),
        (
            &["bedrock", "usage", "cacheWriteInputTokens"],
            "input_cache_write",
        ),
        (
            &["bedrock", "usage", "cacheCreationInputTokens"],
            "input_cache_creation",
        ),
    ];
    if reported.is_empty() && is_outer_call(attributes) {
        return;
    }
    let provider = attributes
        .get("ai.response.providerMetadata")
        .and_then(as_object);
    let provider = provider.map(Value::Object).unwrap_or_default();
    let own = OWN
        .iter()
        .filter_map(|(key, name)| Some((*name, usage::count(attributes.get(key)?)?)));
    let given = PROVIDER.iter().filter_map(|(path, name)| {
        let value = path
            .iter()
            .try_fold(&provider, |value, member| value.get(member))?;
        Some((*name, usage::count(value)?))
    });
    for (name, count) in own.chain(given) {
        reported.entry(name.to_owned()).or_insert(count);
    }
}
