//! Admission: the rows and bytes that may wait or be written at a time, and each project's share of them.
//!
//! A project may take as much as is still free: alone half of the room, one of three a quarter. So there
//! is always room for one that comes new, however many others fill theirs.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use xtrace_model::{Batch, ProjectId};

use super::WriterLimits;

/// No batch counts for less: there are texts, channels and answers beside its rows.
const BYTES_MIN: usize = 4 << 10;
/// No batch counts for more than this part of the room, or one that is large would never fit beside others.
const PART_MAX: usize = 4;

/// Rows and bytes, taken or free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amount {
    rows: usize,
    bytes: usize,
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            bytes: self.bytes + other.bytes,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(other.rows),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    fn is_within(self, other: Self) -> bool {
        self.rows <= other.rows && self.bytes <= other.bytes
    }
}

pub(super) struct Room {
    state: Mutex<State>,
    limits: WriterLimits,
}

struct State {
    all: Amount,
    taken: Amount,
    projects: HashMap<ProjectId, Share>,
}

/// What one project has taken, and who waits for more, the first first.
#[derive(Default)]
struct Share {
    taken: Amount,
    waiting: VecDeque<(Amount, oneshot::Sender<Claim>)>,
}

/// Rows and bytes that a batch holds until it is written.
pub(super) struct Claim {
    room: Arc<Room>,
    project: ProjectId,
    amount: Amount,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let granted = self.room.release(&self.project, self.amount);
        for (claim, waiting) in granted {
            // Who has given up drops the claim, which releases it.
            let _ = waiting.send(claim);
        }
    }
}

impl State {
    fn take(&mut self, project: &ProjectId, amount: Amount) -> bool {
        let free = self.all.minus(self.taken);
        let share = self.projects.entry(project.clone()).or_default();
        let fits = share.taken.plus(amount).is_within(free);
        if fits {
            share.taken = share.taken.plus(amount);
            self.taken = self.taken.plus(amount);
        }
        fits
    }

    fn give_back(&mut self, project: &ProjectId, amount: Amount) {
        self.taken = self.taken.minus(amount);
        if let Some(share) = self.projects.get_mut(project) {
            share.taken = share.taken.minus(amount);
        }
    }

    /// The first of a project who waits and now fits, which has taken its amount then.
    fn next(&mut self, project: &ProjectId) -> Option<(Amount, oneshot::Sender<Claim>)> {
        loop {
            let share = self.projects.get_mut(project)?;
            let (amount, waiting) = share.waiting.pop_front()?;
            if waiting.is_closed() {
                continue;
            }
            if self.take(project, amount) {
                return Some((amount, waiting));
            }
            let share = self.projects.get_mut(project)?;
            share.waiting.push_front((amount, waiting));
            return None;
        }
    }
}

