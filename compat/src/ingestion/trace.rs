//! The body of `trace-create`, which creates and updates.

use serde_json::Value;
use xtrace_model::text::cut_chars;
use xtrace_model::{Register, Trace, TraceId, Tree, environment, json, tree};

use super::event::{Event, When, check_id};
use crate::body::{Issue, Object, content};
use crate::error::issue;

const NAME_CHARS_MAX: usize = 1000;
const TAG_CHARS_MAX: usize = 200;
const TAGS_MAX: usize = 100;

/// A part of a trace.
pub(super) fn parse(event: &Event<'_>) -> Result<Trace, Issue> {
    let generated = || uuid::Uuid::new_v4().to_string();
    parse_body(event.body, event.when(), generated)
}

/// The same, where the body names no id, under one that is made.
pub(crate) fn parse_body(
    body: Object<'_>,
    when: When,
    make_id: impl FnOnce() -> String,
) -> Result<Trace, Issue> {
    let id = body.text("id")?.filter(|id| !id.is_empty());
    let id = id.unwrap_or_else(make_id);
    check_id("id", &id)?;
    let id = TraceId::parse(id)
        .map_err(|fault| issue::custom(&[Value::from("id")], &fault.to_string()))?;
    let stamp = when.latest();
    let name = nullable(body, "name", when)?;
    if name
        .text()
        .is_some_and(|name| name.chars().count() > NAME_CHARS_MAX)
    {
        return Err(issue::long("name", NAME_CHARS_MAX));
    }
    let timestamp = body.time("timestamp")?;
    let mut trace = Trace::new(id);
    trace.timestamp = Register::new(
        timestamp.unwrap_or(when.time),
        when.first(timestamp.is_some()),
    );
    trace.name = name;
    trace.user_id = nullable(body, "userId", when)?;
    trace.session_id = nullable(body, "sessionId", when)?;
    trace.release = nullable(body, "release", when)?;
    trace.version = nullable(body, "version", when)?;
    trace.environment.merge(environment_of(body, when));
    trace.public = Register::of(body.truth("public")?, stamp);
    trace.input = Register::of(content(body.get("input")), stamp);
    trace.output = Register::of(content(body.get("output")), stamp);
    trace.metadata = metadata(body.get("metadata"), when);
    let tags = body.texts("tags")?.unwrap_or_default().into_iter();
    let tags = tags.filter(|tag| !tag.is_empty());
    trace.tags = tags
        .map(|tag| cut_chars(&tag, TAG_CHARS_MAX).to_owned())
        .take(TAGS_MAX)
        .collect();
    Ok(trace)
}

/// A text that an explicit null clears.
pub(super) fn nullable(
    body: Object<'_>,
    name: &str,
    when: When,
) -> Result<Register<String>, Issue> {
    if body.is_null(name) {
        return Ok(Register::cleared(when.latest()));
    }
    let text = body.text(name)?;
    let text = text.map(|text| {
        // Names may be refused for their length; everything else is cut.
        if name == "name" {
            text
        } else {
            cut_chars(&text, NAME_CHARS_MAX).to_owned()
        }
    });
    Ok(Register::of(text, when.latest()))
}

/// The first environment that anybody names stays; none that can be read is none.
pub(super) fn environment_of(body: Object<'_>, when: When) -> Register<String> {
    let named = body.get("environment").and_then(Value::as_str);
    Register::of(named.map(environment::normalise), when.first(true))
}

/// Objects merge; anything else is metadata under the key "metadata".
pub(crate) fn metadata(value: Option<&Value>, when: When) -> Tree {
    let value = value.map(|value| json::storable(value.clone()));
    value
        .and_then(tree::as_metadata)
        .map_or_else(Tree::default, |value| Tree::new(value, when.latest()))
}
