//! Clients that send every signal until they are told to stop, and what was acknowledged to them, read
//! back: all of it, once, with its value.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::answer;

const CLIENTS: usize = 6;
/// How long progress is waited for; far longer than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);
/// Buckets that one answer of the metrics query may have.
const BUCKETS: usize = 1000;

/// The kinds of requests, which a client sends in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Signal {
    /// A trace and its observation, in the native format.
    Trace,
    /// A point of the client's series.
    Point,
    /// A log record over OTLP.
    Log,
    /// A score, as Langfuse's clients send it.
    Score,
}

const SIGNALS: [Signal; 4] = [Signal::Trace, Signal::Point, Signal::Log, Signal::Score];

/// What was acknowledged: by signal, the client and the number of each request.
type Acknowledged = BTreeMap<Signal, Vec<(usize, usize)>>;

/// A server and the token that opens it.
#[derive(Clone)]
pub(crate) struct Target {
    http: reqwest::Client,
    url: String,
    token: String,
    /// The time of the first point of every series.
    base: DateTime<Utc>,
}

/// Clients at work.
pub(crate) struct Load {
    target: Target,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Acknowledged>>,
}

impl Load {
    pub(crate) fn start(url: &str, token: &str) -> Self {
        let target = Target {
            http: reqwest::Client::new(),
            url: url.to_owned(),
            token: token.to_owned(),
            base: DateTime::from_timestamp(Utc::now().timestamp() - 7200, 0).unwrap(),
        };
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients = (0..CLIENTS).map(|client| {
            let (target, stop, count) = (target.clone(), Arc::clone(&stop), Arc::clone(&count));
            tokio::spawn(async move { target.send(client, &stop, &count).await })
        });
        Self {
            clients: clients.collect(),
            target,
            stop,
            count,
        }
    }

