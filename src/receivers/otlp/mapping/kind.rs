//! What a span is: rules P0 to P11, first hit wins. A rule is a table from an attribute's values to
//! kinds, or a small function.

use xtrace_model::observation::Kind;

use super::attributes::Attributes;
use super::{Source, genkit};

use Kind::{
    Agent, Chain, Embedding, Evaluator, Event, Generation, Guardrail, Retriever, Span, Tool,
};

/// An attribute whose value names the kind, in lower case.
struct Table {
    key: &'static str,
    kinds: &'static [(&'static str, Kind)],
}

const LANGFUSE: Table = Table {
    key: "langfuse.observation.type",
    kinds: &[
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
};

const OPENINFERENCE: Table = Table {
    key: "openinference.span.kind",
    kinds: &[
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
};

const GEN_AI: Table = Table {
    key: "gen_ai.operation.name",
    kinds: &[
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
    ],
};

const GENKIT: Table = Table {
    key: genkit::SUBTYPE,
    kinds: &[
        ("model", Generation),
        ("background-model", Generation),
        ("embedder", Embedding),
        ("tool", Tool),
        ("tool.v2", Tool),
        ("retriever", Retriever),
        ("evaluator", Evaluator),
    ],
};

const TRACELOOP: Table = Table {
    key: "traceloop.span.kind",
    kinds: &[
        ("workflow", Chain),
        ("task", Chain),
        ("agent", Agent),
        ("tool", Tool),
    ],
};

const LLM_REQUEST: Table = Table {
    key: "llm.request.type",
    kinds: &[
        ("chat", Generation),
        ("completion", Generation),
        ("embedding", Embedding),
        ("rerank", Retriever),
    ],
};

/// Its exporter maps kinds to `gen_ai.operation.name` with losses, so its own word goes first.
const LANGSMITH: Table = Table {
    key: "langsmith.span.kind",
    kinds: &[
        ("llm", Generation),
        ("chain", Chain),
        ("prompt", Chain),
        ("parser", Chain),
        ("tool", Tool),
        ("retriever", Retriever),
        ("embedding", Embedding),
    ],
};

/// Values are JSON texts, so in quotes.
const MLFLOW: Table = Table {
    key: "mlflow.spanType",
    kinds: &[
        ("llm", Generation),
        ("chat_model", Generation),
        ("embedding", Embedding),
        ("retriever", Retriever),
        ("reranker", Retriever),
        ("tool", Tool),
        ("agent", Agent),
        ("chain", Chain),
        ("workflow", Chain),
        ("task", Chain),
        ("guardrail", Guardrail),
        ("evaluator", Evaluator),
    ],
};

/// Span names of LiveKit's agents (P9).
const LIVEKIT: [(&str, Kind); 3] = [
    ("agent_turn", Agent),
    ("start_agent_activity", Agent),
    ("function_tool", Tool),
];

impl Table {
    fn kind(&self, attributes: &Attributes) -> Option<Kind> {
        let value = attributes
            .str(self.key)?
            .trim_matches('"')
            .to_ascii_lowercase();
        self.kinds
            .iter()
            .find(|(name, _)| *name == value)
            .map(|(_, kind)| *kind)
    }
}

/// Keys that make a span a generation when nothing else says what it is (P10).
const MODEL_KEYS: [&str; 5] = [
    "langfuse.observation.model.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "llm.model_name",
    "model",
];

/// The span's kind.
pub(super) fn of(attributes: &Attributes, source: &Source, span_name: &str) -> Kind {
    let of_scope = |scope: &str| source.scope_name() == Some(scope);
    let langsmith = || LANGSMITH.kind(attributes).filter(|_| of_scope("langsmith"));
    let livekit = || {
        let found = LIVEKIT
            .iter()
            .find(|(name, _)| *name == span_name)
            .map(|(_, kind)| *kind);
        found.filter(|_| of_scope(super::LIVEKIT_SCOPE))
    };
    old_python_generation(attributes, source)
        .or_else(|| LANGFUSE.kind(attributes))
        .or_else(|| OPENINFERENCE.kind(attributes))
        .or_else(langsmith)
        .or_else(|| GEN_AI.kind(attributes))
        .or_else(|| GENKIT.kind(attributes))
        .or_else(|| vercel(attributes))
        .or_else(|| tool_call(attributes))
        .or_else(|| flue(attributes))
        .or_else(livekit)
        .or_else(|| TRACELOOP.kind(attributes))
        .or_else(|| LLM_REQUEST.kind(attributes))
        .or_else(|| LANGSMITH.kind(attributes))
        .or_else(|| MLFLOW.kind(attributes))
        .or_else(|| {
            MODEL_KEYS
                .iter()
                .any(|key| attributes.says(key))
                .then_some(Generation)
        })
        .unwrap_or(Span)
}

/// P8.
fn flue(attributes: &Attributes) -> Option<Kind> {
    let has = |keys: [&str; 2]| keys.iter().any(|key| attributes.says(key));
    if has(["flue.tool.name", "flue.tool.call_id"]) {
        return Some(Tool);
    }
    has(["flue.task.id", "flue.task.agent"]).then_some(Agent)
}

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
    let is_span = attributes.str(LANGFUSE.key) == Some("span");
    let old = source.is_python_sdk() && source.sdk_version().is_none_or(|version| version < (3, 4));
    let generates = GENERATION_KEYS.iter().any(|key| attributes.has(key));
    (is_span && old && generates).then_some(Generation)
}

/// P5 and P6: the inner spans of the Vercel AI SDK call models; the outer ones repeat their usage,
/// so they are plain spans.
fn vercel(attributes: &Attributes) -> Option<Kind> {
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

/// P7: a span that names a tool or its call.
fn tool_call(attributes: &Attributes) -> Option<Kind> {
    let keys = ["gen_ai.tool.name", "gen_ai.tool.call.id"];
    keys.iter().any(|key| attributes.says(key)).then_some(Tool)
}
