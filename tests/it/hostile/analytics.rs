//! Questions about many rows: answers have a bound in bytes, whether they are read, added up or filled in.

use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::arena::{Arena, PEAK_MIB_MAX, succeed};
use crate::harness::answer;

/// Names of groups: together longer than an answer may be.
const NAMES: usize = 12_000;
const NAME_BYTES: usize = 8_000;

fn metrics(version: &str, dimension: &str, more: &Value) -> String {
    let mut query = json!({"view": "observations", "metrics": [{"measure": "count", "aggregation": "count"}],
        "dimensions": [{"field": dimension}], "fromTimestamp": Utc::now() - TimeDelta::days(10),
        "toTimestamp": Utc::now() + TimeDelta::days(1)});
    query
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let query: String = form_urlencoded::byte_serialize(query.to_string().as_bytes()).collect();
    format!("/api/public/{version}?query={query}")
}

/// A hundred different numbers of each row.
fn hundred() -> Vec<Value> {
    const MEASURES: [&str; 10] = [
        "latency",
        "streamingLatency",
        "timeToFirstToken",
        "inputTokens",
        "outputTokens",
        "totalTokens",
        "inputCost",
        "outputCost",
        "totalCost",
        "tokensPerSecond",
    ];
    const AGGREGATIONS: [&str; 10] = [
        "sum", "avg", "count", "max", "min", "p50", "p75", "p90", "p95", "p99",
    ];
    let of = |measure| {
        let metric = move |aggregation| json!({"measure": measure, "aggregation": aggregation});
        AGGREGATIONS.into_iter().map(metric)
    };
    MEASURES.into_iter().flat_map(of).collect()
}

/// An observation of each name, and usage of as many models.
async fn fill(arena: &Arena) {
    let observation = json!({"id": "o", "traceId": "t", "name": "o", "model": "m"});
    let body = json!({"trace": {"id": "t"}, "observations": [observation]});
    succeed(arena.attack(Method::POST, "/v1/l/batch").json(&body)).await;
    let long = format!("repeat('n', {NAME_BYTES}) || n");
    let copies = [
        (
            "observations",
            vec![("id", "'o-' || n".to_owned()), ("name", long.clone())],
        ),
        (
            "traces",
            vec![
                ("id", "'t-' || n".to_owned()),
                (
                    "usage",
                    format!("jsonb_build_array(usage -> 0 || jsonb_build_object('model', {long}))"),
                ),
            ],
        ),
    ];
    let mut connection = arena.sql().await;
    for (table, changed) in copies {
        let columns: Vec<String> = sqlx::query_scalar(
            "select quote_ident(attname) from pg_attribute
              where attrelid = to_regclass($1) and attnum > 0 and not attisdropped",
        )
        .bind(table)
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let value = |column: &String| {
            let changed = changed.iter().find(|(name, _)| name == column);
            changed
                .map_or(column.as_str(), |(_, value)| value)
                .to_owned()
        };
        let values: Vec<String> = columns.iter().map(value).collect();
        let statement = format!(
            "insert into {table} ({}) select {} from {table} cross join generate_series(1, {NAMES}) n
              where project_id = 'attacker' and id in ('o', 't')",
            columns.join(", "),
            values.join(", ")
        );
        let done = sqlx::query(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await;
        assert_eq!(done.unwrap().rows_affected(), NAMES as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_names_of_groups_get_bounded_answers() {
    let arena = Arena::start().await;
    fill(&arena).await;
    let all = json!([{"measure": "count", "aggregation": "count"}, {"measure": "latency", "aggregation": "histogram"}]);
    let minute = json!({"timeDimension": {"granularity": "minute"}, "dimensions": [], "metrics": hundred(),
        "fromTimestamp": "2026-01-01T00:00:00Z", "toTimestamp": "2026-03-10T00:00:00Z"});
    let first = |mut more: Value| {
        more["config"] = json!({"row_limit": 10});
        more
    };
    let refused = [
        "/api/public/metrics/daily".to_owned(),
        metrics("metrics", "providedModelName", &json!({})),
        metrics("metrics", "providedModelName", &json!({"metrics": all})),
        metrics("metrics", "name", &json!({})),
        metrics("metrics", "name", &json!({"metrics": all})),
        metrics(
            "metrics",
            "name",
            &json!({"timeDimension": {"granularity": "day"}}),
        ),
        metrics("metrics", "name", &minute),
    ];
    // What of it was asked for is answered, and what nothing is in takes no room.
    let answered = [
        metrics("v2/metrics", "name", &json!({"metrics": all})),
        metrics(
            "v2/metrics",
            "name",
            &json!({"timeDimension": {"granularity": "day"}}),
        ),
        metrics("metrics", "name", &first(minute.clone())),
        metrics("v2/metrics", "name", &minute),
    ];
    let ask = async |path: &String| answer(arena.attack(Method::GET, path)).await;
    for path in &refused {
        let (status, body) = ask(path).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert!(body.to_string().contains("Ask for less"), "{path}: {body}");
    }
    for path in &answered {
        let (status, body) = ask(path).await;
        let short: String = body.to_string().chars().take(300).collect();
        assert_eq!(status, 200, "{path}: {short}");
    }
    // All at once: they wait for each other or are told to come again.
    let paths = || refused.iter().chain(&answered);
    let (answers, report) = arena.watch(join_all(paths().map(ask))).await;
    report.assert_served();
    for ((status, _), path) in answers.iter().zip(paths()) {
        assert!(
            [200, 422, 429].contains(&status.as_u16()),
            "{path}: {status}"
        );
    }
    let peak = arena.xtrace.peak_mib();
    assert!(peak <= PEAK_MIB_MAX, "memory rose to {peak} MiB");
}
