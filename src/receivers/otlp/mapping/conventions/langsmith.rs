//! LangSmith's exporter. It maps kinds to `gen_ai.operation.name` with losses, so in its own scope its
//! own word goes before that one.

use xtrace_model::observation::Kind::{self, Chain, Embedding, Generation, Retriever, Tool};

use super::{Convention, KindRule};

const KIND: &str = "langsmith.span.kind";
const KINDS: &[(&str, Kind)] = &[
    ("llm", Generation),
    ("chain", Chain),
    ("prompt", Chain),
    ("parser", Chain),
    ("tool", Tool),
    ("retriever", Retriever),
    ("embedding", Embedding),
];

pub(super) const CONVENTION: Convention = Convention {
    kinds: &[
        (25, KindRule::ValueInScope("langsmith", KIND, KINDS)),
        (94, KindRule::Value(KIND, KINDS)),
    ],
    models: &[
        (130, "ls.model_name"),
        (140, "langsmith.metadata.ls_model_name"),
    ],
    sessions: &[(70, "langsmith.trace.session_id")],
    tags: &[(70, "langsmith.span.tags")],
    ..Convention::NONE
};
