//! Whose turn it is: how many questions one project may have at once.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use xtrace_model::ProjectId;

use crate::StoreError;

/// When to ask again after waiting in vain.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What takes turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Turn {
    /// A question, before it takes a connection.
    Question,
    /// A question that computes on a thread of its own.
    Thread,
}

impl Turn {
    /// How many a project has at once.
    fn permits(self) -> usize {
        match self {
            Self::Question => 3,
            Self::Thread => 2,
        }
    }
}

/// The permits of a project, which are kept as long as somebody holds or waits for one.
fn of(project: &ProjectId, turn: Turn) -> Arc<Semaphore> {
    type Turns = HashMap<(ProjectId, Turn), Weak<Semaphore>>;
    static TURNS: LazyLock<Mutex<Turns>> = LazyLock::new(Mutex::default);
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (project.clone(), turn);
    if let Some(known) = turns.get(&key).and_then(Weak::upgrade) {
        return known;
    }
    turns.retain(|_, known| known.strong_count() > 0);
    let new = Arc::new(Semaphore::new(turn.permits()));
    turns.insert(key, Arc::downgrade(&new));
    new
}

/// Waits for a project's turn.
pub(super) async fn wait(
    project: &ProjectId,
    turn: Turn,
    deadline: Instant,
) -> Result<OwnedSemaphorePermit, StoreError> {
    let waited = tokio::time::timeout_at(deadline.into(), of(project, turn).acquire_owned()).await;
    let busy = || StoreError::Busy {
        retry_after: RETRY_AFTER,
    };
    // They are never closed.
    waited.map_err(|_| busy())?.map_err(|_| busy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_have_turns_of_their_own() {
        let [one, other] = ["turns-a", "turns-b"].map(|id| ProjectId::parse(id).unwrap());
        let take = |project: &ProjectId| of(project, Turn::Thread).try_acquire_owned();
        let held = [take(&one).unwrap(), take(&one).unwrap()];
        assert!(take(&one).is_err());
        assert!(take(&other).is_ok());
        assert!(of(&one, Turn::Question).try_acquire_owned().is_ok());
        drop(held);
        assert!(take(&one).is_ok());
    }
}
