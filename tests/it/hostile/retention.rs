//! Retention while somebody holds tables, while hosts have wrong clocks, and while a neighbour writes.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use xtrace_store::{Options, Retention, Store, maintenance};

use super::arena::Arena;
use crate::harness::{ADMIN_TOKEN, Xtrace, answer, new_database};

const THREE_DAYS: Retention = Retention {
    traces_days: Some(3),
    metrics_days: Some(3),
};

fn days_ago(days: i64) -> DateTime<Utc> {
    Utc::now() - TimeDelta::days(days)
}

async fn send(xtrace: &Xtrace, trace: &str, starts: &[DateTime<Utc>]) {
    let observation = |(number, start): (usize, &DateTime<Utc>)| {
        let id = format!("{trace}-{number}");
        json!({"id": id, "traceId": trace, "startTime": start.to_rfc3339()})
    };
    let observations: Vec<Value> = starts.iter().enumerate().map(observation).collect();
    let (status, body) = xtrace
        .post("/v1/l/batch", &json!({"observations": observations}))
        .await;
    assert_eq!(status, 200, "{body}");
}

async fn number(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
        .unwrap()
}

/// The versions of all traces: they differ when any row was written.
async fn versions(connection: &mut PgConnection) -> Vec<(String, String)> {
    sqlx::query_as("select id, xmin::text from traces order by id")
        .fetch_all(connection)
        .await
        .unwrap()
}

/// Traces begin before what is kept and end after it, in a partition that somebody reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_held_is_left_with_its_traces_and_goes_later() {
    let xtrace = Xtrace::start().await;
    let mut sql = xtrace.sql().await;
    send(&xtrace, "over-the-boundary", &[days_ago(5), Utc::now()]).await;
    send(&xtrace, "old", &[days_ago(5)]).await;
    send(&xtrace, "older", &[days_ago(9), Utc::now()]).await;
    let before = versions(&mut sql).await;
    let partition = days_ago(5).format("observations_%Y%m%d");
    let mut holder = xtrace.sql().await;
    let mut held = holder.begin().await.unwrap();
    let read = format!("select count(*) from {partition}");
    assert_eq!(number(&mut held, &read).await, 2);
    for _ in 0..2 {
        // Two processes at once.
        let rounds = futures_util::future::join(
            maintenance::once(&xtrace.store, THREE_DAYS),
            maintenance::once(&xtrace.store, THREE_DAYS),
        );
        let (one, other) = rounds.await;
        one.unwrap();
        other.unwrap();
    }
    // What was before the held partition is gone and summed up; the rest is as it was.
    let after = versions(&mut sql).await;
    assert_eq!(after[0], before[0]);
    assert_eq!(after[2], before[2]);
    assert_ne!(after[1], before[1], "the older one lost an observation");
    let of_older = "select default_count::bigint from traces where id = 'older'";
    assert_eq!(number(&mut sql, of_older).await, 1);
    held.rollback().await.unwrap();
    maintenance::once(&xtrace.store, THREE_DAYS).await.unwrap();
    let left = "select count(*) from traces where id = 'old' or default_count <> 1";
    assert_eq!(number(&mut sql, left).await, 0);
    assert_eq!(
        number(&mut sql, "select count(*) from observations").await,
        2
    );
    let gone = format!("select count(*) from pg_class where relname = '{partition}'");
    assert_eq!(number(&mut sql, &gone).await, 0);
}

/// One host of a distributed trace believes that it is 2017, and never stops to send.
#[tokio::test(flavor = "multi_thread")]
async fn spans_of_2017_that_keep_coming_end_no_round() {
    let xtrace = Xtrace::start().await;
    let in_2017 = DateTime::from_timestamp(1_500_000_000, 0).unwrap();
    let sending = async {
        for number in 0.. {
            let trace = format!("t-{number}");
            send(&xtrace, &trace, &[in_2017, Utc::now()]).await;
        }
    };
    let rounds = async {
        for _ in 0..5 {
            maintenance::once(&xtrace.store, THREE_DAYS).await.unwrap();
        }
    };
    tokio::select! {
        () = sending => {}
        done = tokio::time::timeout(Duration::from_mins(5), rounds) => done.unwrap(),
    }
    maintenance::once(&xtrace.store, THREE_DAYS).await.unwrap();
    let mut sql = xtrace.sql().await;
    let wrong =
        "select count(*) from traces where default_count <> 1 or first_start < '2018-01-01'";
    assert_eq!(number(&mut sql, wrong).await, 0);
}

