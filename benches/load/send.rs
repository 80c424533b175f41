//! Clients that send requests as fast as they are answered, and what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;

use crate::machine::{Postgres, TOKEN, Xtrace, own_cpu};

/// What is sent to which path.
pub(crate) struct Load {
    pub(crate) path: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) gzip: bool,
    pub(crate) clients: usize,
    pub(crate) requests: u64,
    /// Spans or points of one request.
    pub(crate) items: u64,
    /// The body of a request by its number.
    pub(crate) body: Arc<dyn Fn(u64) -> Bytes + Send + Sync>,
}

/// What a load took.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) items: u64,
    pub(crate) seconds: f64,
    pub(crate) refused: u64,
    /// From sending a request to its answer, sorted.
    latencies: Vec<Duration>,
    pub(crate) xtrace: Duration,
    pub(crate) postgres: Duration,
    pub(crate) generator: Duration,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.items as f64 / self.seconds
    }

    /// Milliseconds.
    pub(crate) fn latency(&self, percent: usize) -> f64 {
        let at = (self.latencies.len() - 1) * percent / 100;
        self.latencies[at].as_secs_f64() * 1000.0
    }

    /// CPU microseconds per item.
    pub(crate) fn each(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.items as f64
    }
}

/// Sends a load to a server; counts what is acknowledged.
pub(crate) async fn send(postgres: &Postgres, xtrace: &Xtrace, load: Load) -> Outcome {
    let cpu = || (xtrace.cpu(), postgres.cpu(), own_cpu());
    let before = cpu();
    let mut outcome = send_to(&xtrace.url, TOKEN, load).await;
    let after = cpu();
    outcome.xtrace = after.0 - before.0;
    outcome.postgres = after.1 - before.1;
    outcome.generator = after.2 - before.2;
    outcome
}

/// The same, without a look at the server's processes.
pub(crate) async fn send_to(url: &str, token: &'static str, load: Load) -> Outcome {
    let load = Arc::new(load);
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let clients: Vec<_> = (0..load.clients)
        .map(|_| {
            tokio::spawn(client(
                url.to_owned(),
                token,
                Arc::clone(&load),
                Arc::clone(&next),
            ))
        })
        .collect();
    let mut outcome = Outcome {
        items: load.requests * load.items,
        ..Outcome::default()
    };
    for client in clients {
        let (refused, latencies) = client.await.unwrap();
        outcome.refused += refused;
        outcome.latencies.extend(latencies);
    }
    outcome.seconds = began.elapsed().as_secs_f64();
    outcome.latencies.sort_unstable();
    outcome
}

async fn client(
    url: String,
    token: &'static str,
    load: Arc<Load>,
    next: Arc<AtomicU64>,
) -> (u64, Vec<Duration>) {
    let http = reqwest::Client::new();
    let (mut refused, mut latencies) = (0, Vec::new());
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.requests {
            return (refused, latencies);
        }
        let body = (load.body)(number);
        let began = Instant::now();
        loop {
            let request = http
                .post(format!("{url}{}", load.path))
                .bearer_auth(token)
                .header("content-type", load.content_type)
                .body(body.clone());
            let request = if load.gzip {
                request.header("content-encoding", "gzip")
            } else {
                request
            };
            let answer = request.send().await.unwrap();
            let status = answer.status();
            let said = answer.bytes().await.unwrap();
            if status.is_success() {
                assert!(
                    took_all(&said),
                    "not whole: {}",
                    String::from_utf8_lossy(&said)
                );
                latencies.push(began.elapsed());
                break;
            }
            let patience = [429, 503].contains(&status.as_u16());
            assert!(patience, "{status}: {}", String::from_utf8_lossy(&said));
            refused += 1;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What was refused of a request that succeeded would count as if it had been stored.
fn took_all(said: &[u8]) -> bool {
    // Protobuf says nothing at all.
    said.is_empty()
        || serde_json::from_slice::<Value>(said).is_ok_and(|said| {
            let refused = ["errors", "rejected", "partialSuccess"];
            refused.iter().all(|name| match said.get(name) {
                None | Some(Value::Null) => true,
                Some(Value::Array(errors)) => errors.is_empty(),
                Some(_) => false,
            })
        })
}
