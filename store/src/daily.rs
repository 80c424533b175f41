//! Usage and cost by day, for `metrics/daily`.

use chrono::NaiveDate;
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::ProjectId;

use crate::filter::{self, Condition, TraceColumn};
use crate::page::{Page, Paged};
use crate::{Store, StoreError};

/// One UTC day.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Day {
    /// The day.
    pub date: NaiveDate,
    /// Traces that begin on it.
    pub traces: i64,
    /// Observations that begin on it.
    pub observations: i64,
    /// USD of these observations.
    pub total_cost: f64,
}

/// What one model was used for on a day.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ModelUsage {
    /// The day.
    pub date: NaiveDate,
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
    /// Conditions on the traces, all of which must hold.
    pub conditions: Vec<Condition<TraceColumn>>,
    /// Environments of traces and of observations; empty means all.
    pub environments: Vec<String>,
    /// Which page of days.
    pub page: Page,
}

impl DailyQuery {
    /// `traces t` that the query is about.
    fn push_traces(&self, sql: &mut QueryBuilder<Postgres>, project: &ProjectId) {
        sql.push(" from traces t where t.project_id = ")
            .push_bind(project.as_str().to_owned());
        filter::push_all(sql, &self.conditions);
        if !self.environments.is_empty() {
            sql.push(" and t.environment = any(")
                .push_bind(self.environments.clone())
                .push(")");
        }
    }

    /// `observations o` of matching traces.
    fn push_observations(&self, sql: &mut QueryBuilder<Postgres>, project: &ProjectId) {
        sql.push(" from observations o");
        if !self.conditions.is_empty() {
            sql.push(" join traces t on t.project_id = o.project_id and t.id = o.trace_id");
        }
        sql.push(" where o.project_id = ")
            .push_bind(project.as_str().to_owned());
        filter::push_all(sql, &self.conditions);
        if !self.environments.is_empty() {
            sql.push(" and o.environment = any(")
                .push_bind(self.environments.clone())
                .push(")");
        }
    }
}

/// A page of days, newest first, and the models used on them.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    query: &DailyQuery,
) -> Result<(Paged<Day>, Vec<ModelUsage>), StoreError> {
    let mut sql = QueryBuilder::new(
        "with traces_by_day as (select (t.ts at time zone 'utc')::date as date, count(*) as n",
    );
    query.push_traces(&mut sql, project);
    sql.push(
        " group by 1), observations_by_day as (select (o.start_time at time zone 'utc')::date as date,
            count(*) as n, sum(o.total_cost) as cost",
    );
    query.push_observations(&mut sql, project);
    sql.push(
        " group by 1)
        select date, coalesce(t.n, 0) as traces, coalesce(o.n, 0) as observations,
               coalesce(o.cost, 0) as total_cost
          from traces_by_day t full join observations_by_day o using (date)
         order by date desc",
    );
    let days: Vec<Day> = sql.build_query_as().fetch_all(store.read()).await?;
    let total = i64::try_from(days.len()).unwrap_or(i64::MAX);
    let (skip, take) = (query.page.offset(), query.page.limit);
    let position = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
    let rows: Vec<Day> = days
        .into_iter()
        .skip(position(skip))
        .take(position(take))
        .collect();
    let models = models(store, project, query, &rows).await?;
    Ok((Paged { rows, total }, models))
}

async fn models(
    store: &Store,
    project: &ProjectId,
    query: &DailyQuery,
    days: &[Day],
) -> Result<Vec<ModelUsage>, StoreError> {
    let (Some(newest), Some(oldest)) = (days.first(), days.last()) else {
        return Ok(Vec::new());
    };
    let mut sql = QueryBuilder::new(
        "select (o.start_time at time zone 'utc')::date as date, o.model,
                coalesce(sum(o.input_usage), 0)::bigint as input,
                coalesce(sum(o.output_usage), 0)::bigint as output,
                coalesce(sum(o.total_usage), 0)::bigint as total,
                count(*) as observations, count(distinct o.trace_id) as traces,
                coalesce(sum(o.total_cost), 0) as total_cost",
    );
    query.push_observations(&mut sql, project);
    let midnight = |date: NaiveDate| date.and_hms_opt(0, 0, 0).unwrap_or_default().and_utc();
    sql.push(" and o.start_time >= ")
        .push_bind(midnight(oldest.date));
    sql.push(" and o.start_time < ")
        .push_bind(midnight(newest.date.succ_opt().unwrap_or(newest.date)));
    sql.push(" group by 1, 2 order by 1 desc, total_cost desc, o.model nulls last");
    Ok(sql.build_query_as().fetch_all(store.read()).await?)
}
