//! How long a peer may keep us waiting: credit that waiting uses up and that bytes give back.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How slow a peer may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// How long it may do nothing at all.
    pub(crate) grace: Duration,
    /// What it must do in the long run.
    pub(crate) bytes_per_second: u32,
}

/// How a peer does at sending a body or at taking an answer.
#[derive(Debug)]
pub(crate) struct Pace {
    allowance: Allowance,
    credit: Duration,
    since: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(allowance: Allowance) -> Self {
        Self {
            allowance,
            credit: allowance.grace,
            since: None,
        }
    }

    /// From now on the peer is waited for, unless it was before.
    pub(crate) fn wait(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// The peer did something: it is not waited for any more.
    pub(crate) fn progress(&mut self, now: Instant, bytes: usize) {
        let waited = self.since.take().map(|since| now - since);
        let earned = bytes as f64 / f64::from(self.allowance.bytes_per_second);
        // Credit is never more than the grace: who was quick for long may not stop for long.
        let credit = self.credit.saturating_sub(waited.unwrap_or_default())
            + Duration::from_secs_f64(earned);
        self.credit = credit.min(self.allowance.grace);
    }

    /// When its credit is used up; none while nobody waits for it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + self.credit)
    }
}

/// Wakes its task at a deadline that may move.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether the deadline is over; if not, the task is woken then, or earlier.
    pub(crate) fn rings(&mut self, deadline: Option<Instant>, context: &mut Context<'_>) -> bool {
        let Some(deadline) = deadline else {
            return false;
        };
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        // Deadlines mostly move on: moving the timer each time would cost more than an early wake-up.
        while sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return true;
            }
            sleep.as_mut().reset(deadline);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance {
        grace: Duration::from_secs(10),
        bytes_per_second: 1000,
    };

    #[test]
    fn credit_is_used_up_by_waiting_and_given_back_by_bytes() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let mut pace = Pace::new(ALLOWANCE);
        assert_eq!(pace.deadline(), None);
        pace.wait(at(0));
        pace.wait(at(5));
        assert_eq!(pace.deadline(), Some(at(10)));
        pace.progress(at(6), 2000);
        assert_eq!(pace.deadline(), None);
        pace.wait(at(6));
        assert_eq!(pace.deadline(), Some(at(12)));
        // However much came at once, a stop is as long as the grace.
        pace.progress(at(7), 1_000_000);
        pace.wait(at(7));
        assert_eq!(pace.deadline(), Some(at(17)));
        // A byte now and then buys no time.
        for second in 8..17 {
            pace.progress(at(second), 1);
            pace.wait(at(second));
        }
        let deadline = pace.deadline().unwrap();
        assert!(deadline > at(17) && deadline < at(18));
    }
}
