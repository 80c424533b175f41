//! Metrics: how fast points come in, how small they are kept, how soon they answer, beside a row a point
//! with its labels in JSON.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use xtrace_store::metrics::compact;
use xtrace_store::{Options, Store};

use crate::bodies::{self, mix};
use crate::machine::{Postgres, Xtrace};
use crate::reads::fetch;
use crate::scaled;
use crate::send::{Load, Outcome, send};
use crate::write::{now, points, print, print_head};

/// Points of one OTLP request, as the collector's batches have them.
const PER_REQUEST: u64 = 1000;
/// Services that export; all their series together stay below the limit of a metric.
const SERVICES: u64 = 8;
const SERIES: u64 = 200;
/// A point every five seconds, for a day.
const STEP_S: i64 = 5;
const DAY_S: i64 = 86_400;
const REPEATS: usize = 60;

pub(crate) async fn table(postgres: &Postgres) {
    write(postgres).await;
    let (blocks, rows) = (kept(postgres).await, row_by_row(postgres).await);
    println!(
        "\nThe same points as rows with JSON labels: {:.0} points/s in batches of 512 (xtrace {:.1} times as many), \
         {:.0} bytes a point ({:.1} times as many), a day of 50 series {:.0} ms ({:.1} times as long)",
        rows.per_second,
        blocks.per_second / rows.per_second,
        rows.bytes,
        rows.bytes / blocks.bytes,
        rows.day_ms,
        rows.day_ms / blocks.day_ms,
    );
    under_load(postgres).await;
    many_names(postgres).await;
}

