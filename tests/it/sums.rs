//! Sums are right at every moment: before and after the background worker takes changes up, whichever
//! they are, however many, and though some of it can't be summed up.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::harness::{Xtrace, until_summed_up};

/// Held, the worker takes nothing up: changes stay apart from the sums.
pub(crate) struct Held(PgConnection);

impl Held {
    pub(crate) async fn hold(database_url: &str) -> Self {
        let mut connection = PgConnection::connect(database_url).await.unwrap();
        for lock in [0x7874_7261_6365_0002_i64, 0x7874_7261_6365_0012] {
            sqlx::query("select pg_advisory_lock($1)")
                .bind(lock)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        Self(connection)
    }

    pub(crate) async fn release(self) {
        self.0.close().await.unwrap();
    }
}

/// Waits until the sums hold everything, but what is of that project.
pub(crate) async fn settle(connection: &mut PgConnection, but: &str) {
    let condition = format!("project_id <> '{but}'");
    until_summed_up(connection, &condition, Duration::from_mins(3)).await;
}

async fn daily(xtrace: &Xtrace, query: &str) -> Value {
    let path = format!("/api/public/metrics/daily?limit=50{query}");
    let (status, body) = xtrace.get(&path).await;
    assert_eq!(status, 200, "{query}: {body}");
    body
}

async fn analytics(xtrace: &Xtrace, question: &Value) -> Value {
    let question = question.to_string();
    let request = xtrace.request(reqwest::Method::GET, "/api/public/metrics");
    let (status, body) = crate::harness::answer(request.query(&[("query", &question)])).await;
    assert_eq!(status, 200, "{question}: {body}");
    body
}

/// The sums of every day of every page.
async fn totals(xtrace: &Xtrace) -> (i64, i64) {
    let (mut traces, mut observations) = (0, 0);
    for page in 1.. {
        let body = daily(xtrace, &format!("&page={page}")).await;
        let days = body["data"].as_array().unwrap();
        if days.is_empty() {
            break;
        }
        let sum = |name: &str| {
            days.iter()
                .map(|day| day[name].as_i64().unwrap())
                .sum::<i64>()
        };
        traces += sum("countTraces");
        observations += sum("countObservations");
    }
    (traces, observations)
}

/// Numbers that look random, and are the same for the same seed.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let bound = u64::try_from(all.len()).unwrap();
        all[usize::try_from(self.below(bound)).unwrap()]
    }
}

const ENVIRONMENTS: [&str; 3] = ["default", "prod", "staging"];

/// A trace whose observations lie around it, in some environments and of some models.
fn batch(draws: &mut Draws, begin: DateTime<Utc>, name: u64) -> Value {
    let trace = format!("t{name}");
    let at = begin + TimeDelta::seconds(i64::try_from(draws.below(8 * 86_400)).unwrap());
    let count = 1 + draws.below(5);
    let observations = (0..count).map(|n| {
        let start = at + TimeDelta::milliseconds(i64::try_from(draws.below(40 * 3_600_000)).unwrap());
        let mut observation = json!({"id": format!("{trace}-{n}"), "traceId": trace, "type": "GENERATION",
            "startTime": start, "environment": draws.one_of(&ENVIRONMENTS),
            "usageDetails": {"input": draws.below(1000), "output": draws.below(50)},
            "costDetails": {"total": draws.below(1_000_000) as f64 / 7e7}});
        if draws.below(4) > 0 {
            observation["model"] = draws.one_of(&["m1", "m2", "m3"]).into();
        }
        if draws.below(4) > 0 {
            let took = i64::try_from(1000 + draws.below(90_000_000)).unwrap();
            observation["endTime"] = json!(start + TimeDelta::microseconds(took));
            observation["completionStartTime"] = json!(start + TimeDelta::microseconds(took / 3));
        }
        observation
    });
    let observations: Vec<Value> = observations.collect();
    json!({"trace": {"id": trace, "timestamp": at, "environment": draws.one_of(&ENVIRONMENTS)},
        "observations": observations})
}

