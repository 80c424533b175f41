//! Load, attacks and kills together: nothing is lost, nothing is there twice, sums are those of the rows,
//! and memory stays flat. `XTRACE_TEST_LONG=1` makes it last an hour (`XTRACE_SOAK_MINUTES`).

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use chrono::Utc;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;
use xtrace::embedded_postgres::EmbeddedPostgres;
use xtrace_model::ProjectId;
use xtrace_store::{Options, Store, keys, projects};

use crate::harness::{
    Keys, SeparateXtrace, TOKEN, free_port, is_long, temp_dir, until_summed_up, watch,
};
use crate::hostile::arena::repeated;
use crate::load::Load;
use crate::process::kill;

/// Memory that may be held more at the end than after the first round that killed nothing of xtrace.
const GROWTH_MIB_MAX: u64 = 96;

/// How long it lasts; ordinary runs do one round of each kind.
fn duration() -> Duration {
    if !is_long() {
        return Duration::ZERO;
    }
    let minutes = std::env::var_os("XTRACE_SOAK_MINUTES");
    let minutes = minutes.and_then(|text| text.to_str()?.parse().ok());
    let minutes = minutes.unwrap_or(60);
    Duration::from_mins(minutes)
}

/// Requests that are acknowledged between two faults.
fn requests_a_round() -> usize {
    if is_long() { 5000 } else { 200 }
}

/// Someone with a key pair who means ill.
struct Attacker {
    http: reqwest::Client,
    url: String,
    keys: Keys,
}

impl Attacker {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        let timeout = Duration::from_secs(20);
        request
            .basic_auth(&self.keys.public, Some(&self.keys.secret))
            .timeout(timeout)
    }

    /// Sends what is at hand in turn; how it is answered doesn't matter, nor whether at all.
    async fn attack(&self, number: usize) {
        match number % 6 {
            0 => self.silent_giants(),
            1 => self.bomb().await,
            2 => self.odd_methods().await,
            3 => self.huge_numbers(number).await,
            4 => self.long_ids().await,
            _ => self.slow_questions().await,
        }
    }

    fn silent_giants(&self) {
        let address = self.url.trim_start_matches("http://");
        for _ in 0..20 {
            let Ok(mut stream) = TcpStream::connect(address) else {
                continue;
            };
            let head =
                "POST /api/public/ingestion HTTP/1.1\r\nhost: x\r\ncontent-length: 21000000\r\n";
            let _ = stream.write_all(head.as_bytes());
        }
    }

    async fn bomb(&self) {
        let body = repeated("{\"batch\":[1", ",1", 1_000_000, "]}");
        let request = self
            .request(Method::POST, "/api/public/ingestion")
            .body(body);
        let request = request.header("content-type", "application/json");
        let _ = request.header("content-encoding", "gzip").send().await;
    }

    async fn odd_methods(&self) {
        for number in 0..100 {
            let method = format!("M{number}{}", "X".repeat(4000));
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let _ = self.request(method, "/healthz").send().await;
        }
    }

    async fn huge_numbers(&self, round: usize) {
        let observations: Vec<_> = (0..3)
            .map(|n| {
                json!({"id": format!("{round}-{n}"), "traceId": format!("{round}-{n}"), "type": "GENERATION",
                    "model": "m", "usage": {"input": i64::MAX}})
            })
            .collect();
        let request = self.request(Method::POST, "/v1/l/batch");
        let _ = request
            .json(&json!({"observations": observations}))
            .send()
            .await;
    }

    async fn long_ids(&self) {
        let events: Vec<_> = (0..500)
            .map(|n: usize| {
                let long: String = (0..120).map(|_| Uuid::new_v4().to_string()).collect();
                json!({"id": n.to_string(), "type": "score-create", "timestamp": Utc::now(),
                    "body": {"id": n.to_string(), "name": "n", "value": 1, "traceId": long}})
            })
            .collect();
        let request = self.request(Method::POST, "/api/public/ingestion");
        let _ = request.json(&json!({"batch": events})).send().await;
    }

    async fn slow_questions(&self) {
        let questions = (0..12).map(|_| {
            let path = "/api/public/traces?limit=100&filter=[{\"type\":\"string\",\"column\":\"name\",\
                        \"operator\":\"contains\",\"value\":\"nowhere\"}]";
            self.request(Method::GET, path).send()
        });
        let _ = futures_util::future::join_all(questions).await;
    }
}

