//! The write path: [`Writer::submit`] resolves when the rows of a batch are committed.
//!
//! Requests queue while a transaction runs; the next transaction takes all that queued (group
//! commit without a timer). The queue is bounded in rows and bytes: a batch that finds no room
//! within [`WriterLimits::admission_wait`] is refused whole.
//!
//! - `room`: admission. `flush`: one transaction, from reading to answering.
//! - `combine` → `known` → `changes` (with `rollup`): what came, what is stored, what differs.
//! - `encode` → `insert`, `copy`: documents as rows, rows as bytes.
//! - `points`: metric points. `partitions`: days that rows need.

mod changes;
mod combine;
mod copy;
mod encode;
mod flush;
mod insert;
mod known;
mod partitions;
mod points;
mod rollup;
mod room;

pub use insert::Method;

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use xtrace_model::Batch;

use flush::Flusher;
use room::{Claim, Room};

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
    /// Transactions that run at a time.
    pub writers: usize,
}

impl Default for WriterLimits {
    fn default() -> Self {
        Self {
            queue_rows_max: 400_000,
            queue_bytes_max: 192 << 20,
            admission_wait: Duration::from_secs(2),
            flush_rows_max: 5_000,
            flush_bytes_max: 16 << 20,
            writers: 2,
        }
    }
}

/// What a full queue asks its callers to wait.
const RETRY_AFTER: Duration = Duration::from_secs(2);
const REQUESTS_MAX: usize = 4096;

/// Takes batches; clones share the queues.
#[derive(Clone)]
pub struct Writer {
    queues: Arc<[mpsc::Sender<Request>]>,
    room: Arc<Room>,
}

/// A batch in the queue, with the room that it takes and the caller who waits for it.
struct Request {
    batch: Batch,
    room: Claim,
    committed: oneshot::Sender<Result<(), StoreError>>,
}

impl Request {
    fn answer(self, outcome: Result<(), StoreError>) {
        drop(self.room);
        // A caller that went away doesn't matter: its rows are committed, and sending them again
        // would change nothing.
        let _ = self.committed.send(outcome);
    }
}

impl Writer {
    /// Starts the writers. They end, with everything written, when all clones are dropped; the
    /// handle tells when.
    pub fn start(store: Store, limits: WriterLimits) -> (Self, JoinHandle<()>) {
        let (queues, tasks): (Vec<_>, Vec<_>) = (0..limits.writers)
            .map(|_| {
                let (queue, requests) = mpsc::channel(REQUESTS_MAX);
                (queue, tokio::spawn(run(store.clone(), requests, limits)))
            })
            .unzip();
        let writer = Self {
            queues: queues.into(),
            room: Room::new(limits),
        };
        let all = tokio::spawn(async move {
            for task in tasks {
                // A writer that panicked has answered its callers by dropping their requests.
                let _ = task.await;
            }
        });
        (writer, all)
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
        let room = self.room.claim(&batch).await.ok_or_else(full)?;
        let queue = &self.queues[route(&batch, self.queues.len())];
        let (committed, answer) = oneshot::channel();
        let request = Request {
            batch,
            room,
            committed,
        };
        queue.try_send(request).map_err(|_| full())?;
        answer.await.unwrap_or(Err(StoreError::Unavailable(None)))
    }
}

/// Which writer takes a batch: parts of one trace that come in several requests mostly meet in one
/// transaction, rather than race each other.
fn route(batch: &Batch, writers: usize) -> usize {
    let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
    batch.project.hash(&mut hasher);
    if let Some(observation) = batch.observations.first() {
        observation.trace_id.hash(&mut hasher);
    } else if let Some(trace) = batch.traces.first() {
        trace.id.hash(&mut hasher);
    } else if let Some(point) = batch.points.first() {
        point.series.id(&batch.project).hash(&mut hasher);
    }
    usize::try_from(hasher.digest() % writers as u64).unwrap_or_default()
}

async fn run(store: Store, mut queue: mpsc::Receiver<Request>, limits: WriterLimits) {
    let mut flusher = Flusher::new(store);
    while let Some(first) = queue.recv().await {
        let requests = take_group(first, &mut queue, limits);
        flusher.flush(requests).await;
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
