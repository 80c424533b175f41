//! Admission: the rows and bytes that may wait or be written at a time.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};
use xtrace_model::Batch;

use super::WriterLimits;

/// Rows and bytes that are still free.
pub(super) struct Room {
    rows: Semaphore,
    bytes: Semaphore,
    limits: WriterLimits,
}

/// Rows and bytes that a batch holds until it is written.
pub(super) struct Claim {
    room: Arc<Room>,
    rows: usize,
    bytes: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.room.rows.add_permits(self.rows);
        self.room.bytes.add_permits(self.bytes);
    }
}

impl Room {
    pub(super) fn new(limits: WriterLimits) -> Arc<Self> {
        Arc::new(Self {
            rows: Semaphore::new(limits.queue_rows_max),
            bytes: Semaphore::new(limits.queue_bytes_max),
            limits,
        })
    }

    /// Rows and bytes that are taken.
    pub(super) fn taken(&self) -> (usize, usize) {
        let limits = &self.limits;
        (
            limits
                .queue_rows_max
                .saturating_sub(self.rows.available_permits()),
            limits
                .queue_bytes_max
                .saturating_sub(self.bytes.available_permits()),
        )
    }

    /// Waits for room, as long as the limits allow. A batch larger than the whole queue takes all
    /// of it.
    pub(super) async fn claim(self: &Arc<Self>, batch: &Batch) -> Option<Claim> {
        let wait = self.limits.admission_wait;
        tokio::time::timeout(wait, self.take(batch)).await.ok()
    }

    async fn take(self: &Arc<Self>, batch: &Batch) -> Claim {
        let rows = batch.rows().min(self.limits.queue_rows_max);
        let bytes = batch.bytes.clamp(1, self.limits.queue_bytes_max);
        take(&self.rows, rows).await;
        let mut claim = Claim {
            room: Arc::clone(self),
            rows,
            bytes: 0,
        };
        take(&self.bytes, bytes).await;
        claim.bytes = bytes;
        claim
    }
}

async fn take(semaphore: &Semaphore, permits: usize) {
    let permits = u32::try_from(permits).unwrap_or(u32::MAX);
    // The semaphores are never closed.
    if let Ok(permit) = semaphore.acquire_many(permits).await {
        SemaphorePermit::forget(permit);
    }
}
