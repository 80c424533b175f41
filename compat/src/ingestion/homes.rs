//! Which trace an observation is of. The one it is stored in stays its trace, whatever a later update names; else
//! the one that its earliest event names. Creations are not looked up: they would cost every batch dearly.
//!
//! Updates that came before their observation was created, in a request of its own, may name none: they lie
//! in a trace of their own id until somebody names it. That is looked for after the commit, so that of two
//! requests at once the one that commits last sees what the other wrote.

use std::collections::{BTreeSet, HashMap, HashSet};

use xtrace_model::{Batch, Micros, ProjectId, TraceId};
use xtrace_store::{StoreError, homeless, observations};

use super::observation::ObservationPart;
use crate::Compat;

/// Tries again when more of an observation comes while it moves.
const ATTEMPTS: usize = 5;

/// The traces of a batch's observations.
pub(super) struct Homes {
    project: ProjectId,
    /// The trace of each observation that has one.
    named: HashMap<String, String>,
    /// Observations that no trace was found for.
    unnamed: Vec<String>,
}

impl Homes {
    /// Looks for what is stored, and else takes what the parts say.
    pub(super) async fn of(
        compat: &Compat,
        project: &ProjectId,
        parts: &[ObservationPart],
    ) -> Result<Self, StoreError> {
        let mut homes = Self {
            project: project.clone(),
            named: earliest_named(parts),
            unnamed: Vec::new(),
        };
        let creations = parts.iter().filter(|part| !part.is_update());
        let created: HashSet<&str> = creations.map(|part| part.id.as_str()).collect();
        let is_asked = |part: &&ObservationPart| {
            let is_named = homes.named.contains_key(&part.id);
            !is_named || part.is_update() && !created.contains(part.id.as_str())
        };
        let asked: BTreeSet<String> = (parts.iter().filter(is_asked))
            .map(|part| part.id.clone())
            .collect();
        let asked: Vec<String> = asked.into_iter().collect();
        let mut stored: HashMap<String, Vec<String>> = HashMap::new();
        for (id, trace) in observations::traces_of(&compat.store, project, &asked).await? {
            stored.entry(id).or_default().push(trace);
        }
        for (id, mut traces) in stored {
            if let Some(named) = homes.named.get(&id) {
                // What lies in a trace of its own id may be waiting for a home.
                traces.retain(|trace| *trace != id);
                if traces.contains(named) {
                    continue;
                }
            }
            if let Some(trace) = traces.pop() {
                homes.named.insert(id, trace);
            }
        }
        homes.unnamed = asked;
        homes.unnamed.retain(|id| !homes.named.contains_key(id));
        Ok(homes)
    }

    /// The trace of an observation.
    pub(super) fn trace_of(&self, part: &ObservationPart) -> String {
        self.named.get(&part.id).unwrap_or(&part.id).clone()
    }

    /// Moves observations whose trace is known by now.
    pub(super) async fn settle(mut self, compat: &Compat) -> Result<(), StoreError> {
        if !self.unnamed.is_empty() {
            let found =
                observations::traces_of(&compat.store, &self.project, &self.unnamed).await?;
            self.named
                .extend(found.into_iter().filter(|(id, trace)| id != trace));
        }
        self.named.retain(|id, trace| id != trace);
        let ids: Vec<String> = self.named.keys().cloned().collect();
        if ids.is_empty() {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let mut is_done = true;
            for found in homeless::find(&compat.store, &self.project, &ids).await? {
                let trace = self.named.get(found.document.id.as_str());
                let Some(trace) = trace.and_then(|trace| TraceId::parse(trace.as_str()).ok())
                else {
                    continue;
                };
                let mut batch = Batch::new(self.project.clone());
                let mut moved = found.document.clone();
                moved.trace_id = trace.clone();
                batch.bytes = 3000;
                batch.traces.push(xtrace_model::Trace::new(trace));
                batch.observations.push(moved);
                compat.writer.submit(batch).await?;
                is_done &= homeless::remove(&compat.store, &self.project, &found).await?;
            }
            if is_done {
                break;
            }
        }
        Ok(())
    }
}

/// The trace that the earliest event of each observation names, if one does.
fn earliest_named(parts: &[ObservationPart]) -> HashMap<String, String> {
    let mut found: HashMap<&str, (Micros, &str)> = HashMap::new();
    for part in parts {
        let Some(trace) = &part.trace_id else {
            continue;
        };
        let named = (part.told(), trace.as_str());
        let known = found.entry(&part.id).or_insert(named);
        if named.0 < known.0 {
            *known = named;
        }
    }
    let owned = |(id, (_, trace)): (&str, (Micros, &str))| (id.to_owned(), trace.to_owned());
    found.into_iter().map(owned).collect()
}
