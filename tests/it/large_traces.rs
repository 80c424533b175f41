//! Traces of very many observations: what a request costs doesn't depend on how many there are already, and
//! their sums are those of their rows.

use std::time::{Duration, Instant};

use chrono::Utc;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::harness::{Keys, Xtrace, answer};

const TRACE: &str = "0000000000000000000000000000000a";
/// More are summed up by what changes.
const SMALL_MAX: u64 = 1000;
const MILLISECOND: i64 = 1_000_000;

/// Nanoseconds of today, whose partition is there.
fn base() -> i64 {
    Utc::now().timestamp_nanos_opt().unwrap() - 3_600_000 * MILLISECOND
}

/// A version of a span. The greatest version holds; its start, end, model, usage and costs are others.
fn span(base: i64, number: u64, version: i64) -> Value {
    let at = i64::try_from(number).unwrap() * MILLISECOND;
    let begin = base + at + version * (at % 7 - 3) * MILLISECOND;
    let end = begin.max(base + at) + (at % 997 + 10_000) * 1000 + version * 20 * MILLISECOND;
    let model = format!("m{}", (number + version.unsigned_abs()) % 3);
    let usage = json!({"input": number % 11 + version.unsigned_abs(), "output": 3}).to_string();
    let costs =
        json!({"input": 0.1 * f64::from(u32::try_from(number % 5).unwrap()), "output": 0.2})
            .to_string();
    let attributes = [
        ("langfuse.observation.type", "generation"),
        ("gen_ai.request.model", &model),
        ("langfuse.observation.usage_details", &usage),
        ("langfuse.observation.cost_details", &costs),
    ];
    let attributes: Vec<Value> = attributes
        .iter()
        .map(|(key, text)| json!({"key": key, "value": {"stringValue": text}}))
        .collect();
    json!({"traceId": TRACE, "spanId": format!("{:016x}", number + 1), "name": "n",
        "startTimeUnixNano": begin.to_string(), "endTimeUnixNano": end.to_string(), "attributes": attributes})
}

async fn send(xtrace: &Xtrace, keys: &Keys, spans: &[Value]) {
    let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    let request = xtrace
        .request_as(keys, Method::POST, "/v1/traces")
        .json(&body);
    let (status, body) = answer(request).await;
    assert_eq!(status, 200, "{body}");
}

async fn number(connection: &mut PgConnection, sql: &str) -> i64 {
    let number = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
    number.fetch_one(connection).await.unwrap()
}

