//! Memory for answers: small ones share a part of it, large ones take turns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Bound;

/// The most bytes of an answer, as its JSON at most has.
pub const ANSWER_BYTES_MAX: usize = 80_000_000;
/// Large answers at once: each may have [`ANSWER_BYTES_MAX`].
pub(super) const LARGE_MAX: u32 = 2;
/// An answer is small up to here,
const SMALL_BYTES_MAX: usize = 4 << 20;
/// as long as there is room for all small ones of its project,
const SMALL_OF_PROJECT_BYTES: usize = 16 << 20;
/// and for all of all projects.
const SMALL_OF_ALL_BYTES: usize = 64 << 20;
const UNIT_BYTES: usize = 4 << 10;

/// What is left for answers.
#[derive(Debug)]
pub(super) struct Memory {
    wait_max: Duration,
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    projects: Mutex<HashMap<Box<str>, Weak<Share>>>,
}

/// What is left for the answers of one project, of which one may be large.
#[derive(Debug)]
pub(super) struct Share {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// The memory of one answer, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    wait_max: Duration,
    share: Arc<Share>,
    all_small: Arc<Semaphore>,
    all_large: Arc<Semaphore>,
    bytes: usize,
    small: Vec<OwnedSemaphorePermit>,
    small_units: usize,
    large: Option<[OwnedSemaphorePermit; 2]>,
}

impl Memory {
    /// Answers wait so long until they may be large.
    pub(super) fn new(wait_max: Duration) -> Self {
        Self {
            wait_max,
            small: Arc::new(Semaphore::new(SMALL_OF_ALL_BYTES / UNIT_BYTES)),
            large: Arc::new(Semaphore::new(LARGE_MAX as usize)),
            projects: Mutex::default(),
        }
    }

    /// An answer to a project, which holds nothing yet.
    pub(super) fn hold(&self, project: &str) -> Held {
        Held {
            wait_max: self.wait_max,
            share: self.share(project),
            all_small: Arc::clone(&self.small),
            all_large: Arc::clone(&self.large),
            bytes: 0,
            small: Vec::new(),
            small_units: 0,
            large: None,
        }
    }

    fn share(&self, project: &str) -> Arc<Share> {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = projects.get(project).and_then(Weak::upgrade) {
            return share;
        }
        projects.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Share {
            small: Arc::new(Semaphore::new(SMALL_OF_PROJECT_BYTES / UNIT_BYTES)),
            large: Arc::new(Semaphore::new(1)),
        });
        projects.insert(project.into(), Arc::downgrade(&share));
        share
    }
}

impl Held {
    /// How large the answer is so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it need not wait for anything any more.
    pub(super) fn is_large(&self) -> bool {
        self.large.is_some()
    }

    /// Makes room for more bytes. What doesn't fit beside other small answers waits until it may be large,
    /// and those that are large wait for nobody: answers never wait for each other in a circle.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), Bound> {
        let grown = self.bytes.saturating_add(bytes);
        if grown > ANSWER_BYTES_MAX {
            return Err(Bound::Bytes);
        }
        if !self.is_large() && !self.fits_as_small(grown) {
            let share = Arc::clone(&self.share);
            let all = Arc::clone(&self.all_large);
            let large = async {
                let of_project = Arc::clone(&share.large).acquire_owned().await.ok()?;
                Some([of_project, all.acquire_owned().await.ok()?])
            };
            let large = tokio::time::timeout(self.wait_max, large).await;
            self.large = Some(large.ok().flatten().ok_or(Bound::Memory)?);
            self.small.clear();
        }
        self.bytes = grown;
        Ok(())
    }

    fn fits_as_small(&mut self, bytes: usize) -> bool {
        let units = bytes.div_ceil(UNIT_BYTES);
        let more = units.saturating_sub(self.small_units);
        if bytes > SMALL_BYTES_MAX {
            return false;
        }
        if more == 0 {
            return true;
        }
        let count = u32::try_from(more).unwrap_or(u32::MAX);
        let take = |room: &Arc<Semaphore>| Arc::clone(room).try_acquire_many_owned(count).ok();
        let taken = take(&self.share.small).and_then(|own| Some([own, take(&self.all_small)?]));
        let Some(taken) = taken else {
            return false;
        };
        self.small.extend(taken);
        self.small_units = units;
        true
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn small_answers_share_and_large_ones_take_turns() {
        let memory = Memory::new(Duration::MAX);
        let mut small: Vec<Held> = (0..4).map(|_| memory.hold("a")).collect();
        for held in &mut small {
            held.grow(SMALL_BYTES_MAX).now_or_never().unwrap().unwrap();
            assert!(!held.is_large());
        }
        // The next small one of the project finds no room and goes as a large one.
        let mut first = memory.hold("a");
        first.grow(1).now_or_never().unwrap().unwrap();
        assert!(first.is_large());
        let mut second = memory.hold("a");
        assert!(second.grow(SMALL_BYTES_MAX + 1).now_or_never().is_none());
        let mut other = memory.hold("b");
        other.grow(50_000_000).now_or_never().unwrap().unwrap();
        drop(first);
        second.grow(50_000_000).now_or_never().unwrap().unwrap();
        assert!(matches!(
            second.grow(50_000_000).now_or_never(),
            Some(Err(Bound::Bytes))
        ));
        let mut third = memory.hold("c");
        third.grow(1000).now_or_never().unwrap().unwrap();
        assert!(third.grow(50_000_000).now_or_never().is_none());
        drop((small, second, other));
        third.grow(50_000_000).now_or_never().unwrap().unwrap();
    }

    #[tokio::test]
    async fn waiting_ends() {
        let memory = Memory::new(Duration::from_millis(1));
        let mut first = memory.hold("a");
        first.grow(ANSWER_BYTES_MAX).await.unwrap();
        let mut second = memory.hold("a");
        assert!(matches!(
            second.grow(ANSWER_BYTES_MAX).await,
            Err(Bound::Memory)
        ));
    }
}
