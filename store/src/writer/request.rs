//! A request in the queue, and the parts that it is written in. It is answered once every part is committed or
//! given up, or with the first failure.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;
use xtrace_model::Batch;

use super::Committed;
use super::room::Claim;
use crate::StoreError;

/// Items of one request that are looked for one by one. A sender of more makes mistakes in all, and each
/// costs a dozen transactions: the parts that hold any are refused whole from then on.
const SOUGHT_MAX: usize = 20;
/// Transactions of one request that may be refused before parts are refused whole.
const REFUSALS_MAX: usize = 200;

pub(super) type Answer = Result<Committed, StoreError>;

struct Request {
    progress: Mutex<Progress>,
    queued: Instant,
}

struct Progress {
    /// Parts that are neither committed nor given up.
    left: usize,
    refused: Vec<String>,
    sought: usize,
    refusals: usize,
    /// None once it is answered.
    caller: Option<oneshot::Sender<Answer>>,
    /// None once no part is left.
    room: Option<Claim>,
}

/// Rows of one request that one transaction takes. If it is dropped unfinished, as by a writer that
/// panics, the request fails.
pub(super) struct Part {
    pub(super) batch: Batch,
    /// Which of its project's lanes it waits in.
    pub(super) lane: usize,
    /// Whether a transaction failed that it was in, so that it is to be tried alone.
    pub(super) is_suspect: bool,
    request: Arc<Request>,
    is_done: bool,
}

/// The parts of a request, and where its answer will be.
pub(super) fn parts(
    batches: Vec<Batch>,
    lane: usize,
    room: Claim,
) -> (Vec<Part>, oneshot::Receiver<Answer>) {
    let (caller, answer) = oneshot::channel();
    let progress = Progress {
        left: batches.len(),
        refused: Vec::new(),
        sought: 0,
        refusals: 0,
        caller: Some(caller),
        room: Some(room),
    };
    let request = Arc::new(Request {
        progress: Mutex::new(progress),
        queued: Instant::now(),
    });
    let part = |batch| Part {
        batch,
        lane,
        is_suspect: false,
        request: Arc::clone(&request),
        is_done: false,
    };
    (batches.into_iter().map(part).collect(), answer)
}

impl Request {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn answer(&mut self, answer: Answer) {
        if let Some(caller) = self.caller.take() {
            // A caller that went away doesn't matter: its rows are committed, and sending them again
            // would change nothing.
            let _ = caller.send(answer);
        }
    }

    fn part_is_done(&mut self) {
        self.left -= 1;
        if self.left == 0 {
            // Before the answer, so that who is answered finds the room that it left.
            self.room = None;
            let refused = std::mem::take(&mut self.refused);
            self.answer(Ok(Committed { refused }));
        }
    }
}

impl Part {
    /// When its request was queued.
    pub(super) fn queued(&self) -> Instant {
        self.request.queued
    }

    /// Whether its request has failed, so that nobody waits for it any more.
    pub(super) fn is_over(&self) -> bool {
        self.request.progress().caller.is_none()
    }

    pub(super) fn committed(mut self) {
        self.is_done = true;
        self.request.progress().part_is_done();
    }

    pub(super) fn failed(mut self, error: StoreError) {
        self.fail(error);
    }

    fn fail(&mut self, error: StoreError) {
        self.is_done = true;
        let mut progress = self.request.progress();
        progress.answer(Err(error));
        progress.part_is_done();
    }

    /// Postgres refused it, alone in its transaction: what is still to be tried of it.
    pub(super) fn refused(mut self) -> Vec<Self> {
        let mut progress = self.request.progress();
        progress.refusals += 1;
        let is_sought = progress.sought < SOUGHT_MAX && progress.refusals < REFUSALS_MAX;
        if self.batch.rows() > 1 && is_sought {
            drop(progress);
            return self.into_halves();
        }
        progress.sought += 1;
        progress.refused.extend(self.batch.ids());
        progress.part_is_done();
        drop(progress);
        self.is_done = true;
        Vec::new()
    }

    fn into_halves(mut self) -> Vec<Self> {
        let empty = Batch::new(self.batch.project.clone());
        let halves = std::mem::replace(&mut self.batch, empty).into_halves();
        self.request.progress().left += halves.len();
        let part = |batch| Self {
            batch,
            lane: self.lane,
            is_suspect: true,
            request: Arc::clone(&self.request),
            is_done: false,
        };
        let halves = halves.into_iter().map(part).collect();
        self.request.progress().left -= 1;
        self.is_done = true;
        halves
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_done {
            self.fail(StoreError::Unavailable(None));
        }
    }
}
