//! Which attributes carry content, and which content says nothing.

use serde_json::Value;

use super::attributes::is_said;
use super::conventions::RULES;

/// Keys that carry content (M-KEYS): they have the larger cap, and leave the attributes when their
/// value says nothing.
pub(super) fn is_content_key(key: &str) -> bool {
    let indexed = ["gen_ai.prompt", "gen_ai.completion"].iter().any(|prefix| {
        key.strip_prefix(prefix).is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix('.')
                    .is_some_and(|path| is_message_path(prefix, path))
        })
    });
    indexed || RULES.is_content_key(key)
}

/// Whether a content attribute says nothing, and so is left out of the attributes.
pub(super) fn is_empty_content(key: &str, value: &Value) -> bool {
    let empty = !is_said(value)
        || value.as_str() == Some("{}")
        || value.as_object().is_some_and(serde_json::Map::is_empty);
    empty && is_content_key(key)
}

/// `gen_ai.prompt.name` is an attribute, `gen_ai.prompt.0.role` and `gen_ai.prompt.role` are content.
pub(super) fn is_message_path(prefix: &str, path: &str) -> bool {
    const MEMBERS: [&str; 6] = [
        "role",
        "content",
        "tool_calls",
        "tool_call_id",
        "function_call",
        "finish_reason",
    ];
    let first = path.split('.').next().unwrap_or_default();
    let numbered = first.bytes().all(|byte| byte.is_ascii_digit()) && !first.is_empty();
    numbered || !prefix.starts_with("gen_ai.") || MEMBERS.contains(&first)
}
