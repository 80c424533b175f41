//! Metrics: points stay what they were, in blocks, in chunks and on the way between them.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::Connection;
use xtrace_model::ProjectId;
use xtrace_model::metric::PointValue;
use xtrace_store::metrics::{compact, read, series};

use crate::harness::{SeparateXtrace, TOKEN, Xtrace, answer, new_database};
use crate::startup::until;

pub(crate) const BATCH: &str = "/v1/metrics/batch";

/// A generator of numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

pub(crate) fn point(name: &str, series: u64, at: DateTime<Utc>, value: f64) -> Value {
    json!({"name": name, "labels": {"series": series.to_string()}, "value": value, "timestamp": at.to_rfc3339()})
}

/// Every point of a metric, by its label `series` and its time.
pub(crate) async fn stored(xtrace: &Xtrace, name: &str) -> BTreeMap<(String, i64), f64> {
    let project = ProjectId::parse("default").unwrap();
    let selector = series::Selector {
        name: name.to_owned(),
        ..series::Selector::default()
    };
    let all = (DateTime::UNIX_EPOCH, Utc::now() + TimeDelta::days(1));
    let found = series::select(&xtrace.store, &project, &selector, all.0)
        .await
        .unwrap();
    let labels: BTreeMap<i64, String> = found
        .into_iter()
        .map(|one| (one.id, one.labels["series"].clone()))
        .collect();
    let ids: Vec<i64> = labels.keys().copied().collect();
    let read = read::points(&xtrace.store, &project, &ids, all, BTreeMap::new())
        .await
        .unwrap();
    let mut points = BTreeMap::new();
    for (id, point) in read
        .into_iter()
        .flat_map(|(id, points)| points.into_iter().map(move |point| (id, point)))
    {
        let PointValue::Double(value) = point.value else {
            panic!("{point:?}")
        };
        let key = (labels[&id].clone(), point.time);
        assert_eq!(points.insert(key, value), None, "a point is there twice");
    }
    points
}

/// Late points, repeated ones, several days, and moves into chunks in between: what came last stays.
#[tokio::test(flavor = "multi_thread")]
async fn points_are_the_same_wherever_they_lie() {
    let xtrace = Xtrace::start().await;
    let mut dice = Dice(7);
    let begin = Utc::now() - TimeDelta::days(2);
    let mut expected = BTreeMap::new();
    for round in 0..12 {
        let mut points = Vec::new();
        for _ in 0..600 {
            let (series, second) = (dice.roll(5), dice.roll(40) * 3600 + dice.roll(120));
            let at = begin + TimeDelta::seconds(i64::try_from(second).unwrap());
            let value = dice.roll(1000) as f64 / if dice.roll(2) == 0 { 10.0 } else { 7.0 };
            points.push(point("load", series, at, value));
            expected.insert(
                (series.to_string(), at.timestamp_nanos_opt().unwrap()),
                value,
            );
        }
        let (status, body) = xtrace.post(BATCH, &json!({"metrics": points})).await;
        assert_eq!(status, 200, "{body}");
        if round % 3 == 2 {
            compact::once(&xtrace.store, 0).await.unwrap();
        }
        assert_eq!(stored(&xtrace, "load").await, expected, "round {round}");
    }
    compact::once(&xtrace.store, 0).await.unwrap();
    assert_eq!(stored(&xtrace, "load").await, expected);
    let mut sql = xtrace.sql().await;
    let (blocks, chunks, most): (i64, i64, i32) = sqlx::query_as(
        "select (select count(*) from metric_blocks), count(*), max(points) from metric_chunks",
    )
    .fetch_one(&mut sql)
    .await
    .unwrap();
    assert_eq!(blocks, 0);
    assert!(chunks >= 10 && most <= 720, "{chunks} {most}");
}