/// A table that can't be locked keeps neither the others from their partitions nor rows from being taken.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_made_whatever_else_is_held() {
    let xtrace = Xtrace::start().await;
    let mut sql = xtrace.sql().await;
    let day = Utc::now() + TimeDelta::days(7);
    let logs = day.format("logs_%Y%m%d");
    let mut holder = xtrace.sql().await;
    let mut held = holder.begin().await.unwrap();
    number(&mut held, "select count(*) from observations_default").await;
    let drop = format!("drop table {logs}");
    sqlx::query(AssertSqlSafe(drop))
        .execute(&mut sql)
        .await
        .unwrap();
    // Old days have no partition yet, and get none: their rows are taken all the same.
    send(&xtrace, "t", &[days_ago(40)]).await;
    let place = "select count(*) from observations_default";
    assert_eq!(number(&mut sql, place).await, 1);
    let made = maintenance::once(&xtrace.store, Retention::default()).await;
    assert!(made.is_ok(), "{made:?}");
    let is_there = format!("select count(*) from pg_class where relname = '{logs}'");
    assert_eq!(number(&mut sql, &is_there).await, 1);
    held.rollback().await.unwrap();
}

/// A large default partition is read before the lock that readers wait for, not under it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_default_partition_is_proven_empty_of_the_day_by_a_constraint() {
    let xtrace = Xtrace::start().await;
    let mut sql = xtrace.sql().await;
    let day = Utc::now() + TimeDelta::days(7);
    let name = day.format("logs_%Y%m%d");
    let drop = format!("drop table {name}");
    sqlx::query(AssertSqlSafe(drop))
        .execute(&mut sql)
        .await
        .unwrap();
    // A fleet whose clocks are decades ahead, and one row of the day.
    let fill = "insert into logs (project_id, ts, id, severity, attributes, rest, created_at)
        select 'default', timestamptz '2060-01-01Z' + n * interval '1 s', n::text, 0, '{}'::jsonb, repeat('r', 900), now()
          from generate_series(1, 8000) n
        union all select 'default', $1, 'of the day', 0, '{}'::jsonb, '', now()";
    sqlx::query(fill).bind(day).execute(&mut sql).await.unwrap();
    maintenance::once(&xtrace.store, Retention::default())
        .await
        .unwrap();
    let of_day = format!("select count(*) from {name}");
    assert_eq!(number(&mut sql, &of_day).await, 1);
    assert_eq!(
        number(&mut sql, "select count(*) from logs_default").await,
        8000
    );
    let left = "select count(*) from pg_constraint
        where conname like 'not\\_in\\_%' or conname like '%\\_day'";
    assert_eq!(number(&mut sql, left).await, 0);
    let attached = format!(
        "select count(*) from pg_inherits i join pg_class c on c.oid = i.inhrelid where c.relname = '{name}'"
    );
    assert_eq!(number(&mut sql, &attached).await, 1);
    // What proved it is enough for Postgres: it says so while it attaches the next day.
    let (from, to) = ("2061-01-01Z", "2061-01-02Z");
    let statements = format!(
        "alter table logs_default add constraint proof check (ts < '{from}' or ts >= '{to}');
         create table next_day (like logs including all, check (ts >= '{from}' and ts < '{to}'));
         set client_min_messages = debug1;
         alter table logs attach partition next_day for values from ('{from}') to ('{to}')"
    );
    let url = &xtrace.database_url;
    let psql = std::process::Command::new("psql")
        .args([url, "-c", &statements])
        .output();
    let said = String::from_utf8(psql.unwrap().stderr).unwrap();
    assert!(
        said.contains("default partition \"logs_default\" is implied by existing constraints"),
        "{said}"
    );
}

