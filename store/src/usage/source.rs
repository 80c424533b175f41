//! Where usage is read from: as rows `p` of the hour that a trace begins in, its environment, the
//! column `usage`, and whether that is added or taken away (`n`).

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::ProjectId;

type Sql = QueryBuilder<Postgres>;

/// Days of a project, as ` from` a sub-query that none or few rows answer, whose sums only their traces know.
const UNKNOWN: &str = "select (hour at time zone 'utc')::date as day from usage_dirty where usages is null and project_id = ";
const UNKNOWN_SUMS: &str =
    "select (hour at time zone 'utc')::date from usage_hourly where cost is null and project_id = ";

/// What the worker reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// Rows of `usage_dirty`, by where they lie.
    Changes(&'a [String]),
    /// Traces that begin on a day.
    Day(NaiveDate),
}

impl Source<'_> {
    /// Appends `(…) p`.
    pub(super) fn push(self, sql: &mut Sql, project: &str) {
        match self {
            Self::Changes(places) => {
                push_changes(sql, project);
                sql.push(" and d.ctid = any(").push_bind(places.to_vec());
                sql.push("::text[]::tid[])");
            }
            Self::Day(day) => {
                let (first, end) = hours_of(day);
                push_traces(sql, project);
                sql.push(" and t.ts >= ").push_bind(first);
                sql.push(" and t.ts < ").push_bind(end);
            }
        }
        sql.push(") p");
    }
}

/// The first hour of a day, and of the next one.
pub(super) fn hours_of(day: NaiveDate) -> (DateTime<Utc>, DateTime<Utc>) {
    let first = day.and_time(NaiveTime::MIN).and_utc();
    (first, first + TimeDelta::days(1))
}

fn push_changes(sql: &mut Sql, project: &str) {
    sql.push(
        "(select d.hour, d.environment, c.n, c.usage
            from usage_dirty d cross join lateral unnest(d.counts, d.usages) c(n, usage)
           where d.project_id = ",
    );
    sql.push_bind(project.to_owned());
}

fn push_traces(sql: &mut Sql, project: &str) {
    sql.push(
        "(select date_trunc('hour', t.ts, 'UTC') as hour, t.environment, 1 as n, t.usage
            from traces t where t.project_id = ",
    );
    sql.push_bind(project.to_owned());
}

/// Appends `with unknown as (…) `: days that sums are not read of. One statement reads these, sums, changes and
/// traces: it sees one moment.
pub(crate) fn push_unknown(sql: &mut Sql, project: &ProjectId) {
    sql.push("with unknown as materialized (").push(UNKNOWN);
    sql.push_bind(project.as_str().to_owned()).push(" union ");
    sql.push(UNKNOWN_SUMS)
        .push_bind(project.as_str().to_owned())
        .push(") ");
}

/// Appends ` and` that this day (an expression) is known.
pub(crate) fn push_known(sql: &mut Sql, day: &str) {
    // Mostly all days are, and no row need be asked which it is of: that takes as long as adding it up.
    sql.push(format_args!(
        " and ((select count(*) = 0 from unknown) or {day} <> all(array(select day from unknown)))"
    ));
}

/// Appends `(…) p`: changes of known days, and all traces of unknown ones, that begin from `first` up to and not
/// including `end`. `push_more` adds to the condition on traces `t`.
pub(crate) fn push_unsummed(
    sql: &mut Sql,
    project: &ProjectId,
    (first, end): (DateTime<Utc>, DateTime<Utc>),
    push_more: impl Fn(&mut Sql),
) {
    push_changes(sql, project.as_str());
    sql.push(" and d.hour >= ").push_bind(first);
    sql.push(" and d.hour < ").push_bind(end);
    push_known(sql, "(d.hour at time zone 'utc')::date");
    sql.push(
        " union all
          select date_trunc('hour', t.ts, 'UTC'), t.environment, 1, t.usage
            from unknown join traces t on t.ts >= unknown.day::timestamp at time zone 'utc'
                                      and t.ts < (unknown.day + 1)::timestamp at time zone 'utc'
           where t.project_id = ",
    );
    sql.push_bind(project.as_str().to_owned());
    sql.push(" and t.ts >= ").push_bind(first);
    sql.push(" and t.ts < ").push_bind(end);
    push_more(sql);
    sql.push(") p");
}
