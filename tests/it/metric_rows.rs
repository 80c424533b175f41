//! How points lie: late ones rewrite little, what can't be read is kept, and one bad shard stops no other.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use xtrace_store::metrics::compact;
use xtrace_store::{Retention, maintenance};

use crate::harness::Xtrace;
use crate::metrics::{BATCH, point, stored};

/// Names of chunk rows, which change when they are written again.
async fn rows_of_chunks(sql: &mut PgConnection) -> BTreeSet<(i64, DateTime<Utc>, String)> {
    let rows: Vec<(i64, DateTime<Utc>, String)> = sqlx::query_as(
        "select series_id, first_at, tableoid || ' ' || ctid || ' ' || xmin from metric_chunks where project_id = 'default'",
    )
    .fetch_all(sql)
    .await
    .unwrap();
    rows.into_iter().collect()
}

async fn assert_chunks_do_not_overlap(sql: &mut PgConnection) {
    let overlaps: i64 = sqlx::query_scalar(
        "select count(*) from metric_chunks a join metric_chunks b
             on a.project_id = b.project_id and a.series_id = b.series_id and a.first_at < b.first_at
            and a.last_at >= b.first_at where a.project_id = 'default'",
    )
    .fetch_one(sql)
    .await
    .unwrap();
    assert_eq!(overlaps, 0);
}

async fn send(xtrace: &Xtrace, points: Vec<Value>) {
    let (status, body) = xtrace.post(BATCH, &json!({"metrics": points})).await;
    assert_eq!(status, 200, "{body}");
}

/// An agent that was away sends what it buffered beside what is new: the days between are not written again.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_point_rewrites_its_chunk_alone() {
    const SERIES: u64 = 3;
    const DAYS: i64 = 20;
    const A_DAY: i64 = 1500;
    let xtrace = Xtrace::start().await;
    let mut sql = xtrace.sql().await;
    let midnight = Utc::now().date_naive().and_time(chrono::NaiveTime::MIN);
    let begin = midnight.and_utc() - TimeDelta::days(DAYS);
    let mut expected = BTreeMap::new();
    let points =
        |expected: &mut BTreeMap<(String, i64), f64>, times: Vec<DateTime<Utc>>, value: f64| {
            let mut points = Vec::new();
            for (at, series) in times
                .into_iter()
                .flat_map(|at| (0..SERIES).map(move |series| (at, series)))
            {
                points.push(point("late", series, at, value));
                let key = (series.to_string(), at.timestamp_nanos_opt().unwrap());
                expected.insert(key, value);
            }
            points
        };
    for day in 0..DAYS {
        let at = |second: i64| begin + TimeDelta::days(day) + TimeDelta::seconds(second * 50);
        send(
            &xtrace,
            points(&mut expected, (0..A_DAY).map(at).collect(), 1.5),
        )
        .await;
    }
    compact::once(&xtrace.store, 0).await.unwrap();
    let before = rows_of_chunks(&mut sql).await;
    assert!(before.len() as u64 >= SERIES * 20 * 2);
    // Within the first chunk of all, and behind the last one.
    let late = begin + TimeDelta::seconds(70);
    let new = begin + TimeDelta::days(DAYS) - TimeDelta::seconds(20);
    send(&xtrace, points(&mut expected, vec![late, new], 2.5)).await;
    compact::once(&xtrace.store, 0).await.unwrap();
    let after = rows_of_chunks(&mut sql).await;
    let rewritten = before.difference(&after).count() as u64;
    assert!(
        rewritten <= SERIES * 3,
        "{rewritten} of {} chunks",
        before.len()
    );
    assert_chunks_do_not_overlap(&mut sql).await;
    assert_eq!(stored(&xtrace, "late").await, expected);
    // What lies everywhere at once is moved by several transactions, none of which reads all.
    for day in 0..DAYS {
        let at = |second: i64| begin + TimeDelta::days(day) + TimeDelta::seconds(second * 400 + 10);
        send(
            &xtrace,
            points(&mut expected, (0..A_DAY / 8).map(at).collect(), 3.5),
        )
        .await;
    }
    compact::once(&xtrace.store, 0).await.unwrap();
    assert_chunks_do_not_overlap(&mut sql).await;
    assert_eq!(stored(&xtrace, "late").await, expected);
}