/// What everything is asked with: for days, and of analytics.
fn questions() -> (Vec<String>, Vec<Value>) {
    let mut days = vec![String::new(), "&traceName=none".to_owned()];
    for environments in [&ENVIRONMENTS[..1], &ENVIRONMENTS[1..], &ENVIRONMENTS[..]] {
        let mut query = String::new();
        for name in environments {
            write!(query, "&environment={name}").unwrap();
        }
        days.push(query.clone());
        days.push(format!(
            "{query}&fromTimestamp=2026-02-02T03:20:00Z&toTimestamp=2026-02-07T21:40:00Z"
        ));
    }
    days.push("&fromTimestamp=2026-02-03T10:05:00Z&toTimestamp=2026-02-03T10:55:00Z".to_owned());
    let aggregations = |measure: &str, all: &[&str]| -> Vec<Value> {
        let one = |name: &&str| json!({"measure": measure, "aggregation": name});
        all.iter().map(one).collect()
    };
    let all = [
        "sum",
        "avg",
        "count",
        "max",
        "min",
        "p50",
        "p75",
        "p90",
        "p95",
        "p99",
        "histogram",
    ];
    let mut metrics = aggregations("latency", &all);
    metrics.extend(aggregations("timeToFirstToken", &all));
    metrics.extend(aggregations("count", &["count"]));
    for sum in ["inputTokens", "outputTokens", "totalTokens", "totalCost"] {
        metrics.extend(aggregations(sum, &["sum"]));
    }
    let ways = [
        json!({}),
        json!({"timeDimension": {"granularity": "day"}, "dimensions": [{"field": "providedModelName"}]}),
        json!({"timeDimension": {"granularity": "week"}}),
        json!({"dimensions": [{"field": "environment"}, {"field": "providedModelName"}]}),
        json!({"filters": [{"column": "environment", "operator": "any of", "value": ["prod", "staging"],
            "type": "stringOptions"}]}),
    ];
    let ways = ways.into_iter().map(|way| {
        let mut question = json!({"view": "observations", "metrics": metrics,
            "fromTimestamp": "2026-01-30T13:00:00Z", "toTimestamp": "2026-02-13T07:00:00Z"});
        let members = question.as_object_mut().unwrap();
        members.extend(way.as_object().unwrap().clone());
        question
    });
    (days, ways.collect())
}

/// All answers.
async fn answers(xtrace: &Xtrace) -> Vec<(String, Value)> {
    let (days, ways) = questions();
    let mut answers = Vec::new();
    for query in days {
        let answer = daily(xtrace, &query).await;
        answers.push((query, answer));
    }
    for question in ways {
        let answer = analytics(xtrace, &question).await;
        answers.push((question.to_string(), answer));
    }
    answers
}

fn assert_same(before: &[(String, Value)], after: &[(String, Value)], when: &str) {
    for ((question, before), (_, after)) in before.iter().zip(after) {
        assert_eq!(before, after, "{when}: {question}");
    }
}

