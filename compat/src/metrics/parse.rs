//! A question as it is asked, in JSON.

use chrono::TimeDelta;
use serde_json::{Value, json};
use xtrace_model::time;
use xtrace_store::analytics::fields::{Dimension, Measure};
use xtrace_store::analytics::{
    Aggregation, Granularity, Metric, OrderKey, Question, ROWS_MAX, Version, View,
};

use super::filters;
use crate::body::{Issue, Object};
use crate::error::{CompatError, issue};
use crate::query::Query;

const VIEWS: [(&str, View); 5] = [
    ("traces", View::Traces),
    ("observations", View::Observations),
    ("scores-numeric", View::NumericScores),
    ("scores-categorical", View::CategoricalScores),
    ("scores-boolean", View::BooleanScores),
];
const GRANULARITIES: [&str; 6] = ["auto", "minute", "hour", "day", "week", "month"];
/// Metrics, dimensions or orders of a question at most.
const ITEMS_MAX: usize = 100;
const BINS_DEFAULT: i64 = 10;
const BINS_MAX: i64 = 100;
const ROW_LIMIT_MAX: i64 = 1000;
/// Of version 2, without one of its own.
const ROW_LIMIT_DEFAULT: i64 = 100;

/// A question, and what becomes of its answer.
pub(super) struct Parsed {
    pub(super) question: Question,
    /// Rows that are answered at most, filled ones too.
    pub(super) row_limit: Option<usize>,
    /// Whether buckets without rows are answered too.
    pub(super) fills: bool,
}

fn bad(message: impl Into<String>) -> CompatError {
    CompatError::BadRequest(message.into())
}

/// An issue within the parameter: its path begins with the parameter's name.
fn within(mut issue: Issue, path: &[Value]) -> CompatError {
    let mut whole = vec![json!("query")];
    whole.extend(path.iter().cloned());
    if let Some(Value::Array(rest)) = issue.get("path") {
        whole.extend(rest.iter().cloned());
    }
    issue["path"] = whole.into();
    CompatError::Invalid(issue)
}

pub(super) fn parse(query: &Query, version: Version) -> Result<Parsed, CompatError> {
    let Some(text) = query.text("query") else {
        return Err(CompatError::Invalid(issue::missing(&["query"], "string")));
    };
    let whole: Value =
        serde_json::from_str(text).map_err(|_| bad("Invalid JSON in query parameter"))?;
    let body = Object::of(&whole, "").map_err(|issue| within(issue, &[]))?;
    let view = view(body, version)?;
    let (from, to) = range(body).map_err(|issue| within(issue, &[]))?;
    let granularity = granularity(body, from, to)?;
    let metrics = metrics(body, view, version)?;
    let mut dimensions = dimensions(body, view, version)?;
    for needed in metrics.iter().filter_map(|metric| metric.measure.needs) {
        if !dimensions.iter().any(|one| one.name == needed) {
            dimensions.extend(view.dimensions(version).find(|one| one.name == needed));
        }
    }
    let (bins, row_limit) = config(body)?;
    let order = order(body, &metrics, &dimensions, granularity)?;
    if version == Version::V2 {
        check_cardinality(&dimensions, granularity, row_limit, &order)?;
    }
    let fills = granularity.is_some() && order.is_empty();
    let row_limit = match version {
        Version::V1 => row_limit,
        Version::V2 => row_limit.or(Some(ROW_LIMIT_DEFAULT)),
    };
    let order = match order {
        given if !given.is_empty() => given,
        _ if granularity.is_some() => vec![(OrderKey::Time, false)],
        _ => match metrics.iter().position(is_sortable) {
            Some(place) => vec![(OrderKey::Metric(place), true)],
            None => Vec::new(),
        },
    };
    let question = Question {
        view,
        conditions: filters::parse(&whole["filters"], view, version)?,
        metrics,
        dimensions,
        granularity,
        from: time::to_utc(from),
        to: time::to_utc(to),
        order,
        bins: i32::try_from(bins).unwrap_or_default(),
        limit: row_limit.unwrap_or(ROWS_MAX + 1),
    };
    Ok(Parsed {
        question,
        row_limit: row_limit.and_then(|limit| usize::try_from(limit).ok()),
        fills,
    })
}

fn is_sortable(metric: &Metric) -> bool {
    metric.aggregation != Aggregation::Histogram
}

