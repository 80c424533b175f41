//! Evaluations as scores (rule L-7): told by log records, by span events, or by attributes of a span.

use xtrace_model::register::RANK_EXPLICIT;
use xtrace_model::score::{ScoreValue, Subject};
use xtrace_model::{Micros, ObservationId, Register, Score, ScoreId, Stamp, TraceId, json, time};
use xxhash_rust::xxh3::Xxh3Default;

use super::attributes::Attributes;
use super::events::SpanEvents;

/// The event that tells an evaluation's result.
pub(super) const EVENT: &str = "gen_ai.evaluation.result";

/// Where one evaluation is told: keys of its name, score, label and explanation.
struct Keys<'a> {
    name: &'a str,
    score: &'a str,
    label: &'a str,
    explanation: &'a str,
}

const GEN_AI: Keys<'_> = Keys {
    name: "gen_ai.evaluation.name",
    score: "gen_ai.evaluation.score.value",
    label: "gen_ai.evaluation.score.label",
    explanation: "gen_ai.evaluation.explanation",
};
/// Prefixes that OpenInference's evaluations have on the span that they judge.
const OPENINFERENCE: [&str; 2] = ["evaluation", "annotation"];

/// What is judged, and when.
#[derive(Clone, Copy)]
pub(super) struct Judged<'a> {
    pub(super) trace: &'a TraceId,
    pub(super) span: Option<&'a ObservationId>,
    /// As it was sent; 0 if it was not.
    pub(super) time_unix_nano: u64,
    /// Stands in for a time that was not sent.
    pub(super) received: Micros,
    pub(super) environment: Option<&'a str>,
}

/// The score that an evaluation event tells, if it has a name and a value.
pub(super) fn of_event(attributes: &Attributes, judged: Judged<'_>) -> Option<Score> {
    score(attributes, &GEN_AI, judged)
}

/// The scores that a span tells of itself, by events and by attributes.
pub(super) fn of_span(
    attributes: &Attributes,
    events: &SpanEvents,
    judged: Judged<'_>,
) -> Vec<Score> {
    let mut scores: Vec<Score> = events
        .timed(EVENT)
        .filter_map(|(time, event)| {
            let time_unix_nano = if time == 0 {
                judged.time_unix_nano
            } else {
                time
            };
            let judged = Judged {
                time_unix_nano,
                ..judged
            };
            of_event(event, judged)
        })
        .collect();
    for prefix in OPENINFERENCE {
        // `evaluation.name`, or `evaluation.0.name` and so on.
        for base in bases(attributes, prefix) {
            let key = |member: &str| format!("{base}.{member}");
            let (name, value) = (key("name"), key("score"));
            let (label, explanation) = (key("label"), key("explanation"));
            let keys = Keys {
                name: &name,
                score: &value,
                label: &label,
                explanation: &explanation,
            };
            scores.extend(score(attributes, &keys, judged));
        }
    }
    scores
}

/// `prefix` itself and its numbered parts, where they have a name.
fn bases(attributes: &Attributes, prefix: &str) -> Vec<String> {
    let dotted = format!("{prefix}.");
    let named = attributes.under(&dotted).filter_map(|(rest, _)| {
        if rest == "name" {
            return Some(prefix.to_owned());
        }
        let number = rest.strip_suffix(".name")?;
        let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        numbered.then(|| format!("{prefix}.{number}"))
    });
    named.collect()
}

fn score(attributes: &Attributes, keys: &Keys<'_>, judged: Judged<'_>) -> Option<Score> {
    let name = attributes.text(keys.name)?;
    let number = attributes.get(keys.score).and_then(number);
    let label = attributes.text(keys.label);
    // With both, the label explains the number.
    let metadata = label.as_ref().filter(|_| number.is_some());
    let metadata = metadata.map(|label| serde_json::json!({ "label": label }));
    let value = number.map(ScoreValue::Numeric).or_else(|| {
        label
            .clone()
            .map(|label| ScoreValue::Categorical(label, 0.0))
    })?;
    let sent = time::from_unix_nanos(judged.time_unix_nano);
    // Evaluations of one name and time are one score, whose versions only their content tells apart.
    let content = attributes.content_hash();
    let stamp = Stamp::latest(RANK_EXPLICIT, sent, 0).of_version(0, content);
    let first = Stamp::earliest(RANK_EXPLICIT, sent, 0).of_version(0, content);
    let mut score = Score::new(id(&name, judged));
    let subject = Subject::Trace {
        trace_id: judged.trace.as_str().to_owned(),
        observation_id: judged.span.map(|span| span.as_str().to_owned()),
    };
    score.subject = Register::new(subject, first);
    let timestamp = if sent == 0 { judged.received } else { sent };
    score.timestamp = Register::new(timestamp, first);
    let environment = judged.environment.map(str::to_owned);
    score.environment.merge(Register::of(environment, first));
    score.name = Register::new(name, stamp);
    score.value = Register::new(value, stamp);
    score.comment = Register::of(attributes.text(keys.explanation), stamp);
    score.metadata = Register::of(
        metadata.map(|value| json::storable(value).to_string()),
        stamp,
    );
    Some(score)
}

fn number(value: &serde_json::Value) -> Option<f64> {
    let number = match value {
        serde_json::Value::Number(number) => number.as_f64(),
        serde_json::Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

/// Of what is judged, so that a repeated evaluation is the same score.
fn id(name: &str, judged: Judged<'_>) -> ScoreId {
    let mut hasher = Xxh3Default::new();
    let span = judged.span.map_or("", ObservationId::as_str);
    for part in [judged.trace.as_str(), span, name] {
        hasher.update(part.as_bytes());
        hasher.update(b"\0");
    }
    hasher.update(&judged.time_unix_nano.to_le_bytes());
    ScoreId::parse(format!("{:032x}", hasher.digest128())).expect("32 hex digits are an id")
}
