//! Credentials that open nothing: counted by address and by key, and held back when there are many.
//!
//! An address from which nothing but failures arrives is refused for a while, whatever it presents: guesses
//! learn nothing more. One from which others get in is mostly a proxy: there, right credentials always get
//! in, for a stranger must not lock out those behind the same proxy.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::seldom::Seldom;

/// How long after a success an address counts as one from which others get in.
const SUCCESS_TTL: Duration = Duration::from_mins(10);
/// Addresses, and pairs of an address and a key, that are remembered at most.
const REMEMBERED_MAX: usize = 10_000;

/// What failed lately.
#[derive(Debug, Clone)]
pub(super) struct Attempts {
    /// Failures of one address at once, and how many it may have a second after that.
    of_address: (f64, f64),
    /// The same with one key: guesses at its secret.
    of_key: (f64, f64),
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    addresses: HashMap<IpAddr, Address>,
    /// By address and the hash of the key.
    keys: HashMap<(IpAddr, [u8; 8]), Bucket>,
}

#[derive(Debug)]
struct Address {
    failures: Bucket,
    succeeded: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn new((burst, _): (f64, f64), now: Instant) -> Self {
        Self {
            left: burst,
            at: now,
        }
    }

    fn left(self, (burst, rate): (f64, f64), now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        burst.min(self.left + seconds * rate)
    }

    fn take(&mut self, kind: (f64, f64), now: Instant) {
        // What is below nothing is not counted: a pause ends the same way for all.
        let left = (self.left(kind, now) - 1.0).max(-1.0);
        *self = Self { left, at: now };
    }

    /// How long until one more is let through; none if one is now.
    fn wait(self, kind: (f64, f64), now: Instant) -> Option<Duration> {
        let missing = 1.0 - self.left(kind, now);
        (missing > 0.0).then(|| Duration::from_secs_f64(missing / kind.1))
    }
}

/// What may be done with what an address presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look it up.
    Try,
    /// Look at what is remembered: only a right credential of a known key gets in.
    OnlyKnown(Duration),
    /// Refuse it, for so long.
    Refuse(Duration),
}

impl Attempts {
    /// So many failures a second of one address; 0 sets no limit.
    pub(super) fn new(per_second: u32) -> Self {
        let rate = f64::from(per_second);
        Self {
            of_address: (rate * 10.0, rate),
            of_key: (rate * 2.0, rate / 10.0),
            state: Arc::default(),
        }
    }

    fn is_off(&self) -> bool {
        self.of_address.1 == 0.0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn judge(&self, address: IpAddr, key: &str, now: Instant) -> Verdict {
        if self.is_off() {
            return Verdict::Try;
        }
        let state = self.state();
        let Some(known) = state.addresses.get(&address) else {
            return Verdict::Try;
        };
        let of_address = known.failures.wait(self.of_address, now);
        let of_key = || {
            let of_key = state.keys.get(&(address, short(key)));
            of_key.and_then(|bucket| bucket.wait(self.of_key, now))
        };
        let Some(wait) = of_address.or_else(of_key) else {
            return Verdict::Try;
        };
        let is_shared = known
            .succeeded
            .is_some_and(|at| now.saturating_duration_since(at) < SUCCESS_TTL);
        if is_shared {
            Verdict::OnlyKnown(wait)
        } else {
            Verdict::Refuse(wait)
        }
    }

    pub(super) fn succeeded(&self, address: IpAddr, now: Instant) {
        // An address without failures is not remembered.
        if let Some(known) = self.state().addresses.get_mut(&address) {
            known.succeeded = Some(now);
        }
    }

    pub(super) fn failed(&self, address: IpAddr, key: &str, now: Instant) {
        static LOG: Seldom = Seldom::new();
        let name = short(key);
        if !self.is_off() {
            self.count(address, name, now);
        }
        if let Some(others) = LOG.pass() {
            let key = name.map(|byte| format!("{byte:02x}")).concat();
            tracing::warn!(%address, key_hash = key, others, "credentials that open nothing");
        }
    }

    fn count(&self, address: IpAddr, name: [u8; 8], now: Instant) {
        let mut state = self.state();
        make_room(&mut state.addresses, |known| {
            known.failures.left(self.of_address, now) < self.of_address.0
        });
        make_room(&mut state.keys, |bucket| {
            bucket.left(self.of_key, now) < self.of_key.0
        });
        let of_address = state.addresses.entry(address).or_insert(Address {
            failures: Bucket::new(self.of_address, now),
            succeeded: None,
        });
        of_address.failures.take(self.of_address, now);
        let of_key = state.keys.entry((address, name));
        let of_key = of_key.or_insert(Bucket::new(self.of_key, now));
        of_key.take(self.of_key, now);
    }
}

/// Names a key in memory and in logs, without its text: people paste secrets where names belong.
fn short(key: &str) -> [u8; 8] {
    let hash: [u8; 32] = Sha256::digest(key).into();
    let mut short = [0; 8];
    short.copy_from_slice(&hash[..8]);
    short
}

fn make_room<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, matters: impl Fn(&V) -> bool) {
    if map.len() >= REMEMBERED_MAX {
        map.retain(|_, value| matters(value));
    }
    if map.len() >= REMEMBERED_MAX {
        map.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_held_back_and_a_proxy_is_not_locked_out() {
        let (attempts, now) = (Attempts::new(10), Instant::now());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (guesser, proxy) = (address("10.0.0.1"), address("10.0.0.2"));
        for _ in 0..20 {
            assert_eq!(attempts.judge(guesser, "pk", now), Verdict::Try);
            attempts.failed(guesser, "pk", now);
            attempts.failed(proxy, "pk", now);
            attempts.succeeded(proxy, now);
        }
        let verdict = attempts.judge(guesser, "pk", now);
        assert!(matches!(verdict, Verdict::Refuse(_)), "{verdict:?}");
        let verdict = attempts.judge(proxy, "pk", now);
        assert!(matches!(verdict, Verdict::OnlyKnown(_)), "{verdict:?}");
        assert_eq!(attempts.judge(guesser, "other", now), Verdict::Try);
        assert_eq!(attempts.judge(address("10.0.0.3"), "pk", now), Verdict::Try);
        let later = now + Duration::from_secs(3);
        assert_eq!(attempts.judge(guesser, "pk", later), Verdict::Try);
        for number in 0..200 {
            attempts.failed(guesser, &format!("pk-{number}"), later);
        }
        let verdict = attempts.judge(guesser, "new", later);
        assert!(matches!(verdict, Verdict::Refuse(_)), "{verdict:?}");
    }

    #[test]
    fn memory_is_bounded() {
        let (attempts, now) = (Attempts::new(10), Instant::now());
        let address = "10.0.0.1".parse().unwrap();
        for number in 0..REMEMBERED_MAX * 2 {
            attempts.failed(address, &number.to_string(), now);
        }
        assert!(attempts.state().keys.len() <= REMEMBERED_MAX);
    }
}
