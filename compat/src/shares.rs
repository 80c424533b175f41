//! Permits that all projects share, of which each may hold a part: one project that takes all of its own leaves
//! those of the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use xtrace_model::ProjectId;

/// So many permits in all, and so many of them for each project.
pub(crate) struct Shares {
    all: Arc<Semaphore>,
    each: usize,
    /// Of projects that hold a permit or wait for one.
    lines: Mutex<HashMap<ProjectId, Arc<Semaphore>>>,
}

/// A permit; dropping it gives it back.
pub(crate) struct Share {
    _of_all: OwnedSemaphorePermit,
    _of_project: OwnedSemaphorePermit,
}

impl Shares {
    pub(crate) fn new(all: usize, each: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            each,
            lines: Mutex::default(),
        }
    }

    fn line(&self, project: &ProjectId) -> Arc<Semaphore> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, line| Arc::strong_count(line) > 1);
        let line = lines
            .entry(project.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        Arc::clone(line)
    }

    /// A permit, if the project and all together have one left.
    pub(crate) fn try_take(&self, project: &ProjectId) -> Option<Share> {
        let of_project = self.line(project).try_acquire_owned().ok()?;
        let of_all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Share {
            _of_all: of_all,
            _of_project: of_project,
        })
    }

    /// A permit as soon as there is one; none after so long. Requests of one project wait in a line of their own,
    /// so nobody stands behind all of them.
    pub(crate) async fn take_within(
        &self,
        project: &ProjectId,
        patience: Duration,
    ) -> Option<Share> {
        let both = async {
            let of_project = self.line(project).acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Share {
                _of_all: of_all,
                _of_project: of_project,
            })
        };
        tokio::time::timeout(patience, both).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_project_leaves_permits_to_others_and_gets_its_own_back() {
        let shares = Shares::new(3, 2);
        let [a, b, c] = ["a", "b", "c"].map(|id| ProjectId::parse(id).unwrap());
        let held = [shares.try_take(&a).unwrap(), shares.try_take(&a).unwrap()];
        assert!(shares.try_take(&a).is_none());
        let other = shares.try_take(&b).unwrap();
        assert!(shares.try_take(&c).is_none());
        drop(held);
        assert!(shares.try_take(&a).is_some());
        drop(other);
        assert!(shares.try_take(&c).is_some());
        assert_eq!(shares.lines.lock().unwrap().len(), 1);
    }
}
