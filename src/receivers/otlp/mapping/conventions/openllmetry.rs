//! OpenLLMetry (Traceloop), and the older names that its instrumentations share with others.

use xtrace_model::observation::Kind::{Agent, Chain, Embedding, Generation, Retriever, Tool};

use super::super::content::{From, Gate};
use super::{Convention, KindRule, extractor};

pub(super) const CONVENTION: Convention = Convention {
    kinds: &[
        (
            92,
            KindRule::Value(
                "traceloop.span.kind",
                &[
                    ("workflow", Chain),
                    ("task", Chain),
                    ("agent", Agent),
                    ("tool", Tool),
                ],
            ),
        ),
        (
            93,
            KindRule::Value(
                "llm.request.type",
                &[
                    ("chat", Generation),
                    ("completion", Generation),
                    ("embedding", Embedding),
                    ("rerank", Retriever),
                ],
            ),
        ),
    ],
    content: &[
        // Its decorators.
        (
            120,
            extractor(
                Gate::Always,
                From::First(&["traceloop.entity.input"]),
                From::First(&["traceloop.entity.output"]),
            ),
        ),
        // Message by message; LangSmith has one text each under the same names.
        (
            180,
            extractor(
                Gate::Always,
                From::Indexed("gen_ai.prompt"),
                From::Indexed("gen_ai.completion"),
            ),
        ),
        (
            230,
            extractor(
                Gate::Always,
                From::Indexed("llm.prompts"),
                From::Indexed("llm.choices"),
            ),
        ),
    ],
    models: &[
        (50, "llm.response.model"),
        (80, "llm.response.model_name"),
        (90, "llm.request.model_name"),
    ],
    sessions: &[(80, "traceloop.association.properties.session_id")],
    content_keys: &["traceloop.entity.input", "traceloop.entity.output"],
    ..Convention::NONE
};
