//! Buckets of time that nothing is in: rows of zeros, so that a curve has no holes.

use std::collections::HashSet;

use chrono::{DateTime, Datelike, Days, Months, NaiveTime, TimeDelta, TimeZone, Timelike, Utc};
use serde_json::{Map, Value, json};
use xtrace_store::analytics::{Aggregation, Granularity, Question, ROWS_MAX, Rows};

use crate::error::CompatError;

/// Adds a row for every bucket from that of the begin up to and not including that of the end which has
/// none; rows are in order of time.
pub(super) fn fill(rows: Rows, question: &Question) -> Result<Rows, CompatError> {
    let Some(granularity) = question.granularity else {
        return Ok(rows);
    };
    let seen: HashSet<String> = rows.iter().map(time_of).collect();
    let end = start_of(question.to, granularity);
    let mut missing = Vec::new();
    let mut bucket = start_of(question.from, granularity);
    while bucket < end {
        let text = text_of(bucket, granularity);
        if !seen.contains(&text) {
            missing.push(empty(&text, question));
        }
        if i64::try_from(missing.len()).is_ok_and(|count| count > ROWS_MAX) {
            return Err(CompatError::TooLarge(format!(
                "The range has more than {ROWS_MAX} buckets. Choose a larger granularity"
            )));
        }
        bucket = next(bucket, granularity);
    }
    let mut all = rows;
    all.extend(missing);
    // Texts of one form are in order of time.
    all.sort_by_key(time_of);
    Ok(all)
}

fn time_of(row: &Map<String, Value>) -> String {
    row["time_dimension"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn empty(bucket: &str, question: &Question) -> Map<String, Value> {
    let mut row = Map::new();
    for dimension in &question.dimensions {
        row.insert(dimension.name.to_owned(), Value::Null);
    }
    row.insert("time_dimension".to_owned(), bucket.into());
    for metric in &question.metrics {
        let nothing = match metric.aggregation {
            Aggregation::Histogram => json!([]),
            _ => json!(0),
        };
        row.insert(metric.name(), nothing);
    }
    row
}

/// When the bucket of a time begins; weeks begin on Mondays.
fn start_of(time: DateTime<Utc>, granularity: Granularity) -> DateTime<Utc> {
    let day = time.date_naive();
    let date = match granularity {
        Granularity::Minute => {
            let minute = time.with_second(0).and_then(|time| time.with_nanosecond(0));
            return minute.unwrap_or(time);
        }
        Granularity::Hour => {
            let hour = NaiveTime::from_hms_opt(time.hour(), 0, 0).unwrap_or_default();
            return Utc.from_utc_datetime(&day.and_time(hour));
        }
        Granularity::Day => day,
        Granularity::Week => {
            let since = u64::from(day.weekday().num_days_from_monday());
            day.checked_sub_days(Days::new(since)).unwrap_or(day)
        }
        Granularity::Month => day.with_day(1).unwrap_or(day),
    };
    Utc.from_utc_datetime(&date.and_time(NaiveTime::MIN))
}

fn next(bucket: DateTime<Utc>, granularity: Granularity) -> DateTime<Utc> {
    let next = match granularity {
        Granularity::Minute => bucket.checked_add_signed(TimeDelta::minutes(1)),
        Granularity::Hour => bucket.checked_add_signed(TimeDelta::hours(1)),
        Granularity::Day => bucket.checked_add_days(Days::new(1)),
        Granularity::Week => bucket.checked_add_days(Days::new(7)),
        Granularity::Month => bucket.checked_add_months(Months::new(1)),
    };
    next.unwrap_or(DateTime::<Utc>::MAX_UTC)
}

fn text_of(bucket: DateTime<Utc>, granularity: Granularity) -> String {
    match granularity {
        Granularity::Minute | Granularity::Hour => crate::query::iso(bucket),
        _ => bucket.date_naive().to_string(),
    }
}