/// A key pair of a project.
async fn attacker(database_url: &str) -> Keys {
    let store = Store::new(&Options::new(database_url)).unwrap();
    let project = ProjectId::parse("attacker").unwrap();
    let keys = Keys {
        public: "pk-lf-attacker".to_owned(),
        secret: format!("sk-lf-attacker-{}", "0".repeat(32)),
    };
    let now = Utc::now();
    projects::ensure(&store, &project, now).await.unwrap();
    keys::put(&store, &project, &keys.public, &keys.secret, now)
        .await
        .unwrap();
    store.close().await;
    keys
}

/// Sums by hour against sums of the rows, once no hour is left to be summed up.
async fn assert_sums_are_those_of_the_rows(database_url: &str) {
    let mut connection = PgConnection::connect(database_url).await.unwrap();
    until_summed_up(&mut connection, "true", Duration::from_mins(10)).await;
    let sums = async |statement: &'static str, connection: &mut PgConnection| {
        let sums: Vec<(String, i64, i64, i64)> = sqlx::query_as(statement)
            .fetch_all(connection)
            .await
            .unwrap();
        sums
    };
    let hourly = sums(
        "select project_id, sum(observations)::bigint, sum(input_usage)::bigint, sum(output_usage)::bigint
           from usage_hourly where project_id = 'default' group by 1",
        &mut connection,
    );
    let hourly = hourly.await;
    let rows = sums(
        "select project_id, count(*), sum(input_usage)::bigint, sum(output_usage)::bigint
           from observations where project_id = 'default' group by 1",
        &mut connection,
    );
    assert_eq!(hourly, rows.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn load_attacks_and_kills_lose_and_double_nothing() {
    let dir = temp_dir("soak");
    watch(&dir);
    let postgres = EmbeddedPostgres::start(&dir, None).await.unwrap();
    let database_url = postgres.database_url();
    let address = format!("127.0.0.1:{}", free_port());
    let mut xtrace = SeparateXtrace::start_at(&address, &database_url, &[]).await;
    let attacker = Attacker {
        http: reqwest::Client::new(),
        url: xtrace.url.clone(),
        keys: attacker(&database_url).await,
    };
    let load = Load::start(&xtrace.url, TOKEN);
    let began = Instant::now();
    let mut round = 0;
    // The first half kills xtrace and Postgres in turn, the second Postgres alone.
    while round < 2 || began.elapsed() < duration() / 2 {
        attacker.attack(round).await;
        load.goes_on(requests_a_round()).await;
        if round % 2 == 0 {
            xtrace.kill().await;
            xtrace = SeparateXtrace::start_at(&address, &database_url, &[]).await;
        } else {
            kill_postgres(&dir);
        }
        load.goes_on(requests_a_round()).await;
        round += 1;
    }
    let mut resident = Vec::new();
    while resident.len() < 6 || began.elapsed() < duration() {
        attacker.attack(round).await;
        load.goes_on(requests_a_round()).await;
        if round % 6 == 0 {
            kill_postgres(&dir);
            load.goes_on(requests_a_round()).await;
        }
        resident.push(xtrace.resident_mib());
        round += 1;
    }
    load.stop().await.check(&xtrace.url, TOKEN).await;
    assert_sums_are_those_of_the_rows(&database_url).await;
    eprintln!(
        "{round} rounds; resident MiB {resident:?}, peak {}",
        xtrace.peak_mib()
    );
    let (first, last) = (
        resident[..6].iter().max().unwrap(),
        resident.last().unwrap(),
    );
    assert!(*last <= first + GROWTH_MIB_MAX, "memory grew: {resident:?}");
    xtrace.kill().await;
    postgres.stop().await;
}

/// Ends Postgres as `kill -9` does; it comes back by itself.
fn kill_postgres(dir: &std::path::Path) {
    let file = dir.join("postgres/data/postmaster.pid");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    kill("-9", text.lines().next().unwrap());
}
