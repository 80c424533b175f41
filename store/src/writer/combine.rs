//! Many batches as one set of documents: parts of the same trace or observation merge before the
//! database sees them, and every observation's trace is there.

use std::collections::{BTreeMap, BTreeSet};

use xtrace_model::register::Extent;
use xtrace_model::{Batch, Observation, ObservationId, ProjectId, Trace, TraceId};

/// Names a trace.
pub(super) type TraceKey = (ProjectId, TraceId);
/// Names an observation.
pub(super) type ObservationKey = (ProjectId, TraceId, ObservationId);

/// Documents by key; sorted, so that writers lock in one order.
#[derive(Default)]
pub(super) struct Documents {
    pub(super) traces: BTreeMap<TraceKey, Trace>,
    pub(super) observations: BTreeMap<ObservationKey, Observation>,
}

impl Documents {
    /// Merges the documents of the batches.
    pub(super) fn of<'a>(batches: impl Iterator<Item = &'a Batch>) -> Self {
        let mut documents = Self::default();
        for batch in batches {
            for trace in &batch.traces {
                documents.add_trace(&batch.project, trace.clone());
            }
            for observation in &batch.observations {
                documents.add_observation(&batch.project, observation.clone());
            }
        }
        documents.add_bare_traces();
        documents
    }

    fn add_trace(&mut self, project: &ProjectId, trace: Trace) {
        let key = (project.clone(), trace.id.clone());
        match self.traces.get_mut(&key) {
            Some(known) => known.merge(trace),
            None => {
                self.traces.insert(key, trace);
            }
        }
    }

    fn add_observation(&mut self, project: &ProjectId, observation: Observation) {
        let key = (
            project.clone(),
            observation.trace_id.clone(),
            observation.id.clone(),
        );
        match self.observations.get_mut(&key) {
            Some(known) => known.merge(observation),
            None => {
                self.observations.insert(key, observation);
            }
        }
    }

    /// Makes the traces that only observations name.
    fn add_bare_traces(&mut self) {
        for (project, trace_id, _) in self.observations.keys() {
            let key = (project.clone(), trace_id.clone());
            self.traces
                .entry(key)
                .or_insert_with(|| Trace::new(trace_id.clone()));
        }
    }

    /// Gives every trace the extent of its observations, which must be merged with what is stored.
    pub(super) fn add_extents(&mut self) {
        for ((project, trace_id, _), observation) in &self.observations {
            if let Some(trace) = self.traces.get_mut(&(project.clone(), trace_id.clone())) {
                trace
                    .extent
                    .merge(Extent::of(observation.begins(), observation.ends()));
            }
        }
    }

    /// Days that the observations begin on.
    pub(super) fn days(&self) -> BTreeSet<i64> {
        self.observations
            .values()
            .map(|o| xtrace_model::time::day_of(o.begins()))
            .collect()
    }
}
