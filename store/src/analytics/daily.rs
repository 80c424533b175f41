//! Questions about days, models and environments that sums suffice for: they read `usage_hourly`, whose rows
//! are a thousandth of the observations.

use std::collections::BTreeMap;

use chrono::{Datelike, Days, NaiveDate, NaiveTime};
use serde_json::{Map, Number, Value};
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::{ProjectId, time};

use super::{Aggregation, Granularity, OrderKey, Question, Rows, View};
use crate::filter::{self, Column};
use crate::usage::{self, ENTRIES, hour_of};
use crate::{Store, StoreError};

/// What a metric adds up, among the columns of `usage_hourly`.
const SUMS: [(&str, Aggregation, usize); 5] = [
    ("count", Aggregation::Count, 0),
    ("inputTokens", Aggregation::Sum, 1),
    ("outputTokens", Aggregation::Sum, 2),
    ("totalTokens", Aggregation::Sum, 3),
    ("totalCost", Aggregation::Sum, 4),
];
/// Fewer days are read from the rows themselves.
const DAYS_MIN: i64 = 3;

/// How a question is answered from sums.
pub(super) struct Plan {
    /// Whole days, from the first up to and not including the second.
    days: (NaiveDate, NaiveDate),
    /// The sum of each metric.
    sums: Vec<usize>,
}

/// The way to answer, if sums suffice.
pub(super) fn plan(question: &Question) -> Option<Plan> {
    let by_days = !matches!(
        question.granularity,
        Some(Granularity::Minute | Granularity::Hour)
    );
    if question.view != View::Observations || !by_days || question.metrics.is_empty() {
        return None;
    }
    let known = |sql: &str| matches!(sql, "o.model" | "o.environment");
    let is_known = question
        .dimensions
        .iter()
        .all(|dimension| known(dimension.sql))
        && question
            .conditions
            .iter()
            .all(|condition| known(condition.column.sql()));
    if !is_known {
        return None;
    }
    let sum = |metric: &super::Metric| {
        let of = |(name, aggregation, _): &&(&str, Aggregation, usize)| {
            *name == metric.measure.name && *aggregation == metric.aggregation
        };
        SUMS.iter().find(of).map(|(.., place)| *place)
    };
    let sums = question
        .metrics
        .iter()
        .map(sum)
        .collect::<Option<Vec<_>>>()?;
    let from = question.from.date_naive();
    let is_midnight = question.from.time() == NaiveTime::MIN;
    let first = if is_midnight { from } else { from.succ_opt()? };
    let end = question.to.date_naive();
    let enough = end.signed_duration_since(first).num_days() >= DAYS_MIN;
    enough.then_some(Plan {
        days: (first, end),
        sums,
    })
}

/// Sums of one key.
type Sums = [f64; 5];
/// Dimensions as texts, and the bucket.
type Key = (Vec<Option<String>>, Option<NaiveDate>);

#[derive(sqlx::FromRow)]
struct Row {
    date: NaiveDate,
    environment: String,
    model: Option<String>,
    observations: i64,
    input: i64,
    output: i64,
    total: i64,
    cost: f64,
}