async fn write(postgres: &Postgres) {
    print_head();
    for (name, load) in [
        ("native points, JSON, 512 a request", points(2_000_000)),
        ("OTLP points, protobuf, 1000 a request", otlp(3_000_000)),
    ] {
        let url = postgres.database("load").await;
        let xtrace = Xtrace::start(&url).await;
        let outcome = send(postgres, &xtrace, load).await;
        print(name, &outcome, xtrace.memory_mib().1);
        xtrace.stop().await;
        postgres.drop_database("load").await;
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = any_value::Value::StringValue(value.to_owned());
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// Counters of 900 series and histograms of 100, of one of the services.
fn otlp_request(number: u64, time: u64) -> Bytes {
    let service = number % SERVICES;
    let attributes = |series: u64| {
        vec![
            attribute("gen_ai.request.model", &format!("model-{}", series % 10)),
            attribute("gen_ai.operation.name", "chat"),
            attribute("server.address", &format!("10.0.0.{}", series / 10)),
        ]
    };
    let start = time - 3_600_000_000_000;
    let counters = (0..PER_REQUEST - 100).map(|series| NumberDataPoint {
        attributes: attributes(series),
        start_time_unix_nano: start,
        time_unix_nano: time,
        value: Some(number_data_point::Value::AsInt(
            (number * 100 + mix(series) % 100).cast_signed(),
        )),
        ..NumberDataPoint::default()
    });
    let bounds: Vec<f64> = (0..14).map(|power| 0.01 * f64::from(1 << power)).collect();
    let histograms = (0..100).map(|series| HistogramDataPoint {
        attributes: attributes(series),
        start_time_unix_nano: start,
        time_unix_nano: time,
        count: number * 15,
        sum: Some(number as f64 * 3.5),
        bucket_counts: (0..15).map(|bucket| number * (mix(bucket) % 3)).collect(),
        explicit_bounds: bounds.clone(),
        ..HistogramDataPoint::default()
    });
    let sum = Sum {
        data_points: counters.collect(),
        aggregation_temporality: 2,
        is_monotonic: true,
    };
    let histogram = Histogram {
        data_points: histograms.collect(),
        aggregation_temporality: 2,
    };
    let metric = |name: &str, data| Metric {
        name: name.to_owned(),
        unit: "1".to_owned(),
        data: Some(data),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics {
        scope: Some(InstrumentationScope {
            name: "bench".to_owned(),
            ..InstrumentationScope::default()
        }),
        metrics: vec![
            metric("requests", metric::Data::Sum(sum)),
            metric("duration", metric::Data::Histogram(histogram)),
        ],
        ..ScopeMetrics::default()
    }];
    let resource = Resource {
        attributes: vec![attribute("service.name", &format!("service-{service}"))],
        ..Resource::default()
    };
    let resource_metrics = vec![ResourceMetrics {
        resource: Some(resource),
        scope_metrics,
        ..ResourceMetrics::default()
    }];
    ExportMetricsServiceRequest { resource_metrics }
        .encode_to_vec()
        .into()
}

fn otlp(points: u64) -> Load {
    let begin = now();
    let requests = scaled(points) / PER_REQUEST;
    let ready: Vec<Bytes> = (0..requests)
        .map(|number| otlp_request(number, begin + number / SERVICES * 1_000_000_000))
        .collect();
    Load {
        path: "/v1/metrics",
        content_type: "application/x-protobuf",
        gzip: false,
        clients: 16,
        requests,
        items: PER_REQUEST,
        body: Arc::new(move |number| ready[usize::try_from(number).unwrap()].clone()),
    }
}

/// What a day of points takes, and how long questions about it.
struct Kept {
    per_second: f64,
    bytes: f64,
    day_ms: f64,
}

fn begin() -> DateTime<Utc> {
    DateTime::from_timestamp(Utc::now().timestamp() / 3600 * 3600, 0).unwrap()
        - TimeDelta::seconds(DAY_S)
}

/// Nebula's day, as it comes: all series every five seconds.
fn day(begin: DateTime<Utc>) -> Load {
    let body = move |number: u64| {
        let times = (0..10).map(|of_request| (number * 10 + of_request).cast_signed() * STEP_S);
        let points: Vec<_> = times
            .flat_map(|second| (0..SERIES).map(move |series| (second, series)))
            .map(|(second, series)| {
                // Half of them as sensors tell them, half with all the digits that a division leaves.
                let noise = mix(second.cast_unsigned() ^ (series << 40)) % 1000;
                let value = noise as f64 / if series % 2 == 0 { 10.0 } else { 7.0 };
                json!({"name": "gpu_utilization", "value": value, "timestamp": begin + TimeDelta::seconds(second),
                    "labels": {"node_id": format!("node-{}", series / 8), "gpu_index": (series % 8).to_string()}})
            })
            .collect();
        Bytes::from(json!({ "metrics": points }).to_string())
    };
    Load {
        path: "/v1/metrics/batch",
        content_type: "application/json",
        gzip: false,
        clients: 8,
        requests: scaled(1728),
        items: 10 * SERIES,
        body: Arc::new(body),
    }
}

async fn kept(postgres: &Postgres) -> Kept {
    let url = postgres.database("day").await;
    let xtrace = Xtrace::start(&url).await;
    let begin = begin();
    let load = day(begin);
    let points = load.requests * load.items;
    let outcome: Outcome = send(postgres, &xtrace, load).await;
    let store = Store::new(&Options::new(url.clone())).unwrap();
    let began = Instant::now();
    compact::once(&store, 0).await.unwrap();
    let took = began.elapsed();
    let mut sql = PgConnection::connect(&url).await.unwrap();
    sqlx::query("vacuum full").execute(&mut sql).await.unwrap();
    sqlx::query("analyze").execute(&mut sql).await.unwrap();
    let bytes: i64 = sqlx::query_scalar(
        "select sum(pg_total_relation_size(inhrelid))::bigint from pg_inherits
          where inhparent = 'metric_chunks'::regclass
            and pg_relation_size(inhrelid) > 0",
    )
    .fetch_one(&mut sql)
    .await
    .unwrap();
    let bytes = bytes as f64 / points as f64;
    println!(
        "\nA day of {SERIES} series, half of them of one decimal, {points} points: {bytes:.1} bytes a point in chunks; the last blocks moved in {:.1} s\n",
        took.as_secs_f64()
    );
    println!("| question | p50 ms | p95 ms | promised p95 ms |\n|---|---|---|---|");
    let end = begin + TimeDelta::seconds(DAY_S - 1);
    let hour = end - TimeDelta::hours(1);
    let range = |from: DateTime<Utc>| {
        let plain = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        format!("from={}&to={}", plain(from), plain(end))
    };
    let one = "labels=%7B%22node_id%22%3A%22node-3%22%2C%22gpu_index%22%3A%225%22%7D";
    let name = "metrics/query?name=gpu_utilization&step=1m";
    measure(
        &xtrace,
        "one series, an hour by the minute",
        5,
        &format!("{name}&{one}&{}", range(hour)),
    )
    .await;
    measure(
        &xtrace,
        "50 series of 200, an hour by the minute",
        200,
        &format!("{name}&{}", range(hour)),
    )
    .await;
    let day = format!("{name}&{}", range(begin));
    let day_ms = measure(&xtrace, "50 series of 200, a day by the minute", 200, &day).await;
    let all = format!("{name}&agg=p95&group_by=none&{}", range(begin));
    measure(
        &xtrace,
        "p95 of all 200 series, a day by the minute",
        1000,
        &all,
    )
    .await;
    xtrace.stop().await;
    store.close().await;
    postgres.drop_database("day").await;
    Kept {
        per_second: outcome.per_second(),
        bytes,
        day_ms,
    }
}

/// p50 in milliseconds.
async fn measure(xtrace: &Xtrace, name: &str, promised: u32, path: &str) -> f64 {
    let mut took = Vec::new();
    for _ in 0..REPEATS {
        let began = Instant::now();
        fetch(xtrace, path).await;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let mut took = took.split_off(5);
    took.sort_by(f64::total_cmp);
    let percentile = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "| {name} | {:.1} | {:.1} | {promised} |",
        percentile(50),
        percentile(95)
    );
    percentile(50)
}

/// What most services do: a row a point, its labels in JSON, and indexes to find it by.
async fn row_by_row(postgres: &Postgres) -> Kept {
    let url = postgres.database("rows").await;
    let mut sql = PgConnection::connect(&url).await.unwrap();
    for statement in [
        "create table points (project_id text, name text, labels jsonb, ts timestamptz, value float8)",
        "create index on points (project_id, name, ts)",
        "create index on points using gin (labels)",
    ] {
        sqlx::query(statement).execute(&mut sql).await.unwrap();
    }
    let begin = begin();
    // A quarter of the day is enough to tell.
    let batches = scaled(1728) / 4 * 10 * SERIES / 512;
    let began = Instant::now();
    for batch in 0..batches.cast_signed() {
        sqlx::query(
            "insert into points
             select 'default', 'gpu_utilization',
                    jsonb_build_object('node_id', 'node-' || (n % 200) / 8, 'gpu_index', (n % 8)::text),
                    $1 + make_interval(secs => n / 200 * 5), (n * 7919 % 1000) / 10.0
               from generate_series($2::bigint, $2 + 511) n",
        )
        .bind(begin)
        .bind(batch * 512)
        .execute(&mut sql)
        .await
        .unwrap();
    }
    let points = batches as f64 * 512.0;
    let per_second = points / began.elapsed().as_secs_f64();
    sqlx::query("vacuum analyze points")
        .execute(&mut sql)
        .await
        .unwrap();
    let bytes: i64 = sqlx::query_scalar("select pg_total_relation_size('points')")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    let began = Instant::now();
    let _: Vec<(serde_json::Value, DateTime<Utc>, f64)> = sqlx::query_as(
        "select labels, date_trunc('minute', ts), avg(value) from points
          where project_id = 'default' and name = 'gpu_utilization'
            and labels ->> 'node_id' = any(array(select 'node-' || n from generate_series(0, 6) n))
          group by 1, 2",
    )
    .fetch_all(&mut sql)
    .await
    .unwrap();
    // Of a quarter of the day.
    let day_ms = began.elapsed().as_secs_f64() * 4000.0;
    sql.close().await.unwrap();
    postgres.drop_database("rows").await;
    Kept {
        per_second,
        bytes: bytes as f64 / points,
        day_ms,
    }
}

/// Sends points of now, evenly; answers how many came in a second, and how many requests were refused.
async fn stream(address: String) -> (f64, usize) {
    const PER_SECOND: u64 = 100_000;
    const SECONDS: u64 = 60;
    const PER_BATCH: u64 = 2000;
    let http = reqwest::Client::new();
    let begin = Utc::now().timestamp();
    let ready: Vec<String> = (0..5)
        .map(|number| {
            let body =
                bodies::metric_points(usize::try_from(PER_BATCH).unwrap(), 10_000, number, begin);
            String::from_utf8(body.to_vec()).unwrap()
        })
        .collect();
    let begin = DateTime::from_timestamp(begin, 0).unwrap().to_rfc3339();
    let mut interval =
        tokio::time::interval(Duration::from_micros(1_000_000 * PER_BATCH / PER_SECOND));
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..scaled(SECONDS).max(5) * PER_SECOND / PER_BATCH {
        interval.tick().await;
        let body =
            ready[usize::try_from(number % 5).unwrap()].replace(&begin, &Utc::now().to_rfc3339());
        let request = http
            .post(format!("{address}/v1/metrics/batch"))
            .bearer_auth(crate::machine::TOKEN)
            .header("content-type", "application/json")
            .body(body);
        tasks.spawn(async move {
            match request.send().await {
                Ok(answer) if answer.status().is_success() => None,
                Ok(answer) => Some(format!("{}", answer.status())),
                Err(error) => Some(format!("{error:?}")),
            }
        });
    }
    let outcomes = tasks.join_all().await;
    for fault in outcomes.iter().flatten() {
        println!("not acknowledged: {fault}");
    }
    let sent = outcomes.iter().filter(|fault| fault.is_none()).count();
    let per_second = sent as f64 * PER_BATCH as f64 / began.elapsed().as_secs_f64();
    (per_second, outcomes.len() - sent)
}

/// A router that asks for one series while points come as fast as a large cluster sends them.
async fn under_load(postgres: &Postgres) {
    let url = postgres.database("load").await;
    let xtrace = Xtrace::start(&url).await;
    let sending = tokio::spawn(stream(xtrace.url.clone()));
    let mut took = Vec::new();
    let path = "metrics/query?name=gpu_utilization&step=1m&labels=%7B%22node_id%22%3A%22node-3%22%2C%22gpu_index%22%3A%225%22%7D";
    while !sending.is_finished() {
        let began = Instant::now();
        fetch(&xtrace, path).await;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (per_second, failed) = sending.await.unwrap();
    took.sort_by(f64::total_cmp);
    let percentile = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "\nWhile {per_second:.0} points/s of 10,000 series come ({failed} requests refused), one series answers in \
         {:.1} ms p50, {:.1} ms p95 (promised 100), {:.1} ms p99 (promised 500); memory {} MiB",
        percentile(50),
        percentile(95),
        percentile(99),
        xtrace.memory_mib().1
    );
    xtrace.stop().await;
    postgres.drop_database("load").await;
}

/// Names do not depend on how many series there are.
async fn many_names(postgres: &Postgres) {
    let url = postgres.database("names").await;
    let xtrace = Xtrace::start(&url).await;
    let mut sql = PgConnection::connect(&url).await.unwrap();
    sqlx::query(
        "insert into metric_series (project_id, series_id, name, environment, labels, created_at)
         select 'default', n, 'metric_' || n % 100, 'default', jsonb_build_object('n', n), now()
           from generate_series(1, $1::bigint) n",
    )
    .bind(scaled(1_000_000).cast_signed())
    .execute(&mut sql)
    .await
    .unwrap();
    sqlx::query("vacuum analyze metric_series")
        .execute(&mut sql)
        .await
        .unwrap();
    println!("\n| question | p50 ms | p95 ms | promised p95 ms |\n|---|---|---|---|");
    measure(&xtrace, "names, of a million series", 2, "metrics/names").await;
    sql.close().await.unwrap();
    xtrace.stop().await;
    postgres.drop_database("names").await;
}
