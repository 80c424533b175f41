//! Keys that were looked up, and names that are none: what is known without asking the database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use xtrace_model::{AuthFailure, ProjectId};
use xtrace_store::keys::{self, ApiKey};
use xtrace_store::{Store, StoreError, projects};

use crate::seldom::Seldom;

/// How long an answer of the database is taken for granted: a revoked key opens nothing after that.
const TTL: Duration = Duration::from_secs(1);
/// How long a key opens its project while the database does not answer. A key that is revoked meanwhile
/// by another process opens it for as long.
const OUTAGE_TTL: Duration = Duration::from_mins(1);
/// Keys that are remembered at most, and as many names that are none.
const KEYS_MAX: usize = 10_000;
/// Look-ups that run or wait at once: there are two connections for them.
const LOOKUPS_MAX: usize = 64;

/// What the database knows, as of a moment ago.
#[derive(Clone)]
pub(super) struct KnownKeys {
    store: Store,
    remembered: Arc<Mutex<Remembered>>,
    lookups: Arc<Semaphore>,
}

/// By the hash of a public key: names that are none may be of any length.
type Name = [u8; 32];

#[derive(Default)]
struct Remembered {
    changes: u64,
    keys: HashMap<Name, (Instant, ApiKey)>,
    absent: HashMap<Name, Instant>,
    /// When it was last asked whether the default project is open, and what was answered.
    is_open: Option<(Instant, bool)>,
}

/// What is remembered of a public key.
pub(super) enum Memory {
    /// The key, or that there is none, as the database said within a second.
    Fresh(Option<ApiKey>),
    /// The key, as the database said within a minute.
    Old(ApiKey),
    Nothing,
}

impl KnownKeys {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            remembered: Arc::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A key that this process ended opens nothing, even if the database goes away now.
        let changes = self.store.key_changes();
        if remembered.changes != changes {
            *remembered = Remembered {
                changes,
                ..Remembered::default()
            };
        }
        remembered
    }

    /// What is known of a public key without asking.
    pub(super) fn recall(&self, public: &str) -> Memory {
        let name = name_of(public);
        let remembered = self.remembered();
        if let Some((since, key)) = remembered.keys.get(&name) {
            let age = since.elapsed();
            if age < TTL {
                return Memory::Fresh(Some(key.clone()));
            }
            if age < OUTAGE_TTL {
                return Memory::Old(key.clone());
            }
        }
        match remembered.absent.get(&name) {
            Some(since) if since.elapsed() < TTL => Memory::Fresh(None),
            _ => Memory::Nothing,
        }
    }

    /// Asks the database, and falls back to what it said before.
    pub(super) async fn look_up(
        &self,
        public: &str,
        old: Option<ApiKey>,
    ) -> Result<Option<ApiKey>, AuthFailure> {
        // U+0000 is no part of any key, and Postgres would refuse to compare it.
        if public.contains('\0') {
            return Ok(None);
        }
        let changes = self.store.key_changes();
        match self.ask(public).await {
            Ok(key) => {
                self.remember(public, key.as_ref(), changes);
                Ok(key)
            }
            Err(error) => {
                static LOG: Seldom = Seldom::new();
                if let Some(others) = LOG.pass() {
                    let from_memory = old.is_some();
                    tracing::warn!(
                        cause = error.for_log(),
                        others,
                        from_memory,
                        "credentials can't be looked up"
                    );
                }
                old.map(Some).ok_or(AuthFailure::Unavailable)
            }
        }
    }

    /// Whether the default project is there and not being deleted. The token that opens it needs no database to be
    /// known by, so that one which does not answer changes nothing: writers ask again, in their transactions.
    pub(super) async fn is_open(&self, project: &ProjectId) -> bool {
        let known = {
            let mut remembered = self.remembered();
            let (asked, known) = remembered.is_open.unzip();
            if asked.is_some_and(|asked| asked.elapsed() < TTL) {
                return known.unwrap_or(true);
            }
            // One request in a second asks; those beside it take the last answer.
            remembered.is_open = Some((Instant::now(), known.unwrap_or(true)));
            known.unwrap_or(true)
        };
        let changes = self.store.key_changes();
        let Ok(is_open) = projects::is_open(&self.store, project).await else {
            return known;
        };
        let mut remembered = self.remembered();
        if remembered.changes == changes {
            remembered.is_open = Some((Instant::now(), is_open));
        }
        is_open
    }

    async fn ask(&self, public: &str) -> Result<Option<ApiKey>, StoreError> {
        let permit = self.lookups.try_acquire();
        let _permit = permit.map_err(|_| StoreError::Unavailable(None))?;
        keys::find(&self.store, public).await
    }

    fn remember(&self, public: &str, key: Option<&ApiKey>, changes: u64) {
        let mut remembered = self.remembered();
        if remembered.changes != changes {
            return;
        }
        let (name, now) = (name_of(public), Instant::now());
        match key {
            Some(key) => {
                make_room(&mut remembered.keys, |(since, _)| {
                    since.elapsed() < OUTAGE_TTL
                });
                remembered.keys.insert(name, (now, key.clone()));
            }
            None => {
                remembered.keys.remove(&name);
                make_room(&mut remembered.absent, |since| since.elapsed() < TTL);
                remembered.absent.insert(name, now);
            }
        }
    }
}

fn name_of(public: &str) -> Name {
    Sha256::digest(public).into()
}

/// Forgets what is too old when there is too much, and all of it if that is not enough.
fn make_room<T>(map: &mut HashMap<Name, T>, is_young: impl Fn(&T) -> bool) {
    if map.len() >= KEYS_MAX {
        map.retain(|_, value| is_young(value));
    }
    if map.len() >= KEYS_MAX {
        map.clear();
    }
}
