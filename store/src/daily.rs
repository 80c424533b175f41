//! Usage and cost by day, for `metrics/daily`.
//!
//! Without conditions other than a range of time, the sums of whole, clean hours are read, and only
//! the rest is added up; see `usage.rs`.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::{ProjectId, time};

use crate::filter::{self, Condition, TraceColumn};
use crate::page::{Page, Paged};
use crate::usage::{self, ENTRIES, SUMS, hour_of};
use crate::{Store, StoreError};

/// One UTC day.
#[derive(Debug, Clone, PartialEq)]
pub struct Day {
    /// The day.
    pub date: NaiveDate,
    /// Traces that begin on it.
    pub traces: i64,
    /// Observations that begin on it.
    pub observations: i64,
    /// USD of these observations.
    pub total_cost: f64,
    /// By model; the dearest first.
    pub models: Vec<ModelUsage>,
}

/// What one model was used for on a day.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ModelUsage {
    date: NaiveDate,
    /// The model's name as sent; none for observations without one.
    pub model: Option<String>,
    /// Units of input.
    pub input: i64,
    /// Units of output.
    pub output: i64,
    /// Units in all.
    pub total: i64,
    /// Observations.
    pub observations: i64,
    /// Distinct traces.
    pub traces: i64,
    /// USD.
    pub total_cost: f64,
}

/// What the days are asked for.
#[derive(Debug, Clone)]
pub struct DailyQuery {
    /// Traces that begin at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Traces that begin before this time.
    pub to: Option<DateTime<Utc>>,
    /// More conditions on the traces, all of which must hold.
    pub conditions: Vec<Condition<TraceColumn>>,
    /// Environments of traces and of observations; empty means all.
    pub environments: Vec<String>,
    /// Which page of days.
    pub page: Page,
}

/// Traces that begin from `.0` up to and not including `.1`.
type Range = (DateTime<Utc>, DateTime<Utc>);

/// A page of days, newest first.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    query: &DailyQuery,
) -> Result<Paged<Day>, StoreError> {
    // Whole hours, so that open ends leave no part of an hour.
    let open = |end| hour_of(time::to_utc(end));
    let all = (
        query.from.unwrap_or_else(|| open(time::EARLIEST)),
        query.to.unwrap_or_else(|| open(time::LATEST)),
    );
    let mut days = Days {
        store,
        project,
        query,
        traces: BTreeMap::new(),
        models: BTreeMap::new(),
    };
    if query.conditions.is_empty() {
        let (whole, live) = split(store, project, all).await?;
        days.add_sums(whole, &live).await?;
        days.add_live(&live).await?;
    } else {
        days.add_live(&[all]).await?;
    }
    Ok(days.page(query.page))
}

/// The whole hours of a range, and the parts of it that are not summed up: dirty hours, and the parts
/// of an hour at both ends.
async fn split(
    store: &Store,
    project: &ProjectId,
    (from, to): Range,
) -> Result<(Range, Vec<Range>), StoreError> {
    let hour = TimeDelta::hours(1);
    let last = hour_of(to);
    let first = hour_of(from);
    let first = if first < from { first + hour } else { first };
    if first >= last {
        return Ok(((first, first), vec![(from, to)]));
    }
    let dirty = usage::dirty_hours(store, project, first, last).await?;
    let mut live: Vec<Range> = dirty
        .into_iter()
        .map(|start| (start, start + hour))
        .collect();
    live.extend(
        [(from, first), (last, to)]
            .into_iter()
            .filter(|(from, to)| from < to),
    );
    Ok(((first, last), live))
}

/// Days as they are gathered.
struct Days<'a> {
    store: &'a Store,
    project: &'a ProjectId,
    query: &'a DailyQuery,
    traces: BTreeMap<NaiveDate, i64>,
    models: BTreeMap<(NaiveDate, Option<String>), ModelUsage>,
}

