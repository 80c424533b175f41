//! Questions about days, models and environments that sums suffice for: they read `usage_daily` and
//! `latency_daily`, which are a thousandth of the observations.
//!
//! Every source is asked for the same: sums, what changed since (see `crate::usage`), and the parts of a day at both
//! ends of the range (from the observations themselves).

mod durations;
mod usage;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, Utc};
use serde_json::{Map, Number, Value};
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::{ProjectId, time};

use self::durations::Durations;
use self::usage::Sums;
use super::{Aggregation, Granularity, OrderKey, Question, Rows, View};
use crate::filter::{self, Column};
use crate::usage::{hour_of, source};
use crate::{Store, StoreError};

/// Shorter ranges are read from the rows themselves.
const DAYS_MIN: i64 = 3;

/// How a question is answered from sums.
pub(super) struct Plan {
    /// Whole days, from the first up to and not including the second.
    days: (NaiveDate, NaiveDate),
    /// What each metric is computed of.
    sources: Vec<Source>,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    /// A sum of [`usage::SUMS`].
    Sum(usize),
    /// A measure of [`durations::MEASURES`].
    Durations(usize, Aggregation),
}

impl Source {
    fn of(metric: &super::Metric) -> Option<Self> {
        let (name, aggregation) = (metric.measure.name, metric.aggregation);
        if let Some(place) = usage::place(name, aggregation) {
            return Some(Self::Sum(place));
        }
        let place = durations::place(name)?;
        (aggregation != Aggregation::Uniq).then_some(Self::Durations(place, aggregation))
    }
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
    let dimensions = question.dimensions.iter();
    let conditions = question.conditions.iter();
    let is_known = dimensions
        .map(|dimension| dimension.sql)
        .chain(conditions.map(|condition| condition.column.sql()))
        .all(known);
    if !is_known {
        return None;
    }
    let sources = question.metrics.iter().map(Source::of);
    let sources = sources.collect::<Option<Vec<_>>>()?;
    let from = question.from.date_naive();
    let is_midnight = question.from.time() == NaiveTime::MIN;
    let first = if is_midnight { from } else { from.succ_opt()? };
    let end = question.to.date_naive();
    let enough = end.signed_duration_since(first).num_days() >= DAYS_MIN;
    enough.then_some(Plan {
        days: (first, end),
        sources,
    })
}

/// What is asked of every source.
struct Reader<'a> {
    store: &'a Store,
    project: &'a ProjectId,
    question: &'a Question,
    days: (NaiveDate, NaiveDate),
}

impl Reader<'_> {
    /// Appends conditions on rows `o` of whole days.
    fn push_days(&self, sql: &mut QueryBuilder<Postgres>) {
        sql.push(" and o.date >= ").push_bind(self.days.0);
        sql.push(" and o.date < ").push_bind(self.days.1);
        filter::push_all(sql, &self.question.conditions);
    }

    fn push_project(&self, sql: &mut QueryBuilder<Postgres>, column: &str) {
        sql.push(format_args!("{column} = "))
            .push_bind(self.project.as_str().to_owned());
    }

    /// Appends `(…) p`: usage that is not in the sums. Traces may begin on any day.
    fn push_unsummed(&self, sql: &mut QueryBuilder<Postgres>) {
        let open = |end| hour_of(time::to_utc(end));
        let always = (open(time::EARLIEST), open(time::LATEST));
        source::push_unsummed(sql, self.project, always, |sql| {
            sql.push(" and t.last_start >= ")
                .push_bind(midnight(self.days.0));
            sql.push(" and t.first_start < ")
                .push_bind(midnight(self.days.1));
        });
    }

    /// ` from` the observations of parts of a day.
    fn push_edges(&self, sql: &mut QueryBuilder<Postgres>) {
        sql.push(" from observations o where ");
        self.push_project(sql, "o.project_id");
        sql.push(" and (o.start_time >= ")
            .push_bind(self.question.from);
        sql.push(" and o.start_time < ")
            .push_bind(midnight(self.days.0));
        sql.push(" or o.start_time >= ")
            .push_bind(midnight(self.days.1));
        sql.push(" and o.start_time <= ")
            .push_bind(self.question.to)
            .push(")");
        filter::push_all(sql, &self.question.conditions);
    }

    /// What a row of that date, environment and model adds to.
    fn key(&self, date: NaiveDate, environment: &str, model: Option<&str>) -> Key {
        let value = |sql: &str| match sql {
            "o.model" => model.map(str::to_owned),
            _ => Some(environment.to_owned()),
        };
        let dimensions = self.question.dimensions.iter();
        let bucket = self
            .question
            .granularity
            .map(|granularity| match granularity {
                Granularity::Week => {
                    let days = u64::from(date.weekday().num_days_from_monday());
                    date.checked_sub_days(Days::new(days)).unwrap_or(date)
                }
                Granularity::Month => date.with_day(1).unwrap_or(date),
                _ => date,
            });
        (
            dimensions.map(|dimension| value(dimension.sql)).collect(),
            bucket,
        )
    }
}