/// Every field of every answer, for traces over several environments, models and days.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_the_same_before_and_after_changes_are_taken_up() {
    let xtrace = Xtrace::start().await;
    let mut sql = xtrace.sql().await;
    let begin = "2026-02-01T00:00:00Z".parse().unwrap();
    let mut draws = Draws(17);
    for round in 0..3 {
        let held = Held::hold(&xtrace.database_url).await;
        // New traces, and from the second round on other versions of known ones.
        for _ in 0..60 {
            let name = draws.below(90);
            let body = batch(&mut draws, begin, name);
            assert_eq!(xtrace.post("/v1/l/batch", &body).await.0, 200);
        }
        if round == 1 {
            let gone = "delete from traces where id in ('t1', 't20', 't33', 't47')";
            sqlx::query(gone).execute(&mut sql).await.unwrap();
        }
        let before = answers(&xtrace).await;
        held.release().await;
        settle(&mut sql, "").await;
        let after = answers(&xtrace).await;
        assert_same(&before, &after, "taken up");
        assert_rows_agree(&mut sql, &after[0].1).await;
        assert_days_agree(&mut sql).await;
    }
    // The same, when only the traces know: sums of the previous program, and days that are marked.
    let held = Held::hold(&xtrace.database_url).await;
    let before = answers(&xtrace).await;
    for change in [
        "update usage_hourly set cost = null, traces = traces + 5, input_usage = 7
          where extract(day from hour)::int % 2 = 0",
        "insert into usage_dirty (project_id, hour) select distinct project_id, hour from traces_hourly
          where extract(day from hour)::int % 3 = 0",
        "delete from latency_daily where extract(day from day)::int % 3 = 0",
    ] {
        sqlx::query(change).execute(&mut sql).await.unwrap();
    }
    assert_same(&before, &answers(&xtrace).await, "from traces");
    held.release().await;
    settle(&mut sql, "").await;
    assert_same(&before, &answers(&xtrace).await, "summed up from traces");
    assert_days_agree(&mut sql).await;
}

/// What is kept of a day is what is kept of its hours.
async fn assert_days_agree(sql: &mut PgConnection) {
    let usage = "environment, date, model, sum(traces), sum(observations), sum(input_usage), sum(output_usage),
                 sum(total_usage), sum(cost)";
    let shared = "environments, date, model, sum(traces)";
    for (hours, days, columns) in [
        ("usage_hourly", "usage_daily", usage),
        ("usage_shared", "usage_shared_daily", shared),
    ] {
        let by = "group by 1, 2, 3, 4, 5";
        let both = format!(
            "with by_hour as (select project_id, (hour at time zone 'utc')::date as day, {columns} from {hours} {by}),
                  by_day as (select project_id, day, {columns} from {days} {by})
             select (select count(*) from (table by_hour except table by_day) missing)
                    + (select count(*) from (table by_day except table by_hour) extra), (select count(*) from by_day)"
        );
        let (different, all): (i64, i64) = sqlx::query_as(AssertSqlSafe(both))
            .fetch_one(&mut *sql)
            .await
            .unwrap();
        assert_eq!(different, 0, "{days}");
        assert!(all > 0, "{days}");
    }
}