/// The answer to a question is the same before and after.
#[tokio::test(flavor = "multi_thread")]
async fn answers_do_not_change_when_points_move() {
    let xtrace = Xtrace::start().await;
    let now = Utc::now();
    for half in 0..2 {
        let points: Vec<Value> = (0..600_i64)
            .map(|n| {
                point(
                    "depth",
                    (n % 60).unsigned_abs(),
                    now - TimeDelta::seconds(n * 7 + half * 30),
                    n as f64,
                )
            })
            .collect();
        assert_eq!(xtrace.post(BATCH, &json!({"metrics": points})).await.0, 200);
        if half == 0 {
            compact::once(&xtrace.store, 0).await.unwrap();
        }
    }
    let from = (now - TimeDelta::hours(2))
        .to_rfc3339()
        .replace("+00:00", "Z");
    let to = now.to_rfc3339().replace("+00:00", "Z");
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut of_all = Vec::new();
        for agg in [
            "avg", "max", "min", "sum", "last", "count", "p50", "p95", "rate", "increase",
        ] {
            for more in [
                "",
                "&group_by=series",
                "&group_by=none",
                "&step=1s",
                "&labels=%7B%22series%22%3A3%7D",
            ] {
                let path = format!(
                    "/api/public/metrics/query?name=depth&from={from}&to={to}&agg={agg}{more}"
                );
                let (status, body) = xtrace.get(&path).await;
                assert_eq!(status, 200, "{body}");
                of_all.push(body);
            }
        }
        answers.push(of_all);
        compact::once(&xtrace.store, 0).await.unwrap();
    }
    assert_eq!(answers[0], answers[1]);
    let all = &answers[0][0];
    // Sixty series are more than an answer holds; those with the newest points are there.
    assert_eq!(
        (&all["meta"]["series_count"], &all["meta"]["truncated"]),
        (&json!(50), &json!(true))
    );
    let newest = DateTime::parse_from_rfc3339(all["meta"]["latest_ts"].as_str().unwrap()).unwrap();
    assert_eq!(newest.timestamp_micros(), now.timestamp_micros());
}

/// Ends sessions that hold the lock under which points are moved; answers how many.
async fn cut_moves(sql: &mut sqlx::PgConnection) -> i64 {
    sqlx::query_scalar(
        "select count(*) filter (where pg_terminate_backend(l.pid)) from pg_locks l
           join pg_stat_activity a on a.pid = l.pid
          where l.locktype = 'advisory' and l.granted and l.objid = 1667563523 and a.datname = current_database()",
    )
    .fetch_one(sql)
    .await
    .unwrap()
}

/// Killed again and again while points come and are moved: everything acknowledged is there, once, as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_points_move_loses_nothing() {
    let database = new_database().await;
    let mut expected = BTreeMap::new();
    let begin = Utc::now() - TimeDelta::hours(3);
    for round in 0..4 {
        let xtrace = SeparateXtrace::start_on(&database).await;
        let store =
            xtrace_store::Store::new(&xtrace_store::Options::new(database.clone())).unwrap();
        let moving = tokio::spawn(async move {
            loop {
                // Its connection may be cut.
                let _ = compact::once(&store, 0).await;
            }
        });
        let mut sql = sqlx::PgConnection::connect(&database).await.unwrap();
        let (mut batch, mut cuts) = (0_i64, 0_i64);
        // At least one move of this round ends in the middle.
        while batch < 15 || cuts < 1 {
            let mut points = Vec::new();
            for n in 0..200_i64 {
                // Some belong to chunks of rounds before.
                let second = (round * 3000 + batch * 200 + n) / (1 + n % 2);
                let (series, at) = (
                    (n % 8).unsigned_abs(),
                    begin + TimeDelta::seconds(second % 10_000),
                );
                let value = (round * 1_000_000 + batch * 1000 + n) as f64 / 7.0;
                points.push(point("steady", series, at, value));
                let key = (series.to_string(), at.timestamp_nanos_opt().unwrap());
                expected.insert(key, value);
            }
            let request = xtrace
                .http
                .post(format!("{}{BATCH}", xtrace.url))
                .bearer_auth(TOKEN);
            let (status, body) = answer(request.json(&json!({"metrics": points}))).await;
            assert_eq!(status, 200, "{body}");
            cuts += cut_moves(&mut sql).await;
            batch += 1;
        }
        // Dropped in the middle of a transaction, as a crash would.
        moving.abort();
        xtrace.kill().await;
    }
    let xtrace = Xtrace::start_on(&database, &[]).await;
    assert_eq!(stored(&xtrace, "steady").await, expected);
    compact::once(&xtrace.store, 0).await.unwrap();
    assert_eq!(stored(&xtrace, "steady").await, expected);
}

