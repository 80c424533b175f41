//! Log lines that a caller could cause without end, at a bounded rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// Lets one line pass every ten seconds, and counts the others.
#[derive(Debug)]
pub(crate) struct Seldom {
    last: Mutex<Option<Instant>>,
    held_back: AtomicU64,
}

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self {
            last: Mutex::new(None),
            held_back: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written now; how many were not since the last one.
    pub(crate) fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now - last < PAUSE) {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *last = Some(now);
        Some(self.held_back.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_and_the_others_are_counted() {
        let seldom = Seldom::new();
        assert_eq!(seldom.pass(), Some(0));
        assert_eq!((seldom.pass(), seldom.pass()), (None, None));
        assert_eq!(seldom.held_back.load(Ordering::Relaxed), 2);
    }
}
