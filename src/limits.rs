//! Rate limits on reads: a token bucket per credential. Writes are held back by the write queue.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use chrono::Utc;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::auth;
use crate::dialect::Dialect;
use crate::gateway::Gateway;

/// Limits reads; clones share the buckets.
#[derive(Clone)]
pub struct ReadLimiter {
    buckets: Option<Arc<DefaultKeyedRateLimiter<String>>>,
    burst: u32,
    counts: Arc<Mutex<BTreeMap<String, Counts>>>,
    label_key: Uuid,
}

/// Requests of one credential so far.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counts {
    /// Requests that were let through.
    pub allowed: u64,
    /// Requests that were refused.
    pub refused: u64,
}

/// When a refused caller may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Until the next request would pass.
    pub wait: Duration,
    /// Requests that a full bucket holds.
    pub limit: u32,
}

impl Refusal {
    /// The wait in whole seconds, at least 1.
    pub fn wait(self) -> Duration {
        Duration::from_secs(self.seconds())
    }

    /// Whole seconds to wait, at least 1.
    pub fn seconds(self) -> u64 {
        self.wait.as_secs() + 1
    }

    /// When that is, as RFC 3339.
    pub fn reset_at(self) -> String {
        (Utc::now() + self.wait).to_rfc3339()
    }
}

impl ReadLimiter {
    /// So many requests a second and so many at once; without a rate, all pass.
    pub fn new(per_second: Option<NonZeroU32>, burst: NonZeroU32) -> Self {
        let buckets = per_second.map(|rate| {
            Arc::new(RateLimiter::keyed(
                Quota::per_second(rate).allow_burst(burst),
            ))
        });
        Self {
            buckets,
            burst: burst.get(),
            counts: Arc::default(),
            label_key: Uuid::new_v4(),
        }
    }

    /// Takes one request from the credential's bucket.
    fn check(&self, credential: &str) -> Result<(), Refusal> {
        let outcome = match &self.buckets {
            None => Ok(()),
            Some(buckets) => buckets
                .check_key(&credential.to_owned())
                .map_err(|refused| Refusal {
                    wait: refused.wait_time_from(DefaultClock::default().now()),
                    limit: self.burst,
                }),
        };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.entry(self.label(credential)).or_default();
        match outcome {
            Ok(()) => counts.allowed += 1,
            Err(_) => counts.refused += 1,
        }
        outcome
    }

    /// Counts by label: of one credential, or of all.
    pub fn counts(&self, of: Option<&str>) -> BTreeMap<String, Counts> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match of {
            None => counts.clone(),
            Some(credential) => {
                let label = self.label(credential);
                counts
                    .get(&label)
                    .map(|found| (label, *found))
                    .into_iter()
                    .collect()
            }
        }
    }

    /// Tells credentials apart and says nothing else of them, not even to somebody who can guess one:
    /// a public key is a right, and the hash has a key of this process.
    fn label(&self, credential: &str) -> String {
        let hash = Sha256::new()
            .chain_update(self.label_key.as_bytes())
            .chain_update(credential)
            .finalize();
        hash[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .concat()
    }
}

/// Middleware: limits reads (`GET` and `HEAD`, which runs the whole handler of `GET`) of every path but
/// `projects`, which clients ask to check their credentials. Callers without credentials are refused
/// elsewhere.
pub async fn limit_reads(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let limited = request.method().is_safe() && path != "/api/public/projects";
    let Ok(caller) = auth::caller(request.extensions()) else {
        return next.run(request).await;
    };
    if !limited {
        return next.run(request).await;
    }
    match gateway.read_limiter.check(&caller.credential) {
        Ok(()) => next.run(request).await,
        Err(refusal) => Dialect::of(&request).too_many_requests(refusal),
    }
}
