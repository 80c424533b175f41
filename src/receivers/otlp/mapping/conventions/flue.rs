//! Flue.

use xtrace_model::observation::Kind::{Agent, Tool};

use super::super::content::{From, Gate};
use super::{Convention, KindRule, extractor};

pub(super) const CONVENTION: Convention = Convention {
    kinds: &[
        (
            80,
            KindRule::Says(&["flue.tool.name", "flue.tool.call_id"], Tool),
        ),
        (
            81,
            KindRule::Says(&["flue.task.id", "flue.task.agent"], Agent),
        ),
    ],
    content: &[(
        40,
        extractor(
            Gate::Scope("@flue/opentelemetry"),
            From::First(&[
                "flue.turn.input",
                "flue.tool.arguments",
                "flue.task.prompt",
                "flue.workflow.payload",
            ]),
            From::First(&[
                "flue.turn.output",
                "flue.tool.result",
                "flue.task.result",
                "flue.operation.result",
                "flue.workflow.result",
            ]),
        ),
    )],
    content_prefixes: &["flue."],
    ..Convention::NONE
};