impl Room {
    pub(super) fn new(limits: WriterLimits) -> Arc<Self> {
        let all = Amount {
            rows: limits.queue_rows_max,
            bytes: limits.queue_bytes_max,
        };
        let state = State {
            all,
            taken: Amount::default(),
            projects: HashMap::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            limits,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows and bytes that are taken.
    pub(super) fn taken(&self) -> (usize, usize) {
        let taken = self.state().taken;
        (taken.rows, taken.bytes)
    }

    /// Waits for room, as long as the limits allow.
    pub(super) async fn claim(self: &Arc<Self>, batch: &Batch) -> Option<Claim> {
        let limits = &self.limits;
        let bytes_max = (limits.queue_bytes_max / PART_MAX).max(1);
        let amount = Amount {
            rows: batch.rows().min((limits.queue_rows_max / PART_MAX).max(1)),
            bytes: batch.bytes.max(BYTES_MIN).min(bytes_max),
        };
        let receiver = match self.take_or_wait(&batch.project, amount) {
            Ok(claim) => return Some(claim),
            Err(receiver) => receiver,
        };
        let granted = tokio::time::timeout(limits.admission_wait, receiver).await;
        granted.ok()?.ok()
    }

    fn take_or_wait(
        self: &Arc<Self>,
        project: &ProjectId,
        amount: Amount,
    ) -> Result<Claim, oneshot::Receiver<Claim>> {
        let mut state = self.state();
        let share = state.projects.entry(project.clone()).or_default();
        share.waiting.retain(|(_, waiting)| !waiting.is_closed());
        if share.waiting.is_empty() && state.take(project, amount) {
            drop(state);
            return Ok(self.claim_of(project, amount));
        }
        let (sender, receiver) = oneshot::channel();
        let share = state.projects.entry(project.clone()).or_default();
        share.waiting.push_back((amount, sender));
        Err(receiver)
    }

    fn claim_of(self: &Arc<Self>, project: &ProjectId, amount: Amount) -> Claim {
        Claim {
            room: Arc::clone(self),
            project: project.clone(),
            amount,
        }
    }

    /// Gives back what was taken; who may have it now. Projects take turns.
    fn release(
        self: &Arc<Self>,
        project: &ProjectId,
        amount: Amount,
    ) -> Vec<(Claim, oneshot::Sender<Claim>)> {
        let mut state = self.state();
        state.give_back(project, amount);
        state.projects.retain(|_, share| {
            share.waiting.retain(|(_, waiting)| !waiting.is_closed());
            share.taken != Amount::default() || !share.waiting.is_empty()
        });
        let waiting = |share: &Share| !share.waiting.is_empty();
        let mut projects: Vec<ProjectId> = (state.projects.iter())
            .filter(|(_, share)| waiting(share))
            .map(|(project, _)| project.clone())
            .collect();
        let mut granted = Vec::new();
        while !projects.is_empty() {
            projects.retain(|project| match state.next(project) {
                Some((amount, waiting)) => {
                    granted.push((self.claim_of(project, amount), waiting));
                    true
                }
                None => false,
            });
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn room() -> Arc<Room> {
        Room::new(WriterLimits {
            queue_rows_max: 1200,
            queue_bytes_max: 1200 << 20,
            admission_wait: Duration::from_mins(5),
            ..WriterLimits::default()
        })
    }

    /// A hundred rows of 100 MiB.
    fn batch(project: &str) -> Batch {
        let mut batch = Batch::new(ProjectId::parse(project).unwrap());
        let id = xtrace_model::TraceId::parse("t").unwrap();
        batch.traces = vec![xtrace_model::Trace::new(id); 100];
        batch.bytes = 100 << 20;
        batch
    }

    fn take(room: &Arc<Room>, project: &str) -> Result<Claim, oneshot::Receiver<Claim>> {
        let batch = batch(project);
        let amount = Amount {
            rows: batch.rows(),
            bytes: batch.bytes,
        };
        room.take_or_wait(&batch.project, amount)
    }

    /// Takes until it would have to wait; the claims, and the one who waits.
    fn fill(room: &Arc<Room>, project: &str) -> (Vec<Claim>, oneshot::Receiver<Claim>) {
        let mut claims = Vec::new();
        loop {
            match take(room, project) {
                Ok(claim) => claims.push(claim),
                Err(waiting) => return (claims, waiting),
            }
        }
    }

    #[test]
    fn there_is_always_room_for_one_more_project() {
        let room = room();
        let filled: Vec<_> = ["a", "b", "c", "d"]
            .map(|project| fill(&room, project))
            .into();
        let counts: Vec<usize> = filled.iter().map(|(claims, _)| claims.len()).collect();
        assert_eq!(counts[0], 6, "half of the room: {counts:?}");
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        drop(filled);
        assert_eq!(room.taken(), (0, 0));
        assert!(room.state().projects.is_empty());
    }

    #[tokio::test]
    async fn room_that_is_left_goes_to_who_waits() {
        let room = room();
        let (mut claims, waiting) = fill(&room, "a");
        // Who has given up keeps nobody waiting, and takes nothing.
        let gone = take(&room, "a");
        drop(gone);
        let last = take(&room, "a").err().unwrap();
        claims.truncate(4);
        let first = waiting.await.unwrap();
        let second = last.await.unwrap();
        assert_eq!(room.taken().0, 600);
        drop((first, second, claims));
        assert_eq!(room.taken(), (0, 0));
    }

    #[tokio::test]
    async fn a_claim_that_nobody_takes_is_released() {
        let room = room();
        let (claims, waiting) = fill(&room, "a");
        drop(claims);
        drop(waiting);
        assert_eq!(room.taken(), (0, 0));
        assert!(room.claim(&batch("b")).await.is_some());
        assert_eq!(room.taken(), (0, 0));
    }
}