impl Days<'_> {
    async fn add_sums(&mut self, (first, end): Range, live: &[Range]) -> Result<(), StoreError> {
        let (project, query) = (self.project, self.query);
        let push_where = |sql: &mut QueryBuilder<Postgres>| {
            sql.push(" where project_id = ")
                .push_bind(project.as_str().to_owned());
            sql.push(" and hour >= ")
                .push_bind(first)
                .push(" and hour < ")
                .push_bind(end);
            let live: Vec<_> = live.iter().map(|(hour, _)| *hour).collect();
            sql.push(" and hour <> all(").push_bind(live).push(")");
            push_environments(sql, "environment", &query.environments);
        };
        let mut sql = QueryBuilder::new(
            "select (hour at time zone 'utc')::date, sum(traces)::bigint from traces_hourly",
        );
        push_where(&mut sql);
        self.add_traces(sql.push(" group by 1")).await?;
        let mut sql = QueryBuilder::new(
            "select date, model, sum(input_usage)::bigint as input, sum(output_usage)::bigint as output,
                    sum(total_usage)::bigint as total, sum(observations)::bigint as observations,
                    sum(traces)::bigint as traces, sum(total_cost) as total_cost
               from usage_hourly",
        );
        push_where(&mut sql);
        self.add_models(sql.push(" group by 1, 2")).await
    }

    async fn add_live(&mut self, ranges: &[Range]) -> Result<(), StoreError> {
        let (project, query) = (self.project, self.query);
        if ranges.is_empty() {
            return Ok(());
        }
        let mut sql = QueryBuilder::new("select (t.ts at time zone 'utc')::date, count(*) from ");
        push_traces(&mut sql, project, query, ranges);
        push_environments(&mut sql, "t.environment", &query.environments);
        self.add_traces(sql.push(" group by 1")).await?;
        let mut sql = QueryBuilder::new("select u.date, u.model, count(distinct t.id) as traces, ");
        sql.push(SUMS).push(" from (select t.id, t.usage from ");
        push_traces(&mut sql, project, query, ranges);
        sql.push(") t cross join lateral ")
            .push(ENTRIES)
            .push(" where true");
        push_environments(&mut sql, "u.environment", &query.environments);
        self.add_models(sql.push(" group by 1, 2")).await
    }

    async fn add_traces(&mut self, sql: &mut QueryBuilder<Postgres>) -> Result<(), StoreError> {
        let counts: Vec<(NaiveDate, i64)> =
            sql.build_query_as().fetch_all(self.store.read()).await?;
        for (date, traces) in counts {
            *self.traces.entry(date).or_default() += traces;
        }
        Ok(())
    }

    async fn add_models(&mut self, sql: &mut QueryBuilder<Postgres>) -> Result<(), StoreError> {
        let found: Vec<ModelUsage> = sql.build_query_as().fetch_all(self.store.read()).await?;
        for usage in found {
            let key = (usage.date, usage.model.clone());
            match self.models.get_mut(&key) {
                Some(known) => known.add(&usage),
                None => {
                    self.models.insert(key, usage);
                }
            }
        }
        Ok(())
    }

    fn page(self, page: Page) -> Paged<Day> {
        let mut days: BTreeMap<NaiveDate, Day> = BTreeMap::new();
        for (date, traces) in self.traces {
            days.entry(date).or_insert_with(|| Day::new(date)).traces = traces;
        }
        for usage in self.models.into_values() {
            let date = usage.date;
            days.entry(date)
                .or_insert_with(|| Day::new(date))
                .add(usage);
        }
        let total = i64::try_from(days.len()).unwrap_or(i64::MAX);
        let position = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        let days = days.into_values().rev();
        let mut rows: Vec<Day> = days
            .skip(position(page.offset()))
            .take(position(page.limit))
            .collect();
        for day in &mut rows {
            day.models.sort_by(ModelUsage::dearest_first);
        }
        Paged { rows, total }
    }
}

impl Day {
    fn new(date: NaiveDate) -> Self {
        Self {
            date,
            traces: 0,
            observations: 0,
            total_cost: 0.0,
            models: Vec::new(),
        }
    }

    fn add(&mut self, usage: ModelUsage) {
        self.observations += usage.observations;
        self.total_cost += usage.total_cost;
        self.models.push(usage);
    }
}

impl ModelUsage {
    fn add(&mut self, other: &Self) {
        self.input += other.input;
        self.output += other.output;
        self.total += other.total;
        self.observations += other.observations;
        self.traces += other.traces;
        self.total_cost += other.total_cost;
    }

    /// Of equal costs by name, observations without a model last.
    fn dearest_first(&self, other: &Self) -> std::cmp::Ordering {
        let name = |usage: &Self| (usage.model.is_none(), usage.model.clone());
        let by_cost = other.total_cost.total_cmp(&self.total_cost);
        by_cost.then_with(|| name(self).cmp(&name(other)))
    }
}

/// `traces t` of the ranges that match, and a condition to add others to.
fn push_traces(
    sql: &mut QueryBuilder<Postgres>,
    project: &ProjectId,
    query: &DailyQuery,
    ranges: &[Range],
) {
    sql.push("traces t where t.project_id = ")
        .push_bind(project.as_str().to_owned());
    // Spelled out, so that Postgres knows how few these are.
    for (number, (from, to)) in ranges.iter().enumerate() {
        sql.push(if number == 0 { " and (" } else { " or " });
        sql.push("t.ts >= ")
            .push_bind(*from)
            .push(" and t.ts < ")
            .push_bind(*to);
    }
    sql.push(")");
    filter::push_all(sql, &query.conditions);
}

fn push_environments(sql: &mut QueryBuilder<Postgres>, column: &str, environments: &[String]) {
    if !environments.is_empty() {
        sql.push(format_args!(" and {column} = any("))
            .push_bind(environments.to_vec())
            .push(")");
    }
}
