//! One budget of memory for all requests: each holds its share from its first byte to its commit.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::BodyError;

/// Bounds of request bodies; clones share the budget.
#[derive(Debug, Clone)]
pub struct BodyLimits {
    /// Bytes of one body, on the wire and decompressed alike.
    pub bytes_max: usize,
    /// What is left of the memory for all requests, in units of [`UNIT_BYTES`].
    budget: Arc<Semaphore>,
}

/// Memory of all requests, from their first byte to their commit.
const BUDGET_BYTES: usize = 96 << 20;
const UNIT_BYTES: usize = 1 << 10;
const BUDGET_UNITS: usize = BUDGET_BYTES / UNIT_BYTES;
/// How long a request waits for its share; exporters have a queue of a few batches only.
const BUDGET_WAIT: Duration = Duration::from_secs(2);

impl BodyLimits {
    /// Bodies of at most so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            budget: Arc::new(Semaphore::new(BUDGET_UNITS)),
        }
    }

    /// Takes a share of the budget; it is given back when the share is dropped.
    pub(super) async fn share(&self, bytes: usize) -> Result<Share, BodyError> {
        let mut share = Share {
            taken: None,
            budget: Arc::clone(&self.budget),
        };
        share.grow_to(bytes).await?;
        Ok(share)
    }
}

/// A share of the memory for requests.
#[derive(Debug)]
pub struct Share {
    taken: Option<OwnedSemaphorePermit>,
    budget: Arc<Semaphore>,
}

impl Share {
    /// Waits until the share is so large. One that would be larger than the budget takes all of it.
    pub async fn grow_to(&mut self, bytes: usize) -> Result<(), BodyError> {
        let wanted = bytes.div_ceil(UNIT_BYTES).min(BUDGET_UNITS);
        let has = self
            .taken
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted <= has {
            return Ok(());
        }
        let units = u32::try_from(wanted - has).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.budget).acquire_many_owned(units);
        let more = tokio::time::timeout(BUDGET_WAIT, more).await;
        let more = more
            .ok()
            .and_then(Result::ok)
            .ok_or(BodyError::Overloaded)?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}
