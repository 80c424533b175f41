//! OpenInference (Arize Phoenix and its instrumentations).

use xtrace_model::observation::Kind::{
    Agent, Chain, Embedding, Evaluator, Generation, Guardrail, Retriever, Span, Tool,
};

use super::super::content::{From, Gate};
use super::{Convention, KindRule, extractor};

pub(super) const CONVENTION: Convention = Convention {
    kinds: &[
        (
            20,
            KindRule::Value(
                "openinference.span.kind",
                &[
                    ("llm", Generation),
                    ("chain", Chain),
                    ("retriever", Retriever),
                    ("reranker", Retriever),
                    ("embedding", Embedding),
                    ("agent", Agent),
                    ("tool", Tool),
                    ("guardrail", Guardrail),
                    ("evaluator", Evaluator),
                    ("prompt", Span),
                ],
            ),
        ),
        (102, KindRule::Says(&["llm.model_name"], Generation)),
    ],
    content: &[
        (
            130,
            extractor(
                Gate::Always,
                From::First(&["input.value"]),
                From::First(&["output.value"]),
            ),
        ),
        (
            185,
            extractor(
                Gate::Always,
                From::Indexed("llm.input_messages"),
                From::Indexed("llm.output_messages"),
            ),
        ),
        (
            205,
            extractor(
                Gate::Kind(Retriever),
                From::Indexed("reranker.input_documents"),
                From::Indexed("retrieval.documents"),
            ),
        ),
        (
            206,
            extractor(
                Gate::Kind(Retriever),
                From::Nothing,
                From::Indexed("reranker.output_documents"),
            ),
        ),
        (
            210,
            extractor(
                Gate::Kind(Embedding),
                From::First(&["embedding.text", "ai.value", "ai.values"]),
                From::Nothing,
            ),
        ),
        (
            220,
            extractor(
                Gate::Kind(Tool),
                From::First(&["tool.parameters"]),
                From::Nothing,
            ),
        ),
    ],
    models: &[
        (60, "llm.model_name"),
        (100, "embedding.model_name"),
        (110, "reranker.model_name"),
    ],
    users: &[(20, "user.id")],
    sessions: &[(20, "session.id")],
    tags: &[(60, "tag.tags")],
    content_keys: &["input.value", "output.value"],
    content_prefixes: &["llm.input_messages", "llm.output_messages"],
};
