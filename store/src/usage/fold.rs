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

fn traces(project: &str, source: Source<'_>) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(
        "with fresh as (select p.hour, p.environment, sum(p.n)::bigint as traces from ",
    );
    source.push(&mut sql, project);
    sql.push(" group by 1, 2)");
    TRACES_HOURLY.push_taken(&mut sql, project);
    TRACES_HOURLY.push_given(&mut sql, project);
    sql
}

/// A change may be taken up before an earlier one of the same trace: a sum that is negative, or of no
/// observations but with tokens, waits for the other.
fn usage(project: &str, source: Source<'_>) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(
        "with fresh as (
             select p.hour, u.environment, u.date, u.model, sum(p.n)::bigint as traces,
                    sum(p.n * u.observations)::bigint as observations, coalesce(sum(p.n * u.input), 0) as input_usage,
                    coalesce(sum(p.n * u.output), 0) as output_usage, coalesce(sum(p.n * u.total), 0) as total_usage,
                    coalesce(sum(p.n * u.cost), 0) as cost
               from ",
    );
    source.push(&mut sql, project);
    sql.push(format_args!(
        " cross join lateral {ENTRIES} group by 1, 2, 3, 4)"
    ));
    push_both(&mut sql, project, &USAGE_HOURLY, &USAGE_DAILY);
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
              group by 1, 2, 3, 4)"
    ));
    push_both(&mut sql, project, &USAGE_SHARED, &USAGE_SHARED_DAILY);
    sql
}

/// Appends what adds the sub-query `fresh` of hours to their sums, and to those of their days.
fn push_both(sql: &mut QueryBuilder<Postgres>, project: &str, hourly: &Sums, daily: &Sums) {
    let sums = daily.sums.iter().map(|sum| format!("sum({sum}) as {sum}"));
    let (fresh, keys) = (daily.fresh, daily.keys.join(", "));
    let sums = sums.collect::<Vec<_>>().join(", ");
    sql.push(format_args!(
        ", {fresh} as (
             select {keys}, {sums} from (select *, (hour at time zone 'utc')::date as day from fresh) f group by {keys})"
    ));
    for table in [daily, hourly] {
        table.push_taken(sql, project);
    }
    sql.push(", given_days as (");
    daily.push_given(sql, project);
    sql.push(")");
    hourly.push_given(sql, project);
}

/// A table of sums. Rows that are met are replaced by their sum with the fresh ones. There may be several of
/// one key, when two programs add at the same time: readers add them up too.
struct Sums {
    table: &'static str,
    /// The sub-query of what is added.
    fresh: &'static str,
    /// The sub-query of rows that it meets.
    taken: &'static str,
    /// What rows are told apart by; none of it but the model is ever null.
    keys: &'static [&'static str],
    sums: &'static [&'static str],
}

const TRACES_HOURLY: Sums = Sums {
    table: "traces_hourly",
    keys: &["hour", "environment"],
    sums: &["traces"],
    ..HOURLY
};
const USAGE_HOURLY: Sums = Sums {
    table: "usage_hourly",
    keys: &["hour", "environment", "date", "model"],
    sums: USAGE,
    ..HOURLY
};
const USAGE_DAILY: Sums = Sums {
    table: "usage_daily",
    keys: &["day", "environment", "date", "model"],
    sums: USAGE,
    ..DAILY
};
const USAGE_SHARED: Sums = Sums {
    table: "usage_shared",
    keys: &["hour", "date", "model", "environments"],
    sums: &["traces"],
    ..HOURLY
};
const USAGE_SHARED_DAILY: Sums = Sums {
    table: "usage_shared_daily",
    keys: &["day", "date", "model", "environments"],
    sums: &["traces"],
    ..DAILY
};
const USAGE: &[&str] = &[
    "traces",
    "observations",
    "input_usage",
    "output_usage",
    "total_usage",
    "cost",
];
const HOURLY: Sums = Sums {
    table: "",
    fresh: "fresh",
    taken: "taken",
    keys: &[],
    sums: &[],
};
const DAILY: Sums = Sums {
    fresh: "fresh_days",
    taken: "taken_days",
    ..HOURLY
};

impl Sums {
    /// Appends the sub-query that takes out the rows which fresh ones meet.
    fn push_taken(&self, sql: &mut QueryBuilder<Postgres>, project: &str) {
        let Self {
            table,
            fresh,
            taken,
            ..
        } = self;
        sql.push(format_args!(
            ", {taken} as (delete from {table} h using {fresh} f where h.project_id = "
        ));
        sql.push_bind(project.to_owned());
        for key in self.keys {
            let equals = match *key {
                "model" => "is not distinct from",
                _ => "=",
            };
            sql.push(format_args!(" and h.{key} {equals} f.{key}"));
        }
        let columns = self.keys.iter().chain(self.sums);
        let columns: Vec<_> = columns.map(|column| format!("h.{column}")).collect();
        sql.push(format_args!(" returning {})", columns.join(", ")));
    }

    /// Appends the statement that puts in what those and the fresh rows add up to.
    fn push_given(&self, sql: &mut QueryBuilder<Postgres>, project: &str) {
        let Self {
            table,
            fresh,
            taken,
            ..
        } = self;
        let (keys, sums) = (self.keys.join(", "), self.sums.join(", "));
        // What the previous program reads.
        let (shown, value) = match *table {
            "usage_hourly" => (", total_cost", format!(", {}", float("sum(cost)"))),
            _ => ("", String::new()),
        };
        sql.push(format_args!(
            " insert into {table} (project_id, {keys}, {sums}{shown}) select "
        ));
        sql.push_bind(project.to_owned());
        let added: Vec<_> = self.sums.iter().map(|sum| format!("sum({sum})")).collect();
        let (zeros, added) = (vec!["0"; added.len()].join(", "), added.join(", "));
        sql.push(format_args!(
            ", {keys}, {added}{value}
               from (select {keys}, {sums} from {fresh} union all select {keys}, {sums} from {taken}) s
              group by {keys} having ({added}) <> ({zeros})"
        ));
    }
}
