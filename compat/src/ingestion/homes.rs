//! Updates that came before their observation was created, in a request of its own: they name no trace, so they
//! lie in one of their own id until somebody names it. Looked for after the commit, so that of two requests at
//! once the one that commits last sees what the other wrote.

use std::collections::HashMap;

use xtrace_model::{Batch, ProjectId, TraceId};
use xtrace_store::{StoreError, homeless, observations};

use crate::Compat;

/// Tries again when more of an observation comes while it moves.
const ATTEMPTS: usize = 5;

/// What a batch said of homes.
pub(super) struct Homes {
    pub(super) project: ProjectId,
    /// The trace of each observation that names one.
    pub(super) named: HashMap<String, String>,
    /// Observations that no trace was found for.
    pub(super) unnamed: Vec<String>,
}

impl Homes {
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
