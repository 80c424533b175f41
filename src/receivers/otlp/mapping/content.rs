//! Input and output of a span: an ordered list of extractors. Input comes from the first that has
//! one, output from the first that has one, whichever conventions these are.

use serde_json::Value;
use xtrace_model::observation::Kind;

use super::attributes::{Attributes, to_text};
use super::content_keys::is_message_path;
use super::conventions::RULES;
use super::events::SpanEvents;
use super::{Source, indexed};

/// A side's text and the attributes that it was made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Content {
    pub(super) text: String,
    pub(super) keys: Vec<String>,
}

impl Content {
    pub(super) fn new(value: &Value, keys: Vec<String>) -> Self {
        Self {
            text: to_text(value),
            keys,
        }
    }

    /// The same content, made of attributes of events: those of the span keep theirs.
    pub(super) fn of_events(told: Self) -> Self {
        Self {
            keys: Vec::new(),
            ..told
        }
    }
}

/// Both sides of a span.
#[derive(Debug, Default)]
pub(super) struct Sides {
    pub(super) input: Option<Content>,
    pub(super) output: Option<Content>,
}

/// What an extractor may look at.
pub(super) struct Span<'a> {
    pub(super) attributes: &'a Attributes,
    pub(super) events: &'a SpanEvents,
    pub(super) source: &'a Source,
    pub(super) kind: Kind,
}

/// How one convention writes a side.
#[derive(Clone, Copy)]
pub(super) enum From {
    /// Nowhere.
    Nothing,
    /// The first of these keys that says something.
    First(&'static [&'static str]),
    /// The same, where "{}" says nothing either.
    FirstFilled(&'static [&'static str]),
    /// Dotted keys under a prefix.
    Indexed(&'static str),
    /// A function.
    Function(fn(&Span<'_>) -> Option<Content>),
}

/// When an extractor applies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Always,
    /// The instrumentation scope has this name. When it has, the extractors after it and before
    /// the late ones are not asked.
    TerminalScope(&'static str),
    /// The instrumentation scope has this name.
    Scope(&'static str),
    /// The span is no database, HTTP, messaging or RPC call: the keys are common words.
    NoInfrastructure,
    /// The span is of this kind.
    Kind(Kind),
}

/// Extracts both sides.
pub(super) fn extract(span: &Span<'_>) -> Sides {
    let mut sides = Sides::default();
    let rows = &RULES.content;
    let stop = rows.iter().position(|extractor| match extractor.gate {
        Gate::TerminalScope(name) => span.source.scope_name() == Some(name),
        _ => false,
    });
    let asked = &rows[..stop.map_or(rows.len(), |at| at + 1)];
    for extractor in asked
        .iter()
        .chain(&RULES.late_content)
        .filter(|extractor| applies(extractor.gate, span))
    {
        if sides.input.is_none() {
            sides.input = side(extractor.input, span);
        }
        if sides.output.is_none() {
            sides.output = side(extractor.output, span);
        }
    }
    sides
}

fn applies(gate: Gate, span: &Span<'_>) -> bool {
    match gate {
        Gate::Always => true,
        Gate::TerminalScope(name) | Gate::Scope(name) => span.source.scope_name() == Some(name),
        Gate::Kind(kind) => span.kind == kind,
        Gate::NoInfrastructure => {
            let prefixes = ["db.", "http.", "messaging.", "rpc."];
            !prefixes
                .iter()
                .any(|prefix| span.attributes.under(prefix).next().is_some())
        }
    }
}

fn side(from: From, span: &Span<'_>) -> Option<Content> {
    match from {
        From::Nothing => None,
        From::First(keys) => first(span, keys),
        From::FirstFilled(keys) => keys
            .iter()
            .find_map(|key| first(span, &[key]).filter(|found| found.text != "{}")),
        From::Indexed(prefix) => indexed_side(span.attributes, prefix),
        From::Function(function) => function(span),
    }
}

/// The first of the keys that says something.
pub(super) fn first(span: &Span<'_>, keys: &[&str]) -> Option<Content> {
    let (key, value) = span.attributes.first(keys)?;
    Some(Content::new(value, vec![key.to_owned()]))
}

fn indexed_side(attributes: &Attributes, prefix: &str) -> Option<Content> {
    if let Some(value) = attributes.get(prefix) {
        return Some(Content::new(value, vec![prefix.to_owned()]));
    }
    let (value, keys) = indexed::rebuild(attributes, prefix, |path| is_message_path(prefix, path))?;
    Some(Content::new(&value, keys))
}
