//! Who may ask next: connections for reads, shared fairly between projects.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Bound;

/// Statements of a project that wait; one more is refused at once.
const WAITING_MAX: usize = 100;
/// Connections that stay free for projects that ask nothing at the moment.
const RESERVED: usize = 2;

/// Hands out turns. A project has half of all at most, and leaves some for others unless it has none;
/// of those that wait, the project with the fewest goes first.
#[derive(Debug)]
pub(super) struct Admission {
    turns: usize,
    wait_max: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    projects: HashMap<Box<str>, Share>,
}

/// What one project has and wants; it is forgotten with its last turn.
#[derive(Debug, Default)]
struct Share {
    running: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// The right to run one statement, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    project: Box<str>,
    admission: Arc<Admission>,
}

impl Admission {
    /// So many turns at once, for which statements wait so long.
    pub(super) fn new(turns: usize, wait_max: Duration) -> Self {
        Self {
            turns,
            wait_max,
            state: Mutex::default(),
        }
    }

    /// Waits for a turn, first come, first served within a project.
    pub(super) async fn turn(self: &Arc<Self>, project: &str) -> Result<Turn, Bound> {
        let turn = {
            let mut state = self.lock();
            let share = state.projects.entry(project.into()).or_default();
            share.waiting.retain(|waiting| !waiting.is_closed());
            if share.waiting.len() >= WAITING_MAX {
                return Err(Bound::Turns);
            }
            let (sender, receiver) = oneshot::channel();
            share.waiting.push_back(sender);
            receiver
        };
        self.go_on();
        match tokio::time::timeout(self.wait_max, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Bound::Turns),
        }
    }

    /// Gives turns to those who wait, as long as there are any that may be given.
    fn go_on(self: &Arc<Self>) {
        // A turn that its receiver gave up meanwhile comes back and is given to the next one; outside of
        // the lock, for it takes the lock itself.
        while let Some((sender, turn)) = self.next() {
            let _ = sender.send(turn);
        }
    }

    fn next(self: &Arc<Self>) -> Option<(oneshot::Sender<Turn>, Turn)> {
        let mut state = self.lock();
        let free = self.turns.saturating_sub(state.running);
        let share_max = (self.turns / 2).max(1);
        let reserved = RESERVED.min(self.turns - share_max);
        let mut best: Option<(usize, &mut Share, &Box<str>)> = None;
        for (project, share) in &mut state.projects {
            share.waiting.retain(|waiting| !waiting.is_closed());
            let needed = if share.running == 0 { 0 } else { reserved };
            let may = !share.waiting.is_empty() && share.running < share_max && free > needed;
            let is_better = best
                .as_ref()
                .is_none_or(|(least, ..)| share.running < *least);
            if may && is_better {
                best = Some((share.running, share, project));
            }
        }
        let (_, share, project) = best?;
        let sender = share.waiting.pop_front()?;
        share.running += 1;
        let turn = Turn {
            project: project.clone(),
            admission: Arc::clone(self),
        };
        state.running += 1;
        Some((sender, turn))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        state.running -= 1;
        if let Some(share) = state.projects.get_mut(&self.project) {
            share.running -= 1;
            share.waiting.retain(|waiting| !waiting.is_closed());
            if share.running == 0 && share.waiting.is_empty() {
                state.projects.remove(&self.project);
            }
        }
        drop(state);
        self.admission.go_on();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_project_has_half_and_another_never_waits_for_it() {
        let admission = Arc::new(Admission::new(8, Duration::MAX));
        let mut busy = Vec::new();
        for _ in 0..4 {
            busy.push(admission.turn("a").now_or_never().unwrap().unwrap());
        }
        let mut fifth = Box::pin(admission.turn("a"));
        assert!(fifth.as_mut().now_or_never().is_none());
        // Who has some leaves two for those who have none.
        let second = [(); 2].map(|()| admission.turn("b").now_or_never().unwrap().unwrap());
        let mut third = Box::pin(admission.turn("b"));
        assert!(third.as_mut().now_or_never().is_none());
        let last = ["c", "d"].map(|name| admission.turn(name).now_or_never().unwrap().unwrap());
        let mut none = Box::pin(admission.turn("e"));
        assert!(none.as_mut().now_or_never().is_none());
        // The first turn that ends is for the project that has none, though others waited longer.
        drop(busy.pop());
        assert!(none.as_mut().now_or_never().is_some());
        assert!(fifth.as_mut().now_or_never().is_none());
        drop((busy, second, last));
        assert!(fifth.now_or_never().unwrap().is_ok());
        assert!(third.now_or_never().unwrap().is_ok());
        drop(none);
        assert!(admission.lock().projects.is_empty());
    }

    #[tokio::test]
    async fn waiting_ends() {
        let admission = Arc::new(Admission::new(1, Duration::from_millis(1)));
        let only = admission.turn("a").await.unwrap();
        assert!(matches!(admission.turn("b").await, Err(Bound::Turns)));
        let mut waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| Box::pin(admission.turn("a")))
            .collect();
        for turn in &mut waiting {
            assert!(turn.as_mut().now_or_never().is_none());
        }
        assert!(admission.turn("a").now_or_never().unwrap().is_err());
        drop(waiting);
        drop(only);
        assert!(admission.turn("b").await.is_ok());
    }
}
