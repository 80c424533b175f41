//! Sums of usage and durations by hour and day, which `metrics/daily` and analytics read.
//!
//! Every statement that changes traces records what it changed in `usage_dirty` (by triggers): the usage
//! that traces had, and the one that they have now. A worker takes these changes up into the sums, in
//! one transaction that also deletes them. So at any moment, and after any crash, an hour's sums plus
//! its recorded changes are what its traces say: readers add up both in one statement, and are exact
//! however far behind the worker is. Sums are integers and decimals, which no order of changes matters to.
//!
//! Sums are kept by the hour that traces begin in and by the day, which is the sum of its hours: readers take
//! whole days, and hours only where a range begins and ends.
//!
//! Of days that were last summed up by a program that recorded no changes, only the traces know the
//! sums: readers add them up, and the worker sums such days up from their traces; see `resum`.
//!
//! - `sql`: entries of the column `usage`, sums that saturate. `source`: where usage is read from.
//! - `fold`: takes changes up. `latency`: values of durations. `resum`: sums of a day from its traces.
//! - `worker`: what is done when, so that no hour and no project holds up another.

mod fold;
pub(crate) mod latency;
mod resum;
pub(crate) mod source;
pub(crate) mod sql;
mod worker;

use chrono::{DateTime, NaiveTime, Utc};
use xtrace_model::time;

pub use worker::{run, run_days};

/// The hour that a time lies in.
pub(crate) fn hour_of(at: DateTime<Utc>) -> DateTime<Utc> {
    let micros = time::from_utc(at);
    time::to_utc(micros - micros.rem_euclid(time::HOUR))
}

/// Midnight before a time.
pub(crate) fn day_of(at: DateTime<Utc>) -> DateTime<Utc> {
    at.date_naive().and_time(NaiveTime::MIN).and_utc()
}
