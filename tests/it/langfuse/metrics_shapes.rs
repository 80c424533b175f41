//! The metrics query: what one statement makes of groups, bins, joins and holes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::metrics::{V1, V2, fill, metric, question, rows};
use super::{event, ingest};
use crate::harness::Xtrace;

const DEADLINE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(200);

/// A value of each histogram stands in one bin of its own row, with any keys.
#[tokio::test(flavor = "multi_thread")]
async fn histograms_hold_the_values_of_their_row() {
    let xtrace = Xtrace::start().await;
    fill(&xtrace).await;
    // Values that no float can hold the distance of, and rows of which each key may be missing.
    let extremes = [1.7e308, -1.7e308, 0.0, -0.0, 1.0];
    let scores = extremes.iter().enumerate().map(|(n, value)| {
        let id = format!("extreme-{n}");
        let body = json!({"id": id, "traceId": "t1", "name": "extreme", "value": value, "timestamp": "2026-01-15T12:00:00Z"});
        event(&id, 3, "score-create", body)
    });
    ingest(&xtrace, scores.collect()).await;
    let latency = ("observations", "latency");
    let value = ("scores-numeric", "value");
    let cases = [
        (V2, latency, vec![]),
        (V2, latency, vec!["name"]),
        (V2, latency, vec!["providedModelName", "level"]),
        (V2, latency, vec!["tags"]),
        (V2, latency, vec!["isRootObservation"]),
        (V2, latency, vec!["promptName", "promptVersion"]),
        (V2, latency, vec!["costType"]),
        (V2, latency, vec!["calledToolNames"]),
        (V1, ("traces", "totalTokens"), vec!["tags", "userId"]),
        (V1, ("traces", "scoresCount"), vec![]),
        (V2, value, vec![]),
        (V2, value, vec!["name"]),
        (V2, value, vec!["value"]),
        (V2, value, vec!["observationName", "tags"]),
    ];
    for (path, (view, measure), dimensions) in cases {
        for granularity in [None, Some("hour"), Some("day")] {
            for bins in [1, 4, 100] {
                let fields: Vec<Value> = dimensions
                    .iter()
                    .map(|name| json!({"field": name}))
                    .collect();
                let more = json!({"dimensions": fields, "config": {"bins": bins, "row_limit": 1000},
                    "timeDimension": granularity.map(|granularity| json!({"granularity": granularity})),
                    "toTimestamp": "2026-01-17T00:00:00Z"});
                let metrics = json!([{"measure": measure, "aggregation": "histogram"},
                    {"measure": measure, "aggregation": "min"}, {"measure": measure, "aggregation": "max"},
                    {"measure": measure, "aggregation": "histogram"}, {"measure": "count", "aggregation": "count"}]);
                let query = question(view, metrics, more);
                let found = rows(&xtrace, path, query.clone()).await;
                let found = found.as_array().unwrap();
                let mut heights = 0;
                for row in found {
                    heights += check_bins(row, measure, bins, &query);
                }
                assert!(heights > 0, "{query}: {found:?}");
            }
        }
    }
}

/// All values of a row, which lie between its least and its greatest one.
fn check_bins(row: &Value, measure: &str, bins: usize, query: &Value) -> i64 {
    let of = |name: &str| row[format!("{name}_{measure}")].as_f64();
    let found = row[format!("histogram_{measure}")].as_array().unwrap();
    assert!(found.len() <= bins, "{query}: {row}");
    let mut edges = found
        .iter()
        .map(|bin| (bin[0].as_f64().unwrap(), bin[1].as_f64().unwrap()));
    let is_ascending = edges.clone().all(|(lower, upper)| lower <= upper);
    assert!(is_ascending, "{query}: {row}");
    // A bucket that nothing is in holds zeros.
    if let (Some((lower, _)), Some((_, upper))) = (edges.clone().next(), edges.next_back()) {
        let close = |one: f64, other: Option<f64>| {
            let other = other.unwrap();
            (one - other).abs() <= other.abs() * 1e-9
        };
        assert!(close(lower, of("min")), "{query}: {row}");
        assert!(close(upper, of("max")), "{query}: {row}");
    }
    let heights: i64 = found.iter().map(|bin| bin[2].as_i64().unwrap()).sum();
    assert!(
        heights <= row["count_count"].as_i64().unwrap(),
        "{query}: {row}"
    );
    heights
}

