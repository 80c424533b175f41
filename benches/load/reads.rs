//! Latency of reads over a million observations in 200 thousand traces of the last 30 days, one
//! request at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::bodies::{Format, Shape, Template, mix};
use crate::machine::{Postgres, TOKEN, Xtrace};
use crate::scaled;
use crate::send::{Load, send};
use crate::write::{now, spans};

const SHAPE: Shape = Shape {
    payload_bytes: 1600,
    spans_per_request: 200,
    spans_per_trace: 5,
    varied: true,
};
const TEMPLATES: u64 = 64;
const DAYS: u64 = 30;
const REPEATS: u64 = 60;

pub(crate) async fn table(postgres: &Postgres) {
    let url = postgres.database("reads").await;
    let xtrace = Xtrace::start(&url).await;
    send(postgres, &xtrace, history(scaled(1_000_000))).await;
    let large = Shape {
        spans_per_request: 1000,
        spans_per_trace: 1000,
        ..SHAPE
    };
    send(postgres, &xtrace, spans(large, Format::Protobuf, 1000, 1)).await;
    make_prompt(&xtrace).await;
    settle(&url).await;
    let ids = Ids::find(&xtrace).await;
    println!("\n| read | p50 ms | p95 ms | promised p95 ms |\n|---|---|---|---|");
    for (name, promised, path) in reads(&ids) {
        let mut took = Vec::new();
        for number in 0..REPEATS {
            let began = Instant::now();
            fetch(&xtrace, &path(number)).await;
            took.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        // The first of each warms the cache and the plans.
        let mut took = took.split_off(5);
        took.sort_by(f64::total_cmp);
        let percentile = |percent: usize| took[(took.len() - 1) * percent / 100];
        println!(
            "| {name} | {:.1} | {:.1} | {promised} |",
            percentile(50),
            percentile(95)
        );
    }
    println!("\nmemory of xtrace: {} MiB", xtrace.memory_mib().1);
    xtrace.stop().await;
    postgres.drop_database("reads").await;
}

/// Traces evenly over the last days, oldest first.
pub(crate) fn history(observations: u64) -> Load {
    let templates: Vec<_> = (0..TEMPLATES)
        .map(|seed| Template::new(SHAPE, Format::Protobuf, seed + 1000))
        .collect();
    let requests = observations / SHAPE.spans_per_request as u64;
    let end = now();
    let step = DAYS * 86_400 * 1_000_000_000 / requests;
    let body = move |number: u64| {
        let template = &templates[usize::try_from(mix(number) % TEMPLATES).unwrap()];
        template.request(end, number, end - (requests - number) * step)
    };
    Load {
        path: "/v1/traces",
        content_type: "application/x-protobuf",
        gzip: false,
        clients: 8,
        requests,
        items: SHAPE.spans_per_request as u64,
        body: Arc::new(body),
    }
}

/// Waits for what runs in the background, as a day of quiet would.
pub(crate) async fn settle(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    loop {
        let dirty: i64 = sqlx::query_scalar("select count(*) from usage_dirty")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        if dirty == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    sqlx::query("vacuum analyze")
        .execute(&mut connection)
        .await
        .unwrap();
}

async fn get(xtrace: &Xtrace, path: &str) -> Value {
    serde_json::from_slice(&fetch(xtrace, path).await).unwrap()
}

pub(crate) async fn fetch(xtrace: &Xtrace, path: &str) -> bytes::Bytes {
    use std::sync::OnceLock;
    static HTTP: OnceLock<reqwest::Client> = OnceLock::new();
    let http = HTTP.get_or_init(reqwest::Client::new);
    let request = http
        .get(format!("{}/api/public/{path}", xtrace.url))
        .bearer_auth(TOKEN);
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let body = answer.bytes().await.unwrap();
    assert!(
        status.is_success(),
        "{path}: {status} {}",
        String::from_utf8_lossy(&body)
    );
    body
}

/// What the reads ask for: values that are there.
struct Ids {
    small: Vec<String>,
    large: String,
    samples: Vec<Value>,
}

impl Ids {
    async fn find(xtrace: &Xtrace) -> Self {
        let newest = get(xtrace, "traces?limit=1&fields=core").await;
        let page = get(xtrace, "traces?limit=100&page=700&fields=core,io").await;
        let samples = page["data"].as_array().unwrap().clone();
        let id = |trace: &Value| trace["id"].as_str().unwrap().to_owned();
        Self {
            small: samples.iter().map(id).collect(),
            large: id(&newest["data"][0]),
            samples,
        }
    }

    /// A member of one of the traces.
    fn value(&self, number: u64, pointer: &str) -> String {
        let sample = &self.samples[usize::try_from(number).unwrap() % self.samples.len()];
        sample
            .pointer(pointer)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }
}

type Read<'a> = (&'static str, u32, Box<dyn Fn(u64) -> String + 'a>);

/// A question about observations of the last days, by model.
pub(crate) fn metrics(
    days: i64,
    wanted: &[&str],
    granularity: Option<&str>,
) -> Box<dyn Fn(u64) -> String> {
    let metric = |one: &&str| {
        let (measure, aggregation) = one.split_once(':').unwrap();
        json!({"measure": measure, "aggregation": aggregation})
    };
    let end = chrono::Utc::now() - chrono::TimeDelta::hours(12);
    let begin = end - chrono::TimeDelta::days(days);
    let query = json!({
        "view": "observations",
        "metrics": wanted.iter().map(metric).collect::<Vec<_>>(),
        "dimensions": [{"field": "providedModelName"}],
        "timeDimension": granularity.map(|granularity| json!({"granularity": granularity})),
        "fromTimestamp": begin.to_rfc3339(),
        "toTimestamp": end.to_rfc3339(),
        "config": {"row_limit": 1000},
    });
    let path = format!("v2/metrics?query={}", url_encode(&query.to_string()));
    Box::new(move |_| path.clone())
}

/// What one of the reads asks for.
async fn make_prompt(xtrace: &Xtrace) {
    let body = json!({"name": "greeting", "prompt": "Hello {{name}}", "labels": ["production"]});
    let request = reqwest::Client::new()
        .post(format!("{}/api/public/v2/prompts", xtrace.url))
        .bearer_auth(TOKEN)
        .json(&body);
    assert!(request.send().await.unwrap().status().is_success());
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn reads(ids: &Ids) -> Vec<Read<'_>> {
    let list = |filter: String| format!("traces?limit=50&{filter}");
    let by =
        move |parameter: &'static str, pointer: &'static str| -> Box<dyn Fn(u64) -> String + '_> {
            Box::new(move |number| list(format!("{parameter}={}", ids.value(number, pointer))))
        };
    let fixed = move |path: &'static str| -> Box<dyn Fn(u64) -> String + '_> {
        Box::new(move |_| path.to_owned())
    };
    let hours = move |number: u64, hours: i64| {
        let from =
            chrono::Utc::now() - chrono::TimeDelta::hours(20 + i64::try_from(number).unwrap());
        let to = from + chrono::TimeDelta::hours(hours);
        let text = |at: chrono::DateTime<chrono::Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        format!("fromTimestamp={}&toTimestamp={}", text(from), text(to))
    };
    let metadata = move |number: u64| {
        let value = ids.value(number, "/metadata/customer");
        let filter = json!([{"column": "metadata", "key": "customer", "operator": "=", "type": "stringObject", "value": value}]);
        let filter: String = url_encode(&filter.to_string());
        list(format!("filter={filter}"))
    };
    vec![
        (
            "newest 50 traces with aggregates",
            10,
            fixed("traces?limit=50"),
        ),
        ("by user", 15, by("userId", "/userId")),
        ("by session", 15, by("sessionId", "/sessionId")),
        ("by name", 15, by("name", "/name")),
        (
            "by environment, one in ten",
            15,
            fixed("traces?limit=50&environment=staging"),
        ),
        (
            "by environment, absent",
            15,
            fixed("traces?limit=50&environment=nowhere"),
        ),
        ("by tag, one in five", 15, by("tags", "/tags/0")),
        ("by tag, rare", 15, fixed("traces?limit=50&tags=rare")),
        ("by tag, absent", 15, fixed("traces?limit=50&tags=absent")),
        (
            "by a range of 3 hours",
            15,
            Box::new(move |number| list(hours(number, 3))),
        ),
        ("by version", 15, by("version", "/version")),
        ("by release", 15, by("release", "/release")),
        ("by metadata key", 15, Box::new(metadata)),
        (
            "a trace of 5 observations",
            5,
            Box::new(|number| {
                format!(
                    "traces/{}",
                    ids.small[usize::try_from(number).unwrap() % ids.small.len()]
                )
            }),
        ),
        (
            "a trace of 1000 observations",
            40,
            Box::new(|_| format!("traces/{}", ids.large)),
        ),
        (
            "metrics/daily, 30 days",
            10,
            fixed("metrics/daily?limit=50"),
        ),
        ("page 400", 50, fixed("traces?limit=50&page=400")),
        (
            "sorted by cost",
            20,
            fixed("traces?limit=50&orderBy=totalCost.desc"),
        ),
        ("newest 50 observations", 15, fixed("observations?limit=50")),
        (
            "newest 50 observations, version 2",
            15,
            fixed("v2/observations?limit=50&fields=core,basic,io,usage"),
        ),
        (
            "v2/metrics, 30 days by day and model: cost, tokens, count",
            300,
            metrics(
                30,
                &["totalCost:sum", "totalTokens:sum", "count:count"],
                Some("day"),
            ),
        ),
        (
            "v2/metrics, 30 days by day and model: p95 of latency",
            300,
            metrics(30, &["latency:p95"], Some("day")),
        ),
        (
            "v2/metrics, a day by model: cost, p95 of latency",
            50,
            metrics(1, &["totalCost:sum", "latency:p95"], None),
        ),
        (
            "xtrace.generation.duration, a week by the hour: p95 by model",
            1000,
            week_of_generations(),
        ),
        ("a prompt", 2, fixed("v2/prompts/greeting")),
    ]
}

/// A derived series.
fn week_of_generations() -> Box<dyn Fn(u64) -> String> {
    let end = chrono::Utc::now();
    let plain = |at: chrono::DateTime<chrono::Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let path = format!(
        "metrics/query?name=xtrace.generation.duration&agg=p95&group_by=model&step=1h&from={}&to={}",
        plain(end - chrono::TimeDelta::days(7)),
        plain(end)
    );
    Box::new(move |_| path.clone())
}

fn url_encode(text: &str) -> String {
    let encode = |byte: u8| format!("%{byte:02X}");
    text.bytes().map(encode).collect()
}
