//! What waits, and who is next: each free writer takes the parts of one transaction.
//!
//! Parts of a project wait in lanes by their trace, and one writer at a time works on a lane: parts of one
//! trace mostly meet in one transaction rather than race each other. Projects take turns. While only one
//! writes, its transactions are as large as the limits allow and all writers work for it. While several do,
//! transactions are smaller, and one writer at least works for others than the busiest project: nobody
//! waits longer than for one small transaction.
//!
//! What may have made a transaction fail is tried alone, at its project's turn, and a project of which
//! something was refused lately shares no transaction and has one writer at a time.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use xtrace_model::ProjectId;

use super::WriterLimits;
use super::request::Part;

/// How long a project counts as one that writes, and as one of which something was refused.
const MEMORY: Duration = Duration::from_secs(10);
/// While several projects write, a transaction has this part of the rows and bytes that it may have else.
pub(super) const SHARED_PART: usize = 4;

pub(super) struct Queue {
    state: Mutex<State>,
    /// Something may be taken that could not be before.
    changed: Notify,
    limits: WriterLimits,
}

struct State {
    projects: HashMap<ProjectId, Lanes>,
    /// Every project of which something waits, in the order of their turns.
    turns: VecDeque<ProjectId>,
    /// By writer: when the oldest part of its transaction was queued.
    writing: Vec<Option<Instant>>,
    is_closed: bool,
    tidied: Instant,
}

/// What waits of one project, and what is being written.
struct Lanes {
    waiting: Vec<VecDeque<Part>>,
    is_written: Vec<bool>,
    /// The lane that is looked at first.
    next: usize,
    written_at: Instant,
    refused_at: Option<Instant>,
}

/// One lane of a project.
type Lane = (ProjectId, usize);

/// Parts of one transaction; what they were taken from is free again when this is dropped.
pub(super) struct Taken {
    parts: Vec<Part>,
    lanes: Vec<Lane>,
    writer: usize,
    queue: Arc<Queue>,
}

/// A transaction that is being put together.
struct Group {
    parts: Vec<Part>,
    rows_left: usize,
    bytes_left: usize,
}

impl Lanes {
    fn new(count: usize) -> Self {
        Self {
            waiting: (0..count).map(|_| VecDeque::new()).collect(),
            is_written: vec![false; count],
            next: 0,
            written_at: Instant::now(),
            refused_at: None,
        }
    }

    fn writers(&self) -> usize {
        self.is_written.iter().filter(|is| **is).count()
    }

    fn is_waiting(&self) -> bool {
        self.waiting.iter().any(|lane| !lane.is_empty())
    }

    fn was_refused(&self) -> bool {
        self.refused_at.is_some_and(|at| at.elapsed() < MEMORY)
    }

    fn is_remembered(&self) -> bool {
        self.is_waiting() || self.writers() > 0 || self.written_at.elapsed() < MEMORY
    }

    /// A lane that something waits in and nobody works on.
    fn free_lane(&mut self) -> Option<usize> {
        let count = self.waiting.len();
        let mut lanes = (0..count).map(|offset| (self.next + offset) % count);
        let lane = lanes.find(|lane| !self.is_written[*lane] && !self.waiting[*lane].is_empty())?;
        self.next = (lane + 1) % count;
        Some(lane)
    }
}

impl Group {
    fn has_room_for(&self, part: &Part) -> bool {
        let fits = part.batch.rows() <= self.rows_left && part.batch.bytes <= self.bytes_left;
        self.parts.is_empty() || (fits && !part.is_suspect)
    }

    /// Whether nothing more comes in.
    fn is_done(&self) -> bool {
        let is_full = self.rows_left == 0 || self.bytes_left == 0;
        is_full && !self.parts.is_empty()
    }

    fn push(&mut self, part: Part) {
        self.rows_left = self.rows_left.saturating_sub(part.batch.rows());
        self.bytes_left = self.bytes_left.saturating_sub(part.batch.bytes);
        if part.is_suspect {
            self.close();
        }
        self.parts.push(part);
    }

