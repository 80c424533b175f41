//! Series that nobody sends: computed from stored observations whenever they are asked for, so that late and
//! corrected ones count at once.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::ProjectId;

use super::evaluate::Labels;
use super::query::{
    Aggregation, Answer, AnswerExemplar, AnswerSeries, BUCKETS_MAX, MetricsQuery, SERIES_MAX,
};
use crate::{Store, StoreError};

const PREFIX: &str = "xtrace.generation.";
/// Observations that call a model.
const CALLS: &str = "o.type in ('GENERATION', 'EMBEDDING')";
/// Labels, and the columns that they are.
const LABELS: [(&str, &str); 4] = [
    ("model", "o.model"),
    ("environment", "o.environment"),
    ("name", "o.name"),
    ("type", "o.type"),
];
/// Exemplars of an answer at most.
const EXEMPLARS_MAX: i64 = 100;

/// A series of each model, environment, name and type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    name: &'static str,
    /// What each observation contributes; none contributes nothing.
    value: &'static str,
}

const fn metric(name: &'static str, value: &'static str) -> Metric {
    Metric { name, value }
}

/// All of them: seconds, tokens, US dollars, and counts.
const METRICS: [Metric; 6] = [
    metric("cost", "o.total_cost"),
    metric("duration", "date_part('epoch', o.end_time - o.start_time)"),
    metric("errors", "case when o.level = 'ERROR' then 1::float8 end"),
    metric("requests", "1::float8"),
    metric(
        "time_to_first_token",
        "date_part('epoch', o.completion_start_time - o.start_time)",
    ),
    metric("tokens", "o.total_usage::float8"),
];

impl Metric {
    /// By its whole name.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.strip_prefix(PREFIX)?;
        METRICS.into_iter().find(|metric| metric.name == name)
    }

    fn aggregate(self, query: &MetricsQuery) -> String {
        // What is measured is not what is counted.
        let is_measured = self.name == "duration" || self.name == "time_to_first_token";
        let all = if is_measured {
            "count(v)::float8"
        } else {
            "sum(v)"
        };
        match query.aggregation {
            Aggregation::Avg => "avg(v)".to_owned(),
            Aggregation::Max => "max(v)".to_owned(),
            Aggregation::Min => "min(v)".to_owned(),
            Aggregation::Sum => "sum(v)".to_owned(),
            // The pair that is greatest, in order of time first: nothing is collected for it.
            Aggregation::Last => "(max(array[extract(epoch from at)::float8, v]))[2]".to_owned(),
            Aggregation::Count => "count(v)::float8".to_owned(),
            Aggregation::Increase => all.to_owned(),
            // Of what the range covers of the bucket.
            Aggregation::Rate => format!(
                "{all} / greatest(1, least(date_part('epoch', bucket) + {}, {}) - greatest(date_part('epoch', bucket), {}))",
                query.step_s,
                seconds(query.to),
                seconds(query.from)
            ),
            percentile => {
                let fraction = percentile.fraction().unwrap_or(0.5);
                format!("percentile_cont({fraction}) within group (order by v)")
            }
        }
    }
}

/// As Postgres reads it.
fn seconds(at: DateTime<Utc>) -> String {
    format!("{}::float8", at.timestamp_micros() as f64 / 1e6)
}

/// Their names, if the project has any traces.
pub async fn names(store: &Store, project: &ProjectId) -> Result<Vec<String>, StoreError> {
    let has_traces: bool =
        sqlx::query_scalar("select exists (select from traces where project_id = $1)")
            .bind(project.as_str())
            .fetch_one(store.read())
            .await?;
    let names = METRICS.iter().filter(|_| has_traces);
    Ok(names
        .map(|metric| format!("{PREFIX}{}", metric.name))
        .collect())
}

#[derive(sqlx::FromRow)]
struct Row {
    labels: Json<Labels>,
    bucket: DateTime<Utc>,
    value: f64,
    latest: DateTime<Utc>,
    truncated: bool,
}

