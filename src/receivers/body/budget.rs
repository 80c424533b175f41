//! One budget of memory for all requests, taken as bytes arrive and shared between projects.
//!
//! Two pools: what is being read, and what is being decoded, mapped and written. In each, one account may
//! hold at most twice of what is left to all others, so that a project that takes all it can still leaves
//! a fifth to the next one, and a small request passes while a large one waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use xtrace_model::ProjectId;

use super::BodyError;
use super::rates::{Rates, WriteRates};

/// Bytes of bodies that are being read, of all requests.
const READING_BYTES: usize = 96 << 20;
/// Memory of requests that were read, until they are answered, by estimate.
const WORKING_BYTES: usize = 96 << 20;
/// What a public key alone may hold of each: it stands in web pages.
const PUBLIC_KEY_BYTES: usize = 8 << 20;
/// The largest body of a public key alone: it sends scores.
const PUBLIC_KEY_BODY_BYTES: usize = 1 << 20;
/// How long a request waits for its share; exporters have a queue of a few batches only.
const WAIT: Duration = Duration::from_secs(2);

/// Bounds of request bodies; clones share the budget.
#[derive(Debug, Clone)]
pub struct BodyLimits {
    bytes_max: usize,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Budget {
    reading: Arc<Pool>,
    working: Arc<Pool>,
    rates: Rates,
    /// Requests that are larger than an account's part of the pool, one at a time.
    giants: Arc<Semaphore>,
}

/// Whose share it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Account {
    /// Of a caller who may read or write the project.
    Project(ProjectId),
    /// Of all who present the project's public keys alone. They take nothing from the project's own share.
    PublicKey(ProjectId),
}

impl BodyLimits {
    /// Bodies of at most so many bytes, on the wire and decompressed alike, and so many of them.
    pub fn new(bytes_max: usize, rates: WriteRates) -> Self {
        Self {
            bytes_max,
            budget: Arc::new(Budget {
                reading: Arc::new(Pool::new(READING_BYTES)),
                working: Arc::new(Pool::new(WORKING_BYTES)),
                rates: Rates::new(rates),
                giants: Arc::new(Semaphore::new(1)),
            }),
        }
    }

    /// What one caller may take.
    pub fn of(&self, account: Account) -> Quota {
        let is_public = matches!(account, Account::PublicKey(_));
        Quota {
            bytes_max: if is_public {
                self.bytes_max.min(PUBLIC_KEY_BODY_BYTES)
            } else {
                self.bytes_max
            },
            held_max: if is_public {
                PUBLIC_KEY_BYTES
            } else {
                usize::MAX
            },
            account,
            budget: Arc::clone(&self.budget),
        }
    }
}

/// What one caller may take of the memory for all.
#[derive(Debug, Clone)]
pub struct Quota {
    /// Bytes of one body, on the wire and decompressed alike.
    pub bytes_max: usize,
    held_max: usize,
    account: Account,
    budget: Arc<Budget>,
}

impl Quota {
    fn hold(&self, pool: &Arc<Pool>) -> Held {
        Held {
            pool: Arc::clone(pool),
            account: self.account.clone(),
            held_max: self.held_max.min(pool.of_one_max()),
            bytes: 0,
        }
    }

    /// Whether the caller may send a body now.
    pub(super) fn admit(&self) -> Result<(), BodyError> {
        let admitted = self.budget.rates.admit(&self.account);
        admitted.map_err(BodyError::TooMuch)
    }

    /// A body has arrived, of so many bytes once it was decompressed.
    pub(super) fn charge(&self, bytes: usize) {
        self.budget.rates.charge(&self.account, bytes);
    }

    /// Room for a body that is to be read.
    pub(super) fn reading(&self) -> Held {
        self.hold(&self.budget.reading)
    }

    /// Room for what becomes of a body.
    pub(super) fn share(&self) -> Share {
        Share {
            held: self.hold(&self.budget.working),
            giant: None,
            giants: Arc::clone(&self.budget.giants),
        }
    }
}

