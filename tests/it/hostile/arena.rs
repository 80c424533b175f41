//! A server in a process of its own, an attacker with a project and a key pair, and a neighbour with
//! another project, whose small writes and cheap reads are timed while the attack runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use xtrace_model::ProjectId;
use xtrace_store::{Options, Store, keys, projects};

use crate::harness::{Keys, SeparateXtrace, answer, is_long, new_database, until_summed_up};

/// Promised for the neighbour's small writes while anybody else does anything.
const WRITE_P99_MAX: Duration = Duration::from_millis(200);
/// Promised for the neighbour's cheap reads.
const READ_P99_MAX: Duration = Duration::from_millis(300);
/// Promised for the memory of the server, whatever arrives.
pub(crate) const PEAK_MIB_MAX: u64 = 512;
/// Tests share two cores with each other and are built for debugging, so that the promised times are
/// held against them only in long runs. A request that takes longer than this was stopped.
const STOPPED: Duration = Duration::from_secs(5);
/// Requests of the neighbour before the attack, to know how fast a calm server is.
const CALM_ROUNDS: usize = 40;
/// Requests of the neighbour during the attack at least, however soon that ends.
const ROUNDS_MIN: usize = 60;

/// The attacked server.
pub(crate) struct Arena {
    pub xtrace: SeparateXtrace,
    database_url: String,
    pub attacker: Keys,
    pub neighbour: Keys,
}

/// What the neighbour saw.
#[derive(Debug)]
pub(crate) struct Report {
    /// Times of its writes while the attack ran, in ascending order.
    pub writes: Vec<Duration>,
    /// Times of its reads while the attack ran, in ascending order.
    pub reads: Vec<Duration>,
    /// The 99th percentile of its writes before the attack.
    pub calm_write_p99: Duration,
    /// The 99th percentile of its reads before the attack.
    pub calm_read_p99: Duration,
    /// Requests that were not answered with success, and how.
    pub refused: Vec<String>,
    /// The most memory that the server held since it started, in MiB.
    pub peak_mib: u64,
    /// Traces that were acknowledged to the neighbour so far.
    pub acknowledged: usize,
}

impl Arena {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts the server with more variables in its environment.
    pub(crate) async fn start_with(variables: &[(&str, &str)]) -> Self {
        let database_url = new_database().await;
        let xtrace = SeparateXtrace::start_with(&database_url, variables).await;
        let store = Store::new(&Options::new(&database_url)).unwrap();
        let attacker = project(&store, "attacker").await;
        let neighbour = project(&store, "neighbour").await;
        store.close().await;
        Self {
            xtrace,
            database_url,
            attacker,
            neighbour,
        }
    }

    /// A request with the attacker's key pair.
    pub(crate) fn attack(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(&self.attacker, method, path)
    }

    /// A request with the neighbour's key pair.
    pub(crate) fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(&self.neighbour, method, path)
    }

    fn request(&self, keys: &Keys, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .xtrace
            .http
            .request(method, format!("{}{path}", self.xtrace.url));
        request.basic_auth(&keys.public, Some(&keys.secret))
    }

    /// Runs an attack while the neighbour writes and reads, one request after the other.
    pub(crate) async fn watch<T>(&self, attack: impl Future<Output = T>) -> (T, Report) {
        let mut calm = Timed::new("calm");
        for _ in 0..CALM_ROUNDS {
            calm.round(self).await;
        }
        calm.sort();
        let mut timed = Timed::new("attacked");
        let over = Arc::new(AtomicBool::new(false));
        let neighbour = async {
            while timed.writes.len() < ROUNDS_MIN || !over.load(Ordering::Relaxed) {
                timed.round(self).await;
            }
        };
        let attack = async {
            let outcome = attack.await;
            over.store(true, Ordering::Relaxed);
            outcome
        };
        let (outcome, ()) = futures_util::join!(attack, neighbour);
        timed.sort();
        let report = Report {
            calm_write_p99: p99(&calm.writes),
            calm_read_p99: p99(&calm.reads),
            refused: [calm.refused, timed.refused].concat(),
            peak_mib: self.xtrace.peak_mib(),
            acknowledged: calm.acknowledged + timed.acknowledged,
            writes: timed.writes,
            reads: timed.reads,
        };
        (outcome, report)
    }

    /// A connection to the server's database.
    pub(crate) async fn sql(&self) -> PgConnection {
        PgConnection::connect(&self.database_url).await.unwrap()
    }

    /// The neighbour's sums by day are those of all that was acknowledged, now and once the background
    /// worker has summed its hours up.
    pub(crate) async fn assert_sums_are_right(&self, report: &Report) {
        self.assert_sums(report).await;
        let mut connection = self.sql().await;
        let of_neighbour = "project_id = 'neighbour'";
        until_summed_up(&mut connection, of_neighbour, Duration::from_mins(2)).await;
        self.assert_sums(report).await;
    }

    async fn assert_sums(&self, report: &Report) {
        let (status, daily) = answer(self.ask(Method::GET, "/api/public/metrics/daily")).await;
        assert_eq!(status, 200, "{daily}");
        let days = daily["data"].as_array().unwrap();
        let sum = |name: &str| {
            days.iter()
                .filter_map(|day| day[name].as_u64())
                .sum::<u64>()
        };
        let acknowledged = report.acknowledged as u64;
        assert_eq!(sum("countTraces"), acknowledged, "{daily}");
        assert_eq!(sum("countObservations"), acknowledged, "{daily}");
    }
}

