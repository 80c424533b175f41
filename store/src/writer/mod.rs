//! The write path: [`Writer::submit`] resolves when the rows of a batch are committed.
//!
//! Requests queue while a transaction runs; the next transaction takes all that queued (group
//! commit without a timer). The queue is bounded in rows and bytes: a batch that finds no room
//! within [`WriterLimits::admission_wait`] is refused whole. Projects share room and writers fairly.
//!
//! - `room`: admission. `request`: a batch in parts, and its answer. `queue`: who is next.
//! - `flush`: one transaction, from reading to answering.
//! - `combine` → `known` (with `places`) → `changes`: what came, what is stored, what differs.
//! - `roll_up`: sums of traces. `rollup`, `usage`, `durations`, `exact`: what they are. `sums`, `doubts`: those of
//!   large traces.
//! - `document`: what is borrowed until something merges into it.
//! - `encode` → `insert`, `copy`: documents as rows, rows as bytes.
//! - `logs`: log records. `scores`: scores. `sessions`: rows of sessions. `reprice`: stored
//!   observations at new prices. `partitions`: days that rows need.

mod changes;
mod combine;
mod copy;
mod document;
mod doubts;
mod durations;
mod encode;
mod exact;
mod flush;
mod insert;
mod known;
mod logs;
mod partitions;
mod places;
mod queue;
mod reprice;
mod request;
mod roll_up;
mod rollup;
mod room;
mod scores;
mod sessions;
mod sums;
mod usage;

pub use doubts::settle_doubts;
pub use flush::encoded_bytes;
pub(crate) use flush::sum_up_again;
pub use insert::Method;
pub use reprice::reprice;

use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use metrics::counter;
use tokio::task::{AbortHandle, JoinHandle};
use xtrace_model::{Batch, ProjectId};

use flush::Flusher;
use queue::Queue;
use room::Room;

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
    /// Rows of one transaction; larger requests are written in several.
    pub flush_rows_max: usize,
    /// Bytes of one transaction, unless a single row has more.
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

/// Takes batches; clones share the queue.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
}

/// What all clones share; the writers end when it is dropped.
struct Shared {
    store: Store,
    queue: Arc<Queue>,
    room: Arc<Room>,
    limits: WriterLimits,
    tasks: Mutex<Vec<AbortHandle>>,
    panics: Arc<AtomicU64>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// What waits or is being written.
#[derive(Debug, Clone, Copy)]
pub struct QueueState {
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
    /// Names of the items that Postgres can't hold as they are, and of those that were refused with them since
    /// there were too many; all else is committed.
    pub refused: Vec<String>,
}

/// Whether batches are being written.
#[derive(Debug, Clone, Copy)]
pub struct Health {
    /// How long the oldest batch has waited or been written.
    pub age: Duration,
    /// Writers that run.
    pub writers: usize,
    /// Writers that should.
    pub writers_max: usize,
    /// How often one panicked and was started again.
    pub panics: u64,
}

impl Writer {
    /// Starts the writers. They end, with everything written, when all clones are dropped; the
    /// handle tells when.
    pub fn start(store: Store, mut limits: WriterLimits) -> (Self, JoinHandle<()>) {
        limits.writers = limits.writers.max(1);
        let queue = Queue::new(limits);
        let panics = Arc::new(AtomicU64::new(0));
        let writers: Vec<JoinHandle<()>> = (0..limits.writers)
            .map(|number| {
                let writing = run(
                    store.clone(),
                    Arc::clone(&queue),
                    number,
                    Arc::clone(&panics),
                );
                tokio::spawn(writing)
            })
            .collect();
        let shared = Shared {
            store,
            queue,
            room: Room::new(limits),
            limits,
            tasks: Mutex::new(writers.iter().map(JoinHandle::abort_handle).collect()),
            panics,
        };
        let all = tokio::spawn(async move {
            for writer in writers {
                let _ = writer.await;
            }
        });
        let shared = Arc::new(shared);
        (Self { shared }, all)
    }

    /// What waits or is being written now.
    pub fn queue(&self) -> QueueState {
        let (rows, bytes) = self.shared.room.taken();
        QueueState {
            rows,
            bytes,
            age: self.shared.queue.age(),
        }
    }

    /// Whether batches are being written.
    pub fn health(&self) -> Health {
        let tasks = self.shared.tasks.lock();
        let tasks = tasks.unwrap_or_else(PoisonError::into_inner);
        Health {
            age: self.shared.queue.age(),
            writers: tasks.iter().filter(|task| !task.is_finished()).count(),
            writers_max: self.shared.limits.writers,
            panics: self.shared.panics.load(Ordering::Relaxed),
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
        let shared = &self.shared;
        let full = || StoreError::Overloaded {
            retry_after: self.retry_after(),
        };
        if !batch.observations.is_empty() {
            self.read_prices(&batch.project).await?;
        }
        let room = shared.room.claim(&batch).await.ok_or_else(full)?;
        let limits = &shared.limits;
        let lane = lane(&batch, limits.writers);
        // Each part fits in a transaction even while several projects write.
        let rows_max = limits.flush_rows_max / queue::SHARED_PART;
        let bytes_max = limits.flush_bytes_max / queue::SHARED_PART;
        let (parts, answer) = request::parts(batch.into_parts(rows_max, bytes_max), lane, room);
        shared.queue.push(parts);
        answer.await.unwrap_or(Err(StoreError::Unavailable(None)))
    }
}

impl Writer {
    /// Has the prices of a project at hand for its transaction.
    async fn read_prices(&self, project: &ProjectId) -> Result<(), StoreError> {
        const WAIT: Duration = Duration::from_secs(5);
        let store = &self.shared.store;
        let read = tokio::time::timeout(WAIT, store.price_book_over(store.write(), project));
        let silence = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        let read = read
            .await
            .map_err(|_| StoreError::Unavailable(Some(silence().into())))?;
        read.map(|_| ())
    }
}

/// Which lane a batch waits in: parts of one trace that come in several requests mostly meet in one
/// transaction, rather than race each other.
fn lane(batch: &Batch, lanes: usize) -> usize {
    let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
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
    usize::try_from(hasher.digest() % lanes as u64).unwrap_or_default()
}

/// Writes what comes. A panic costs its transaction, whose callers are told to send it again, and nothing else.
async fn run(store: Store, queue: Arc<Queue>, number: usize, panics: Arc<AtomicU64>) {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut flusher = Flusher::new(store.clone());
    while let Some(taken) = queue.next(number).await {
        let writing = AssertUnwindSafe(flusher.flush(taken)).catch_unwind();
        if writing.await.is_err() {
            panics.fetch_add(1, Ordering::Relaxed);
            counter!("xtrace_writer_panics_total").increment(1);
            tracing::error!(number, "a writer panicked and starts again");
            flusher = Flusher::new(store.clone());
            tokio::time::sleep(PAUSE).await;
        }
    }
}
