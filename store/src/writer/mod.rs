//! The write path: [`Writer::submit`] resolves when the rows of a batch are committed.
//!
//! Requests queue while a transaction runs; the next transaction takes all that queued (group
//! commit without a timer). The queue is bounded in rows and bytes: a batch that finds no room
//! within [`WriterLimits::admission_wait`] is refused whole.

mod combine;
mod copy;
mod flush;
mod insert;
mod points;
mod rows;

pub(crate) use insert::Method;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;
use xtrace_model::Batch;

use crate::{Store, StoreError};

/// Bounds of the write queue.
#[derive(Debug, Clone, Copy)]
pub struct WriterLimits {
    /// Rows that may wait or be written at a time.
    pub queue_rows_max: usize,
    /// Bytes that these rows may hold.
    pub queue_bytes_max: usize,
    /// How long a batch waits for room.
    pub admission_wait: Duration,
    /// Rows of one transaction, unless a single request has more.
    pub flush_rows_max: usize,
    /// Bytes of one transaction, unless a single request has more.
    pub flush_bytes_max: usize,
}

impl Default for WriterLimits {
    fn default() -> Self {
        Self {
            queue_rows_max: 400_000,
            queue_bytes_max: 192 << 20,
            admission_wait: Duration::from_secs(2),
            flush_rows_max: 5_000,
            flush_bytes_max: 16 << 20,
        }
    }
}

/// What a full queue asks its callers to wait.
const RETRY_AFTER: Duration = Duration::from_secs(2);
const REQUESTS_MAX: usize = 4096;

/// Takes batches; clones share one queue.
#[derive(Clone)]
pub struct Writer {
    requests: mpsc::Sender<Request>,
    room: Arc<Room>,
}

/// A batch in the queue, with the room that it takes and the caller who waits for it.
struct Request {
    batch: Batch,
    room: Claim,
    committed: oneshot::Sender<Result<(), StoreError>>,
}

/// Rows and bytes that are still free.
struct Room {
    rows: Semaphore,
    bytes: Semaphore,
    limits: WriterLimits,
}

/// Rows and bytes that a batch holds until it is written.
struct Claim {
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

impl Writer {
    /// Starts the writer. It ends, with everything written, when all clones are dropped; the
    /// handle tells when.
    pub fn start(store: Store, limits: WriterLimits) -> (Self, JoinHandle<()>) {
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let room = Arc::new(Room {
            rows: Semaphore::new(limits.queue_rows_max),
            bytes: Semaphore::new(limits.queue_bytes_max),
            limits,
        });
        let task = tokio::spawn(run(store, queue, limits));
        (Self { requests, room }, task)
    }

    /// Writes a batch: `Ok` means that all of it is committed, an error that none of it was
    /// acknowledged. Dropping the future does not take a queued batch back.
    pub async fn submit(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.rows() == 0 {
            return Ok(());
        }
        let full = || StoreError::Overloaded {
            retry_after: RETRY_AFTER,
        };
        let wait = self.room.limits.admission_wait;
        let claim = tokio::time::timeout(wait, self.claim(&batch))
            .await
            .map_err(|_| full())?;
        let (committed, answer) = oneshot::channel();
        let request = Request {
            batch,
            room: claim,
            committed,
        };
        self.requests.try_send(request).map_err(|_| full())?;
        answer.await.unwrap_or(Err(StoreError::Unavailable(None)))
    }

    /// Waits for room. A batch larger than the whole queue takes all of it.
    async fn claim(&self, batch: &Batch) -> Claim {
        let limits = &self.room.limits;
        let rows = batch.rows().min(limits.queue_rows_max);
        let bytes = batch.bytes.clamp(1, limits.queue_bytes_max);
        take(&self.room.rows, rows).await;
        let mut claim = Claim {
            room: Arc::clone(&self.room),
            rows,
            bytes: 0,
        };
        take(&self.room.bytes, bytes).await;
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

async fn run(store: Store, mut queue: mpsc::Receiver<Request>, limits: WriterLimits) {
    let mut series = points::KnownSeries::default();
    while let Some(first) = queue.recv().await {
        let requests = take_group(first, &mut queue, limits);
        flush::group(&store, &mut series, requests).await;
    }
}

/// The request that came first and those that already wait behind it, up to the limits.
fn take_group(
    first: Request,
    queue: &mut mpsc::Receiver<Request>,
    limits: WriterLimits,
) -> Vec<Request> {
    let (mut rows, mut bytes) = (first.batch.rows(), first.batch.bytes);
    let mut group = vec![first];
    while rows < limits.flush_rows_max && bytes < limits.flush_bytes_max {
        let Ok(next) = queue.try_recv() else { break };
        rows += next.batch.rows();
        bytes += next.batch.bytes;
        group.push(next);
    }
    group
}