/// What was read of partitions of observations so far: rows, and looks into indexes. `written` rows were inserted:
/// what is counted of a transaction is told together, a while after it.
async fn read_so_far(connection: &mut PgConnection, written: i64) -> (i64, i64) {
    const SQL: &str = "select sum(n_tup_ins)::bigint, sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint,
            sum(coalesce(idx_scan, 0))::bigint from pg_stat_user_tables where relname like 'observations%'";
    let began = Instant::now();
    loop {
        let row = sqlx::query(SQL).fetch_one(&mut *connection).await.unwrap();
        if row.get::<i64, _>(0) >= written {
            return (row.get(1), row.get(2));
        }
        assert!(
            began.elapsed() < Duration::from_mins(2),
            "rows are not counted"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The columns of the trace that are sums, recomputed from its observations, next to what its row says.
async fn assert_sums_are_those_of_the_rows(connection: &mut PgConnection, project: &str) {
    const SQL: &str = "select jsonb_build_array(t.first_start, t.last_start, t.last_end, t.latency, t.debug_count,
                t.default_count, t.input_usage, t.output_usage, t.total_usage,
                round(t.input_cost::numeric, 9), round(t.output_cost::numeric, 9), round(t.total_cost::numeric, 9)) as said,
            jsonb_build_array(min(o.start_time), max(o.start_time), max(o.end_time),
                extract(epoch from max(o.end_time) - min(o.start_time))::float8,
                count(*) filter (where o.level = 'DEBUG'), count(*) filter (where o.level = 'DEFAULT'),
                sum(o.input_usage), sum(o.output_usage), sum(o.total_usage), round(sum(o.input_cost::numeric), 9),
                round(sum(o.output_cost::numeric), 9), round(sum(o.total_cost::numeric), 9)) as found,
            (select jsonb_agg(jsonb_build_array(u.date, u.model, u.observations, u.input, round(u.cost, 9),
                        (select sum(value::bigint) from jsonb_each_text(u.latency))) order by u.date, u.model)
               from jsonb_to_recordset(t.usage) u(date text, model text, observations int, input int, cost numeric,
                    latency jsonb)) as usage_said,
            (select jsonb_agg(jsonb_build_array(date, model, count, input, round(cost, 9), count) order by date, model)
               from (select (start_time at time zone 'utc')::date::text as date, model, count(*),
                            sum(input_usage) as input, sum(total_cost::numeric) as cost
                       from observations o where o.project_id = t.project_id group by 1, 2) g) as usage_found
       from traces t join observations o on o.project_id = t.project_id and o.trace_id = t.id
      where t.project_id = $1 group by t.project_id, t.id";
    let row = sqlx::query(SQL)
        .bind(project)
        .fetch_one(connection)
        .await
        .unwrap();
    assert_eq!(row.get::<Value, _>("said"), row.get::<Value, _>("found"));
    assert_eq!(
        row.get::<Value, _>("usage_said"),
        row.get::<Value, _>("usage_found")
    );
}

/// Waits until no trace is in doubt.
async fn until_settled(connection: &mut PgConnection) {
    let began = Instant::now();
    while number(connection, "select count(*) from trace_doubts").await > 0 {
        assert!(began.elapsed() < Duration::from_mins(2), "a doubt stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reads_as_much_however_large_its_trace_is() {
    const CHANGED: u64 = 100;
    let xtrace = Xtrace::start().await;
    let keys = &xtrace.project("p").await;
    let mut connection = xtrace.sql().await;
    let base = base();
    let (mut sent, mut written) = (0, 0);
    let mut costs = Vec::new();
    for size in [2_000, 12_000] {
        while sent < size {
            let spans: Vec<Value> = (sent..sent + 1000).map(|n| span(base, n, 0)).collect();
            send(&xtrace, keys, &spans).await;
            sent += 1000;
            written += 1000;
        }
        let before = read_so_far(&mut connection, written).await;
        for round in 0..5 {
            // As many new ones, and some that are there.
            let new = sent..sent + CHANGED;
            let known = 500 + round * CHANGED..500 + (round + 1) * CHANGED;
            let version = i64::try_from(size).unwrap();
            let new = new.map(|n| span(base, n, 0));
            let spans: Vec<Value> = known
                .map(|n| span(base, n, version / 2000))
                .chain(new)
                .collect();
            send(&xtrace, keys, &spans).await;
            sent += CHANGED;
            written += 2 * i64::try_from(CHANGED).unwrap();
        }
        let after = read_so_far(&mut connection, written).await;
        costs.push((after.0 - before.0, after.1 - before.1));
    }
    eprintln!(
        "rows and looks of 1,000 changed observations in a trace of 2,000, of 12,000: {costs:?}"
    );
    // A known row is read, deleted, and met in a look for its new place.
    assert!(costs.iter().all(|(rows, _)| *rows <= 5 * 500), "{costs:?}");
    assert!(
        costs.iter().all(|(_, looks)| *looks <= 10 * 1000),
        "{costs:?}"
    );
    until_settled(&mut connection).await;
    assert_sums_are_those_of_the_rows(&mut connection, "p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_of_a_large_trace_are_those_of_its_rows_in_any_order() {
    let xtrace = Xtrace::start().await;
    let second = Xtrace::start_on(&xtrace.database_url, &[]).await;
    let mut connection = xtrace.sql().await;
    let base = base();
    let count = SMALL_MAX + 300;
    let versions =
        |numbers: std::ops::Range<u64>, version| numbers.map(move |n| span(base, n, version));
    let all: Vec<Value> = versions(0..count, 0)
        .chain(versions(0..40, 1))
        .chain(versions(count - 40..count, 1))
        .chain(versions(0..20, 2))
        .collect();
    let mut rows = Vec::new();
    for (order, size) in [
        ("at-once", all.len()),
        ("forwards", 170),
        ("backwards", 230),
        ("raced", 90),
    ] {
        let keys = &xtrace.project(order).await;
        let mut spans = all.clone();
        if order == "backwards" {
            spans.reverse();
        }
        let requests = spans.chunks(size).enumerate();
        let requests = requests.map(|(n, spans)| {
            let server = if order == "raced" && n % 2 == 0 {
                &second
            } else {
                &xtrace
            };
            send(server, keys, spans)
        });
        if order == "raced" {
            futures_util::future::join_all(requests).await;
        } else {
            for request in requests {
                request.await;
            }
        }
        until_settled(&mut connection).await;
        assert_sums_are_those_of_the_rows(&mut connection, order).await;
        let sql = format!(
            "select to_jsonb(t) - array['project_id', 'created_at', 'updated_at', 'merge_state', 'sums']
               from traces t where project_id = '{order}'"
        );
        let row: Value = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        rows.push(row);
    }
    for other in &rows[1..] {
        assert_eq!(&rows[0], other);
    }
    // Twice is once.
    let keys = &xtrace.project("forwards").await;
    let before = number(
        &mut connection,
        "select xmin::text::bigint from traces where project_id = 'forwards'",
    )
    .await;
    send(&xtrace, keys, &all[..200]).await;
    let after = number(
        &mut connection,
        "select xmin::text::bigint from traces where project_id = 'forwards'",
    )
    .await;
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_whose_ends_move_is_right_again_soon() {
    let xtrace = Xtrace::start().await;
    let keys = &xtrace.project("p").await;
    let mut connection = xtrace.sql().await;
    let base = base();
    let all: Vec<Value> = (0..SMALL_MAX + 10).map(|n| span(base, n, 0)).collect();
    send(&xtrace, keys, &all).await;
    // The first goes to the middle, version by version, while others come.
    for version in 1..8 {
        let at = base + version * 100 * MILLISECOND;
        let mut first = span(base, 0, 0);
        first["startTimeUnixNano"] = at.to_string().into();
        first["endTimeUnixNano"] = (at + 1000).to_string().into();
        let new = span(base, SMALL_MAX + 10 + version.unsigned_abs(), 0);
        send(&xtrace, keys, &[first, new]).await;
        let (status, body) =
            answer(xtrace.request_as(keys, Method::GET, "/api/public/traces")).await;
        assert_eq!(
            (status.as_u16(), body["data"].as_array().unwrap().len()),
            (200, 1)
        );
        let path = format!("/api/public/observations?traceId={TRACE}&limit=1");
        let (_, found) = answer(xtrace.request_as(keys, Method::GET, &path)).await;
        let sent = SMALL_MAX + 10 + version.unsigned_abs();
        assert_eq!(
            found["meta"]["totalItems"], sent,
            "nothing is out of sight meanwhile"
        );
    }
    until_settled(&mut connection).await;
    assert_sums_are_those_of_the_rows(&mut connection, "p").await;
}

/// What the previous program does: it writes the row whole, but for the column that it doesn't know.
#[tokio::test(flavor = "multi_thread")]
async fn sums_that_an_older_program_wrote_past_are_not_believed() {
    let xtrace = Xtrace::start().await;
    let keys = &xtrace.project("p").await;
    let mut connection = xtrace.sql().await;
    let base = base();
    let all: Vec<Value> = (0..SMALL_MAX + 100).map(|n| span(base, n, 0)).collect();
    send(&xtrace, keys, &all).await;
    assert_eq!(
        number(
            &mut connection,
            "select count(*) from traces where sums is not null"
        )
        .await,
        1
    );
    let older =
        "update traces set default_count = 5, input_usage = 7, usage = '[]', total_cost = 1,
        updated_at = now(), first_start = first_start - interval '3 seconds'";
    sqlx::query(older).execute(&mut connection).await.unwrap();
    send(
        &xtrace,
        keys,
        &[span(base, 3, 1), span(base, SMALL_MAX + 100, 0)],
    )
    .await;
    until_settled(&mut connection).await;
    assert_sums_are_those_of_the_rows(&mut connection, "p").await;
    send(&xtrace, keys, &[span(base, 4, 1)]).await;
    until_settled(&mut connection).await;
    assert_sums_are_those_of_the_rows(&mut connection, "p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_models_environments_and_days_are_one_entry_each() {
    let xtrace = Xtrace::start().await;
    let keys = &xtrace.project("p").await;
    let mut connection = xtrace.sql().await;
    let base = base();
    for (from, what) in [
        (0, "gen_ai.request.model"),
        (1200, "langfuse.environment"),
        (2400, "day"),
    ] {
        let spans: Vec<Value> = (from..from + 1200)
            .map(|n| {
                let mut span = span(base, n, 0);
                let own = json!({"key": what, "value": {"stringValue": format!("own-{n}")}});
                span["attributes"].as_array_mut().unwrap().push(own);
                if what == "day" {
                    let at = 86_400_000 * MILLISECOND * i64::try_from(n).unwrap();
                    span["startTimeUnixNano"] = at.to_string().into();
                    span["endTimeUnixNano"] = (at + 5000 * MILLISECOND).to_string().into();
                }
                span
            })
            .collect();
        for some in spans.chunks(300) {
            send(&xtrace, keys, some).await;
        }
        let entries = number(
            &mut connection,
            "select jsonb_array_length(usage)::bigint from traces",
        )
        .await;
        assert!(entries <= 1000, "{what}: {entries}");
        let bytes = number(
            &mut connection,
            "select length(usage::text)::bigint from traces",
        )
        .await;
        assert!(bytes < 1 << 20, "{what}: {bytes} bytes");
        let sums = "select sum(u.observations)::bigint from traces t,
            jsonb_to_recordset(t.usage) u(observations int) where project_id = 'p'";
        assert_eq!(
            number(&mut connection, sums).await,
            i64::try_from(from).unwrap() + 1200
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_in_a_trace_makes_no_request_look_into_every_day() {
    let xtrace = Xtrace::start().await;
    let keys = &xtrace.project("p").await;
    let mut connection = xtrace.sql().await;
    let base = base();
    // Partitions of the last weeks.
    for day in 2..40 {
        let mut old = span(base - day * 86_400_000 * MILLISECOND, 0, 0);
        old["traceId"] = format!("{:032x}", 1000 + day).into();
        send(&xtrace, keys, &[old]).await;
    }
    let days = number(
        &mut connection,
        "select count(*) from pg_inherits where inhparent = 'observations'::regclass",
    )
    .await;
    assert!(days > 40, "{days} partitions");
    let mut wild = span(base, 500, 0);
    wild["startTimeUnixNano"] = "1000000".into();
    let spans: Vec<Value> = (0..100).map(|n| span(base, n, 0)).chain([wild]).collect();
    send(&xtrace, keys, &spans).await;
    let before = read_so_far(&mut connection, 38 + 101).await;
    let again: Vec<Value> = (0..100).map(|n| span(base, n, 1)).collect();
    send(&xtrace, keys, &again).await;
    let after = read_so_far(&mut connection, 38 + 201).await;
    let looks = after.1 - before.1;
    assert!(
        looks <= 10 * 100,
        "{looks} looks for 100 observations, {days} partitions"
    );
    assert_sums_are_those_of_the_rows_in(&mut connection, TRACE).await;
}

/// The number of a trace's observations is what its row says.
async fn assert_sums_are_those_of_the_rows_in(connection: &mut PgConnection, trace: &str) {
    let sql = format!(
        "select (default_count = (select count(distinct id) from observations where trace_id = '{trace}')
             and default_count = (select count(*) from observations where trace_id = '{trace}'))::int::bigint
           from traces where id = '{trace}'"
    );
    assert_eq!(number(connection, &sql).await, 1);
}