/// Connections are cut at any time, so that nobody knows of some transactions whether they were committed. Senders
/// repeat what was not acknowledged: in the end each point is there once, with its last value.
#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_lose_and_double_no_point() {
    let database = new_database().await;
    let xtrace = Xtrace::start_on(&database, &[]).await;
    let mut sql = sqlx::PgConnection::connect(&database).await.unwrap();
    let begin = Utc::now() - TimeDelta::hours(1);
    let send = async |sender: i64| {
        let mut sent = BTreeMap::new();
        for batch in 0..25_i64 {
            let mut points = Vec::new();
            for n in 0..100_i64 {
                let series = (sender * 10 + n % 10).unsigned_abs();
                let at = begin + TimeDelta::seconds(batch * 40 + n / 10);
                let value = (sender * 100_000 + batch * 100 + n) as f64 / 3.0;
                points.push(point("cut", series, at, value));
                sent.insert(
                    (series.to_string(), at.timestamp_nanos_opt().unwrap()),
                    value,
                );
            }
            let body = json!({"metrics": points});
            while xtrace.post(BATCH, &body).await.0 != 200 {}
        }
        sent
    };
    let sending = futures_util::future::join_all((0..4).map(send));
    let mut cuts = 0_i64;
    let cutting = async {
        loop {
            let cut: i64 = sqlx::query_scalar(
                "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity
                  where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'",
            )
            .fetch_one(&mut sql)
            .await
            .unwrap();
            cuts += cut;
            // Room for the next transactions to begin.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let sent = tokio::select! {
        sent = sending => sent,
        () = cutting => unreachable!("it ends with the others"),
    };
    assert!(cuts > 0, "nothing was cut");
    let expected: BTreeMap<(String, i64), f64> = sent.into_iter().flatten().collect();
    assert_eq!(stored(&xtrace, "cut").await, expected);
    compact::once(&xtrace.store, 0).await.unwrap();
    assert_eq!(stored(&xtrace, "cut").await, expected);
}

/// A server that was promoted lacks the last transactions: series among them are described again before a point of
/// theirs is acknowledged, be it the only one that comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_point_after_a_failover_is_found() {
    let database = new_database().await;
    let xtrace = Xtrace::start_on(&database, &[]).await;
    let send = async |value: f64| {
        let body = json!({"metrics": [point("gpu", 1, Utc::now(), value)]});
        xtrace.post(BATCH, &body).await
    };
    assert_eq!(send(1.0).await.0, 200);
    let mut sql = sqlx::PgConnection::connect(&database).await.unwrap();
    // Nobody can write again before the rows are gone and every connection has ended.
    let mut lost = sql.begin().await.unwrap();
    for statement in ["delete from metric_series", "delete from metric_blocks"] {
        sqlx::query(statement).execute(&mut *lost).await.unwrap();
    }
    let ended: Vec<i32> = sqlx::query_scalar(
        "with ours as materialized (
           select pid from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid() and usename = current_user)
         select pid from ours where pg_terminate_backend(pid)",
    )
    .fetch_all(&mut *lost)
    .await
    .unwrap();
    lost.commit().await.unwrap();
    until("the end of all connections", async || {
        let left: i64 =
            sqlx::query_scalar("select count(*) from pg_stat_activity where pid = any($1)")
                .bind(&ended)
                .fetch_one(&mut sql)
                .await
                .unwrap();
        (left == 0).then_some(())
    })
    .await;
    let mut sent = 2.0;
    until("a point that is taken", async || {
        sent += 1.0;
        (send(sent).await.0 == 200).then_some(())
    })
    .await;
    // Readers' connections have ended too, and one is only found out when it is used.
    let found = until("an answer", async || {
        let (status, body) = xtrace
            .get("/api/public/metrics/query?name=gpu&agg=last")
            .await;
        (status == 200).then_some(body)
    })
    .await;
    let values = found["data"][0]["values"].as_array();
    let last = values.and_then(|values| values.last());
    assert_eq!(
        last.map(|last| &last["value"]),
        Some(&json!(sent)),
        "{found}"
    );
}