/// Adds up clean hours, dirty ones, and the parts of a day at both ends.
pub(super) async fn answer(
    store: &Store,
    project: &ProjectId,
    question: &Question,
    plan: &Plan,
) -> Result<Rows, StoreError> {
    let (first, end) = plan.days;
    let midnight = |date: NaiveDate| date.and_time(NaiveTime::MIN).and_utc();
    let open = |end| hour_of(time::to_utc(end));
    let (earliest, latest) = (open(time::EARLIEST), open(time::LATEST));
    let dirty = usage::dirty_hours(store, project, earliest, latest).await?;
    let mut sums: BTreeMap<Key, Sums> = BTreeMap::new();
    let mut add = |rows: Vec<Row>| {
        for row in rows {
            let sum = sums.entry(key(question, &row)).or_default();
            let parts = [
                row.observations as f64,
                row.input as f64,
                row.output as f64,
                row.total as f64,
                row.cost,
            ];
            for (sum, part) in sum.iter_mut().zip(parts) {
                *sum += part;
            }
        }
    };
    let mut sql = QueryBuilder::new(
        "select o.date, o.environment, o.model, sum(o.observations)::bigint as observations,
                sum(o.input_usage)::bigint as input, sum(o.output_usage)::bigint as output,
                sum(o.total_usage)::bigint as total, sum(o.total_cost) as cost
           from usage_hourly o where o.project_id = ",
    );
    sql.push_bind(project.as_str().to_owned());
    push_days(&mut sql, question, plan);
    sql.push(" and o.hour <> all(").push_bind(dirty.clone());
    sql.push(") group by 1, 2, 3");
    add(sql.build_query_as().fetch_all(store.read()).await?);
    if !dirty.is_empty() {
        let mut sql = QueryBuilder::new(
            "select o.date, o.environment, o.model, sum(o.observations)::bigint as observations,
                    coalesce(sum(o.input), 0)::bigint as input, coalesce(sum(o.output), 0)::bigint as output,
                    coalesce(sum(o.total), 0)::bigint as total, coalesce(sum(o.cost), 0) as cost
               from (select u.* from unnest(",
        );
        sql.push_bind(dirty);
        sql.push("::timestamptz[]) h(hour) join traces t on t.ts >= h.hour and t.ts < h.hour + interval '1 hour'
                    cross join lateral ");
        sql.push(ENTRIES).push(" where t.project_id = ");
        sql.push_bind(project.as_str().to_owned())
            .push(") o where true");
        push_days(&mut sql, question, plan);
        sql.push(" group by 1, 2, 3");
        add(sql.build_query_as().fetch_all(store.read()).await?);
    }
    let mut sql = QueryBuilder::new(
        "select (o.start_time at time zone 'utc')::date as date, o.environment, o.model,
                count(*) as observations, coalesce(sum(o.input_usage), 0)::bigint as input,
                coalesce(sum(o.output_usage), 0)::bigint as output,
                coalesce(sum(o.total_usage), 0)::bigint as total, coalesce(sum(o.total_cost), 0) as cost
           from observations o where o.project_id = ",
    );
    sql.push_bind(project.as_str().to_owned());
    sql.push(" and (o.start_time >= ").push_bind(question.from);
    sql.push(" and o.start_time < ").push_bind(midnight(first));
    sql.push(" or o.start_time >= ").push_bind(midnight(end));
    sql.push(" and o.start_time <= ")
        .push_bind(question.to)
        .push(")");
    filter::push_all(&mut sql, &question.conditions);
    sql.push(" group by 1, 2, 3");
    add(sql.build_query_as().fetch_all(store.read()).await?);
    Ok(rows(question, plan, sums))
}

fn push_days(sql: &mut QueryBuilder<Postgres>, question: &Question, plan: &Plan) {
    sql.push(" and o.date >= ").push_bind(plan.days.0);
    sql.push(" and o.date < ").push_bind(plan.days.1);
    filter::push_all(sql, &question.conditions);
}

fn key(question: &Question, row: &Row) -> Key {
    let value = |sql: &str| match sql {
        "o.model" => row.model.clone(),
        _ => Some(row.environment.clone()),
    };
    let dimensions = question
        .dimensions
        .iter()
        .map(|dimension| value(dimension.sql));
    let bucket = question.granularity.map(|granularity| match granularity {
        Granularity::Week => {
            let days = u64::from(row.date.weekday().num_days_from_monday());
            row.date
                .checked_sub_days(Days::new(days))
                .unwrap_or(row.date)
        }
        Granularity::Month => row.date.with_day(1).unwrap_or(row.date),
        _ => row.date,
    });
    (dimensions.collect(), bucket)
}

fn rows(question: &Question, plan: &Plan, sums: BTreeMap<Key, Sums>) -> Rows {
    let mut found: Vec<(Key, Sums)> = sums.into_iter().collect();
    // Without dimensions there is a row even if nothing was found.
    if found.is_empty() && question.dimensions.is_empty() && question.granularity.is_none() {
        found.push(((Vec::new(), None), Sums::default()));
    }
    found.sort_by(|a, b| compare(question, plan, a, b));
    let limit = usize::try_from(question.limit).unwrap_or(usize::MAX);
    let row = |((dimensions, bucket), sums): (Key, Sums)| {
        let mut row = Map::new();
        for (dimension, value) in question.dimensions.iter().zip(dimensions) {
            row.insert(dimension.name.to_owned(), value.into());
        }
        if let Some(bucket) = bucket {
            row.insert("time_dimension".to_owned(), bucket.to_string().into());
        }
        for (metric, place) in question.metrics.iter().zip(&plan.sums) {
            row.insert(metric.name(), number(sums[*place]));
        }
        row
    };
    found.into_iter().take(limit).map(row).collect()
}

/// Whole numbers without a point.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole")]
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn compare(
    question: &Question,
    plan: &Plan,
    a: &(Key, Sums),
    b: &(Key, Sums),
) -> std::cmp::Ordering {
    let missing_last = |value: &Option<String>| (value.is_none(), value.clone());
    for (key, descends) in &question.order {
        let order = match key {
            OrderKey::Dimension(place) => {
                missing_last(&a.0.0[*place]).cmp(&missing_last(&b.0.0[*place]))
            }
            OrderKey::Time => a.0.1.cmp(&b.0.1),
            OrderKey::Metric(place) => a.1[plan.sums[*place]].total_cmp(&b.1[plan.sums[*place]]),
        };
        let order = if *descends { order.reverse() } else { order };
        if order.is_ne() {
            return order;
        }
    }
    let dimensions = |key: &Key| key.0.iter().map(missing_last).collect::<Vec<_>>();
    dimensions(&a.0).cmp(&dimensions(&b.0))
}