/// Looks at partitions of observations so far.
async fn looks(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "select coalesce(sum(s.seq_scan + coalesce(s.idx_scan, 0)), 0)::bigint
           from pg_inherits i join pg_stat_user_tables s on s.relid = i.inhrelid
          where i.inhparent = 'observations'::regclass",
    )
    .fetch_one(connection)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_find_their_observation_without_a_look_at_every_day() {
    const COPIES: i64 = 500;
    let xtrace = Xtrace::start().await;
    let now = chrono::Utc::now();
    let day = |number: i64| (now - chrono::TimeDelta::days(number)).to_rfc3339();
    // A trace over a week; scores are of before, while and after it, of none of its observations, and of none
    // that is stored.
    let observation = |id: &str, number: i64| json!({"id": id, "traceId": "t", "name": id, "startTime": day(number)});
    let batch = json!({"trace": {"id": "t", "timestamp": day(20)},
        "observations": [observation("first", 27), observation("middle", 24), observation("last", 20)]});
    assert_eq!(xtrace.post("/v1/l/batch", &batch).await.0, 200);
    let score = |id: &str, observation: Option<&str>, trace: &str, number: i64| {
        let body = json!({"id": id, "traceId": trace, "observationId": observation, "name": "s", "value": 1,
            "timestamp": day(number)});
        event(id, 1, "score-create", body)
    };
    let scores = json!([
        score("a", Some("first"), "t", 29),
        score("b", Some("first"), "t", 1),
        score("c", Some("middle"), "t", 26),
        score("d", Some("last"), "t", 28),
        score("e", None, "t", 2),
        score("f", Some("unknown"), "t", 2),
        score("g", Some("first"), "elsewhere", 2)
    ]);
    ingest(&xtrace, scores).await;
    let by_name = json!({"dimensions": [{"field": "observationName"}],
        "fromTimestamp": day(40), "toTimestamp": now.to_rfc3339(), "config": {"row_limit": 100}});
    let ask = || question("scores-numeric", metric("count", "count"), by_name.clone());
    let row = |name: Value, count: i64| json!({"observationName": name, "count_count": count});
    let expected = |copies: i64| {
        json!([
            row(Value::Null, 3),
            row(json!("first"), 2 + copies),
            row(json!("last"), 1),
            row(json!("middle"), 1)
        ])
    };
    let sorted = |found: Value| {
        let mut found = found.as_array().unwrap().clone();
        found.sort_by_key(|row| row["observationName"].as_str().map(str::to_owned));
        Value::Array(found)
    };
    assert_eq!(sorted(rows(&xtrace, V2, ask()).await), expected(0));
    let mut connection = xtrace.sql().await;
    sqlx::query(
        "insert into scores (project_id, id, trace_id, observation_id, name, source, data_type, value, environment, ts,
                merge_state, created_at, updated_at)
         select project_id, 'copy-' || n, trace_id, observation_id, name, source, data_type, value, environment, ts,
                merge_state, created_at, updated_at
           from scores cross join generate_series(1, $1) n where id = 'b'",
    )
    .bind(COPIES)
    .execute(&mut connection)
    .await
    .unwrap();
    let before = looks(&mut connection).await;
    assert_eq!(sorted(rows(&xtrace, V2, ask()).await), expected(COPIES));
    // Postgres counts looks a while after a statement. A trace lies on eight days at most, not on ninety.
    let began = Instant::now();
    let looked = loop {
        let looked = looks(&mut connection).await - before;
        if looked >= COPIES {
            break looked;
        }
        assert!(began.elapsed() < DEADLINE, "{looked} looks are counted");
        tokio::time::sleep(PAUSE).await;
        assert_eq!(xtrace.get("/api/public/traces/t").await.0, 200);
    };
    assert!(looked < 20 * COPIES, "{looked} looks for {COPIES} scores");
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_are_filled_as_far_as_rows_are_answered() {
    let xtrace = Xtrace::start().await;
    fill(&xtrace).await;
    let by_hour = |more: Value| {
        let mut query = question("observations", metric("count", "count"), more);
        query["timeDimension"] = json!({"granularity": "hour"});
        query
    };
    let hours = |found: &Value| -> Vec<(String, i64)> {
        let rows = found.as_array().unwrap().iter();
        rows.map(|row| {
            let hour = row["time_dimension"].as_str().unwrap().to_owned();
            (hour, row["count_count"].as_i64().unwrap())
        })
        .collect()
    };
    let all = hours(&rows(&xtrace, V1, by_hour(json!({}))).await);
    assert_eq!(all.len(), 72);
    assert!(all.is_sorted());
    assert_eq!(all.iter().map(|(_, count)| count).sum::<i64>(), 4);
    for limit in [1, 33, 34, 35, 36, 72, 100] {
        let found = rows(
            &xtrace,
            V1,
            by_hour(json!({"config": {"row_limit": limit}})),
        )
        .await;
        assert_eq!(hours(&found), all[..limit.min(72)], "{limit}");
    }
}