/// More series than are allowed are refused, with a reason; those that are there go on.
#[tokio::test(flavor = "multi_thread")]
async fn series_have_a_limit() {
    let database = new_database().await;
    let limits = [
        ("XTRACE_MAX_SERIES_PER_METRIC", "10"),
        ("XTRACE_MAX_SERIES_PER_PROJECT", "15"),
    ];
    let xtrace = SeparateXtrace::start_with(&database, &limits).await;
    let send = async |name: &str, series: std::ops::Range<u64>| {
        let points: Vec<Value> = series.map(|n| point(name, n, Utc::now(), 1.0)).collect();
        let request = xtrace
            .http
            .post(format!("{}{BATCH}", xtrace.url))
            .bearer_auth(TOKEN);
        answer(request.json(&json!({"metrics": points}))).await
    };
    // Eight who tell of the same ten series at once tell of ten.
    for (status, body) in futures_util::future::join_all((0..8).map(|_| send("a", 0..10))).await {
        assert_eq!(status, 200, "{body}");
    }
    // One more: its points are left out, those of the others stored, and the answer says both.
    let (status, body) = send("a", 5..11).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["data"]["rejected"], 1, "{body}");
    let reason = body["data"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("series limit: 1 points"), "{body}");
    assert_eq!(send("a", 0..10).await.1["data"], Value::Null);
    assert_eq!(send("b", 0..4).await.1["data"], Value::Null);
    // Of new ones, as many as there is room for.
    let (status, body) = send("b", 3..8).await;
    assert_eq!(
        (status, &body["data"]["rejected"]),
        (StatusCode::OK, &json!(3)),
        "{body}"
    );
    // Nothing can be stored.
    let (status, body) = send("c", 0..1).await;
    assert_eq!(status, 400);
    let message = body["message"].as_str().unwrap();
    assert!(
        message.starts_with("series limit: 1 points") && message.ends_with("Nothing was taken"),
        "{body}"
    );
    let other = Xtrace::start_on(&database, &[]).await;
    // Three requests sent each of the first five, five sent each of the others.
    let count = async |name: &str| stored(&other, name).await.len();
    assert_eq!(count("a").await, 8 * 10 + 5 + 10);
    assert_eq!(count("b").await, 4 + 2);
}

