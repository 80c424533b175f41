//! How much callers may write over time: buckets that fill at a rate and may be overdrawn once, since the
//! size of a body is known when it has arrived.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::budget::Account;
use crate::limits::Refusal;

/// How much callers may write.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteRates {
    /// Bytes of one project a second, decompressed; 0 sets no limit.
    pub bytes_per_second: u64,
    /// Requests a second of those who present a project's public keys alone; 0 sets no limit.
    pub public_requests_per_second: u32,
}

/// Seconds that a bucket of bytes takes to fill: exporters send in batches.
const BYTES_BURST_SECONDS: f64 = 4.0;
/// The same of a bucket of requests.
const REQUESTS_BURST_SECONDS: f64 = 2.0;
/// Accounts that are remembered; beyond that, those whose buckets are full are forgotten.
const ACCOUNTS_MAX: usize = 10_000;

/// What is left to all callers.
#[derive(Debug)]
pub(super) struct Rates {
    bytes: Buckets,
    requests: Buckets,
}

impl Rates {
    pub(super) fn new(rates: WriteRates) -> Self {
        Self {
            bytes: Buckets::new(rates.bytes_per_second as f64, BYTES_BURST_SECONDS),
            requests: Buckets::new(
                f64::from(rates.public_requests_per_second),
                REQUESTS_BURST_SECONDS,
            ),
        }
    }

    /// Whether the caller may send a body now.
    pub(super) fn admit(&self, account: &Account) -> Result<(), Refusal> {
        let now = Instant::now();
        self.bytes.check(account, now)?;
        if matches!(account, Account::PublicKey(_)) {
            self.requests.check(account, now)?;
            self.requests.charge(account, 1.0, now);
        }
        Ok(())
    }

    /// A body has arrived.
    pub(super) fn charge(&self, account: &Account, bytes: usize) {
        self.bytes.charge(account, bytes as f64, Instant::now());
    }
}

#[derive(Debug)]
struct Buckets {
    per_second: f64,
    burst: f64,
    levels: Mutex<HashMap<Account, (f64, Instant)>>,
}

impl Buckets {
    fn new(per_second: f64, burst_seconds: f64) -> Self {
        Self {
            per_second,
            burst: per_second * burst_seconds,
            levels: Mutex::default(),
        }
    }

    fn level(&self, (level, at): (f64, Instant), now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        self.burst.min(level + seconds * self.per_second)
    }

    fn check(&self, account: &Account, now: Instant) -> Result<(), Refusal> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let level = levels.get(account).map(|known| self.level(*known, now));
        match level {
            Some(level) if level <= 0.0 => Err(Refusal {
                wait: Duration::from_secs_f64(-level / self.per_second),
                limit: self.limit(),
            }),
            _ => Ok(()),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast to a whole number saturates, and the burst is not negative"
    )]
    fn limit(&self) -> u32 {
        self.burst as u32
    }

    fn charge(&self, account: &Account, amount: f64, now: Instant) {
        if self.per_second == 0.0 {
            return;
        }
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if levels.len() >= ACCOUNTS_MAX {
            levels.retain(|_, known| self.level(*known, now) < self.burst);
        }
        let known = levels.get(account).copied().unwrap_or((self.burst, now));
        let level = self.level(known, now) - amount;
        levels.insert(account.clone(), (level, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xtrace_model::ProjectId;

    #[test]
    fn buckets_fill_and_may_be_overdrawn_once() {
        let rates = Rates::new(WriteRates {
            bytes_per_second: 1000,
            public_requests_per_second: 0,
        });
        let account = |name: &str| Account::Project(ProjectId::parse(name).unwrap());
        let (one, other) = (account("one"), account("other"));
        let began = Instant::now();
        rates.bytes.charge(&one, 10_000.0, began);
        let refusal = rates.bytes.check(&one, began).unwrap_err();
        assert_eq!(refusal.wait, Duration::from_secs(6));
        assert!(rates.bytes.check(&other, began).is_ok());
        let later = began + Duration::from_millis(6001);
        assert!(rates.bytes.check(&one, later).is_ok());
    }

    #[test]
    fn public_keys_are_held_to_requests() {
        let rates = Rates::new(WriteRates {
            bytes_per_second: 0,
            public_requests_per_second: 1,
        });
        let project = ProjectId::parse("p").unwrap();
        let public = Account::PublicKey(project.clone());
        let allowed = (0..10).filter(|_| rates.admit(&public).is_ok()).count();
        assert!((2..4).contains(&allowed), "{allowed}");
        assert!(rates.admit(&Account::Project(project)).is_ok());
    }
}
