//! Points in time as Postgres keeps them: microseconds since the Unix epoch.

use chrono::{DateTime, Utc};

/// Microseconds since the Unix epoch, UTC.
pub type Micros = i64;

/// The latest time an RFC 3339 text can name (year 9999); Postgres and every client read it.
pub const LATEST: Micros = 253_402_300_799_999_999;
/// The earliest time an RFC 3339 text can name (year 0001).
pub const EARLIEST: Micros = -62_135_596_800_000_000;

/// Nanoseconds of an OTLP timestamp as microseconds; above `i64::MAX` it is the year 2262.
pub fn from_unix_nanos(nanos: u64) -> Micros {
    i64::try_from(nanos).unwrap_or(i64::MAX) / 1000
}

/// A UTC time as microseconds, held within the years 1 to 9999.
pub fn from_utc(time: DateTime<Utc>) -> Micros {
    time.timestamp_micros().clamp(EARLIEST, LATEST)
}

/// Microseconds as a UTC time.
pub fn to_utc(micros: Micros) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros.clamp(EARLIEST, LATEST)).unwrap_or_default()
}

/// An RFC 3339 text (offset required) as microseconds.
pub fn parse_rfc3339(text: &str) -> Option<Micros> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|time| from_utc(time.with_timezone(&Utc)))
}

/// Days since the Unix epoch: the name of a day partition.
pub fn day_of(micros: Micros) -> i64 {
    micros.div_euclid(DAY)
}

/// Hours since the Unix epoch: the name of an hour partition.
pub fn hour_of(micros: Micros) -> i64 {
    micros.div_euclid(HOUR)
}

/// Microseconds of an hour.
pub const HOUR: Micros = 3_600_000_000;
/// Microseconds of a day.
pub const DAY: Micros = 24 * HOUR;

/// The last time that is printed like this one: answers have milliseconds, and what is stored has microseconds. A
/// time that was sent to the microsecond is meant so.
pub fn last_printed_as(time: Micros) -> Micros {
    if time.rem_euclid(1000) == 0 {
        time.saturating_add(999)
    } else {
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_beyond_i64_nanoseconds_are_the_year_2262() {
        assert_eq!(
            to_utc(from_unix_nanos(u64::MAX)).format("%Y").to_string(),
            "2262"
        );
        assert_eq!(from_unix_nanos(1_999), 1);
    }

    #[test]
    fn days_before_1970_are_negative() {
        assert_eq!((day_of(-1), day_of(0), day_of(DAY)), (-1, 0, 1));
        assert_eq!((hour_of(-1), hour_of(HOUR)), (-1, 1));
    }

    #[test]
    fn an_offset_is_required() {
        assert_eq!(parse_rfc3339("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse_rfc3339("1970-01-01T01:00:00"), None);
        assert_eq!(parse_rfc3339("1970-01-01"), None);
    }
}