/// A project keeps less: its rows go while a writer's own rows are locked.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_writes_are_left_for_the_next_round() {
    let xtrace = Xtrace::start().await;
    let mut sql = xtrace.sql().await;
    for number in 0..3 {
        send(&xtrace, &format!("t-{number}"), &[days_ago(5)]).await;
    }
    // Another project keeps the day, so that its partition stays.
    sqlx::query(
        "insert into projects (id, name, created_at, traces_retention_days) values ('long', 'long', now(), 60)",
    )
    .execute(&mut sql)
    .await
    .unwrap();
    let mut holder = xtrace.sql().await;
    let mut held = holder.begin().await.unwrap();
    sqlx::query("select from observations where trace_id = 't-1' for update")
        .execute(&mut *held)
        .await
        .unwrap();
    maintenance::once(&xtrace.store, THREE_DAYS).await.unwrap();
    let count = "select count(*) from traces t join observations o on o.trace_id = t.id";
    assert_eq!(number(&mut sql, count).await, 1, "neither half of it went");
    assert_eq!(number(&mut sql, "select count(*) from traces").await, 1);
    held.rollback().await.unwrap();
    maintenance::once(&xtrace.store, THREE_DAYS).await.unwrap();
    assert_eq!(number(&mut sql, "select count(*) from traces").await, 0);
}

/// The database was last known to be right long ago: as if the clock had jumped ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_far_ahead_deletes_nothing() {
    let xtrace = Xtrace::start().await;
    let mut sql = xtrace.sql().await;
    send(&xtrace, "precious", &[days_ago(5)]).await;
    let far = "update upkeep set trusted_at = now() - interval '1 year'";
    sqlx::query(far).execute(&mut sql).await.unwrap();
    maintenance::once(&xtrace.store, THREE_DAYS).await.unwrap();
    assert_eq!(
        number(&mut sql, "select count(*) from observations").await,
        1
    );
    // It has gone on for a day.
    let watched = "update upkeep set suspected_since = now() - interval '25 hours',
        suspected_at = now() - interval '1 hour'";
    sqlx::query(watched).execute(&mut sql).await.unwrap();
    maintenance::once(&xtrace.store, THREE_DAYS).await.unwrap();
    assert_eq!(
        number(&mut sql, "select count(*) from observations").await,
        0
    );
}

/// Tables from which rows are deleted for their age or since nothing needs them, and two such rows of each.
const DELETED: [(&str, &str); 10] = [
    (
        "observations",
        "insert into observations (project_id, trace_id, id, start_time, type, level, environment, metadata_decoded,
                merge_state, created_at, updated_at)
         select 'default', 'trace of ' || id, id, old, 'SPAN', 'DEFAULT', 'default', false, '', old, old from rows",
    ),
    (
        "logs",
        "insert into logs (project_id, ts, id, severity, attributes, rest, created_at)
         select 'default', old, id, 0, '{}', '', old from rows",
    ),
    (
        "scores",
        "insert into scores (project_id, id, name, source, data_type, value, environment, ts, merge_state,
                created_at, updated_at)
         select 'default', id, 'n', 'API', 'NUMERIC', 1, 'default', old, '', old, old from rows",
    ),
    (
        "metric_blocks",
        "insert into metric_blocks (project_id, shard, first_at, last_at, points, data, stored_at, format)
         select 'default', n, old, old, 1, '\\x00', now(), 9999 from rows",
    ),
    (
        "metric_set_aside",
        "insert into metric_set_aside (project_id, shard, first_at, last_at, points, data, set_aside_at, format)
         select 'default', n, old, old, 1, '\\x00', old, 0 from rows",
    ),
    (
        "media_links",
        "insert into media_links select 'default', id, 'trace', 'none', '', 'input', old from rows",
    ),
    (
        "media",
        "insert into media (project_id, id, sha256, content_type, content_length, created_at, updated_at)
         select 'default', 'file ' || id, '', '', 1, old, old from rows",
    ),
    (
        "media_chunks",
        "insert into media_chunks select 'default', id, 0, old, '' from rows",
    ),
    (
        "comments",
        "insert into comments select 'default', id, 'TRACE', 'none', '', old, old from rows",
    ),
    (
        "annotation_queue_items",
        "insert into annotation_queue_items select 'default', id, 'q', 'TRACE', 'none', 'PENDING', null, old, old from rows",
    ),
];