fn midnight(date: NaiveDate) -> DateTime<Utc> {
    date.and_time(NaiveTime::MIN).and_utc()
}

/// Dimensions as texts, and the bucket.
type Key = (Vec<Option<String>>, Option<NaiveDate>);

/// What was found of a key.
#[derive(Default)]
struct Found {
    sums: Sums,
    durations: [Durations; durations::MEASURES.len()],
}

/// Adds up sums, changes, and the parts of a day at both ends.
pub(super) async fn answer(
    store: &Store,
    project: &ProjectId,
    question: &Question,
    plan: &Plan,
) -> Result<Rows, StoreError> {
    let reader = Reader {
        store,
        project,
        question,
        days: plan.days,
    };
    let mut found: BTreeMap<Key, Found> = BTreeMap::new();
    usage::read(&reader, &mut found).await?;
    for place in 0..durations::MEASURES.len() {
        let is_asked = |source: &Source| matches!(source, Source::Durations(of, _) if *of == place);
        if plan.sources.iter().any(is_asked) {
            durations::read(&reader, place, &mut found).await?;
        }
    }
    rows(store, question, plan, found).await
}

/// Puts what was found in order, and shows as much of it as was asked for, row by row: with all its metrics a
/// row may be many times as large as what it is computed of.
async fn rows(
    store: &Store,
    question: &Question,
    plan: &Plan,
    mut found: BTreeMap<Key, Found>,
) -> Result<Rows, StoreError> {
    // Without dimensions there is a row even if nothing was found.
    if question.dimensions.is_empty() && question.granularity.is_none() {
        found.entry((Vec::new(), None)).or_default();
    }
    let compute = |found: &mut Found, place: usize| match plan.sources[place] {
        Source::Sum(place) => found.sums.value(place),
        Source::Durations(place, aggregation) => {
            found.durations[place].aggregate(aggregation, question.bins)
        }
    };
    let sortable = |(key, mut found): (Key, Found)| {
        let values = question.order.iter().map(|(key, _)| match key {
            OrderKey::Metric(place) => compute(&mut found, *place).as_f64(),
            _ => None,
        });
        let values = values.collect();
        Sortable { key, values, found }
    };
    let mut sorted: Vec<Sortable> = found.into_iter().map(sortable).collect();
    sorted.sort_by(|a, b| compare(question, a, b));
    sorted.truncate(usize::try_from(question.limit).unwrap_or(usize::MAX));
    let mut rows = Vec::with_capacity(sorted.len());
    for row in sorted {
        let ((dimensions, bucket), mut found) = (row.key, row.found);
        let bucket = bucket.map(|bucket| bucket.to_string());
        let mut shown = Map::new();
        for (dimension, value) in question.dimensions.iter().zip(dimensions) {
            shown.insert(dimension.name.to_owned(), value.into());
        }
        if let Some(bucket) = &bucket {
            shown.insert("time_dimension".to_owned(), bucket.as_str().into());
        }
        for (place, metric) in question.metrics.iter().enumerate() {
            shown.insert(metric.name(), compute(&mut found, place));
        }
        let json = Value::Object(shown).to_string();
        store.make_room(json.len()).await?;
        rows.push(super::Row { json, bucket });
    }
    Ok(rows)
}

/// A row that is to be put in order.
struct Sortable {
    key: Key,
    /// A number for each key of the order that is a metric.
    values: Vec<Option<f64>>,
    found: Found,
}

/// Whole numbers without a point.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole")]
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn compare(question: &Question, a: &Sortable, b: &Sortable) -> Ordering {
    let missing_last = |value: &Option<String>| (value.is_none(), value.clone());
    for (number, (key, descends)) in question.order.iter().enumerate() {
        let order = match key {
            OrderKey::Dimension(place) => {
                missing_last(&a.key.0[*place]).cmp(&missing_last(&b.key.0[*place]))
            }
            OrderKey::Time => a.key.1.cmp(&b.key.1),
            OrderKey::Metric(_) => {
                match (a.values[number], b.values[number]) {
                    (Some(a), Some(b)) => a.total_cmp(&b),
                    // Nothing comes last, whichever way.
                    (a, b) if *descends => a.is_none().cmp(&b.is_none()).reverse(),
                    (a, b) => a.is_none().cmp(&b.is_none()),
                }
            }
        };
        let order = if *descends { order.reverse() } else { order };
        if order.is_ne() {
            return order;
        }
    }
    let dimensions = |key: &Key| key.0.iter().map(missing_last).collect::<Vec<_>>();
    dimensions(&a.key).cmp(&dimensions(&b.key))
}