/// Flips a bit of the row with the most points, whose bytes are the answer.
async fn flip(sql: &mut PgConnection, table: &str) -> Vec<u8> {
    let statement = format!(
        "with row as (select tableoid, ctid from {table} where project_id = 'default' order by points desc limit 1)
         update {table} t set data = set_bit(data, 8 * (length(data) / 2), 1 - get_bit(data, 8 * (length(data) / 2)))
           from row where t.tableoid = row.tableoid and t.ctid = row.ctid returning t.data"
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
        .fetch_one(sql)
        .await
        .unwrap()
}

/// A flipped bit costs the row that it is in, whose bytes are kept; all others are moved and answered.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_set_aside() {
    let xtrace = Xtrace::start().await;
    let mut sql = xtrace.sql().await;
    let begin = Utc::now() - TimeDelta::hours(2);
    let at = |second: i64| begin + TimeDelta::seconds(second);
    let points = |series: u64, range: std::ops::Range<i64>| -> Vec<Value> {
        range
            .map(|second| point("bits", series, at(second), second as f64 / 7.0))
            .collect()
    };
    // Series 0 loses a chunk, series 1 a block, all others nothing.
    send(&xtrace, points(0, 0..100)).await;
    compact::once(&xtrace.store, 0).await.unwrap();
    let chunk = flip(&mut sql, "metric_chunks").await;
    send(&xtrace, points(1, 0..90)).await;
    let block = flip(&mut sql, "metric_blocks").await;
    send(&xtrace, points(0, 50..60)).await;
    for series in 1..8 {
        send(&xtrace, points(series, 100..110)).await;
    }
    // Read before they are moved, and after.
    for _ in 0..2 {
        let found = stored(&xtrace, "bits").await;
        let of = |series: &str| found.keys().filter(|(one, _)| one == series).count();
        assert_eq!(of("0"), 10);
        assert!((1..8).all(|series| of(&series.to_string()) == 10));
        compact::once(&xtrace.store, 0).await.unwrap();
    }
    let mut kept: Vec<Vec<u8>> = sqlx::query_scalar("select data from metric_set_aside")
        .fetch_all(&mut sql)
        .await
        .unwrap();
    kept.sort();
    let mut expected = vec![chunk, block];
    expected.sort();
    assert_eq!(kept, expected);
    let left: i64 = sqlx::query_scalar("select count(*) from metric_blocks")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    assert_eq!(left, 0);
    let (_, metrics) = xtrace.text("/metrics").await;
    for kind in ["block", "chunk"] {
        let line = format!("xtrace_metric_rows_damaged_total{{kind=\"{kind}\"}}");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

/// A shard that can't be moved, here for a chunk of a later version, keeps its blocks; all others are moved.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_fails_stops_no_other() {
    let xtrace = Xtrace::start().await;
    let mut sql = xtrace.sql().await;
    let begin = Utc::now() - TimeDelta::hours(1);
    let all = |from: i64| -> Vec<Value> {
        (0..40)
            .map(|series| point("shards", series, begin + TimeDelta::seconds(from), 1.5))
            .collect()
    };
    send(&xtrace, all(0)).await;
    compact::once(&xtrace.store, 0).await.unwrap();
    let later = "update metric_chunks set format = 9 where series_id =
        (select series_id from metric_series where labels ->> 'series' = '0') returning data";
    let untouched: Vec<u8> = sqlx::query_scalar(later).fetch_one(&mut sql).await.unwrap();
    send(&xtrace, all(10)).await;
    compact::once(&xtrace.store, 0).await.unwrap_err();
    let shards: i64 = sqlx::query_scalar("select count(distinct shard) from metric_blocks")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    assert_eq!(shards, 1, "the others are moved");
    // Blocks are read meanwhile, and a program that knows the version finds all as it was.
    assert_eq!(stored(&xtrace, "shards").await.len(), 79);
    let same: bool = sqlx::query_scalar(
        "update metric_chunks set format = 0 where format = 9 returning data = $1",
    )
    .bind(untouched)
    .fetch_one(&mut sql)
    .await
    .unwrap();
    assert!(same);
    compact::once(&xtrace.store, 0).await.unwrap();
    assert_eq!(stored(&xtrace, "shards").await.len(), 80);
}

/// A series that was silent for as long as points are kept leaves the dictionary, though others of its shard go on; one
/// that has points of a later time stays.
#[tokio::test(flavor = "multi_thread")]
async fn silent_series_leave_the_dictionary() {
    let xtrace = Xtrace::start().await;
    let mut sql = xtrace.sql().await;
    send(&xtrace, vec![point("alive", 0, Utc::now(), 1.5)]).await;
    // All of the same shard, in more than one batch.
    sqlx::query(
        "insert into metric_series (project_id, series_id, name, environment, labels, created_at, seen)
         select project_id, series_id - sign(series_id)::bigint * 64 * n, 'silent', environment, labels, created_at,
                seen - 40
           from metric_series, generate_series(1, 2500) n where name = 'alive'",
    )
    .execute(&mut sql)
    .await
    .unwrap();
    sqlx::query(
        "insert into metric_chunks (project_id, series_id, first_at, last_at, points, data)
         select project_id, min(series_id), now(), now(), 1, '' from metric_series where name = 'silent'
          group by project_id",
    )
    .execute(&mut sql)
    .await
    .unwrap();
    let retention = Retention {
        metrics_days: Some(30),
        ..Retention::default()
    };
    maintenance::once(&xtrace.store, retention).await.unwrap();
    let left: Vec<(String, i64)> =
        sqlx::query_as("select name, count(*) from metric_series group by name order by name")
            .fetch_all(&mut sql)
            .await
            .unwrap();
    assert_eq!(left, [("alive".to_owned(), 1), ("silent".to_owned(), 1)]);
    let blocks: i64 = sqlx::query_scalar("select count(*) from metric_blocks")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    assert_eq!(blocks, 1, "the shard was not empty");
}
