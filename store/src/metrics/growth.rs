//! How much a series grew from point to point. Source: OpenTelemetry's data model, "Resets and Gaps", and Prometheus,
//! which looks at values: start times jitter.

use xtrace_model::MetricPoint;
use xtrace_model::metric::{Distribution, Kind, Nanos, PointValue, Temporality};

use super::series::Found;
use super::spread::growth;

/// How much a series grew, and since when.
#[derive(Debug, PartialEq)]
pub(super) struct Grown<T> {
    pub(super) by: T,
    pub(super) since: Nanos,
}

/// Where a cumulative series stands beside the point before.
enum Since<'a> {
    /// It goes on, unless it shrank.
    Before(&'a MetricPoint),
    /// It began at its start: all of it is new.
    Start,
    /// Nobody knows since when: nothing is counted.
    Unknown,
}

fn since<'a>(before: Option<&'a MetricPoint>, now: &MetricPoint, from: Nanos) -> Since<'a> {
    let is_known = now.start != 0 && now.start < now.time;
    match before {
        // It began anew after the point before. Any other start is the same one, told a little differently.
        Some(before) if is_known && now.start >= before.time && now.start != before.start => {
            Since::Start
        }
        Some(before) => Since::Before(before),
        None if is_known && now.start >= from => Since::Start,
        None => Since::Unknown,
    }
}

/// The difference of two numbers: exact between whole ones, of which doubles hold only the first 53 bits.
fn difference(now: &PointValue, before: &PointValue) -> Option<f64> {
    match (now, before) {
        (PointValue::Int(now), PointValue::Int(before)) => {
            Some((i128::from(*now) - i128::from(*before)) as f64)
        }
        _ => Some(now.number()? - before.number()?),
    }
}

/// How much a number grew; `None` where nobody knows.
pub(super) fn of_number(
    series: &Found,
    before: Option<&MetricPoint>,
    now: &MetricPoint,
    from: Nanos,
) -> Option<Grown<f64>> {
    let all = now.value.number()?;
    let began = |by: f64| Grown {
        by,
        since: began(before, now),
    };
    let differs = |before: &MetricPoint| {
        let by = difference(&now.value, &before.value)?;
        let since = before.time;
        Some(Grown { by, since })
    };
    let is_sum = match (series.kind, series.temporality) {
        (_, Temporality::Delta) => return Some(began(all)),
        (Kind::Gauge, _) => false,
        (Kind::Sum, _) => series.is_monotonic,
        _ => true,
    };
    if !is_sum {
        return differs(before?);
    }
    match since(before, now, from) {
        // It shrank: all of it came since it began anew.
        Since::Before(before) => {
            let grown = differs(before)?;
            let by = if grown.by < 0.0 { all } else { grown.by };
            Some(Grown { by, ..grown })
        }
        Since::Start => Some(began(all)),
        Since::Unknown => None,
    }
}

/// How much a distribution grew.
pub(super) fn of_distribution(
    series: &Found,
    before: Option<&MetricPoint>,
    now: &MetricPoint,
    from: Nanos,
) -> Option<Grown<Distribution>> {
    let all = now.value.distribution()?;
    let whole = |since: Nanos| Grown {
        by: all.clone(),
        since,
    };
    if series.temporality == Temporality::Delta {
        return Some(whole(began(before, now)));
    }
    match since(before, now, from) {
        Since::Before(before) => {
            let earlier = before.value.distribution()?;
            Some(match growth(earlier, all) {
                Some(by) => Grown {
                    by,
                    since: before.time,
                },
                None => whole(before.time),
            })
        }
        Since::Start => Some(whole(began(None, now))),
        Since::Unknown => None,
    }
}

/// When that began which a point counts whole.
fn began(before: Option<&MetricPoint>, now: &MetricPoint) -> Nanos {
    let before = before.map_or(now.time, |before| before.time);
    match now.start {
        0 => before,
        start => start.min(now.time),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;

    fn counter() -> Found {
        Found {
            id: 1,
            kind: Kind::Sum,
            temporality: Temporality::Cumulative,
            is_monotonic: true,
            labels: Arc::new(BTreeMap::new()),
            lookup: Arc::new(BTreeMap::new()),
        }
    }

    fn point(start: Nanos, time: Nanos, value: PointValue) -> MetricPoint {
        MetricPoint {
            series: 1,
            time,
            start,
            flags: 0,
            value,
        }
    }

    /// Growth by, for a counter's points of (start, time, value).
    fn grown(before: (Nanos, Nanos, i64), now: (Nanos, Nanos, i64)) -> Option<f64> {
        let of = |(start, time, value)| point(start, time, PointValue::Int(value));
        let grown = of_number(&counter(), Some(&of(before)), &of(now), 0);
        grown.map(|grown| grown.by)
    }

    #[test]
    fn values_tell_growth_from_resets() {
        assert_eq!(grown((5, 100, 10), (5, 110, 15)), Some(5.0));
        // A start that jitters, earlier or later, is no reset.
        assert_eq!(grown((5, 100, 10), (6, 110, 15)), Some(5.0));
        assert_eq!(grown((5, 100, 10), (4, 110, 15)), Some(5.0));
        assert_eq!(grown((0, 100, 10), (4, 110, 15)), Some(5.0));
        // A smaller value is one, whatever the start says; so is a start after the point before.
        assert_eq!(grown((5, 100, 10), (6, 110, 3)), Some(3.0));
        assert_eq!(grown((5, 100, 10), (5, 110, 3)), Some(3.0));
        assert_eq!(grown((5, 100, 10), (105, 110, 15)), Some(15.0));
        // A first point that begins with itself is no reason to count the next one whole.
        assert_eq!(grown((100, 100, 10), (100, 110, 15)), Some(5.0));
    }

    #[test]
    fn whole_numbers_are_subtracted_exactly() {
        let big = 1 << 60;
        assert_eq!(grown((5, 100, big), (5, 110, big + 7)), Some(7.0));
        assert_eq!(
            grown((5, 100, i64::MIN), (5, 110, i64::MAX)),
            Some(u64::MAX as f64)
        );
    }
}
