//! Span events: all are kept; those of the GenAI conventions also carry content.

use serde_json::{Value, json};

use super::attributes::{Attributes, unfold};
use crate::receivers::otlp::wire;

/// One event of a span.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) time_unix_nano: u64,
    pub(super) name: String,
    pub(super) attributes: Attributes,
    pub(super) dropped_attributes_count: u32,
}

/// The events of a span, in the order that they were sent.
#[derive(Debug, Default)]
pub(super) struct SpanEvents {
    events: Vec<Event>,
    /// Positions in order of time.
    by_time: Vec<usize>,
}

/// The event that describes a whole inference.
pub(super) const DETAILS: &str = "gen_ai.client.inference.operation.details";
/// The event that tells what the model chose to say.
pub(super) const CHOICE: &str = "gen_ai.choice";

/// The role of whoever wrote the message that an event of this name tells.
pub(super) fn role_of(event: &str) -> Option<&str> {
    let role = event.strip_prefix("gen_ai.")?.strip_suffix(".message")?;
    ["system", "user", "assistant", "tool"]
        .contains(&role)
        .then_some(role)
}

impl SpanEvents {
    pub(super) fn new(events: Vec<wire::Event<'_>>) -> Self {
        let events: Vec<Event> = events
            .into_iter()
            .map(|event| Event {
                time_unix_nano: event.time_unix_nano,
                name: xtrace_model::text::without_nul(&event.name).into_owned(),
                attributes: Attributes::new(event.attributes),
                dropped_attributes_count: event.dropped_attributes_count,
            })
            .collect();
        let mut by_time: Vec<usize> = (0..events.len()).collect();
        by_time.sort_by_key(|position| events[*position].time_unix_nano);
        Self { events, by_time }
    }

    fn in_time(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.by_time.iter().map(|position| &self.events[*position])
    }

    /// Attributes of the events that describe a whole inference.
    pub(super) fn details(&self) -> impl DoubleEndedIterator<Item = &Attributes> {
        self.named(DETAILS)
    }

    /// Attributes of the events of a name.
    pub(super) fn named(&self, name: &str) -> impl DoubleEndedIterator<Item = &Attributes> {
        self.in_time()
            .filter(move |event| event.name == name)
            .map(|event| &event.attributes)
    }

    /// Times and attributes of the events of a name.
    pub(super) fn timed(&self, name: &str) -> impl Iterator<Item = (u64, &Attributes)> {
        self.in_time()
            .filter(move |event| event.name == name)
            .map(|event| (event.time_unix_nano, &event.attributes))
    }

    /// The messages sent to the model, one an event.
    pub(super) fn input_messages(&self) -> Option<Value> {
        let messages: Vec<Value> = self
            .in_time()
            .filter_map(|event| {
                let role = role_of(&event.name)?;
                Some(message(json!({"role": role}), &event.attributes))
            })
            .collect();
        (!messages.is_empty()).then_some(Value::Array(messages))
    }

    /// What the model chose to say: one choice as an object, several as a list.
    pub(super) fn choices(&self) -> Option<Value> {
        let choices = self.in_time().filter(|event| event.name == CHOICE);
        let mut choices: Vec<Value> = choices
            .map(|event| message(json!({}), &event.attributes))
            .collect();
        match choices.len() {
            0 => None,
            1 => choices.pop(),
            _ => Some(Value::Array(choices)),
        }
    }

    /// What the last exception says.
    pub(super) fn exception(&self) -> Option<String> {
        self.named("exception").next_back().and_then(exception)
    }

    /// When the first token came, where an event tells.
    pub(super) fn first_token_unix_nano(&self) -> Option<u64> {
        const NAMES: [&str; 2] = [
            "gen_ai.content.completion.chunk",
            "First Token Stream Event",
        ];
        self.in_time()
            .find(|event| NAMES.contains(&event.name.as_str()))
            .map(|e| e.time_unix_nano)
    }

    /// All events, as JSON.
    pub(super) fn to_json(&self) -> Vec<Value> {
        let event = |event: &Event| {
            let mut json = json!({
                "timeUnixNano": event.time_unix_nano.to_string(),
                "name": event.name,
                "attributes": event.attributes.to_object(),
            });
            let dropped = event.dropped_attributes_count + event.attributes.over_cap;
            if dropped > 0 {
                json["droppedAttributesCount"] = dropped.into();
            }
            json
        };
        self.events.iter().map(event).collect()
    }
}

/// What an exception says, with its type in front.
pub(super) fn exception(attributes: &Attributes) -> Option<String> {
    let text = attributes.text("exception.message");
    match (attributes.text("exception.type"), text) {
        (Some(kind), Some(text)) => Some(format!("{kind}: {text}")),
        (kind, text) => text.or(kind),
    }
}

/// An event's attributes as a message; members that hold JSON text are parsed.
fn message(mut message: Value, attributes: &Attributes) -> Value {
    const PARSED: [&str; 4] = ["content", "message", "tool_calls", "arguments"];
    for (key, value) in attributes.iter() {
        message[key] = if PARSED.contains(&key) {
            unfold(value)
        } else {
            value.clone()
        };
    }
    message
}
