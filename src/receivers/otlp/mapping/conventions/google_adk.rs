//! Google's Agent Development Kit.

use super::super::content::{From, Gate};
use super::{Convention, extractor};

/// Its instrumentation scope.
pub(in super::super) const SCOPE: &str = "gcp.vertex.agent";

pub(super) const CONVENTION: Convention = Convention {
    content: &[(
        80,
        extractor(
            Gate::Always,
            From::FirstFilled(&[
                "gcp.vertex.agent.llm_request",
                "gcp.vertex.agent.tool_call_args",
            ]),
            From::FirstFilled(&[
                "gcp.vertex.agent.llm_response",
                "gcp.vertex.agent.tool_response",
            ]),
        ),
    )],
    sessions: &[(90, "gcp.vertex.agent.session_id")],
    content_prefixes: &["gcp.vertex.agent."],
    ..Convention::NONE
};
