//! A day of a GPU cluster, faster than it passes: nodes post every five seconds, a router and a scheduler decide
//! on what comes back. No answer may be stale or wrong, and memory stays flat.
//! Every run plays some minutes; with `XTRACE_TEST_LONG` the whole day.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::Connection;
use xtrace_store::metrics::compact;
use xtrace_store::{Options, Store};

use crate::harness::{SeparateXtrace, TOKEN, answer, is_long, new_database};

const NODES: u64 = 64;
const GPUS: u64 = 8;
const REPLICAS: u64 = 128;
const BATCH: usize = 512;
const TICK_S: i64 = 5;
/// A node that dies half-way.
const DEAD_NODE: u64 = 17;

/// What a series measures at a tick.
fn reading(metric: u64, series: u64, tick: u64) -> f64 {
    let mut mixed = (metric << 48) ^ (series << 24) ^ tick;
    mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 40) % 10_000) as f64 / 100.0
}

struct Cluster {
    xtrace: SeparateXtrace,
    begin: DateTime<Utc>,
    ticks: u64,
}

impl Cluster {
    fn time(&self, tick: u64) -> DateTime<Utc> {
        self.begin + TimeDelta::seconds(tick.cast_signed() * TICK_S)
    }

    fn is_dead(&self, node: u64, tick: u64) -> bool {
        node == DEAD_NODE && tick > self.ticks / 2
    }

    /// All points of a tick.
    fn points(&self, tick: u64) -> Vec<Value> {
        let time = self.time(tick).to_rfc3339();
        let point = |name: &str, labels: Value, value: f64| json!({"name": name, "labels": labels, "value": value, "timestamp": time});
        let mut points = Vec::new();
        for gpu in (0..NODES * GPUS).filter(|gpu| !self.is_dead(gpu / GPUS, tick)) {
            let labels = json!({"node_id": format!("node-{}", gpu / GPUS), "gpu_index": (gpu % GPUS).to_string()});
            for (metric, name) in GPU_METRICS.iter().enumerate() {
                points.push(point(
                    name,
                    labels.clone(),
                    reading(metric as u64, gpu, tick),
                ));
            }
        }
        for replica in (0..REPLICAS).filter(|replica| !self.is_dead(replica % NODES, tick)) {
            let labels = json!({"model_uid": format!("model-{}", replica % 8), "replica_id": replica.to_string(),
                "node_id": format!("node-{}", replica % NODES)});
            for (metric, name) in REPLICA_METRICS.iter().enumerate() {
                let value = reading(8 + metric as u64, replica, tick);
                points.push(point(name, labels.clone(), value));
            }
        }
        points
    }

    async fn post(&self, tick: u64) {
        self.send(self.points(tick)).await;
    }

    async fn send(&self, points: Vec<Value>) {
        let posts = points.chunks(BATCH).map(|points| {
            let url = format!("{}/v1/metrics/batch", self.xtrace.url);
            let request = self.xtrace.http.post(url).bearer_auth(TOKEN);
            answer(request.json(&json!({"metrics": points})))
        });
        for post in posts.map(|post| tokio::spawn(post)).collect::<Vec<_>>() {
            let (status, body) = post.await.unwrap();
            assert_eq!(status, StatusCode::OK, "{body}");
        }
    }

