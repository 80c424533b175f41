//! MLflow, whose values are JSON texts, so words are in quotes.

use xtrace_model::observation::Kind::{
    Agent, Chain, Embedding, Evaluator, Generation, Guardrail, Retriever, Tool,
};

use super::super::content::{From, Gate};
use super::{Convention, KindRule, extractor};

pub(super) const CONVENTION: Convention = Convention {
    kinds: &[(
        95,
        KindRule::Value(
            "mlflow.spanType",
            &[
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
        ),
    )],
    content: &[(
        110,
        extractor(
            Gate::Always,
            From::First(&["mlflow.spanInputs"]),
            From::First(&["mlflow.spanOutputs"]),
        ),
    )],
    models: &[(120, "mlflow.llm.model")],
    sessions: &[(100, "mlflow.trace.session")],
    content_keys: &["mlflow.spanInputs", "mlflow.spanOutputs"],
    ..Convention::NONE
};