/// A series of another project, or of a project of the same name that is gone, says nothing of this one's.
#[tokio::test(flavor = "multi_thread")]
async fn series_are_described_again_when_their_project_is_made_again() {
    let database = new_database().await;
    let xtrace = SeparateXtrace::start_on(&database).await;
    // Another process.
    let store = xtrace_store::Store::new(&xtrace_store::Options::new(database.clone())).unwrap();
    let project = ProjectId::parse("again").unwrap();
    let make = async || {
        xtrace_store::projects::ensure(&store, &project, Utc::now())
            .await
            .unwrap();
        xtrace_store::keys::put(
            &store,
            &project,
            "pk-lf-again",
            "sk-lf-again-0000000000000000",
            Utc::now(),
        )
        .await
        .unwrap();
    };
    let send = async || {
        let post = xtrace.http.post(format!("{}{BATCH}", xtrace.url));
        let post = post.basic_auth("pk-lf-again", Some("sk-lf-again-0000000000000000"));
        answer(post.json(&json!({"metrics": [point("again", 1, Utc::now(), 1.0)]}))).await
    };
    let is_described = async || {
        let selector = series::Selector {
            name: "again".to_owned(),
            ..series::Selector::default()
        };
        let found = series::select(&store, &project, &selector, Utc::now())
            .await
            .unwrap();
        !found.is_empty()
    };
    make().await;
    assert_eq!(send().await.0, 200);
    assert!(is_described().await);
    crate::erasure::erase(&store, &project).await;
    assert!(!is_described().await);
    make().await;
    // The process that takes points learns of it within some seconds, and before midnight.
    let began = std::time::Instant::now();
    while !is_described().await {
        send().await;
        assert!(
            began.elapsed() < std::time::Duration::from_mins(2),
            "never described again"
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Many who tell of the same new series at once.
#[tokio::test(flavor = "multi_thread")]
async fn new_series_may_come_from_many_at_once() {
    let xtrace = Xtrace::start().await;
    let posts: Vec<_> = (0..24_u64)
        .map(|request| {
            let at = Utc::now() + TimeDelta::milliseconds(request.cast_signed());
            let points: Vec<Value> = (0..1000)
                .map(|n| point("crowd", (request * 300 + n * 7) % 3000, at, 1.0))
                .collect();
            let post = xtrace.request(reqwest::Method::POST, BATCH);
            tokio::spawn(answer(post.json(&json!({"metrics": points}))))
        })
        .collect();
    for post in posts {
        let (status, body) = post.await.unwrap();
        assert_eq!(status, 200, "{body}");
    }
    assert_eq!(stored(&xtrace, "crowd").await.len(), 24_000);
}

/// What a program before this one wrote, a row a point, moves too, and is the same series.
#[tokio::test(flavor = "multi_thread")]
async fn points_of_old_rows_are_kept() {
    let xtrace = Xtrace::start().await;
    let now = DateTime::from_timestamp(Utc::now().timestamp(), 0).unwrap();
    let new = json!({"metrics": [point("old", 1, now, 3.0)]});
    assert_eq!(xtrace.post(BATCH, &new).await.0, 200);
    let mut sql = xtrace.sql().await;
    sqlx::query(
        "insert into metric_points (project_id, series_id, ts, value)
         select project_id, series_id, $1 - make_interval(secs => n), n
           from metric_series, generate_series(1, 1000) n where name = 'old'",
    )
    .bind(now)
    .execute(&mut sql)
    .await
    .unwrap();
    compact::once(&xtrace.store, 0).await.unwrap();
    let found = stored(&xtrace, "old").await;
    assert_eq!(found.len(), 1001);
    let at = (now - TimeDelta::seconds(7)).timestamp_nanos_opt().unwrap();
    assert_eq!(found.get(&("1".to_owned(), at)), Some(&7.0));
    let left: i64 = sqlx::query_scalar("select count(*) from metric_points")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

/// Clocks that are centuries off: what a nanosecond can count is kept and answered, the rest is refused.
#[tokio::test(flavor = "multi_thread")]
async fn wild_times_are_kept_or_refused() {
    let xtrace = Xtrace::start().await;
    let send = async |year: i64| {
        let point = json!({"name": "wild", "value": year, "timestamp": format!("{year:04}-01-01T00:00:00Z")});
        xtrace.post(BATCH, &json!({"metrics": [point]})).await
    };
    for year in [1680, 1969, 2261] {
        assert_eq!(send(year).await.0, 200);
    }
    for year in [1, 1600, 2300, 9999] {
        let (status, body) = send(year).await;
        assert_eq!(status, 400);
        assert!(body["message"].as_str().unwrap().contains("1678"), "{body}");
    }
    let mut answers = Vec::new();
    for _ in 0..2 {
        for step in ["1s", "36500d"] {
            let path = format!(
                "/api/public/metrics/query?name=wild&from=0001-01-01T00:00:00Z&to=9999-12-31T00:00:00Z&step={step}"
            );
            let (status, body) = xtrace.get(&path).await;
            assert_eq!(status, 200, "{body}");
            answers.push(body);
        }
        compact::once(&xtrace.store, 0).await.unwrap();
    }
    assert_eq!(
        answers[0]["data"][0]["values"].as_array().unwrap().len(),
        3,
        "{}",
        answers[0]
    );
    assert_eq!(answers[..2], answers[2..]);
}

/// A chunk that reaches beyond the range, without a point in it, is not the newest.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_series_have_points_within_the_range() {
    let xtrace = Xtrace::start().await;
    let begin = DateTime::from_timestamp(Utc::now().timestamp() - 7200, 0).unwrap();
    let at = |second: i64| begin + TimeDelta::seconds(second);
    let mut points = Vec::new();
    // Many have points before and after the range only, a few have one early in it.
    for series in 0..80 {
        points.push(point("newest", series, at(0), 1.0));
        points.push(point("newest", series, at(3000), 1.0));
        if series < 5 {
            points.push(point("newest", series, at(1010), 2.0));
        }
    }
    let (status, body) = xtrace.post(BATCH, &json!({"metrics": points})).await;
    assert_eq!(status, 200, "{body}");
    let plain = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let path = format!(
        "/api/public/metrics/query?name=newest&step=1h&from={}&to={}",
        plain(at(1000)),
        plain(at(2000))
    );
    for _ in 0..2 {
        let (_, body) = xtrace.get(&path).await;
        assert_eq!(body["meta"]["series_count"], 5, "{body}");
        compact::once(&xtrace.store, 0).await.unwrap();
    }
}