fn view(body: Object<'_>, version: Version) -> Result<View, CompatError> {
    let known = VIEWS
        .iter()
        .filter(|(_, view)| version == Version::V1 || *view != View::Traces);
    let names: Vec<&'static str> = known.clone().map(|(name, _)| *name).collect();
    let found = body
        .option("view", &names)
        .map_err(|issue| within(issue, &[]))?;
    let found = known.into_iter().find(|(name, _)| Some(*name) == found);
    let missing = || within(issue::not_an_option("view", &names), &[]);
    found.map(|(_, view)| *view).ok_or_else(missing)
}

fn range(body: Object<'_>) -> Result<(i64, i64), Issue> {
    let time = |name: &str| {
        let missing = || issue::missing(&[name], "string");
        body.time(name)?.ok_or_else(missing)
    };
    let (from, to) = (time("fromTimestamp")?, time("toTimestamp")?);
    if from >= to {
        return Err(issue::of_whole("fromTimestamp must be before toTimestamp"));
    }
    Ok((from, to))
}

fn granularity(body: Object<'_>, from: i64, to: i64) -> Result<Option<Granularity>, CompatError> {
    let at = [json!("timeDimension")];
    let given = body
        .object("timeDimension")
        .map_err(|issue| within(issue, &[]))?;
    let Some(given) = given else {
        return Ok(None);
    };
    let name = given
        .option("granularity", &GRANULARITIES)
        .map_err(|issue| within(issue, &at))?;
    let missing = || within(issue::not_an_option("granularity", &GRANULARITIES), &at);
    Ok(Some(match name.ok_or_else(missing)? {
        "minute" => Granularity::Minute,
        "hour" => Granularity::Hour,
        "day" => Granularity::Day,
        "week" => Granularity::Week,
        "month" => Granularity::Month,
        _ => match TimeDelta::microseconds(to - from) {
            range if range < TimeDelta::hours(2) => Granularity::Minute,
            range if range < TimeDelta::hours(72) => Granularity::Hour,
            range if range < TimeDelta::days(60) => Granularity::Day,
            range if range < TimeDelta::days(365) => Granularity::Week,
            _ => Granularity::Month,
        },
    }))
}

/// The objects of a list; absent and null are none.
fn objects<'a>(body: Object<'a>, name: &str) -> Result<Vec<Object<'a>>, CompatError> {
    match body.get(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() > ITEMS_MAX => {
            Err(within(issue::many(&[json!(name)], ITEMS_MAX), &[]))
        }
        Some(Value::Array(items)) => {
            let object = |(index, item)| {
                Object::of(item, "").map_err(|issue| within(issue, &[json!(name), json!(index)]))
            };
            items.iter().enumerate().map(object).collect()
        }
        Some(other) => Err(within(issue::wrong_type(&[name], "array", other), &[])),
    }
}

fn metrics(body: Object<'_>, view: View, version: Version) -> Result<Vec<Metric>, CompatError> {
    if body.get("metrics").is_none() {
        return Err(within(issue::missing(&["metrics"], "array"), &[]));
    }
    let known: Vec<&'static Measure> = view.measures(version).collect();
    let names: Vec<&'static str> = Aggregation::ALL.iter().map(|(name, _)| *name).collect();
    let mut metrics = Vec::new();
    for (index, metric) in objects(body, "metrics")?.into_iter().enumerate() {
        let at = [json!("metrics"), json!(index)];
        let name = metric
            .required_text("measure", 0)
            .map_err(|issue| within(issue, &at))?;
        let aggregation = metric
            .option("aggregation", &names)
            .map_err(|issue| within(issue, &at))?;
        let missing = || within(issue::not_an_option("aggregation", &names), &at);
        let aggregation = aggregation.ok_or_else(missing)?;
        let Some(measure) = known.iter().find(|one| one.name == name) else {
            let known: Vec<&str> = known.iter().map(|one| one.name).collect();
            return Err(bad(format!(
                "Invalid metric {name}. Must be one of {}",
                known.join(", ")
            )));
        };
        let found = Aggregation::ALL.iter().find(|(one, _)| *one == aggregation);
        let aggregation = found.map_or(Aggregation::Count, |(_, one)| *one);
        let fits =
            measure.is_number || matches!(aggregation, Aggregation::Count | Aggregation::Uniq);
        if !fits {
            return Err(bad(format!(
                "Aggregation \"{}\" is not valid for measure \"{name}\": only count and uniq are",
                aggregation.name()
            )));
        }
        let metric = Metric {
            measure,
            aggregation,
        };
        if !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    Ok(metrics)
}

fn dimensions(
    body: Object<'_>,
    view: View,
    version: Version,
) -> Result<Vec<&'static Dimension>, CompatError> {
    let known: Vec<&'static Dimension> = view.dimensions(version).collect();
    let mut dimensions: Vec<&'static Dimension> = Vec::new();
    for (index, dimension) in objects(body, "dimensions")?.into_iter().enumerate() {
        let at = [json!("dimensions"), json!(index)];
        let name = dimension
            .required_text("field", 0)
            .map_err(|issue| within(issue, &at))?;
        let Some(found) = known.iter().find(|one| one.name == name) else {
            let known: Vec<&str> = known.iter().map(|one| one.name).collect();
            return Err(bad(format!(
                "Invalid dimension {name}. Must be one of {}",
                known.join(", ")
            )));
        };
        if !dimensions.contains(found) {
            dimensions.push(found);
        }
    }
    Ok(dimensions)
}