/// Of each table one row is held by somebody: nothing waits for it, and everything else goes.
#[tokio::test(flavor = "multi_thread")]
async fn deletes_neither_wait_for_a_row_nor_make_others_wait() {
    let url = new_database().await;
    let store = Store::new(&Options::new(&url)).unwrap();
    store.migrate().await.unwrap();
    let mut sql = PgConnection::connect(&url).await.unwrap();
    for project in [
        "insert into projects (id, name, created_at) values ('default', 'default', now())",
        // It keeps the days, so that their partitions stay.
        "insert into projects (id, name, created_at, traces_retention_days, metrics_retention_days)
         values ('long', 'long', now(), 60, 60)",
    ] {
        sqlx::query(project).execute(&mut sql).await.unwrap();
    }
    for (_, insert) in DELETED {
        let rows = "with rows (id, n, old) as (values ('held', 1, now() - interval '5 days'),
                ('free', 2, now() - interval '5 days'))";
        let statement = format!("{rows} {insert}");
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut sql)
            .await
            .unwrap();
    }
    let mut holder = PgConnection::connect(&url).await.unwrap();
    let mut held = holder.begin().await.unwrap();
    for (table, _) in DELETED {
        let lock = format!(
            "select from {table} r where r::text like '%held%' or r::text like '(default,1,%' for update"
        );
        let locked = sqlx::query(AssertSqlSafe(lock))
            .execute(&mut *held)
            .await
            .unwrap();
        assert_eq!(locked.rows_affected(), 1, "{table}");
    }
    let left = async |sql: &mut PgConnection| {
        let mut left = Vec::new();
        for (table, _) in DELETED {
            left.push((
                table,
                number(sql, &format!("select count(*) from {table}")).await,
            ));
        }
        left
    };
    let patience = Duration::from_mins(2);
    tokio::time::timeout(patience, maintenance::once(&store, THREE_DAYS))
        .await
        .expect("nothing waits for the rows that are held")
        .unwrap();
    assert_eq!(left(&mut sql).await, DELETED.map(|(table, _)| (table, 1)));
    held.rollback().await.unwrap();
    maintenance::once(&store, THREE_DAYS).await.unwrap();
    assert_eq!(left(&mut sql).await, DELETED.map(|(table, _)| (table, 0)));
}

/// A project of many rows is deleted while its neighbour writes and reads.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_large_project_stops_nobody() {
    let arena = Arena::start().await;
    let mut sql = arena.sql().await;
    for statement in [
        "insert into observations (project_id, trace_id, id, start_time, type, level, environment, input,
                metadata_decoded, merge_state, created_at, updated_at)
         select 'attacker', (n / 100)::text, n::text, now() - n * interval '1 s', 'SPAN', 'DEFAULT', 'default',
                repeat(md5(n::text), 50), false, '', now(), now()
           from generate_series(1, 20000) n",
        "insert into traces (project_id, id, ts, environment, tags, metadata_decoded, merge_state, created_at, updated_at)
         select 'attacker', n::text, now() - n * interval '1 min', 'default', '{}', false, '', now(), now()
           from generate_series(0, 2000) n",
    ] {
        sqlx::query(statement).execute(&mut sql).await.unwrap();
    }
    let erasure = async {
        let delete = arena
            .xtrace
            .http
            .delete(format!("{}/api/public/projects/attacker", arena.xtrace.url))
            .bearer_auth(ADMIN_TOKEN);
        assert_eq!(answer(delete).await.0, 202);
        let done = "select count(*) from project_erasures where finished_at is not null";
        let began = std::time::Instant::now();
        while number(&mut sql, done).await == 0 {
            assert!(began.elapsed() < Duration::from_mins(3), "it is not done");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ((), report) = arena.watch(erasure).await;
    report.assert_undisturbed();
    arena.assert_sums_are_right(&report).await;
    let counts = "select (counts ->> 'observations')::bigint + (counts ->> 'traces')::bigint from project_erasures";
    assert_eq!(number(&mut sql, counts).await, 22_001);
}