/// Answers a question about one of them.
pub(super) async fn query(
    store: &Store,
    project: &ProjectId,
    query: &MetricsQuery,
    metric: Metric,
) -> Result<Answer, StoreError> {
    let asked = asked(query);
    let columns: Vec<String> = asked
        .iter()
        .map(|(label, column)| format!("{column} as \"{label}\""))
        .collect();
    // Without labels all is one series.
    let mut keys: Vec<String> = asked
        .iter()
        .map(|(label, _)| format!("\"{label}\""))
        .collect();
    keys.push("one".to_owned());
    let keys = keys.join(", ");
    let mut sql = QueryBuilder::new("with points as (select ");
    for column in columns {
        sql.push(column).push(", ");
    }
    sql.push(format_args!(
        "1 as one, o.start_time as at, {} as v",
        metric.value
    ));
    push_from(&mut sql, project, query, metric);
    sql.push(format_args!(
        "), buckets as (
            select {keys}, bucket, {aggregate} as value, max(at) as newest
              from (select *, date_bin(make_interval(secs => {step}), at, 'epoch') as bucket
                      from points) placed_in_time
             group by {keys}, bucket),
         series as (
            select *, max(newest) over (partition by {keys}) as latest,
                   row_number() over (partition by {keys} order by bucket desc) as age,
                   count(*) over (partition by {keys}) as all_buckets
              from buckets),
         placed as (select *, dense_rank() over (order by latest desc, {keys}) as place from series)
         select {labels} as labels, bucket, value::float8, latest,
                all_buckets > {BUCKETS_MAX} or (select max(place) from placed) > {SERIES_MAX} as truncated
           from placed where place <= {SERIES_MAX} and age <= {BUCKETS_MAX} order by place, bucket",
        step = query.step_s,
        aggregate = metric.aggregate(query),
        labels = object_of(asked.iter().map(|(label, _)| (*label, format!("\"{label}\"")))),
    ));
    let rows: Vec<Row> = sql.build_query_as().fetch_all(store.read()).await?;
    let mut answer = Answer::default();
    for row in rows {
        answer.truncated |= row.truncated;
        let value = (row.bucket, row.value);
        match answer.series.last_mut() {
            Some(series) if series.labels == row.labels.0 => series.values.push(value),
            _ => answer.series.push(AnswerSeries {
                labels: row.labels.0,
                values: vec![value],
                latest: row.latest,
            }),
        }
    }
    if query.exemplars {
        answer.exemplars = exemplars(store, project, query, metric).await?;
    }
    Ok(answer)
}

/// The labels that the answer has.
fn asked(query: &MetricsQuery) -> Vec<(&'static str, &'static str)> {
    let is_asked = |(label, _): &(&str, &str)| {
        let keys = query.group_by.as_ref();
        keys.is_none_or(|keys| keys.iter().any(|key| key == label))
    };
    LABELS.into_iter().filter(is_asked).collect()
}

/// Labels as an object, without those that are not there.
fn object_of<'a>(members: impl Iterator<Item = (&'a str, String)>) -> String {
    let members: Vec<String> = members
        .map(|(label, column)| format!("'{label}', {column}"))
        .collect();
    format!(
        "jsonb_strip_nulls(jsonb_build_object({}))",
        members.join(", ")
    )
}

fn push_from(
    sql: &mut QueryBuilder<Postgres>,
    project: &ProjectId,
    query: &MetricsQuery,
    metric: Metric,
) {
    sql.push(" from observations o where o.project_id = ")
        .push_bind(project.as_str().to_owned());
    sql.push(" and o.start_time between ").push_bind(query.from);
    sql.push(" and ").push_bind(query.to);
    sql.push(format_args!(
        " and {CALLS} and {} is not null",
        metric.value
    ));
    for (key, value) in &query.selector.labels {
        match LABELS.iter().find(|(label, _)| label == key) {
            Some((_, column)) => {
                sql.push(format_args!(" and {column} = "))
                    .push_bind(value.clone());
            }
            // They have no other labels.
            None => {
                sql.push(" and false");
            }
        }
    }
    if let Some(environment) = &query.selector.environment {
        sql.push(" and o.environment = ")
            .push_bind(environment.clone());
    }
}

/// The newest observations themselves.
async fn exemplars(
    store: &Store,
    project: &ProjectId,
    query: &MetricsQuery,
    metric: Metric,
) -> Result<Vec<AnswerExemplar>, StoreError> {
    let labels = object_of(
        asked(query)
            .into_iter()
            .map(|(label, column)| (label, column.to_owned())),
    );
    let mut sql = QueryBuilder::new("select ");
    sql.push(format_args!(
        "{labels} as labels, o.start_time, o.trace_id, o.id, ({})::float8 as value",
        metric.value
    ));
    push_from(&mut sql, project, query, metric);
    sql.push(" order by o.start_time desc limit ")
        .push_bind(EXEMPLARS_MAX);
    let calls: Vec<Call> = sql.build_query_as().fetch_all(store.read()).await?;
    let exemplar = |call: Call| {
        let value = json!({"asDouble": call.value});
        AnswerExemplar {
            labels: call.labels.0,
            time: call.start_time,
            data: json!({"value": value, "traceId": call.trace_id, "spanId": call.id}).to_string(),
        }
    };
    Ok(calls.into_iter().map(exemplar).collect())
}

/// An observation that called a model.
#[derive(sqlx::FromRow)]
struct Call {
    labels: Json<Labels>,
    start_time: DateTime<Utc>,
    trace_id: String,
    id: String,
    value: f64,
}
