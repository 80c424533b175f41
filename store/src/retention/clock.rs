//! Whether today's date is to be believed: a clock that is wrong by a year must not delete a year.
//!
//! A round of retention believes Postgres' clock, if this host's clock agrees with it to a day, and if it
//! is at most [`AHEAD_MAX`] ahead of the last time that a round believed it. A clock that is further ahead is suspected:
//! nothing is deleted until it has gone on steadily for [`PROBATION`], as it does after a service
//! was off for a while, and as people have time to mend a wrong one. How long data is kept plays no part
//! in it, so a shorter retention counts at once.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use crate::StoreError;

type Time = DateTime<Utc>;

/// How far this host's clock may be from Postgres'.
const DIFFERENCE_MAX: TimeDelta = TimeDelta::days(1);
/// How far ahead of the last believed time a clock may be.
const AHEAD_MAX: TimeDelta = TimeDelta::days(2);
/// How long a clock that was further ahead is watched.
const PROBATION: TimeDelta = TimeDelta::days(1);

/// What is known of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
struct Record {
    trusted_at: Time,
    suspected_since: Option<Time>,
    suspected_at: Option<Time>,
}

/// What a round may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Delete what is old at this time.
    Trusted(Time),
    /// Delete nothing: this host's clock and Postgres' are too far apart.
    Differs { here: Time, postgres: Time },
    /// Delete nothing until this time.
    Suspected { since: Time, until: Time },
}

/// Looks at the clocks.
pub(super) async fn read(connection: &mut PgConnection, here: Time) -> Result<Verdict, StoreError> {
    let (postgres, trusted_at, suspected_since, suspected_at) =
        sqlx::query_as::<_, (Time, Time, Option<Time>, Option<Time>)>(
            "select clock_timestamp(), trusted_at, suspected_since, suspected_at from upkeep",
        )
        .fetch_one(&mut *connection)
        .await?;
    let before = Record {
        trusted_at,
        suspected_since,
        suspected_at,
    };
    let (verdict, after) = before.judge(here, postgres);
    if after != before {
        sqlx::query("update upkeep set trusted_at = $1, suspected_since = $2, suspected_at = $3")
            .bind(after.trusted_at)
            .bind(after.suspected_since)
            .bind(after.suspected_at)
            .execute(connection)
            .await?;
    }
    Ok(verdict)
}

impl Record {
    fn judge(self, here: Time, postgres: Time) -> (Verdict, Self) {
        if (here - postgres).abs() > DIFFERENCE_MAX {
            return (Verdict::Differs { here, postgres }, self);
        }
        // A clock that was put back deletes less than it could, which harms nobody.
        if postgres - self.trusted_at <= AHEAD_MAX {
            return (Verdict::Trusted(postgres), Self::trusted(postgres));
        }
        let goes_on = |at: Time| (TimeDelta::zero()..=AHEAD_MAX).contains(&(postgres - at));
        let since = self
            .suspected_since
            .filter(|_| self.suspected_at.is_some_and(goes_on))
            .unwrap_or(postgres);
        if postgres - since >= PROBATION {
            return (Verdict::Trusted(postgres), Self::trusted(postgres));
        }
        let suspected = Verdict::Suspected {
            since: self.trusted_at,
            until: since + PROBATION,
        };
        let after = Self {
            suspected_since: Some(since),
            suspected_at: Some(postgres),
            ..self
        };
        (suspected, after)
    }

    fn trusted(at: Time) -> Self {
        Self {
            trusted_at: at,
            suspected_since: None,
            suspected_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Time {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::hours(hours)
    }

    /// Rounds at these hours, by both clocks; the hours at which something may be deleted.
    fn believed(rounds: &[i64]) -> Vec<i64> {
        let mut record = Record::trusted(at(0));
        let mut believed = Vec::new();
        for hour in rounds {
            let (verdict, after) = record.judge(at(*hour), at(*hour));
            record = after;
            if verdict == Verdict::Trusted(at(*hour)) {
                believed.push(*hour);
            }
        }
        believed
    }

    #[test]
    fn a_clock_that_jumps_is_watched_for_a_day() {
        const YEAR: i64 = 365 * 24;
        for (rounds, expected) in [
            // Steady, off for a weekend, and put back.
            (vec![1, 2, 47, 95], vec![1, 2, 47, 95]),
            (vec![40, 10, 57], vec![40, 10, 57]),
            // A year ahead, and right again after an hour.
            (vec![1, YEAR, YEAR + 1, 3], vec![1, 3]),
            // Off for a year, and running since.
            (
                vec![YEAR, YEAR + 1, YEAR + 23, YEAR + 24, YEAR + 25],
                vec![YEAR + 24, YEAR + 25],
            ),
            // Two jumps: each is watched.
            (
                vec![YEAR, 2 * YEAR, 2 * YEAR + 23, 2 * YEAR + 24],
                vec![2 * YEAR + 24],
            ),
            // A jump back while watched begins the watch again.
            (vec![YEAR + 20, YEAR, YEAR + 23, YEAR + 24], vec![YEAR + 24]),
        ] {
            assert_eq!(believed(&rounds), expected, "{rounds:?}");
        }
    }

    #[test]
    fn clocks_that_differ_delete_nothing_and_change_nothing() {
        let record = Record::trusted(at(0));
        for hours in [-25, 25] {
            let (verdict, after) = record.judge(at(hours), at(0));
            assert!(matches!(verdict, Verdict::Differs { .. }));
            assert_eq!(after, record);
        }
        let (verdict, _) = record.judge(at(24), at(0));
        assert_eq!(verdict, Verdict::Trusted(at(0)));
    }
}