    /// Lets nothing more in.
    fn close(&mut self) {
        self.rows_left = 0;
    }

    /// Takes what fits of a lane; whether that is anything.
    fn fill(&mut self, lane: &mut VecDeque<Part>, rows_max: usize) -> bool {
        let (before, mut rows) = (self.parts.len(), 0);
        while rows < rows_max && !self.is_done() {
            let Some(part) = lane.pop_front() else { break };
            if part.is_over() {
                continue;
            }
            if !self.has_room_for(&part) {
                lane.push_front(part);
                break;
            }
            rows += part.batch.rows();
            self.push(part);
        }
        self.parts.len() > before
    }
}

impl State {
    fn lanes(&mut self, project: &ProjectId, count: usize) -> &mut Lanes {
        if !self.projects.contains_key(project) {
            self.projects.insert(project.clone(), Lanes::new(count));
        }
        self.projects.get_mut(project).expect("it was put there")
    }

    /// The next transaction, if anything can be written now.
    fn take(&mut self, limits: &WriterLimits) -> Option<(Vec<Part>, Vec<Lane>)> {
        self.tidy();
        let is_shared = self.projects.len() > 1;
        let part = if is_shared { SHARED_PART } else { 1 };
        let rows_max = (limits.flush_rows_max / part).max(1);
        let mut group = Group {
            parts: Vec::new(),
            rows_left: rows_max,
            bytes_left: (limits.flush_bytes_max / part).max(1),
        };
        let mut taken = Vec::new();
        for _ in 0..self.turns.len() {
            let Some(project) = self.turns.pop_front() else {
                break;
            };
            let Some(lanes) = self.projects.get_mut(&project) else {
                continue;
            };
            let is_alone = lanes.was_refused();
            let writers_max = match (is_alone, is_shared) {
                (true, _) => 1,
                (false, true) => (limits.writers - 1).max(1),
                (false, false) => limits.writers,
            };
            let may_join = group.parts.is_empty() || !is_alone;
            // Who joins the transaction of another must not make it much longer.
            let rows_max = if group.parts.is_empty() {
                rows_max
            } else {
                (rows_max / SHARED_PART).max(1)
            };
            if may_join
                && lanes.writers() < writers_max
                && let Some(lane) = lanes.free_lane()
                && group.fill(&mut lanes.waiting[lane], rows_max)
            {
                lanes.is_written[lane] = true;
                lanes.written_at = Instant::now();
                taken.push((project.clone(), lane));
                if is_alone {
                    group.close();
                }
            }
            if lanes.is_waiting() {
                self.turns.push_back(project);
            }
            if group.is_done() {
                break;
            }
        }
        (!group.parts.is_empty()).then_some((group.parts, taken))
    }

    /// Forgets projects that don't write any more.
    fn tidy(&mut self) {
        const PAUSE: Duration = Duration::from_secs(1);
        if self.tidied.elapsed() > PAUSE {
            self.tidied = Instant::now();
            self.projects.retain(|_, lanes| lanes.is_remembered());
        }
    }
}

