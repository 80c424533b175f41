//! Usage and cost by day, for `metrics/daily`.
//!
//! Without conditions other than a range of time, the sums of whole days and hours and what changed since are
//! read, and only the rest is added up from traces; see `usage/mod.rs`. With conditions, everything is.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::{ProjectId, time};

use crate::filter::{self, Condition, TraceColumn};
use crate::page::{Page, Paged};
use crate::usage::sql::{ENTRIES, float, whole};
use crate::usage::{day_of, hour_of, source};
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
    let hours = match query.conditions.as_slice() {
        [] => whole_units(all, hour_of, TimeDelta::hours(1)),
        _ => None,
    };
    let asked = Asked {
        project,
        query,
        hours,
        rest: rest(all, hours),
    };
    let (mut traces, mut models) = (asked.traces(), asked.models());
    let traces = traces.build_query_as().fetch_all(store.read()).await?;
    let models = models.build_query_as().fetch_all(store.read()).await?;
    Ok(page_of(traces, models, query.page))
}

/// The whole units of time within a range.
fn whole_units(
    (from, to): Range,
    start_of: fn(DateTime<Utc>) -> DateTime<Utc>,
    unit: TimeDelta,
) -> Option<Range> {
    let (first, last) = (start_of(from), start_of(to));
    let first = if first < from { first + unit } else { first };
    (first < last).then_some((first, last))
}

/// What of a range is not within a part of it.
fn rest((from, to): Range, part: Option<Range>) -> Vec<Range> {
    let parts = match part {
        Some((first, last)) => vec![(from, first), (last, to)],
        None => vec![(from, to)],
    };
    parts.into_iter().filter(|(from, to)| from < to).collect()
}

/// A part of a range that has sums of its own.
enum Part {
    Days(Range),
    Hours(Range),
}

/// Whole days, and the hours that are left at both ends.
fn parts(hours: Range) -> Vec<Part> {
    let days = whole_units(hours, day_of, TimeDelta::days(1));
    let ends = rest(hours, days).into_iter().map(Part::Hours);
    days.map(Part::Days).into_iter().chain(ends).collect()
}

/// What is asked of sums, changes and traces.
struct Asked<'a> {
    project: &'a ProjectId,
    query: &'a DailyQuery,
    /// Hours whose sums are read.
    hours: Option<Range>,
    /// What is read from traces.
    rest: Vec<Range>,
}