impl Report {
    /// The neighbour was never refused, never stopped, and the server stayed within its memory.
    pub(crate) fn assert_undisturbed(&self) {
        self.assert_served();
        let peak = self.peak_mib;
        assert!(peak <= PEAK_MIB_MAX, "memory rose to {peak} MiB");
    }

    /// The neighbour was never refused and never stopped.
    pub(crate) fn assert_served(&self) {
        let (write, read) = (p99(&self.writes), p99(&self.reads));
        eprintln!(
            "neighbour's p99: write {write:?} (calm {:?}), read {read:?} (calm {:?}); peak {} MiB",
            self.calm_write_p99, self.calm_read_p99, self.peak_mib
        );
        assert!(self.refused.is_empty(), "refused: {:?}", self.refused);
        let (write_max, read_max) = if is_long() {
            (WRITE_P99_MAX, READ_P99_MAX)
        } else {
            (STOPPED, STOPPED)
        };
        assert!(write <= write_max, "writes take {write:?}");
        assert!(read <= read_max, "reads take {read:?}");
    }
}

/// The neighbour's requests and their times.
struct Timed {
    name: &'static str,
    writes: Vec<Duration>,
    reads: Vec<Duration>,
    refused: Vec<String>,
    acknowledged: usize,
}

impl Timed {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            writes: Vec::new(),
            reads: Vec::new(),
            refused: Vec::new(),
            acknowledged: 0,
        }
    }

    /// One small write, and one read of what was written.
    async fn round(&mut self, arena: &Arena) {
        let id = format!("{}-{}", self.name, uuid::Uuid::now_v7());
        let body = json!({"trace": {"id": id, "name": "neighbour"},
            "observations": [{"id": id, "traceId": id, "startTime": Utc::now()}]});
        let write = arena.ask(Method::POST, "/v1/l/batch").json(&body);
        let (time, is_written) = self.timed("write", write).await;
        self.writes.push(time);
        self.acknowledged += usize::from(is_written);
        let read = arena.ask(Method::GET, &format!("/api/public/observations/{id}"));
        let (time, _) = self.timed("read", read).await;
        self.reads.push(time);
    }

    async fn timed(&mut self, what: &str, request: RequestBuilder) -> (Duration, bool) {
        let began = Instant::now();
        let answer = async {
            let answer = request.send().await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.text().await?))
        };
        let outcome = answer.await;
        let time = began.elapsed();
        match outcome {
            Ok((status, _)) if status == 200 => return (time, true),
            Ok((status, body)) => self.refused.push(format!("{what}: {status} {body}")),
            Err(error) => self.refused.push(format!("{what}: {error:?}")),
        }
        (time, false)
    }

    fn sort(&mut self) {
        self.writes.sort();
        self.reads.sort();
    }
}

/// The 99th percentile of sorted times.
pub(crate) fn p99(sorted: &[Duration]) -> Duration {
    let rank = (sorted.len() * 99).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// A project with a key pair of its own.
async fn project(store: &Store, id: &str) -> Keys {
    let project = ProjectId::parse(id).unwrap();
    let keys = Keys {
        public: format!("pk-lf-{id}"),
        secret: format!("sk-lf-{id}-{}", "0".repeat(32)),
    };
    projects::ensure(store, &project, Utc::now()).await.unwrap();
    keys::put(store, &project, &keys.public, &keys.secret, Utc::now())
        .await
        .unwrap();
    keys
}

/// A line of JSON that gzip makes small, for bodies that grow when they are inflated.
pub(crate) fn repeated(begin: &str, item: &str, times: usize, end: &str) -> Vec<u8> {
    use std::io::Write;
    let compression = flate2::Compression::best();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), compression);
    encoder.write_all(begin.as_bytes()).unwrap();
    for _ in 0..times {
        encoder.write_all(item.as_bytes()).unwrap();
    }
    encoder.write_all(end.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// The answer of a request as JSON, which must have succeeded.
pub(crate) async fn succeed(request: RequestBuilder) -> Value {
    let (status, body) = answer(request).await;
    assert!(status.is_success(), "{status} {body}");
    body
}