/// What the first days answer is what rows say, counted by nothing that the sums share.
async fn assert_rows_agree(sql: &mut PgConnection, answer: &Value) {
    let counted: Vec<(String, Option<String>, i64, i64, i64)> = sqlx::query_as(
        "select (o.start_time at time zone 'utc')::date::text, o.model, count(*), count(distinct o.trace_id),
                sum(o.input_usage)::bigint
           from observations o join traces t on t.project_id = o.project_id and t.id = o.trace_id group by 1, 2",
    )
    .fetch_all(sql)
    .await
    .unwrap();
    let days = answer["data"].as_array().unwrap();
    let told: BTreeSet<_> = days
        .iter()
        .flat_map(|day| {
            day["usage"].as_array().unwrap().iter().map(|usage| {
                (
                    day["date"].as_str().unwrap().to_owned(),
                    usage["model"].as_str().map(str::to_owned),
                    usage["countObservations"].as_i64().unwrap(),
                    usage["countTraces"].as_i64().unwrap(),
                    usage["inputUsage"].as_i64().unwrap(),
                )
            })
        })
        .collect();
    assert_eq!(told, counted.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_changed_hours_counts_at_once() {
    let xtrace = Xtrace::start().await;
    let held = Held::hold(&xtrace.database_url).await;
    let first: DateTime<Utc> = "2026-01-01T00:01:00Z".parse().unwrap();
    let spans = (0..720_i64).map(|n| {
        let nanos = (first + TimeDelta::hours(n)).timestamp_nanos_opt().unwrap();
        json!({"traceId": format!("{:032x}", n + 1), "spanId": format!("{:016x}", n + 1), "name": "n",
            "startTimeUnixNano": nanos.to_string(), "endTimeUnixNano": (nanos + 1_000_000).to_string()})
    });
    let spans: Vec<Value> = spans.collect();
    let export = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    assert_eq!(xtrace.post("/v1/traces", &export).await.0, 200);
    assert_eq!(totals(&xtrace).await, (720, 720));
    let question = json!({"view": "observations", "metrics": [{"measure": "count", "aggregation": "count"},
        {"measure": "latency", "aggregation": "p95"}],
        "fromTimestamp": "2026-01-01T00:00:00Z", "toTimestamp": "2026-02-01T00:00:00Z"});
    let at_once = analytics(&xtrace, &question).await;
    assert_eq!(at_once["data"][0]["count_count"], 720, "{at_once}");
    held.release().await;
    settle(&mut xtrace.sql().await, "").await;
    assert_eq!(totals(&xtrace).await, (720, 720));
    assert_eq!(analytics(&xtrace, &question).await, at_once);
}

/// Beyond what a number can hold, sums are the greatest number; other hours are right.
#[tokio::test(flavor = "multi_thread")]
async fn sums_beyond_all_numbers_are_the_greatest() {
    let xtrace = Xtrace::start().await;
    let mut sql = xtrace.sql().await;
    let held = Held::hold(&xtrace.database_url).await;
    for (n, hour) in [(1, 10), (2, 10), (3, 11)] {
        let start = format!("2026-03-01T{hour}:00:00Z");
        let body = json!({"trace": {"id": format!("t{n}"), "timestamp": start}, "observations": [
            {"id": format!("o{n}"), "traceId": format!("t{n}"), "type": "GENERATION", "startTime": start, "model": "m",
             "usageDetails": {"input": 5}, "costDetails": {"total": 0.5}}]});
        assert_eq!(xtrace.post("/v1/l/batch", &body).await.0, 200);
    }
    // Rows of before numbers were bounded when they came.
    for change in [
        "update traces set usage = jsonb_set(jsonb_set(usage, '{0,input}', '9223372036854775807'), '{0,cost}', '1e308')
          where id in ('t1', 't2')",
        "update observations set input_usage = 9223372036854775807, total_cost = 1e308 where trace_id in ('t1', 't2')",
    ] {
        sqlx::query(change).execute(&mut sql).await.unwrap();
    }
    let question = json!({"view": "observations", "metrics": [{"measure": "inputTokens", "aggregation": "sum"},
        {"measure": "totalCost", "aggregation": "sum"}],
        "fromTimestamp": "2026-02-20T00:00:00Z", "toTimestamp": "2026-03-10T00:00:00Z"});
    // One more condition, which always holds, makes it read the rows.
    let mut of_rows = question.clone();
    of_rows["filters"] =
        json!([{"column": "type", "operator": "=", "value": "GENERATION", "type": "string"}]);
    let mut averages = of_rows.clone();
    averages["metrics"] = json!([{"measure": "totalCost", "aggregation": "avg"}]);
    let mut held = Some(held);
    loop {
        let body = daily(&xtrace, "").await;
        let usage = &body["data"][0]["usage"][0];
        assert_eq!(usage["inputUsage"], i64::MAX, "{body}");
        assert_eq!(usage["totalCost"], f64::MAX, "{body}");
        assert_eq!(body["data"][0]["totalCost"], f64::MAX, "{body}");
        for question in [&question, &of_rows] {
            let body = analytics(&xtrace, question).await;
            assert_eq!(body["data"][0]["sum_inputTokens"], i64::MAX, "{body}");
            assert_eq!(body["data"][0]["sum_totalCost"], f64::MAX, "{body}");
        }
        let average = analytics(&xtrace, &averages).await;
        assert!(
            average["data"][0]["avg_totalCost"].as_f64().unwrap() > 5e307,
            "{average}"
        );
        let other = daily(&xtrace, "&fromTimestamp=2026-03-01T11:00:00Z").await;
        assert_eq!(other["data"][0]["usage"][0]["inputUsage"], 5, "{other}");
        let Some(held) = held.take() else {
            break;
        };
        held.release().await;
        settle(&mut sql, "").await;
    }
    // And back: nothing was lost to the bound.
    sqlx::query("update traces set usage = jsonb_set(jsonb_set(usage, '{0,input}', '5'), '{0,cost}', '0.5')")
        .execute(&mut sql)
        .await
        .unwrap();
    settle(&mut sql, "").await;
    let body = daily(&xtrace, "").await;
    let usage = &body["data"][0]["usage"][0];
    assert_eq!(
        (&usage["inputUsage"], &usage["totalCost"]),
        (&json!(15), &json!(1.5))
    );
}

/// An hour that can't be summed up stops no other hour, and no other project; once it can be, it is.
#[tokio::test(flavor = "multi_thread")]
async fn an_hour_that_fails_stops_no_other() {
    let xtrace = Xtrace::start().await;
    let mut sql = xtrace.sql().await;
    let keys = xtrace.project("zzz").await;
    for hour in 0..24 {
        let start = format!("2026-03-01T{hour:02}:10:00Z");
        let body = json!({"trace": {"id": format!("t{hour}"), "timestamp": start}, "observations": [
            {"id": format!("o{hour}"), "traceId": format!("t{hour}"), "startTime": start, "endTime": start}]});
        assert_eq!(xtrace.post("/v1/l/batch", &body).await.0, 200);
    }
    settle(&mut sql, "").await;
    let bad = "update traces set usage = '[{\"date\": \"never\", \"environment\": \"e\", \"observations\": 1}]' where id = 't5'";
    sqlx::query(bad).execute(&mut sql).await.unwrap();
    // Something else changes in every hour, in this project and in another.
    let late = |hour: u32| {
        let start = format!("2026-03-01T{hour:02}:20:00Z");
        json!({"trace": {"id": format!("late{hour}"), "timestamp": start},
            "observations": [{"id": format!("late{hour}"), "traceId": format!("late{hour}"), "startTime": start}]})
    };
    for hour in 0..24 {
        assert_eq!(xtrace.post("/v1/l/batch", &late(hour)).await.0, 200);
        let request = xtrace.request_as(&keys, reqwest::Method::POST, "/v1/l/batch");
        let (status, body) = crate::harness::answer(request.json(&late(hour))).await;
        assert_eq!(status, 200, "{body}");
    }
    let began = Instant::now();
    loop {
        let hours: Vec<DateTime<Utc>> =
            sqlx::query_scalar("select distinct hour from usage_dirty order by 1")
                .fetch_all(&mut sql)
                .await
                .unwrap();
        if hours.len() <= 1 {
            let failing = "2026-03-01T05:00:00Z".parse::<DateTime<Utc>>().unwrap();
            assert_eq!(hours, [failing]);
            break;
        }
        assert!(began.elapsed() < Duration::from_mins(2), "{hours:?} wait");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A range without that hour is answered; a gauge counts it.
    let body = daily(&xtrace, "&fromTimestamp=2026-03-01T06:00:00Z").await;
    assert_eq!(body["data"][0]["countTraces"], 36, "{body}");
    let began = Instant::now();
    while !xtrace
        .text("/metrics")
        .await
        .1
        .contains("xtrace_usage_failing{what=\"hour\"} 1")
    {
        assert!(
            began.elapsed() < Duration::from_mins(1),
            "no gauge counts it"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mend = "update usage_dirty set usages = array(
            select case when u::text like '%never%' then jsonb_set(u, '{0,date}', '\"2026-03-01\"') else u end
              from unnest(usages) u)";
    sqlx::query(AssertSqlSafe(mend.to_owned()))
        .execute(&mut sql)
        .await
        .unwrap();
    settle(&mut sql, "").await;
    let body = daily(&xtrace, "").await;
    assert_eq!(body["data"][0]["countTraces"], 48, "{body}");
}
