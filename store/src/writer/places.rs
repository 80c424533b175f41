//! Where observations lie: which days are looked into for them. Every partition that a statement reaches costs it
//! time, once for planning and once for each key, so that none is looked into that holds nothing of a trace.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, Postgres};

use super::combine::TraceKey;

type Time = DateTime<Utc>;

/// From the first start up to the last.
pub(super) type Range = (Time, Time);

/// Ranges of a trace that are looked into; more are put together where the least lies between them.
const RANGES_MAX: usize = 4;

/// The ranges that observations of a trace lie in. A single clock that is wrong makes its extent one of decades;
/// its days, if they are given, are those of its observations.
pub(super) fn ranges(extent: Option<Range>, days: Option<&[String]>) -> Vec<Range> {
    let Some((first, last)) = extent else {
        return Vec::new();
    };
    let whole = vec![(first, last)];
    // A day that can't be read may be any.
    let read = |days: &[String]| days.iter().map(|day| day.parse().ok()).collect();
    let days: Option<Vec<NaiveDate>> = days.and_then(read);
    let Some(days) = days else {
        return whole;
    };
    let mut ranges: Vec<Range> = Vec::new();
    for day in days {
        let begin = day.and_time(NaiveTime::MIN).and_utc();
        let end = begin + TimeDelta::days(1) - TimeDelta::microseconds(1);
        ranges.push((begin.max(first), end.min(last)));
    }
    ranges.retain(|(from, to)| from <= to);
    let ranges = join(ranges, RANGES_MAX);
    if ranges.is_empty() { whole } else { ranges }
}

/// Puts ranges together until that many are left, first those that touch.
fn join(mut ranges: Vec<Range>, count_max: usize) -> Vec<Range> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::new();
    for (from, to) in ranges {
        match joined.last_mut() {
            Some((_, last)) if from <= *last + TimeDelta::microseconds(1) => *last = to.max(*last),
            _ => joined.push((from, to)),
        }
    }
    while joined.len() > count_max {
        let gap = |at: &usize| joined[at + 1].0 - joined[*at].1;
        let least = (0..joined.len() - 1).min_by_key(gap).unwrap_or_default();
        joined[least].1 = joined.remove(least + 1).1;
    }
    joined
}

/// Two ranges that hold all of these and as little as possible between them; they may be the same.
pub(super) fn bounds(ranges: Vec<Range>) -> Option<(Range, Range)> {
    let joined = join(ranges, 2);
    Some((*joined.first()?, *joined.last()?))
}

/// Which observations to look for, and between which starts.
#[derive(Default)]
pub(super) struct Keys<'a> {
    projects: Vec<&'a str>,
    traces: Vec<&'a str>,
    ids: Vec<&'a str>,
    ranges: Vec<Range>,
}

/// To be joined with `observations o`. The bounds of all keys leave out most partitions while planning, the range
/// of each key most of the others while it is looked for.
///
/// Nothing starts at infinity. Naming it keeps the conditions on time for leaving out partitions and from the
/// index by time: of a partition that was not analyzed yet Postgres thinks that either index finds one row, and
/// takes the smaller one, which then finds all rows of the project for every key.
pub(super) const UNNEST_KEYS: &str = "unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[]) \
    k(project_id, trace_id, id, first_start, last_start) \
    join observations o on o.project_id = k.project_id and o.trace_id = k.trace_id \
     and (o.start_time between k.first_start and k.last_start or o.start_time = 'infinity') \
     and (o.start_time between $6 and $7 or o.start_time between $8 and $9 or o.start_time = 'infinity')";

impl<'a> Keys<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Adds a key for each range.
    pub(super) fn push(&mut self, (project, trace): TraceKey<'a>, id: &'a str, ranges: &[Range]) {
        for range in ranges {
            self.projects.push(project.as_str());
            self.traces.push(trace.as_str());
            self.ids.push(id);
            self.ranges.push(*range);
        }
    }

    pub(super) fn bind<'q, T>(
        self,
        sql: &'q str,
    ) -> sqlx::query::QueryAs<'q, Postgres, T, sqlx::postgres::PgArguments>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
        'a: 'q,
    {
        let (firsts, lasts): (Vec<Time>, Vec<Time>) = self.ranges.iter().copied().unzip();
        let (one, other) = bounds(self.ranges).unzip();
        sqlx::query_as(AssertSqlSafe(sql))
            .bind(self.projects)
            .bind(self.traces)
            .bind(self.ids)
            .bind(firsts)
            .bind(lasts)
            .bind(one.map(|range| range.0))
            .bind(one.map(|range| range.1))
            .bind(other.map(|range| range.0))
            .bind(other.map(|range| range.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    #[test]
    fn a_wrong_clock_adds_a_day_and_no_decades() {
        let extent = (at("1970-01-01T00:00:01Z"), at("2026-11-06T10:00:00Z"));
        let days = ["2026-11-06", "1970-01-01", "2026-11-05"].map(str::to_owned);
        let found = ranges(Some(extent), Some(&days));
        let expected = vec![
            (extent.0, at("1970-01-01T23:59:59.999999Z")),
            (at("2026-11-05T00:00:00Z"), extent.1),
        ];
        assert_eq!(found, expected);
        assert_eq!(bounds(found), Some((expected[0], expected[1])));
        for unknown in [None, Some(["never".to_owned()].as_slice()), Some(&[])] {
            assert_eq!(ranges(Some(extent), unknown), vec![extent]);
        }
        assert!(ranges(None, Some(&days)).is_empty());
    }

    #[test]
    fn many_days_are_few_ranges_without_the_widest_gaps() {
        let day = |n: i64| at("2026-01-01T00:00:00Z") + TimeDelta::days(n);
        let days: Vec<String> = [0, 1, 2, 4, 10, 30, 32, 200, 300]
            .map(|n| day(n).date_naive().to_string())
            .into();
        let found = ranges(Some((day(0), day(300))), Some(&days));
        let begins: Vec<Time> = found.iter().map(|range| range.0).collect();
        assert_eq!(begins, [day(0), day(30), day(200), day(300)]);
        let (one, other) = bounds(found).unwrap();
        assert!(one.0 == day(0) && one.1 < day(33) && other == (day(200), day(300)));
    }
}