    /// Requests that were acknowledged so far.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests have been acknowledged.
    pub(crate) async fn goes_on(&self, requests: usize) {
        let (began, goal) = (Instant::now(), self.count() + requests);
        while self.count() < goal {
            assert!(
                began.elapsed() < PATIENCE,
                "{} of {goal} requests got through",
                self.count()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the clients; what was acknowledged to them.
    pub(crate) async fn stop(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut acknowledged = Acknowledged::new();
        for client in self.clients {
            for (signal, mut numbers) in client.await.unwrap() {
                acknowledged.entry(signal).or_default().append(&mut numbers);
            }
        }
        for signal in SIGNALS {
            let numbers = acknowledged.get(&signal);
            assert!(numbers.is_some(), "no {signal:?} was acknowledged");
        }
        Told {
            target: self.target,
            acknowledged,
        }
    }
}

impl Target {
    async fn send(&self, client: usize, stop: &AtomicBool, count: &AtomicUsize) -> Acknowledged {
        let mut acknowledged = Acknowledged::new();
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let signal = SIGNALS[number % SIGNALS.len()];
            match self.request(signal, client, number).send().await {
                Ok(answer) if answer.status() == 200 => {
                    acknowledged
                        .entry(signal)
                        .or_default()
                        .push((client, number));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(answer) => {
                    assert_eq!(answer.status(), 503, "{signal:?} {client}-{number}");
                    assert!(answer.headers().contains_key("retry-after"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        acknowledged
    }

    fn request(&self, signal: Signal, client: usize, number: usize) -> RequestBuilder {
        let id = format!("{client}-{number}");
        let (path, body) = match signal {
            Signal::Trace => (
                "/v1/l/batch",
                json!({"trace": {"id": id}, "observations": [{"id": id, "traceId": id,
                    "type": "GENERATION", "model": "gpt-4o", "usage": {"input": number, "output": 1}}]}),
            ),
            Signal::Point => (
                "/v1/metrics/batch",
                json!({"metrics": [{"name": "load", "labels": {"client": client.to_string()},
                    "timestamp": self.at(number), "value": number}]}),
            ),
            Signal::Log => (
                "/v1/logs",
                json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{
                    "timeUnixNano": self.at(number).timestamp_nanos_opt().unwrap().to_string(),
                    "body": {"stringValue": id}}]}]}]}),
            ),
            Signal::Score => (
                "/api/public/scores",
                json!({"id": id, "traceId": id, "name": "load", "value": number}),
            ),
        };
        let request = self.http.post(format!("{}{path}", self.url));
        request.bearer_auth(&self.token).json(&body)
    }

    /// The time of a point or a record.
    fn at(&self, number: usize) -> DateTime<Utc> {
        self.base + TimeDelta::seconds(i64::try_from(number).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.http.get(format!("{}{path}", self.url));
        let (status, body) = answer(request.bearer_auth(&self.token)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// All values of a member of a list that has pages.
    async fn pages(&self, list: &str, member: &str) -> Vec<String> {
        let mut found = Vec::new();
        for page in 1.. {
            let body = self
                .get(&format!("/api/public/{list}limit=100&page={page}"))
                .await;
            let rows = body["data"].as_array().unwrap();
            if rows.is_empty() {
                break;
            }
            found.extend(
                rows.iter()
                    .map(|row| row[member].as_str().unwrap().to_owned()),
            );
        }
        found
    }

    /// The bodies of all log records.
    async fn logs(&self) -> Vec<String> {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let body = self
                .get(&format!("/api/public/logs?limit=1000{cursor}"))
                .await;
            let rows = body["data"].as_array().unwrap();
            found.extend(
                rows.iter()
                    .map(|row| row["body"].as_str().unwrap().to_owned()),
            );
            match body["meta"]["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    }

    /// The points of a client: their numbers by their times, and their values.
    async fn points(&self, client: usize, last: usize, aggregation: &str) -> BTreeMap<usize, f64> {
        let mut found = BTreeMap::new();
        for first in (0..=last).step_by(BUCKETS) {
            let (from, to) = (self.at(first), self.at(first + BUCKETS - 1));
            let time = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
            let body = self
                .get(&format!(
                    "/api/public/metrics/query?name=load&labels={{\"client\":\"{client}\"}}\
                     &from={}&to={}&step=1s&agg={aggregation}",
                    time(from),
                    time(to)
                ))
                .await;
            let values = body["data"][0]["values"].as_array().cloned();
            for value in values.unwrap_or_default() {
                let at: DateTime<Utc> = value["timestamp"].as_str().unwrap().parse().unwrap();
                let number = usize::try_from((at - self.base).num_seconds()).unwrap();
                found.insert(number, value["value"].as_f64().unwrap());
            }
        }
        found
    }
}

/// What was acknowledged to the clients of a load.
pub(crate) struct Told {
    target: Target,
    acknowledged: Acknowledged,
}

impl Told {
    /// Reads back what was acknowledged, from where it may be now: all of it is there with its value,
    /// and nothing is there twice.
    pub(crate) async fn check(&self, url: &str, token: &str) {
        let target = Target {
            url: url.to_owned(),
            token: token.to_owned(),
            ..self.target.clone()
        };
        let traces = target.pages("traces?fields=core&", "id").await;
        self.is_there_once(Signal::Trace, "traces", traces);
        let observations = target.pages("observations?", "id").await;
        self.is_there_once(Signal::Trace, "observations", observations);
        let scores = target.pages("v2/scores?", "id").await;
        self.is_there_once(Signal::Score, "scores", scores);
        self.is_there_once(Signal::Log, "logs", target.logs().await);
        self.points_are_there_once(&target).await;
    }

    fn is_there_once(&self, signal: Signal, what: &str, found: Vec<String>) {
        let distinct: HashSet<&String> = found.iter().collect();
        assert_eq!(
            distinct.len(),
            found.len(),
            "{what}: something is there twice"
        );
        let ids = self.acknowledged[&signal].iter();
        let lost: Vec<String> = ids
            .map(|(client, number)| format!("{client}-{number}"))
            .filter(|id| !distinct.contains(id))
            .collect();
        assert!(lost.is_empty(), "{what}: acknowledged and lost: {lost:?}");
    }

    async fn points_are_there_once(&self, target: &Target) {
        let mut by_client: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (client, number) in &self.acknowledged[&Signal::Point] {
            by_client.entry(*client).or_default().insert(*number);
        }
        for (client, numbers) in by_client {
            let last = *numbers.last().unwrap();
            let values = target.points(client, last, "last").await;
            let counts = target.points(client, last, "count").await;
            for number in &numbers {
                let (value, count) = (values.get(number), counts.get(number));
                assert_eq!(value, Some(&(*number as f64)), "point {client}-{number}");
                assert_eq!(count, Some(&1.0), "point {client}-{number}");
            }
        }
    }
}
