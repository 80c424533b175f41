//! Old data goes, young data stays, and wild clocks make no partitions.

use chrono::{TimeDelta, Utc};
use reqwest::Method;
use serde_json::json;
use xtrace_store::metrics::compact;
use xtrace_store::{Retention, maintenance, projects};

use crate::harness::{Xtrace, answer};

#[tokio::test(flavor = "multi_thread")]
async fn data_beyond_its_retention_is_dropped() {
    let xtrace = Xtrace::start().await;
    let at = |days: i64| (Utc::now() - TimeDelta::days(days)).to_rfc3339();
    for (id, days) in [
        ("today", 0),
        ("month", 29),
        ("old", 40),
        ("ancient", 4000),
        ("future", -4000),
    ] {
        let trace = json!({"id": id, "timestamp": at(days)});
        let observation = json!({"id": id, "traceId": id, "startTime": at(days)});
        let batch = json!({"trace": trace, "observations": [observation]});
        assert_eq!(xtrace.post("/v1/l/batch", &batch).await.0, 200);
        let points = json!({"metrics": [{"name": id, "value": 1, "timestamp": at(days)}]});
        assert_eq!(xtrace.post("/v1/metrics/batch", &points).await.0, 200);
        let nanos = (Utc::now() - TimeDelta::days(days))
            .timestamp_nanos_opt()
            .unwrap();
        let record = json!({"timeUnixNano": nanos.to_string(), "body": {"stringValue": id}});
        let logs = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]});
        assert_eq!(xtrace.post("/v1/logs", &logs).await.0, 200);
    }
    // One lies in a block, the others in chunks.
    compact::once(&xtrace.store, 0).await.unwrap();
    let points = json!({"metrics": [{"name": "late", "value": 1, "timestamp": at(40)}]});
    assert_eq!(xtrace.post("/v1/metrics/batch", &points).await.0, 200);
    let retention = Retention {
        traces_days: Some(30),
        metrics_days: Some(30),
    };
    maintenance::once(&xtrace.store, retention).await.unwrap();
    let ids = async |path: &str| {
        let (_, body) = xtrace.get(path).await;
        let rows = body["data"].as_array().unwrap();
        rows.iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ids("/api/public/traces").await,
        ["future", "today", "month"]
    );
    assert_eq!(
        ids("/api/public/observations").await,
        ["future", "today", "month"]
    );
    let mut connection = xtrace.sql().await;
    for (table, expected) in [("metric_chunks", 3), ("metric_blocks", 0), ("logs", 3)] {
        let count = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
        let rows: i64 = sqlx::query_scalar(count)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(rows, expected, "{table}");
    }
    let partitions: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relname like 'observations\\_2%' and relkind = 'r' order by 1",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    // Yesterday to a week ahead, and the day of the month-old row.
    assert_eq!(partitions.len(), 10, "{partitions:?}");
    let month = (Utc::now() - TimeDelta::days(29))
        .format("observations_%Y%m%d")
        .to_string();
    assert_eq!(partitions[0], month);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_waited_in_the_default_partition_move_to_their_own() {
    let xtrace = Xtrace::start().await;
    let mut connection = xtrace.sql().await;
    let day = Utc::now() + TimeDelta::days(7);
    let partition = day.format("observations_%Y%m%d").to_string();
    let observation = json!({"id": "o", "traceId": "t", "startTime": day.to_rfc3339()});
    let batch = json!({"observations": [observation]});
    let place = "select tableoid::regclass::text from observations";
    let mut before = String::new();
    // The round of maintenance that the server begins with may make the partition once more.
    for _ in 0..3 {
        // As if the service had not run for a week: the day's partition is not made yet.
        let drop = sqlx::AssertSqlSafe(format!("drop table {partition}"));
        sqlx::query(drop).execute(&mut connection).await.unwrap();
        assert_eq!(xtrace.post("/v1/l/batch", &batch).await.0, 200);
        before = sqlx::query_scalar(place)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        if before == "observations_default" {
            break;
        }
    }
    assert_eq!(before, "observations_default");
    maintenance::once(&xtrace.store, Retention::default())
        .await
        .unwrap();
    let after: String = sqlx::query_scalar(place)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(after, partition);
    assert_eq!(xtrace.get("/api/public/observations/o").await.0, 200);
}

/// What one project keeps for less or more time than the others is its own.
#[tokio::test(flavor = "multi_thread")]
async fn projects_may_keep_less_or_more() {
    let xtrace = Xtrace::start().await;
    let project = async |id: &str, traces: Option<i32>, metrics: Option<i32>| {
        let keys = xtrace.project(id).await;
        let project = xtrace_model::ProjectId::parse(id).unwrap();
        let mut stored = projects::find(&xtrace.store, &project)
            .await
            .unwrap()
            .unwrap();
        stored.traces_retention_days = traces;
        stored.metrics_retention_days = metrics;
        projects::put(&xtrace.store, &stored)
            .await
            .unwrap()
            .unwrap();
        keys
    };
    let (short, long) = (
        project("short", Some(5), Some(3)).await,
        project("long", Some(60), Some(60)).await,
    );
    let other = xtrace.project("other").await;
    let all = [("short", &short), ("long", &long), ("other", &other)];
    for (_, keys) in all {
        for days in [0, 4, 10, 40, 70] {
            let at = (Utc::now() - TimeDelta::days(days)).to_rfc3339();
            let id = format!("d{days}");
            let batch = json!({"trace": {"id": id, "timestamp": at}, "observations": [{"id": id, "traceId": id, "startTime": at}]});
            let points = json!({"metrics": [{"name": id, "value": 1, "timestamp": at}]});
            for (path, body) in [("/v1/l/batch", batch), ("/v1/metrics/batch", points)] {
                let request = xtrace.request_as(keys, Method::POST, path).json(&body);
                assert_eq!(answer(request).await.0, 200);
            }
        }
    }
    compact::once(&xtrace.store, 0).await.unwrap();
    let retention = Retention {
        traces_days: Some(30),
        metrics_days: Some(30),
    };
    maintenance::once(&xtrace.store, retention).await.unwrap();
    let mut sql = xtrace.sql().await;
    for (table, expected) in [
        ("traces", [2, 4, 3]),
        ("observations", [2, 4, 3]),
        ("metric_chunks", [1, 4, 3]),
    ] {
        for ((name, _), expected) in all.iter().zip(expected) {
            let count = sqlx::AssertSqlSafe(format!(
                "select count(*) from {table} where project_id = $1"
            ));
            let rows: i64 = sqlx::query_scalar(count)
                .bind(*name)
                .fetch_one(&mut sql)
                .await
                .unwrap();
            assert_eq!(rows, expected, "{table} of {name}");
        }
    }
}
