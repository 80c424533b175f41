//! `GET /experiments` and `GET /experiment-items` (langfuse-api 14.6).

mod items;
mod list;

use chrono::{DateTime, Utc};
use xtrace_model::time;
use xtrace_store::filter::{Column, Condition, Test};

use crate::error::{CompatError, issue};
use crate::filter;
use crate::query::Query;
pub(crate) use items::items;
pub(crate) use list::list;

const LIMIT_DEFAULT: i64 = 50;
const LIMIT_MAX: i64 = 100;
const SCORES_MAX: i64 = 50;

/// `fromStartTime`, which must be there, and `toStartTime`.
fn range(query: &Query) -> Result<(DateTime<Utc>, Option<DateTime<Utc>>), CompatError> {
    let from = query.time("fromStartTime")?;
    let missing = || CompatError::Invalid(issue::missing(&["fromStartTime"], "string"));
    let to = query.time("toStartTime")?;
    Ok((
        time::to_utc(from.ok_or_else(missing)?),
        to.map(time::to_utc),
    ))
}

/// Groups that are asked for; unknown ones are refused.
fn groups(
    query: &Query,
    known: &[&'static str],
    default: &[&'static str],
) -> Result<Vec<String>, CompatError> {
    let groups = query.list("fields");
    if groups.is_empty() {
        return Ok(default.iter().map(|name| (*name).to_owned()).collect());
    }
    if groups.iter().all(|group| known.contains(&group.as_str())) {
        return Ok(groups);
    }
    Err(CompatError::Invalid(issue::not_an_option("fields", known)))
}

/// The `filter`, and parameters of several values, but for columns that the filter names.
fn conditions<C: Column>(
    query: &Query,
    parameters: &[(&str, C)],
) -> Result<Vec<Condition<C>>, CompatError> {
    let simple = parameters.iter().filter_map(|(name, column)| {
        let values = query.list(name);
        (!values.is_empty()).then(|| Condition::new(*column, Test::OneOf(values, false)))
    });
    Ok(filter::with_simple(filter::parse(query)?, simple))
}

fn score_limit(query: &Query) -> Result<usize, CompatError> {
    let limit = query.whole_up_to("scoreLimit", SCORES_MAX, SCORES_MAX)?;
    Ok(usize::try_from(limit).unwrap_or_default())
}