impl Queue {
    pub(super) fn new(limits: WriterLimits) -> Arc<Self> {
        let state = State {
            projects: HashMap::new(),
            turns: VecDeque::new(),
            writing: vec![None; limits.writers],
            is_closed: false,
            tidied: Instant::now(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            limits,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds parts, of one request, behind what waits in their lane.
    pub(super) fn push(&self, parts: Vec<Part>) {
        let mut state = self.state();
        for part in parts {
            self.add(&mut state, part, VecDeque::push_back);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Adds parts before what waits in their lanes, in this order.
    fn put_back(&self, parts: Vec<Part>) {
        let mut state = self.state();
        for part in parts.into_iter().rev() {
            self.add(&mut state, part, VecDeque::push_front);
        }
    }

    fn add(&self, state: &mut State, part: Part, put: impl Fn(&mut VecDeque<Part>, Part)) {
        let (project, lane) = (part.batch.project.clone(), part.lane);
        let lanes = state.lanes(&project, self.limits.writers);
        let was_waiting = lanes.is_waiting();
        lanes.written_at = Instant::now();
        put(&mut lanes.waiting[lane], part);
        if !was_waiting {
            state.turns.push_back(project);
        }
    }

    /// Waits for the next transaction of a writer; none once the queue is closed and empty.
    pub(super) async fn next(self: &Arc<Self>, writer: usize) -> Option<Taken> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if let Some((parts, lanes)) = state.take(&self.limits) {
                    state.writing[writer] = parts.iter().map(Part::queued).min();
                    let is_more = !state.turns.is_empty();
                    drop(state);
                    if is_more {
                        self.changed.notify_one();
                    }
                    return Some(Taken {
                        parts,
                        lanes,
                        writer,
                        queue: Arc::clone(self),
                    });
                }
                if state.is_closed && state.turns.is_empty() {
                    drop(state);
                    self.changed.notify_waiters();
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Lets writers end once everything is written.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_waiters();
    }

    /// How long the oldest part has been there.
    pub(super) fn age(&self) -> Duration {
        let state = self.state();
        let lanes = state.projects.values().flat_map(|lanes| &lanes.waiting);
        let waiting = lanes.filter_map(|lane| lane.front().map(Part::queued));
        let writing = state.writing.iter().copied().flatten();
        let oldest = waiting.chain(writing).min();
        oldest.map(|since| since.elapsed()).unwrap_or_default()
    }
}

impl Taken {
    /// The parts, which the transaction is of.
    pub(super) fn parts(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }

    /// Has parts of a transaction that failed tried alone.
    pub(super) fn try_alone(&self, mut parts: Vec<Part>) {
        for part in &mut parts {
            part.is_suspect = true;
        }
        self.queue.put_back(parts);
    }

    /// Gives up a part that was refused alone, or has what is sound of it looked for.
    pub(super) fn refuse(&self, part: Part) {
        let project = part.batch.project.clone();
        {
            let mut state = self.queue.state();
            let lanes = state.lanes(&project, self.queue.limits.writers);
            lanes.refused_at = Some(Instant::now());
        }
        self.queue.put_back(part.refused());
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.writing[self.writer] = None;
        for (project, lane) in &self.lanes {
            if let Some(lanes) = state.projects.get_mut(project) {
                lanes.is_written[*lane] = false;
            }
        }
        drop(state);
        self.queue.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::request;
    use super::super::room::Room;
    use super::*;
    use xtrace_model::{Batch, Trace, TraceId};

    const LIMITS: WriterLimits = WriterLimits {
        queue_rows_max: 1_000_000,
        queue_bytes_max: 1 << 40,
        admission_wait: Duration::from_secs(2),
        flush_rows_max: 400,
        flush_bytes_max: 1 << 30,
        writers: 4,
    };

    /// Queues requests of so many rows, one in each lane by turns; nobody waits for their answers.
    async fn push(queue: &Queue, project: &str, requests: usize, rows: usize) {
        let room = Room::new(LIMITS);
        for number in 0..requests {
            let mut batch = Batch::new(ProjectId::parse(project).unwrap());
            let id = TraceId::parse("t").unwrap();
            batch.traces = vec![Trace::new(id); rows];
            let claim = room.claim(&batch).await.unwrap();
            let (parts, _) = request::parts(vec![batch], number % LIMITS.writers, claim);
            queue.push(parts);
        }
    }

    fn take(queue: &Arc<Queue>) -> Option<Taken> {
        let (parts, lanes) = queue.state().take(&LIMITS)?;
        Some(Taken {
            parts,
            lanes,
            writer: 0,
            queue: Arc::clone(queue),
        })
    }

    fn rows(taken: &Taken, project: &str) -> usize {
        let parts = taken.parts.iter();
        let of_project = parts.filter(|part| part.batch.project.as_str() == project);
        of_project.map(|part| part.batch.rows()).sum()
    }

    #[tokio::test]
    async fn one_project_has_all_writers_and_whole_transactions() {
        let queue = Queue::new(LIMITS);
        push(&queue, "a", 40, 100).await;
        let taken: Vec<Taken> = std::iter::from_fn(|| take(&queue)).collect();
        assert_eq!(taken.len(), 4);
        assert!(taken.iter().all(|taken| rows(taken, "a") == 400));
    }

    #[tokio::test]
    async fn a_lane_has_one_writer_and_its_order() {
        let queue = Queue::new(LIMITS);
        push(&queue, "a", 1, 100).await;
        let first = take(&queue).unwrap();
        push(&queue, "a", 1, 7).await;
        assert!(take(&queue).is_none(), "its lane is being written");
        drop(first);
        assert_eq!(rows(&take(&queue).unwrap(), "a"), 7);
    }

    #[tokio::test]
    async fn a_writer_is_left_for_others_and_nobody_waits_behind_a_long_queue() {
        let queue = Queue::new(LIMITS);
        push(&queue, "a", 400, 100).await;
        push(&queue, "b", 1, 1).await;
        let taken: Vec<Taken> = std::iter::from_fn(|| take(&queue)).collect();
        let busy = taken.iter().filter(|taken| rows(taken, "a") > 0).count();
        assert_eq!(busy, 3);
        assert!(taken.iter().any(|taken| rows(taken, "b") == 1));
        let most = taken.iter().map(|taken| rows(taken, "a")).max().unwrap();
        assert!(most <= 100, "{most} rows in one transaction");
        drop(taken);
        // Two writers busy with a: b's next comes at once, whatever waits.
        let busy = [take(&queue).unwrap(), take(&queue).unwrap()];
        push(&queue, "b", 1, 1).await;
        let next: Vec<Taken> = std::iter::from_fn(|| take(&queue)).collect();
        assert!(next.iter().any(|taken| rows(taken, "b") == 1));
        drop(busy);
    }

    #[tokio::test]
    async fn many_small_projects_share_a_transaction() {
        let queue = Queue::new(LIMITS);
        for number in 0..10 {
            push(&queue, &format!("p{number}"), 1, 5).await;
        }
        assert_eq!(take(&queue).unwrap().parts.len(), 10);
    }

    #[tokio::test]
    async fn suspects_are_alone_and_refused_projects_apart() {
        let queue = Queue::new(LIMITS);
        push(&queue, "a", 8, 2).await;
        push(&queue, "b", 1, 1).await;
        let mut failed = take(&queue).unwrap();
        let parts = failed.parts();
        assert!(parts.len() > 1);
        let count = parts.len();
        failed.try_alone(parts);
        drop(failed);
        let mut alone = 0;
        // All that failed are tried, each alone, whatever else waits.
        while let Some(mut taken) = take(&queue) {
            let parts = taken.parts();
            if parts[0].is_suspect {
                assert_eq!(parts.len(), 1);
                alone += 1;
            }
            for part in parts {
                if part.batch.project.as_str() == "a" && part.is_suspect {
                    taken.refuse(part);
                } else {
                    part.committed();
                }
            }
            if alone >= count {
                break;
            }
        }
        assert!(alone >= count);
        // Of a something was refused: one writer at a time, and nobody else's rows with it.
        push(&queue, "a", 40, 1).await;
        push(&queue, "b", 4, 1).await;
        let taken: Vec<Taken> = std::iter::from_fn(|| take(&queue)).collect();
        let of_a: Vec<&Taken> = taken.iter().filter(|one| rows(one, "a") > 0).collect();
        assert_eq!(of_a.len(), 1);
        assert_eq!(rows(of_a[0], "b"), 0);
    }

    #[tokio::test]
    async fn writers_end_once_all_is_taken() {
        let queue = Queue::new(LIMITS);
        push(&queue, "a", 1, 1).await;
        queue.close();
        assert!(queue.next(0).await.is_some());
        assert!(queue.next(1).await.is_none());
    }
}
