//! The write path: [`Writer::submit`] resolves when the rows of a batch are committed.
//!
//! Requests queue while a transaction runs; the next transaction takes all that queued (group
//! commit without a timer). The queue is bounded in rows and bytes: a batch that finds no room
//! within [`WriterLimits::admission_wait`] is refused whole.
//!
//! - `room`: admission. `flush`: one transaction, from reading to answering.
//! - `combine` → `known` → `changes` (with `rollup`, `durations`): what came, what is stored, what differs.
//! - `encode` → `insert`, `copy`: documents as rows, rows as bytes.
//! - `logs`: log records. `scores`: scores. `reprice`: stored
//!   observations at new prices. `partitions`: days that rows need.

mod changes;
mod combine;
mod copy;
mod durations;
mod encode;
mod flush;
mod insert;
mod known;
mod logs;
mod partitions;
mod reprice;
mod rollup;
mod room;
mod scores;

pub use flush::encoded_bytes;
pub(crate) use flush::sum_up_again;
pub use insert::Method;
pub use reprice::reprice;

use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, histogram};
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
            queue_bytes_max: 128 << 20,
            admission_wait: Duration::from_secs(2),
            flush_rows_max: 5_000,
            flush_bytes_max: 16 << 20,
            writers: 4,
        }
    }
}

const REQUESTS_MAX: usize = 4096;

/// Takes batches; clones share the queues.
#[derive(Clone)]
pub struct Writer {
    queues: Arc<[mpsc::Sender<Request>]>,
    room: Arc<Room>,
    /// When the oldest batch of each writer's present transaction was queued.
    oldest: Arc<[Mutex<Option<Instant>>]>,
}

/// A batch in the queue, with the room that it takes and the caller who waits for it.
struct Request {
    batch: Batch,
    room: Claim,
    committed: oneshot::Sender<Result<Committed, StoreError>>,
    queued: Instant,
}

/// What waits or is being written.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    /// Rows.
    pub rows: usize,
    /// Bytes.
    pub bytes: usize,
    /// How long the oldest batch has been there.
    pub age: Duration,
}

/// What became of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Ids of the traces and observations that Postgres can't hold as they are; all else is committed.
    pub refused: Vec<String>,
}

impl Request {
    fn answer(self, outcome: Result<Committed, StoreError>) {
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
        let oldest: Arc<[_]> = (0..limits.writers).map(|_| Mutex::new(None)).collect();
        let (queues, tasks): (Vec<_>, Vec<_>) = (0..limits.writers)
            .map(|number| {
                let (queue, requests) = mpsc::channel(REQUESTS_MAX);
                let oldest = Arc::clone(&oldest);
                let writing = run(store.clone(), requests, limits, move |since| {
                    *oldest[number]
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner) = since;
                });
                (queue, tokio::spawn(writing))
            })
            .unzip();
        let writer = Self {
            queues: queues.into(),
            room: Room::new(limits),
            oldest,
        };
        let all = tokio::spawn(async move {
            for task in tasks {
                // A writer that panicked has answered its callers by dropping their requests.
                let _ = task.await;
            }
        });
        (writer, all)
    }

    /// What waits or is being written now.
    pub fn queue(&self) -> Queue {
        let (rows, bytes) = self.room.taken();
        let since = |oldest: &Mutex<Option<Instant>>| {
            *oldest.lock().unwrap_or_else(PoisonError::into_inner)
        };
        let age = self
            .oldest
            .iter()
            .filter_map(since)
            .map(|since| since.elapsed())
            .max();
        Queue {
            rows,
            bytes,
            age: age.unwrap_or_default(),
        }
    }

    /// Writes a batch: `Ok` means that all of it is committed but for items that can't be, an error
    /// that none of it was acknowledged. Dropping the future does not take a queued batch back.
    pub async fn submit(&self, mut batch: Batch) -> Result<Committed, StoreError> {
        if batch.rows() == 0 {
            return Ok(Committed::default());
        }
        batch.repair();
        let items = [
            ("traces", batch.traces.len()),
            ("observations", batch.observations.len()),
            ("points", batch.points.len()),
            ("logs", batch.logs.len()),
            ("scores", batch.scores.len()),
        ];
        let outcome = self.queue_and_wait(batch).await;
        match &outcome {
            Ok(committed) => {
                let refused = committed.refused.len() as u64;
                counter!("xtrace_refused_total", "cause" => "value").increment(refused);
                for (signal, count) in items.into_iter().filter(|(_, count)| *count > 0) {
                    counter!("xtrace_accepted_total", "signal" => signal).increment(count as u64);
                }
            }
            Err(error) => counter!("xtrace_refused_total", "cause" => error.name()).increment(1),
        }
        outcome
    }

    /// Longer the longer the queue has been full, and not the same for all who are refused together.
    fn retry_after(&self) -> Duration {
        let jitter = u64::from(chrono::Utc::now().timestamp_subsec_micros()) % 2;
        Duration::from_secs(1 + self.queue().age.as_secs() + jitter)
    }

    async fn queue_and_wait(&self, batch: Batch) -> Result<Committed, StoreError> {
        let full = || StoreError::Overloaded {
            retry_after: self.retry_after(),
        };
        let room = self.room.claim(&batch).await.ok_or_else(full)?;
        let queue = &self.queues[route(&batch, self.queues.len())];
        let (committed, answer) = oneshot::channel();
        let request = Request {
            batch,
            room,
            committed,
            queued: Instant::now(),
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
        point.series.hash(&mut hasher);
    } else if let Some(record) = batch.logs.first() {
        record.id.hash(&mut hasher);
    } else if let Some(score) = batch.scores.first() {
        score.id.hash(&mut hasher);
    }
    usize::try_from(hasher.digest() % writers as u64).unwrap_or_default()
}

/// Writes what comes; `note` hears since when the oldest batch of a transaction has waited.
async fn run(
    store: Store,
    mut queue: mpsc::Receiver<Request>,
    limits: WriterLimits,
    note: impl Fn(Option<Instant>),
) {
    let mut flusher = Flusher::new(store);
    while let Some(first) = queue.recv().await {
        note(Some(first.queued));
        let requests = take_group(first, &mut queue, limits);
        for request in &requests {
            histogram!("xtrace_queue_seconds").record(request.queued.elapsed().as_secs_f64());
        }
        flusher.flush(requests).await;
        note(None);
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