/// Bytes of memory, and who holds them.
#[derive(Debug)]
struct Pool {
    bytes: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    free: usize,
    accounts: HashMap<Account, Holder>,
}

#[derive(Debug)]
struct Holder {
    bytes: usize,
    /// Lets one giant of the account wait among those of others.
    giants: Option<Arc<Semaphore>>,
}

impl Pool {
    fn new(bytes: usize) -> Self {
        let state = State {
            free: bytes,
            ..State::default()
        };
        Self {
            bytes,
            state: Mutex::new(state),
            freed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one account can hold while there is no other.
    fn of_one_max(&self) -> usize {
        self.bytes / 3 * 2
    }

    fn take(&self, held: &Held, more: usize) -> bool {
        let mut state = self.state();
        let has = state.accounts.get(&held.account).map_or(0, |of| of.bytes);
        let Some(left) = state.free.checked_sub(more) else {
            return false;
        };
        if has + more > held.held_max.min(left * 2) {
            return false;
        }
        state.free = left;
        state.holder(&held.account).bytes += more;
        true
    }

    fn give_back(&self, account: &Account, bytes: usize) {
        let mut state = self.state();
        state.free += bytes;
        state.holder(account).bytes -= bytes;
        state.forget(account);
        drop(state);
        self.freed.notify_waiters();
    }
}

impl State {
    fn holder(&mut self, account: &Account) -> &mut Holder {
        self.accounts
            .entry(account.clone())
            .or_insert_with(|| Holder {
                bytes: 0,
                giants: None,
            })
    }

    /// Forgets an account that holds nothing.
    fn forget(&mut self, account: &Account) {
        let is_used = |giants: &Arc<Semaphore>| Arc::strong_count(giants) > 1;
        let is_idle = self
            .accounts
            .get(account)
            .is_some_and(|of| of.bytes == 0 && !of.giants.as_ref().is_some_and(is_used));
        if is_idle {
            self.accounts.remove(account);
        }
    }
}

/// A part of a pool; it is given back when this is dropped.
#[derive(Debug)]
pub struct Held {
    pool: Arc<Pool>,
    account: Account,
    held_max: usize,
    bytes: usize,
}

impl Held {
    /// Waits until it is so large. One that would be larger than an account's part takes all of that.
    pub(super) async fn grow_to(&mut self, bytes: usize) -> Result<(), BodyError> {
        if self.grows_to(bytes) {
            return Ok(());
        }
        let pool = Arc::clone(&self.pool);
        let wait = async {
            loop {
                let mut freed = std::pin::pin!(pool.freed.notified());
                freed.as_mut().enable();
                if self.grows_to(bytes) {
                    return;
                }
                freed.await;
            }
        };
        let outcome = tokio::time::timeout(WAIT, wait).await;
        outcome.map_err(|_| BodyError::Overloaded)
    }

    /// Whether it is so large now.
    fn grows_to(&mut self, bytes: usize) -> bool {
        let wanted = bytes.min(self.held_max);
        if wanted <= self.bytes {
            return true;
        }
        let is_taken = self.pool.take(self, wanted - self.bytes);
        if is_taken {
            self.bytes = wanted;
        }
        is_taken
    }

    fn give_back(&mut self) {
        if self.bytes > 0 {
            let bytes = std::mem::take(&mut self.bytes);
            self.pool.give_back(&self.account, bytes);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A request's share of the memory for those that were read.
#[derive(Debug)]
pub struct Share {
    held: Held,
    giant: Option<[OwnedSemaphorePermit; 2]>,
    giants: Arc<Semaphore>,
}

impl Share {
    /// Waits until the share is so large. A giant, larger than what an account may hold, waits for its turn
    /// among giants instead: there is memory for one of them beside the pools.
    pub async fn grow_to(&mut self, bytes: usize) -> Result<(), BodyError> {
        if self.giant.is_some() {
            return Ok(());
        }
        if bytes <= self.held.held_max {
            return self.held.grow_to(bytes).await;
        }
        let turn = tokio::time::timeout(WAIT, self.turn()).await;
        let turn = turn.ok().flatten().ok_or(BodyError::Overloaded)?;
        self.giant = Some(turn);
        self.held.give_back();
        Ok(())
    }

    /// First among those of the account, then among accounts: nobody's giants come in a row while others
    /// wait.
    async fn turn(&self) -> Option<[OwnedSemaphorePermit; 2]> {
        let own = {
            let mut state = self.held.pool.state();
            let giants = &mut state.holder(&self.held.account).giants;
            Arc::clone(giants.get_or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        let own = own.acquire_owned().await.ok()?;
        let among_all = Arc::clone(&self.giants).acquire_owned().await.ok()?;
        Some([own, among_all])
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.giant = None;
        self.held.give_back();
        self.held.pool.state().forget(&self.held.account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> Account {
        Account::Project(ProjectId::parse(name).unwrap())
    }

    fn hog(limits: &BodyLimits, name: &str) -> Vec<Held> {
        let part = || {
            let mut part = limits.of(account(name)).reading();
            part.grows_to(1 << 20).then_some(part)
        };
        std::iter::from_fn(part).collect()
    }

    #[test]
    fn accounts_that_take_all_they_can_leave_room_for_others() {
        let limits = BodyLimits::new(64 << 20, WriteRates::default());
        let hogs = ["a", "b", "c", "d", "e"].map(|name| hog(&limits, name));
        assert_eq!(hogs[0].len(), 64);
        let mut small = limits.of(account("small")).reading();
        assert!(small.grows_to(64 << 10));
        drop((hogs, small));
        let state = limits.budget.reading.state();
        assert_eq!((state.free, state.accounts.len()), (READING_BYTES, 0));
    }

    #[test]
    fn public_keys_take_nothing_from_their_project() {
        let limits = BodyLimits::new(64 << 20, WriteRates::default());
        let quota = limits.of(Account::PublicKey(ProjectId::parse("p").unwrap()));
        assert_eq!(quota.bytes_max, PUBLIC_KEY_BODY_BYTES);
        let mut public = quota.reading();
        assert!(public.grows_to(PUBLIC_KEY_BYTES));
        assert!(!quota.reading().grows_to(1));
        assert!(limits.of(account("p")).reading().grows_to(40 << 20));
    }

    #[tokio::test]
    async fn who_waits_gets_what_is_given_back() {
        let limits = BodyLimits::new(64 << 20, WriteRates::default());
        let mut parts = hog(&limits, "a");
        let mut waiting = limits.of(account("a")).reading();
        let give = async {
            tokio::task::yield_now().await;
            parts.clear();
        };
        let (outcome, ()) = tokio::join!(waiting.grow_to(64 << 20), give);
        outcome.unwrap();
    }

    #[tokio::test]
    async fn giants_take_turns_between_accounts() {
        let limits = BodyLimits::new(64 << 20, WriteRates::default());
        let share = |name: &str| limits.of(account(name)).share();
        let (mut first, mut second, mut other) = (share("a"), share("a"), share("b"));
        first.grow_to(320 << 20).await.unwrap();
        // Nothing of the pool is taken by a giant.
        let mut small = share("a");
        small.grow_to(1 << 20).await.unwrap();
        let (refused, also) = tokio::join!(second.grow_to(320 << 20), other.grow_to(320 << 20));
        assert_eq!(
            (refused, also),
            (Err(BodyError::Overloaded), Err(BodyError::Overloaded))
        );
        let mut waiting = share("a");
        let later = async {
            tokio::join!(waiting.grow_to(320 << 20), async {
                other.grow_to(320 << 20).await.unwrap();
                drop(other);
            })
        };
        let begin = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        let ((outcome, ()), ()) = tokio::join!(later, begin);
        outcome.unwrap();
        drop((second, small, waiting));
        assert!(limits.budget.working.state().accounts.is_empty());
    }
}