/// Bins, and the limit of rows.
fn config(body: Object<'_>) -> Result<(i64, Option<i64>), CompatError> {
    let at = [json!("config")];
    let given = body.object("config").map_err(|issue| within(issue, &[]))?;
    let Some(given) = given else {
        return Ok((BINS_DEFAULT, None));
    };
    let number = |name: &str, maximum: i64| {
        let found = given.whole(name).map_err(|issue| within(issue, &at))?;
        match found {
            Some(number) if number < 1 => Err(within(issue::too_small(name, 1), &at)),
            Some(number) if number > maximum => Err(within(issue::too_big(name, maximum), &at)),
            found => Ok(found),
        }
    };
    Ok((
        number("bins", BINS_MAX)?.unwrap_or(BINS_DEFAULT),
        number("row_limit", ROW_LIMIT_MAX)?,
    ))
}

fn order(
    body: Object<'_>,
    metrics: &[Metric],
    dimensions: &[&'static Dimension],
    granularity: Option<Granularity>,
) -> Result<Vec<(OrderKey, bool)>, CompatError> {
    let mut order = Vec::new();
    for (index, item) in objects(body, "orderBy")?.into_iter().enumerate() {
        let at = [json!("orderBy"), json!(index)];
        let field = item
            .required_text("field", 0)
            .map_err(|issue| within(issue, &at))?;
        let direction = item
            .option("direction", &["asc", "desc"])
            .map_err(|issue| within(issue, &at))?;
        let missing = || within(issue::not_an_option("direction", &["asc", "desc"]), &at);
        let descends = direction.ok_or_else(missing)? == "desc";
        let of_dimension = dimensions.iter().position(|one| one.name == field);
        let of_metric = metrics
            .iter()
            .position(|metric| metric.name() == field && is_sortable(metric));
        let key = match (of_dimension, of_metric) {
            (Some(place), _) => OrderKey::Dimension(place),
            (None, Some(place)) => OrderKey::Metric(place),
            (None, None) if field == "time_dimension" && granularity.is_some() => OrderKey::Time,
            (None, None) => {
                return Err(bad(format!(
                    "Invalid orderBy field: {field}. Must be a requested dimension, time_dimension, or <aggregation>_<measure> of a requested metric"
                )));
            }
        };
        order.push((key, descends));
    }
    Ok(order)
}

/// Dimensions of about as many values as there are rows need a limit and an order.
fn check_cardinality(
    dimensions: &[&'static Dimension],
    granularity: Option<Granularity>,
    row_limit: Option<i64>,
    order: &[(OrderKey, bool)],
) -> Result<(), CompatError> {
    let high = dimensions.iter().filter(|one| one.is_high_cardinality);
    let names: Vec<&str> = high.map(|one| one.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let names = names.join(", ");
    if granularity.is_some() {
        return Err(bad(format!(
            "High cardinality dimension(s) '{names}' cannot be used with timeDimension."
        )));
    }
    let is_ordered = order
        .iter()
        .any(|(key, descends)| matches!(key, OrderKey::Metric(_)) && *descends);
    if row_limit.is_some() && is_ordered {
        return Ok(());
    }
    Err(bad(format!(
        "High cardinality dimension(s) '{names}' require both 'config.row_limit' and 'orderBy' with direction 'desc' on a measure field."
    )))
}
