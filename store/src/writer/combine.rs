//! Many batches as one set of documents: parts of the same trace or observation merge before the
//! database sees them, and every observation's trace is there.

use std::collections::hash_map::{Entry, HashMap};

use xtrace_model::{Batch, Observation, ObservationId, ProjectId, Trace, TraceId};

use super::document::Document;

/// Names a trace.
pub(super) type TraceKey<'a> = (&'a ProjectId, &'a TraceId);

/// One trace with what came of it. Documents that nothing merged into are borrowed from their batch.
pub(super) struct Group<'a> {
    pub(super) project: &'a ProjectId,
    pub(super) id: &'a TraceId,
    pub(super) trace: Document<'a, Trace>,
    /// In order of their ids, each once.
    pub(super) observations: Vec<Document<'a, Observation>>,
}

impl<'a> Group<'a> {
    fn new(key: TraceKey<'a>, trace: Document<'a, Trace>) -> Self {
        Self {
            project: key.0,
            id: key.1,
            trace,
            observations: Vec::new(),
        }
    }

    /// A trace of which nothing came.
    pub(super) fn bare(key: TraceKey<'a>) -> Self {
        Self::new(key, Document::owned(Trace::new(key.1.clone())))
    }

    pub(super) fn key(&self) -> TraceKey<'a> {
        (self.project, self.id)
    }
}

/// The documents of the batches by trace, in order of their keys: the order that writers lock in.
pub(super) fn by_trace<'a>(batches: &[&'a Batch]) -> Vec<Group<'a>> {
    let mut combined = Combined::of(batches);
    for batch in batches {
        for trace in &batch.traces {
            combined.add_trace(&batch.project, trace);
        }
        for observation in &batch.observations {
            combined.add_observation(&batch.project, observation);
        }
    }
    let mut groups = combined.groups;
    groups.sort_unstable_by(|one, other| one.key().cmp(&other.key()));
    for group in &mut groups {
        group
            .observations
            .sort_unstable_by(|one, other| one.id.cmp(&other.id));
    }
    groups
}

struct Combined<'a> {
    groups: Vec<Group<'a>>,
    by_key: HashMap<TraceKey<'a>, usize>,
    /// Where an observation is: its group, and its place there.
    places: HashMap<(usize, &'a ObservationId), usize>,
}

impl<'a> Combined<'a> {
    /// Nothing yet, with room for what mostly comes of the batches.
    fn of(batches: &[&Batch]) -> Self {
        let traces = batches.iter().map(|batch| batch.traces.len()).sum();
        let observations = batches.iter().map(|batch| batch.observations.len()).sum();
        Self {
            groups: Vec::with_capacity(traces),
            by_key: HashMap::with_capacity(traces),
            places: HashMap::with_capacity(observations),
        }
    }

    fn add_trace(&mut self, project: &'a ProjectId, trace: &'a Trace) {
        let key = (project, &trace.id);
        match self.by_key.entry(key) {
            Entry::Occupied(known) => {
                let group = &mut self.groups[*known.get()];
                group.trace.to_mut().merge(trace.clone());
            }
            Entry::Vacant(new) => {
                new.insert(self.groups.len());
                self.groups.push(Group::new(key, Document::Borrowed(trace)));
            }
        }
    }

    fn add_observation(&mut self, project: &'a ProjectId, observation: &'a Observation) {
        let key = (project, &observation.trace_id);
        let at = *self.by_key.entry(key).or_insert_with(|| {
            self.groups.push(Group::bare(key));
            self.groups.len() - 1
        });
        let observations = &mut self.groups[at].observations;
        match self.places.entry((at, &observation.id)) {
            Entry::Occupied(known) => {
                observations[*known.get()]
                    .to_mut()
                    .merge(observation.clone());
            }
            Entry::Vacant(new) => {
                new.insert(observations.len());
                observations.push(Document::Borrowed(observation));
            }
        }
    }
}
