//! Langfuse's SDKs, whose attributes are meant for the very fields that we have.

use xtrace_model::observation::Kind::{
    self, Agent, Chain, Embedding, Evaluator, Event, Generation, Guardrail, Retriever, Span, Tool,
};

use super::super::Source;
use super::super::attributes::Attributes;
use super::super::content::{From, Gate};
use super::{Convention, KindRule, extractor};

const KIND: &str = "langfuse.observation.type";

pub(super) const CONVENTION: Convention = Convention {
    kinds: &[
        (0, KindRule::Function(old_python_generation)),
        (
            10,
            KindRule::Value(
                KIND,
                &[
                    ("span", Span),
                    ("generation", Generation),
                    ("event", Event),
                    ("embedding", Embedding),
                    ("agent", Agent),
                    ("tool", Tool),
                    ("chain", Chain),
                    ("retriever", Retriever),
                    ("guardrail", Guardrail),
                    ("evaluator", Evaluator),
                ],
            ),
        ),
        (
            100,
            KindRule::Says(&["langfuse.observation.model.name"], Generation),
        ),
    ],
    content: &[(
        10,
        extractor(
            Gate::Always,
            From::First(&["langfuse.observation.input"]),
            From::First(&["langfuse.observation.output"]),
        ),
    )],
    models: &[(10, "langfuse.observation.model.name")],
    users: &[
        (10, "langfuse.user.id"),
        (30, "langfuse.observation.metadata.langfuse_user_id"),
        (40, "langfuse.trace.metadata.langfuse_user_id"),
    ],
    sessions: &[
        (10, "langfuse.session.id"),
        (40, "langfuse.observation.metadata.langfuse_session_id"),
        (50, "langfuse.trace.metadata.langfuse_session_id"),
    ],
    tags: &[
        (10, "langfuse.trace.tags"),
        (20, "langfuse.tags"),
        (30, "langfuse.observation.metadata.langfuse_tags"),
        (40, "langfuse.trace.metadata.langfuse_tags"),
    ],
    content_keys: &[
        "langfuse.trace.input",
        "langfuse.trace.output",
        "langfuse.observation.input",
        "langfuse.observation.output",
    ],
    ..Convention::NONE
};

/// P0: the Python SDK up to 3.3 calls generations spans.
fn old_python_generation(attributes: &Attributes, source: &Source) -> Option<Kind> {
    const GENERATION_KEYS: [&str; 7] = [
        "langfuse.observation.model.name",
        "langfuse.observation.model.parameters",
        "langfuse.observation.cost_details",
        "langfuse.observation.usage_details",
        "langfuse.observation.completion_start_time",
        "langfuse.observation.prompt.name",
        "langfuse.observation.prompt.version",
    ];
    let is_span = attributes.str(KIND) == Some("span");
    let old = source.is_python_sdk() && source.sdk_version().is_none_or(|version| version < (3, 4));
    let generates = GENERATION_KEYS.iter().any(|key| attributes.has(key));
    (is_span && old && generates).then_some(Generation)
}