    async fn ask(&self, tick: u64, seconds: i64, query: &str) -> Value {
        let to = self.time(tick);
        let plain = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let path = format!(
            "{}/api/public/metrics/query?{query}&from={}&to={}",
            self.xtrace.url,
            plain(to - TimeDelta::seconds(seconds)),
            plain(to)
        );
        let (status, body) = answer(self.xtrace.http.get(path).bearer_auth(TOKEN)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// The last tick up to that one at which a node said something.
    fn last_alive(&self, node: u64, tick: u64) -> u64 {
        let alive = |tick: &u64| !self.is_dead(node, *tick);
        (0..=tick).rev().find(alive).unwrap_or_default()
    }

    /// Which replica has the fewest requests: one question, one series, younger than 15 seconds.
    async fn route(&self, tick: u64, replica: u64) {
        let labels = format!("%7B%22replica_id%22%3A%22{replica}%22%7D");
        let query = format!("name=pending_requests&labels={labels}&agg=last&step=5s");
        let body = self.ask(tick, 14, &query).await;
        let newest = self.last_alive(replica % NODES, tick);
        let first = tick.saturating_sub(2);
        if newest < first {
            assert_eq!(body["data"], json!([]), "a dead node answers");
            return;
        }
        assert_eq!(
            body["meta"]["latest_ts"],
            self.time(newest).to_rfc3339(),
            "{body}"
        );
        let values = body["data"][0]["values"].as_array().unwrap();
        let found: Vec<&Value> = values.iter().map(|value| &value["value"]).collect();
        let expected = (first..=newest).map(|tick| json!(reading(8, replica, tick)));
        // Buckets of five seconds begin when they begin: two ticks never share one.
        assert_eq!(
            found,
            expected.collect::<Vec<_>>().iter().collect::<Vec<_>>(),
            "tick {tick}: {body}"
        );
    }

    /// The average load of each node over half a minute, which may lie in two hours: then each has its part.
    async fn schedule(&self, tick: u64, node: u64) {
        let query = format!(
            "name=gpu_utilization&labels=%7B%22node_id%22%3A%22node-{node}%22%7D&group_by=node_id&step=1h"
        );
        let first = tick.saturating_sub(5);
        let body = self.ask(tick, 29, &query).await;
        self.assert_averages(&body, node, first..=tick);
    }

    /// What was long ago is answered from where it lies by then.
    async fn look_back(&self, tick: u64, node: u64) {
        let query = format!(
            "name=gpu_utilization&labels=%7B%22node_id%22%3A%22node-{node}%22%7D&group_by=node_id&step=1h"
        );
        let seconds = tick.cast_signed() * TICK_S;
        let body = self.ask(tick, seconds, &query).await;
        self.assert_averages(&body, node, 0..=tick);
    }

    fn assert_averages(&self, body: &Value, node: u64, ticks: std::ops::RangeInclusive<u64>) {
        let mut by_hour: std::collections::BTreeMap<i64, Vec<f64>> =
            std::collections::BTreeMap::new();
        for tick in ticks.filter(|tick| !self.is_dead(node, *tick)) {
            let hour = self.time(tick).timestamp().div_euclid(3600);
            let readings = (0..GPUS).map(|gpu| reading(0, node * GPUS + gpu, tick));
            by_hour.entry(hour).or_default().extend(readings);
        }
        let values = body["data"][0]["values"].as_array();
        let values = values.map_or(&[][..], Vec::as_slice);
        assert_eq!(values.len(), by_hour.len(), "node {node}: {body}");
        for (value, readings) in values.iter().zip(by_hour.values()) {
            let expected = readings.iter().sum::<f64>() / readings.len() as f64;
            let found = value["value"].as_f64().unwrap();
            assert!(
                (found - expected).abs() < 1e-9,
                "node {node}: {found}, expected {expected}"
            );
        }
    }

    /// A node that lost its connection repeats what it said first, beside what it says now.
    async fn repeat(&self, node: u64) {
        let first = self
            .points(0)
            .into_iter()
            .filter(|point| point["labels"]["node_id"] == format!("node-{node}"));
        self.send(first.collect()).await;
    }
}

const GPU_METRICS: [&str; 4] = [
    "gpu_utilization",
    "gpu_temperature",
    "gpu_memory_used_mb",
    "gpu_memory_total_mb",
];
const REPLICA_METRICS: [&str; 3] = [
    "pending_requests",
    "kv_cache_usage",
    "prefix_cache_hit_rate",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_routed_by_what_it_says() {
    let ticks = if is_long() {
        86_400 / TICK_S.cast_unsigned()
    } else {
        120
    };
    let begin = Utc::now() - TimeDelta::seconds(ticks.cast_signed() * TICK_S);
    let database = new_database().await;
    // Moves points as often as if they were older.
    let store = Store::new(&Options::new(database.clone())).unwrap();
    let cluster = Cluster {
        xtrace: SeparateXtrace::start_on(&database).await,
        begin: DateTime::from_timestamp(begin.timestamp(), 0).unwrap(),
        ticks,
    };
    let mut after_a_while = 0;
    for tick in 0..ticks {
        cluster.post(tick).await;
        cluster.route(tick, tick * 7 % REPLICAS).await;
        cluster.route(tick, DEAD_NODE).await;
        cluster.schedule(tick, tick * 5 % NODES).await;
        cluster.schedule(tick, DEAD_NODE).await;
        if tick % 25 == 24 {
            // Without a failure, so that no answer of this run comes from blocks alone.
            compact::once(&store, 0).await.unwrap();
            cluster.repeat(tick % NODES).await;
            cluster.look_back(tick, tick % NODES).await;
            cluster.look_back(tick, DEAD_NODE).await;
        }
        if tick == ticks / 4 {
            after_a_while = cluster.xtrace.peak_mib();
        }
    }
    let peak = cluster.xtrace.peak_mib();
    assert!(
        peak < after_a_while + 64,
        "memory grew from {after_a_while} to {peak} MiB"
    );
    let mut sql = sqlx::PgConnection::connect(&database).await.unwrap();
    let chunks: i64 = sqlx::query_scalar("select count(*) from metric_chunks")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    assert!(chunks > 0, "nothing was read from a chunk");
}
