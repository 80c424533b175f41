//! Buckets of time that nothing is in: rows of zeros, so that a curve has no holes.

use chrono::{DateTime, Datelike, Days, Months, NaiveTime, TimeDelta, TimeZone, Timelike, Utc};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use xtrace_store::Store;
use xtrace_store::analytics::{Aggregation, Granularity, Question, ROWS_MAX, Row, Rows};

use super::parse::Parsed;
use crate::error::CompatError;

/// A row as it is answered.
pub(super) fn shown(row: Row) -> Box<RawValue> {
    RawValue::from_string(row.json).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Adds a row for every bucket from that of the begin up to and not including that of the end which has
/// none, as far as the answer goes; rows are in order of time.
pub(super) async fn fill(store: &Store, rows: Rows, parsed: &Parsed) -> Result<Rows, CompatError> {
    let question = &parsed.question;
    let Some(granularity) = question.granularity else {
        return Ok(rows);
    };
    let rows_max = usize::try_from(ROWS_MAX).unwrap_or(usize::MAX);
    let limit = parsed.row_limit.unwrap_or(usize::MAX);
    let end = start_of(question.to, granularity);
    let mut bucket = start_of(question.from, granularity);
    let mut rows = rows.into_iter().peekable();
    let (mut all, mut missing) = (Vec::new(), 0);
    while bucket < end && all.len() < limit {
        let text = text_of(bucket, granularity);
        let mut is_missing = true;
        // Texts of one form are in order of time.
        let is_due = |row: &Row| row.bucket.as_ref().is_some_and(|at| *at <= text);
        while let Some(row) = rows.next_if(is_due) {
            is_missing &= row.bucket.as_ref() != Some(&text);
            all.push(row);
        }
        if is_missing {
            missing += 1;
            let json = empty(&text, question).to_string();
            store.make_room(json.len()).await?;
            let bucket = Some(text);
            all.push(Row { json, bucket });
        }
        if missing > rows_max {
            return Err(CompatError::TooLarge(format!(
                "The range has more than {ROWS_MAX} buckets. Choose a larger granularity"
            )));
        }
        bucket = next(bucket, granularity);
    }
    all.extend(rows);
    Ok(all)
}

fn empty(bucket: &str, question: &Question) -> Value {
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
    Value::Object(row)
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
