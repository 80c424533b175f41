//! What dashboards notice of a backfill: 30 days of history arrive at full speed, in no order, while sums and
//! percentiles of all of it are asked for; and how long it takes until nothing is left to be summed up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{Connection, PgConnection};

use crate::machine::{Postgres, Xtrace};
use crate::reads::{fetch, history, metrics};
use crate::send::{Load, send};

pub(crate) const SPANS: u64 = 1_000_000;
/// Promised for every answer while spans arrive, and for the time until all are summed up.
const ANSWER_MS_MAX: u32 = 500;
const SETTLED_S_MAX: u32 = 30;
/// Between one round of questions and the next, as dashboards ask again.
const PAUSE: Duration = Duration::from_millis(200);
/// Neighbouring requests of the history are sent so far apart: every hour changes all the time.
const STRIDE: u64 = 7919;

pub(crate) async fn table(postgres: &Postgres, spans: u64) {
    let url = postgres.database("backfill").await;
    let xtrace = Xtrace::start(&url).await;
    let is_over = AtomicBool::new(false);
    let load = async {
        let outcome = send(postgres, &xtrace, scattered(history(spans))).await;
        is_over.store(true, Ordering::Relaxed);
        outcome
    };
    let questions = questions();
    let (outcome, during) = tokio::join!(load, ask(&xtrace, &questions, &is_over));
    let began = Instant::now();
    let is_settled = AtomicBool::new(false);
    let settled = async {
        until_summed_up(&url).await;
        is_settled.store(true, Ordering::Relaxed);
        began.elapsed()
    };
    let (settled, after) = tokio::join!(settled, ask(&xtrace, &questions, &is_settled));
    assert_eq!(
        counted(&xtrace).await,
        outcome.items,
        "spans are missing in the sums"
    );
    println!(
        "\n{} spans over 30 days, {:.0} a second; summed up {:.1} s after the last one (promised {SETTLED_S_MAX})\n",
        outcome.items,
        outcome.per_second(),
        settled.as_secs_f64()
    );
    println!(
        "| question | when | answers | p50 ms | p99 ms | most ms | promised ms |\n|---|---|---|---|---|---|---|"
    );
    for (when, times) in [("during the backfill", during), ("until summed up", after)] {
        for ((name, _), mut times) in questions.iter().zip(times) {
            times.sort_unstable();
            let at =
                |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
            println!(
                "| {name} | {when} | {} | {:.0} | {:.0} | {:.0} | {ANSWER_MS_MAX} |",
                times.len(),
                at(50),
                at(99),
                at(100)
            );
        }
    }
    println!("\nmemory of xtrace: {} MiB", xtrace.memory_mib().1);
    xtrace.stop().await;
    postgres.drop_database("backfill").await;
}

/// The same requests in another order.
fn scattered(load: Load) -> Load {
    let (requests, body) = (load.requests, Arc::clone(&load.body));
    // Each once: the stride is a prime number.
    let stride = if requests.is_multiple_of(STRIDE) {
        1
    } else {
        STRIDE
    };
    Load {
        body: Arc::new(move |number| body(number * stride % requests)),
        ..load
    }
}

/// What is asked, by name.
fn questions() -> [(&'static str, String); 3] {
    let sums = metrics(
        30,
        &["totalCost:sum", "totalTokens:sum", "count:count"],
        Some("day"),
    );
    let latency = metrics(30, &["latency:p95"], Some("day"));
    [
        ("metrics/daily", "metrics/daily?limit=50".to_owned()),
        ("v2/metrics: cost, tokens, count", sums(0)),
        ("v2/metrics: p95 of latency", latency(0)),
    ]
}

/// Asks everything until it is over, once at least; how long each question took.
async fn ask(
    xtrace: &Xtrace,
    questions: &[(&str, String)],
    is_over: &AtomicBool,
) -> Vec<Vec<Duration>> {
    let mut times = vec![Vec::new(); questions.len()];
    loop {
        for ((_, path), times) in questions.iter().zip(&mut times) {
            let began = Instant::now();
            fetch(xtrace, path).await;
            times.push(began.elapsed());
        }
        if is_over.load(Ordering::Relaxed) {
            return times;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn until_summed_up(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let is_left = "select exists (select from usage_dirty)";
    while sqlx::query_scalar(is_left)
        .fetch_one(&mut connection)
        .await
        .unwrap()
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Observations of all days.
async fn counted(xtrace: &Xtrace) -> u64 {
    let body = fetch(xtrace, "metrics/daily?limit=100").await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let days = body["data"].as_array().unwrap().iter();
    days.map(|day| day["countObservations"].as_u64().unwrap())
        .sum()
}