impl Asked<'_> {
    /// Traces by the day that they begin on.
    fn traces(&self) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new("");
        source::push_unknown(&mut sql, self.project);
        sql.push("select (s.hour at time zone 'utc')::date, sum(s.traces)::bigint from (");
        if let Some(hours) = self.hours {
            sql.push(
                "select h.hour, h.traces, h.environment from traces_hourly h where h.project_id = ",
            );
            sql.push_bind(self.project.as_str().to_owned());
            push_hours(&mut sql, hours);
            sql.push(" union all select p.hour, p.n, p.environment from ");
            source::push_unsummed(&mut sql, self.project, hours, |_| ());
            sql.push(" union all ");
        }
        sql.push("select t.ts as hour, 1 as traces, t.environment from ");
        self.push_rest(&mut sql);
        sql.push(") s where true");
        self.push_environments(&mut sql, "s.environment");
        sql.push(" group by 1 having sum(s.traces) > 0");
        sql
    }

    /// Usage by day and model of observations.
    fn models(&self) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new("");
        source::push_unknown(&mut sql, self.project);
        sql.push(format_args!(
            "select s.date, s.model, {} as traces, {} as observations, {} as input, {} as output, {} as total,
                    {} as total_cost
               from (",
            whole("sum(s.traces)"),
            whole("sum(s.observations)"),
            whole("sum(s.input)"),
            whole("sum(s.output)"),
            whole("sum(s.total)"),
            float("sum(s.cost)"),
        ));
        if let Some(hours) = self.hours {
            for part in parts(hours) {
                self.push_part(&mut sql, &part);
            }
            self.push_entries(&mut sql, |sql| {
                source::push_unsummed(sql, self.project, hours, |_| ());
            });
            sql.push(" union all ");
        }
        self.push_entries(&mut sql, |sql| {
            sql.push("(select 1 as n, t.usage from ");
            self.push_rest(sql);
            sql.push(") p");
        });
        sql.push(") s group by 1, 2 having sum(s.observations) > 0");
        sql
    }

    /// Sums of a part, and ` union all`.
    fn push_part(&self, sql: &mut QueryBuilder<Postgres>, part: &Part) {
        let (usage, shared) = match part {
            Part::Days(_) => ("usage_daily", "usage_shared_daily"),
            Part::Hours(_) => ("usage_hourly", "usage_shared"),
        };
        let push_times = |sql: &mut QueryBuilder<Postgres>| match part {
            Part::Days(days) => push_days(sql, *days),
            Part::Hours(hours) => push_hours(sql, *hours),
        };
        sql.push(format_args!(
            "select h.date, h.model, sum(h.traces) as traces, sum(h.observations) as observations,
                    sum(h.input_usage) as input, sum(h.output_usage) as output, sum(h.total_usage) as total,
                    sum(h.cost) as cost
               from {usage} h
              where h.project_id = "
        ));
        sql.push_bind(self.project.as_str().to_owned());
        push_times(sql);
        self.push_environments(sql, "h.environment");
        // A trace counts once, in however many of the environments it used a model.
        sql.push(" group by 1, 2 union all select h.date, h.model, -sum(h.traces * ");
        if self.query.environments.is_empty() {
            sql.push("(cardinality(h.environments) - 1)");
        } else {
            sql.push("(greatest((select count(*) from unnest(h.environments) e(name) where true");
            self.push_environments(sql, "e.name");
            sql.push("), 1) - 1)");
        }
        sql.push(format_args!(
            "), 0, 0, 0, 0, 0 from {shared} h where h.project_id = "
        ));
        sql.push_bind(self.project.as_str().to_owned());
        push_times(sql);
        sql.push(" group by 1, 2 union all ");
    }

    /// Entries of the rows `p` that are pushed.
    fn push_entries(
        &self,
        sql: &mut QueryBuilder<Postgres>,
        push_rows: impl FnOnce(&mut QueryBuilder<Postgres>),
    ) {
        sql.push(
            "select u.date, u.model, case when u.place = 1 then p.n else 0 end as traces,
                    p.n * u.observations as observations, p.n * u.input as input, p.n * u.output as output,
                    p.n * u.total as total, p.n * u.cost as cost
               from ",
        );
        push_rows(sql);
        sql.push(format_args!(
            " cross join lateral (select u.*, row_number() over (partition by u.date, u.model) as place
                                    from {ENTRIES} where true"
        ));
        self.push_environments(sql, "u.environment");
        sql.push(") u");
    }

    /// `traces t` of the rest that match.
    fn push_rest(&self, sql: &mut QueryBuilder<Postgres>) {
        sql.push("traces t where t.project_id = ")
            .push_bind(self.project.as_str().to_owned());
        // Spelled out, so that Postgres knows how few these are.
        sql.push(" and (false");
        for (from, to) in &self.rest {
            sql.push(" or t.ts >= ").push_bind(*from);
            sql.push(" and t.ts < ").push_bind(*to);
        }
        sql.push(")");
        filter::push_all(sql, &self.query.conditions);
    }

    fn push_environments(&self, sql: &mut QueryBuilder<Postgres>, column: &str) {
        if !self.query.environments.is_empty() {
            sql.push(format_args!(" and {column} = any("))
                .push_bind(self.query.environments.clone())
                .push(")");
        }
    }
}

/// Conditions on sums `h` by the hour.
fn push_hours(sql: &mut QueryBuilder<Postgres>, (first, end): Range) {
    sql.push(" and h.hour >= ").push_bind(first);
    sql.push(" and h.hour < ").push_bind(end);
    source::push_known(sql, "(h.hour at time zone 'utc')::date");
}

/// Conditions on sums `h` by the day.
fn push_days(sql: &mut QueryBuilder<Postgres>, (first, end): Range) {
    sql.push(" and h.day >= ").push_bind(first.date_naive());
    sql.push(" and h.day < ").push_bind(end.date_naive());
    source::push_known(sql, "h.day");
}

fn page_of(traces: Vec<(NaiveDate, i64)>, models: Vec<ModelUsage>, page: Page) -> Paged<Day> {
    let mut days: BTreeMap<NaiveDate, Day> = BTreeMap::new();
    for (date, traces) in traces {
        days.entry(date).or_insert_with(|| Day::new(date)).traces = traces;
    }
    for usage in models {
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
        let costs = day.models.iter().map(|usage| usage.total_cost);
        day.total_cost = costs.fold(0.0, |sum, cost| (sum + cost).min(f64::MAX));
    }
    Paged { rows, total }
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
        self.observations = self.observations.saturating_add(usage.observations);
        self.models.push(usage);
    }
}

impl ModelUsage {
    /// Of equal costs by name, observations without a model last.
    fn dearest_first(&self, other: &Self) -> std::cmp::Ordering {
        let name = |usage: &Self| (usage.model.is_none(), usage.model.clone());
        let by_cost = other.total_cost.total_cmp(&self.total_cost);
        by_cost.then_with(|| name(self).cmp(&name(other)))
    }
}
