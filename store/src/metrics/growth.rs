//! How much a series grew from point to point. Source: OpenTelemetry's data model, "Resets and Gaps".

use xtrace_model::MetricPoint;
use xtrace_model::metric::{Distribution, Kind, Nanos, Temporality};

use super::series::Found;
use super::spread::growth;

/// A cumulative series starts anew when its start does, or when it shrinks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Since {
    /// Since the point before.
    Before,
    /// Since it began, which was within the question's range.
    Start,
    /// Nobody knows since when: nothing is counted.
    Unknown,
}

fn since(before: Option<&MetricPoint>, now: &MetricPoint, from: Nanos) -> Since {
    let is_known = now.start != 0 && now.start < now.time;
    match before {
        Some(before) if before.start == now.start => Since::Before,
        // It began anew after the point before.
        Some(before) if is_known && now.start >= before.time => Since::Start,
        Some(_) if now.start == 0 => Since::Before,
        None if is_known && now.start >= from => Since::Start,
        _ => Since::Unknown,
    }
}

/// How much a number grew; `None` where the series began at that moment, for all anybody knows.
pub(super) fn of_number(
    series: &Found,
    before: Option<&MetricPoint>,
    now: &MetricPoint,
    from: Nanos,
) -> Option<f64> {
    let value = now.value.number()?;
    let earlier = before.and_then(|point| point.value.number());
    match (series.kind, series.temporality) {
        (_, Temporality::Delta) => Some(value),
        (Kind::Gauge, _) => Some(value - earlier?),
        (Kind::Sum, _) if !series.is_monotonic => Some(value - earlier?),
        _ => match (since(before, now, from), earlier) {
            (Since::Before, Some(earlier)) if value >= earlier => Some(value - earlier),
            // It shrank: all of it came since it began anew.
            (Since::Before, Some(_)) | (Since::Start, _) => Some(value),
            _ => None,
        },
    }
}

/// How much a distribution grew.
pub(super) fn of_distribution(
    series: &Found,
    before: Option<&MetricPoint>,
    now: &MetricPoint,
    from: Nanos,
) -> Option<Distribution> {
    let value = now.value.distribution()?;
    if series.temporality == Temporality::Delta {
        return Some(value.clone());
    }
    match (
        since(before, now, from),
        before.and_then(|point| point.value.distribution()),
    ) {
        (Since::Before, Some(earlier)) => {
            Some(growth(earlier, value).unwrap_or_else(|| value.clone()))
        }
        (Since::Start, _) => Some(value.clone()),
        _ => None,
    }
}
