//! Takes changes up into the sums, and adds to these in one way for every source.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::source::Source;
use super::sql::{ENTRIES, float};
use super::{latency, worker};
use crate::{Store, StoreError};

/// One transaction takes up changes of this many traces at most, unless one statement changed more,
pub(super) const TRACES_MAX: i64 = 20_000;
/// or of this many bytes, as they are stored.
const BYTES_MAX: i64 = 8 << 20;
/// Changes that are looked at for this.
const CHANGES_MAX: i64 = 20_000;

/// What is taken up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Changes<'a> {
    /// The oldest hours, but not these.
    Without(&'a [DateTime<Utc>]),
    /// Of one hour.
    Of(DateTime<Utc>),
}

/// Takes up changes of a project: how many rows. None if another process is at it.
pub(super) async fn fold(
    store: &Store,
    project: &str,
    changes: Changes<'_>,
) -> Result<usize, StoreError> {
    let Some(mut transaction) = worker::begin(store, worker::FOLD_LOCK).await? else {
        return Ok(0);
    };
    let places = choose(&mut transaction, project, changes).await?;
    if places.is_empty() {
        return Ok(0);
    }
    add(&mut transaction, project, Source::Changes(&places)).await?;
    sqlx::query("delete from usage_dirty where project_id = $1 and ctid = any($2::text[]::tid[])")
        .bind(project)
        .bind(&places)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(places.len())
}

/// Where the changes lie that one transaction takes up.
async fn choose(
    connection: &mut PgConnection,
    project: &str,
    changes: Changes<'_>,
) -> Result<Vec<String>, StoreError> {
    let mut sql = QueryBuilder::new(
        "select place::text from (
             select c.place, row_number() over w as number, sum(c.traces) over w as traces, sum(c.bytes) over w as bytes
               from (select d.ctid as place, d.hour, d.traces, pg_column_size(d.usages) as bytes
                       from usage_dirty d where d.usages is not null and d.project_id = ",
    );
    sql.push_bind(project.to_owned());
    match changes {
        Changes::Without(hours) => sql.push(" and d.hour <> all(").push_bind(hours.to_vec()),
        Changes::Of(hour) => sql.push(" and d.hour = any(").push_bind(vec![hour]),
    };
    // Days that are summed up from their traces take their changes with them.
    sql.push(
        ") and not exists (select 1 from usage_dirty u where u.project_id = d.project_id and u.usages is null
                              and u.hour >= date_trunc('day', d.hour, 'UTC')
                              and u.hour < date_trunc('day', d.hour, 'UTC') + interval '1 day')
           and not exists (select 1 from usage_hourly h where h.project_id = d.project_id and h.cost is null
                              and h.hour >= date_trunc('day', d.hour, 'UTC')
                              and h.hour < date_trunc('day', d.hour, 'UTC') + interval '1 day')
         order by d.hour limit ",
    );
    sql.push_bind(CHANGES_MAX);
    sql.push(") c window w as (order by c.hour, c.place)) chosen where number = 1 or (traces <= ");
    sql.push_bind(TRACES_MAX).push(" and bytes <= ");
    sql.push_bind(BYTES_MAX)
        .push(") limit ")
        .push_bind(CHANGES_MAX);
    Ok(sql.build_query_scalar().fetch_all(connection).await?)
}

/// Adds what a source holds to the sums of a project.
pub(super) async fn add(
    connection: &mut PgConnection,
    project: &str,
    source: Source<'_>,
) -> Result<(), StoreError> {
    for mut sql in [
        traces(project, source),
        usage(project, source),
        shared(project, source),
    ] {
        sql.build().execute(&mut *connection).await?;
    }
    latency::add(connection, project, source).await
}

/// Rows that are met are replaced by their sum with the new ones. There may be several of one key, when two
/// programs add at the same time: readers add them up too.
fn traces(project: &str, source: Source<'_>) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(
        "with fresh as (select p.hour, p.environment, sum(p.n)::bigint as traces from ",
    );
    source.push(&mut sql, project);
    sql.push(
        " group by 1, 2),
         old as (delete from traces_hourly h using fresh f
                  where h.project_id = ",
    );
    sql.push_bind(project.to_owned());
    sql.push(
        " and h.hour = f.hour and h.environment = f.environment
                 returning h.hour, h.environment, h.traces)
         insert into traces_hourly (project_id, hour, environment, traces)
         select ",
    );
    sql.push_bind(project.to_owned());
    sql.push(
        ", hour, environment, sum(traces) from (select * from fresh union all select * from old) s
          group by hour, environment having sum(traces) <> 0",
    );
    sql
}

/// A change may be taken up before an earlier one of the same trace: a sum that is negative, or of no
/// observations but with tokens, waits for the other.
fn usage(project: &str, source: Source<'_>) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(
        "with fresh as (
             select p.hour, u.environment, u.date, u.model, sum(p.n)::bigint as traces,
                    sum(p.n * u.observations)::bigint as observations, coalesce(sum(p.n * u.input), 0) as input,
                    coalesce(sum(p.n * u.output), 0) as output, coalesce(sum(p.n * u.total), 0) as total,
                    coalesce(sum(p.n * u.cost), 0) as cost
               from ",
    );
    source.push(&mut sql, project);
    sql.push(format_args!(
        " cross join lateral {ENTRIES} group by 1, 2, 3, 4),
         old as (delete from usage_hourly h using fresh f
                  where h.project_id = "
    ));
    sql.push_bind(project.to_owned());
    let shown = float("sum(cost)");
    sql.push(
        " and h.hour = f.hour and h.environment = f.environment
                    and h.date = f.date and h.model is not distinct from f.model
                 returning h.hour, h.environment, h.date, h.model, h.traces, h.observations,
                           h.input_usage, h.output_usage, h.total_usage, h.cost)
         insert into usage_hourly (project_id, hour, environment, date, model, traces, observations,
                input_usage, output_usage, total_usage, total_cost, cost)
         select ",
    );
    sql.push_bind(project.to_owned()).push(format_args!(
        ", hour, environment, date, model, sum(traces), sum(observations),
                sum(input), sum(output), sum(total), {shown}, sum(cost)
           from (select * from fresh union all select * from old) s
          group by hour, environment, date, model
         having (sum(traces), sum(observations), sum(input), sum(output), sum(total), sum(cost))
                <> (0, 0, 0, 0, 0, 0)"
    ));
    sql
}

fn shared(project: &str, source: Source<'_>) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(
        "with fresh as (
             select p.hour, u.date, u.model, u.environments, sum(p.n)::bigint as traces
               from ",
    );
    source.push(&mut sql, project);
    // Collects at most the entries of one trace.
    sql.push(format_args!(
        " cross join lateral (select u.date, u.model, array_agg(u.environment order by u.environment) as environments
                                from {ENTRIES} group by 1, 2 having count(*) > 1) u
              where jsonb_array_length(p.usage) > 1
              group by 1, 2, 3, 4),
         old as (delete from usage_shared h using fresh f
                  where h.project_id = "
    ));
    sql.push_bind(project.to_owned());
    sql.push(
        " and h.hour = f.hour and h.date = f.date
                    and h.model is not distinct from f.model and h.environments = f.environments
                 returning h.hour, h.date, h.model, h.environments, h.traces)
         insert into usage_shared (project_id, hour, date, model, environments, traces)
         select ",
    );
    sql.push_bind(project.to_owned());
    sql.push(
        ", hour, date, model, environments, sum(traces) from (select * from fresh union all select * from old) s
          group by hour, date, model, environments having sum(traces) <> 0",
    );
    sql
}
