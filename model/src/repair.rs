//! The last look at documents before they are queued: whatever intake they came through, and however deep in
//! JSON within JSON a text was found, nothing is left that Postgres refuses and no number that its sums can't
//! bear. It comes before merging, so that a part sent again is still the same part.

use std::borrow::Cow;
use std::collections::BTreeSet;

use memchr::{memchr, memchr2};

use crate::register::Register;
use crate::score::{ScoreValue, Subject};
use crate::text::{unescape_json, without_nul};
use crate::usage::{self, COST_MAX};
use crate::{Batch, LogRecord, Observation, Score, Trace, Tree};

impl Batch {
    /// Brings all documents into a form that can be stored.
    pub fn repair(&mut self) {
        self.traces.iter_mut().for_each(trace);
        self.observations.iter_mut().for_each(observation);
        self.logs.iter_mut().for_each(log);
        self.scores.iter_mut().for_each(score);
    }
}

fn text(text: &mut String) {
    if memchr(0, text.as_bytes()).is_some() {
        *text = without_nul(text).into_owned();
    }
}

fn texts<const N: usize>(registers: [&mut Register<String>; N]) {
    registers
        .into_iter()
        .filter_map(Register::get_mut)
        .for_each(text);
}

/// What may be JSON as its sender wrote it: its characters are found as they are read.
fn payloads<const N: usize>(registers: [&mut Register<String>; N]) {
    registers
        .into_iter()
        .filter_map(Register::get_mut)
        .for_each(payload);
}

fn payload(text: &mut String) {
    // One look is enough for nearly every text; these are most of what is sent.
    if memchr2(0, b'\\', text.as_bytes()).is_none() {
        return;
    }
    if let Cow::Owned(unescaped) = unescape_json(text) {
        *text = unescaped;
    }
    self::text(text);
}

/// Members may be JSON within JSON.
fn metadata(tree: &mut Tree) {
    tree.texts_mut(&mut payload);
}

fn trace(trace: &mut Trace) {
    payloads([&mut trace.input, &mut trace.output]);
    metadata(&mut trace.metadata);
    texts([
        &mut trace.name,
        &mut trace.user_id,
        &mut trace.session_id,
        &mut trace.release,
        &mut trace.version,
        &mut trace.environment,
        &mut trace.external_id,
    ]);
    if trace.tags.iter().any(|tag| tag.contains('\0')) {
        let tags = trace.tags.iter().map(|tag| without_nul(tag).into_owned());
        trace.tags = tags.collect::<BTreeSet<String>>();
    }
    if let Some(cost) = trace.sent_total_cost.get_mut() {
        *cost = cost.clamp(-COST_MAX, COST_MAX);
    }
}

fn observation(observation: &mut Observation) {
    payloads([
        &mut observation.input,
        &mut observation.output,
        &mut observation.model_parameters,
        &mut observation.tool_definitions,
    ]);
    metadata(&mut observation.metadata);
    texts([
        &mut observation.parent_id,
        &mut observation.name,
        &mut observation.status_message,
        &mut observation.version,
        &mut observation.environment,
        &mut observation.model,
        &mut observation.prompt_name,
        &mut observation.experiment,
        &mut observation.otel,
    ]);
    if let Some(usage) = observation.usage.get_mut() {
        usage::bound(usage);
    }
    if let Some(costs) = observation.sent_costs.get_mut() {
        usage::bound_costs(costs);
    }
}

fn log(record: &mut LogRecord) {
    let optional = [&mut record.severity_text, &mut record.event_name];
    optional.into_iter().flatten().for_each(text);
    text(&mut record.rest);
}

fn score(score: &mut Score) {
    texts([
        &mut score.environment,
        &mut score.name,
        &mut score.comment,
        &mut score.metadata,
        &mut score.config_id,
        &mut score.queue_id,
        &mut score.execution_trace_id,
    ]);
    match score.value.get_mut() {
        Some(
            ScoreValue::Categorical(said, _)
            | ScoreValue::Text(said)
            | ScoreValue::Correction(said),
        ) => text(said),
        Some(ScoreValue::Numeric(_) | ScoreValue::Boolean(_)) | None => {}
    }
    match score.subject.get_mut() {
        Some(Subject::Trace {
            trace_id,
            observation_id,
        }) => {
            text(trace_id);
            observation_id.iter_mut().for_each(text);
        }
        Some(Subject::Session(id) | Subject::Run(id)) => text(id),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::{RANK_EXPLICIT, Stamp};
    use crate::usage::{COUNT_MAX, Costs, Usage};
    use crate::{ObservationId, ProjectId, TraceId};
    use serde_json::json;

    #[test]
    fn nothing_is_left_that_postgres_refuses() {
        let stamp = Stamp::latest(RANK_EXPLICIT, 1, 0);
        let id = TraceId::parse("t").unwrap();
        let mut observation = Observation::new(id.clone(), ObservationId::parse("o").unwrap());
        observation.model = Register::new("m\0".to_owned(), stamp);
        observation.input = Register::new("[\"\\u00e9\\n\"]".to_owned(), stamp);
        observation.output = Register::new("\0\\u00e9".to_owned(), stamp);
        observation.metadata = Tree::new(json!({"list": ["\0"]}), stamp);
        let usage = Usage::from([("a\0".to_owned(), i64::MAX), ("b".to_owned(), -1)]);
        observation.usage = Register::new(usage, stamp);
        let costs = Costs::from([("c\0".to_owned(), 1e308), ("d".to_owned(), f64::NAN)]);
        observation.sent_costs = Register::new(costs, stamp);
        let mut trace = Trace::new(id);
        trace.tags.insert("t\0".to_owned());
        trace.sent_total_cost = Register::new(f64::MAX, stamp);
        let mut batch = Batch::new(ProjectId::parse("p").unwrap());
        batch.observations.push(observation);
        batch.traces.push(trace);
        batch.repair();
        let (observation, trace) = (&batch.observations[0], &batch.traces[0]);
        assert_eq!(observation.model.text(), Some("m\u{fffd}"));
        assert_eq!(observation.input.text(), Some("[\"é\\n\"]"));
        assert_eq!(observation.output.text(), Some("\u{fffd}\\u00e9"));
        let metadata = observation.metadata.value();
        assert_eq!(metadata, Some(json!({"list": ["\u{fffd}"]})));
        let usage = Usage::from([("a\u{fffd}".to_owned(), COUNT_MAX), ("b".to_owned(), 0)]);
        assert_eq!(observation.usage.get(), Some(&usage));
        let costs = Costs::from([("c\u{fffd}".to_owned(), COST_MAX), ("d".to_owned(), 0.0)]);
        assert_eq!(observation.sent_costs.get(), Some(&costs));
        assert_eq!(
            trace.tags.iter().collect::<Vec<_>>(),
            [&"t\u{fffd}".to_owned()]
        );
        assert_eq!(trace.sent_total_cost.get(), Some(&COST_MAX));
    }
}
