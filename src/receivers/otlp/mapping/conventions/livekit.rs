//! LiveKit's agents.

use xtrace_model::observation::Kind::{Agent, Tool};

use super::super::Source;
use super::super::content::{From, Gate};
use super::{Convention, KindRule, extractor};

/// Its instrumentation scope.
const SCOPE: &str = "livekit-agents";

pub(super) const CONVENTION: Convention = Convention {
    kinds: &[(
        90,
        KindRule::NameInScope(
            SCOPE,
            &[
                ("agent_turn", Agent),
                ("start_agent_activity", Agent),
                ("function_tool", Tool),
            ],
        ),
    )],
    content: &[(
        100,
        extractor(
            Gate::Always,
            From::First(&["lk.input_text", "lk.user_transcript", "lk.chat_ctx"]),
            From::First(&["lk.function_tool.output", "lk.response.text"]),
        ),
    )],
    content_prefixes: &["lk."],
    ..Convention::NONE
};

/// Whether a span is one that nobody looks for (rule O-LIVEKIT).
pub(in super::super) fn is_plumbing(source: &Source, span_name: &str) -> bool {
    const PLUMBING: [&str; 14] = [
        "user_speaking",
        "eou_detection",
        "llm_request_run",
        "tts_node",
        "tts_request",
        "tts_request_run",
        "tts_stream_adapter",
        "agent_speaking",
        "drain_agent_activity",
        "on_exit",
        "on_enter",
        "llm_fallback_adapter",
        "tts_fallback_adapter",
        "start_agent_activity",
    ];
    source.scope_name() == Some(SCOPE) && PLUMBING.contains(&span_name)
}
