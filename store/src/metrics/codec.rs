//! Points of one series as few bytes: columns of what they have in common, and what changes as small numbers.
//!
//! In order: how many there are; times (changes of their distance); starts, flags and kinds of values (runs);
//! numbers; distributions. Nothing is lost: not a bit of a NaN, not a nanosecond.

use std::borrow::Borrow;
use std::sync::Arc;

use xtrace_model::MetricPoint;
use xtrace_model::metric::{Buckets, Distribution, PointValue, SeriesId, Shape, are_same_bounds};

use super::bytes::{Reader, Writer};

const NOTHING: u8 = 0;
const DOUBLE: u8 = 1;
const INT: u8 = 2;
const DISTRIBUTION: u8 = 3;

/// Points in order of their time, or references to them.
pub(super) fn encode<P: Borrow<MetricPoint>>(points: &[P]) -> Vec<u8> {
    let mut out = Writer::default();
    out.varint(points.len() as u64);
    let points = || points.iter().map(P::borrow);
    times(&mut out, points());
    runs(&mut out, points().map(|point| point.start), Writer::signed);
    runs(&mut out, points().map(|point| point.flags), |out, flags| {
        out.varint(u64::from(flags));
    });
    runs(
        &mut out,
        points().map(|point| tag(&point.value)),
        Writer::byte,
    );
    let values = || points().map(|point| &point.value);
    let doubles: Vec<f64> = values()
        .filter_map(|value| match value {
            PointValue::Double(number) => Some(*number),
            _ => None,
        })
        .collect();
    put_doubles(&mut out, &doubles);
    let mut before = 0_i64;
    for value in values() {
        if let PointValue::Int(number) = value {
            out.signed(number.wrapping_sub(before));
            before = *number;
        }
    }
    let mut bounds = Vec::new();
    for value in values() {
        if let PointValue::Distribution(distribution) = value {
            put_distribution(&mut out, distribution, &mut bounds);
        }
    }
    out.into_bytes()
}

/// The points again; `None` if the bytes are none of ours.
pub(super) fn decode(series: SeriesId, bytes: &[u8]) -> Option<Vec<MetricPoint>> {
    let mut from = Reader::new(bytes);
    let count = from.length()?;
    let mut points = Vec::with_capacity(count.min(bytes.len()));
    let (mut time, mut distance) = (0_i64, 0_i64);
    for at in 0..count {
        let change = from.signed()?;
        if at == 0 {
            time = change;
        } else {
            distance = distance.wrapping_add(change);
            time = time.wrapping_add(distance);
        }
        points.push(MetricPoint {
            series,
            time,
            start: 0,
            flags: 0,
            value: PointValue::Nothing,
        });
    }
    each_run(&mut from, count, Reader::signed, |at, start| {
        points[at].start = start;
    })?;
    let flags = |from: &mut Reader<'_>| u32::try_from(from.varint()?).ok();
    each_run(&mut from, count, flags, |at, flags| {
        points[at].flags = flags;
    })?;
    let mut tags = vec![NOTHING; count];
    each_run(&mut from, count, Reader::byte, |at, tag| tags[at] = tag)?;
    let doubles = points.iter().zip(&tags).filter(|(_, tag)| **tag == DOUBLE);
    let doubles = doubles.count();
    let mut doubles = get_doubles(&mut from, doubles)?.into_iter();
    let mut before = 0_i64;
    for (point, tag) in points.iter_mut().zip(&tags) {
        match *tag {
            DOUBLE => point.value = PointValue::Double(doubles.next()?),
            INT => {
                before = before.wrapping_add(from.signed()?);
                point.value = PointValue::Int(before);
            }
            NOTHING | DISTRIBUTION => {}
            _ => return None,
        }
    }
    let mut bounds = Vec::new();
    for (point, _) in points
        .iter_mut()
        .zip(&tags)
        .filter(|(_, tag)| **tag == DISTRIBUTION)
    {
        let distribution = get_distribution(&mut from, &mut bounds)?;
        point.value = PointValue::Distribution(Box::new(distribution));
    }
    from.is_empty().then_some(points)
}

/// Bytes that a point takes at most.
fn bytes_max(value: &PointValue) -> usize {
    // Time, start, flags, tag, and a number of up to ten bytes; or the members of a distribution.
    const POINT: usize = 60;
    let PointValue::Distribution(one) = value else {
        return POINT;
    };
    let counts = |counts: &[u64]| 20 + 10 * counts.len();
    POINT
        + 40
        + match &one.shape {
            Shape::Explicit {
                bounds,
                counts: all,
            } => 20 + 8 * bounds.len() + counts(all),
            Shape::Exponential {
                positive, negative, ..
            } => 40 + counts(&positive.counts) + counts(&negative.counts),
            Shape::Quantiles(quantiles) => 10 + 16 * quantiles.len(),
        }
}

/// How many of these points fit into so many bytes; one at least.
pub(super) fn fitting<'a>(
    values: impl Iterator<Item = &'a PointValue>,
    points_max: usize,
    bytes_max: usize,
) -> usize {
    let mut bytes = 0;
    let within = values.take(points_max).take_while(|value| {
        bytes += self::bytes_max(value);
        bytes <= bytes_max
    });
    within.count().max(1)
}

fn tag(value: &PointValue) -> u8 {
    match value {
        PointValue::Nothing => NOTHING,
        PointValue::Double(_) => DOUBLE,
        PointValue::Int(_) => INT,
        PointValue::Distribution(_) => DISTRIBUTION,
    }
}

fn times<'a>(out: &mut Writer, points: impl Iterator<Item = &'a MetricPoint>) {
    let (mut before, mut distance) = (0_i64, 0_i64);
    for (at, point) in points.enumerate() {
        let now = point.time.wrapping_sub(before);
        if at == 0 {
            out.signed(now);
        } else {
            out.signed(now.wrapping_sub(distance));
            distance = now;
        }
        before = point.time;
    }
}

/// Values that mostly stay the same: each with how often it comes in a row.
fn runs<T: PartialEq + Copy>(
    out: &mut Writer,
    mut values: impl Iterator<Item = T>,
    put: impl Fn(&mut Writer, T),
) {
    let Some(mut present) = values.next() else {
        return;
    };
    let mut count = 1;
    for value in values {
        if value != present {
            put(out, present);
            out.varint(count);
            (present, count) = (value, 0);
        }
        count += 1;
    }
    put(out, present);
    out.varint(count);
}

fn each_run<'a, T: Copy>(
    from: &mut Reader<'a>,
    count: usize,
    get: impl Fn(&mut Reader<'a>) -> Option<T>,
    mut set: impl FnMut(usize, T),
) -> Option<()> {
    let mut at = 0;
    while at < count {
        let value = get(from)?;
        let end = at.checked_add(from.length()?)?;
        if end == at || end > count {
            return None;
        }
        (at..end).for_each(|at| set(at, value));
        at = end;
    }
    Some(())
}

/// Powers of ten that decimals are tried with.
const SCALES: [f64; 7] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6];
/// Whole numbers up to here are exact.
const EXACT_MAX: u64 = 1 << 53;

/// Decimals of few digits are whole numbers of a power of ten; others are what differs from the one before,
/// byte by byte.
fn put_doubles(out: &mut Writer, numbers: &[f64]) {
    if numbers.is_empty() {
        return;
    }
    let scaled = |scale: f64| -> Option<Vec<i64>> {
        let whole = |number: &f64| {
            #[expect(clippy::cast_possible_truncation, reason = "looked at again")]
            let whole = (number * scale).round() as i64;
            let is_exact = whole.unsigned_abs() <= EXACT_MAX
                && (whole as f64 / scale).to_bits() == number.to_bits();
            is_exact.then_some(whole)
        };
        numbers.iter().map(whole).collect()
    };
    for (power, scale) in (1_u8..).zip(SCALES) {
        if let Some(wholes) = scaled(scale) {
            out.byte(power);
            let mut before = 0_i64;
            for whole in wholes {
                out.signed(whole.wrapping_sub(before));
                before = whole;
            }
            return;
        }
    }
    out.byte(0);
    let mut before = 0;
    let changes: Vec<[u8; 8]> = numbers
        .iter()
        .map(|number| {
            let change = number.to_bits() ^ before;
            before = number.to_bits();
            change.to_be_bytes()
        })
        .collect();
    for plane in 0..8 {
        for change in &changes {
            out.byte(change[plane]);
        }
    }
}

fn get_doubles(from: &mut Reader<'_>, count: usize) -> Option<Vec<f64>> {
    if count == 0 {
        return Some(Vec::new());
    }
    let power = from.byte()?;
    if power > 0 {
        let scale = SCALES.get(usize::from(power) - 1)?;
        let mut before = 0_i64;
        return (0..count)
            .map(|_| {
                before = before.wrapping_add(from.signed()?);
                Some(before as f64 / scale)
            })
            .collect();
    }
    let planes = from.take(count.checked_mul(8)?)?;
    let mut before = 0;
    let number = |at: usize| {
        let mut change = [0; 8];
        for (plane, byte) in change.iter_mut().enumerate() {
            *byte = planes[plane * count + at];
        }
        before ^= u64::from_be_bytes(change);
        f64::from_bits(before)
    };
    Some((0..count).map(number).collect())
}

const EXPLICIT: u8 = 0;
const EXPONENTIAL: u8 = 1;
const QUANTILES: u8 = 2;

fn put_distribution(out: &mut Writer, one: &Distribution, known: &mut Vec<Arc<[f64]>>) {
    let shape = match one.shape {
        Shape::Explicit { .. } => EXPLICIT,
        Shape::Exponential { .. } => EXPONENTIAL,
        Shape::Quantiles(_) => QUANTILES,
    };
    let extras = [one.sum, one.min, one.max];
    let bits = extras
        .iter()
        .fold(0, |bits, extra| bits << 1 | u8::from(extra.is_some()));
    out.byte(shape << 3 | bits);
    out.varint(one.count);
    extras.iter().flatten().for_each(|extra| out.double(*extra));
    match &one.shape {
        Shape::Explicit { bounds, counts } => {
            let same =
                |other: &Arc<[f64]>| Arc::ptr_eq(other, bounds) || are_same_bounds(other, bounds);
            let place = known.iter().position(same).unwrap_or(known.len());
            out.varint(place as u64);
            if place == known.len() {
                out.varint(bounds.len() as u64);
                bounds.iter().for_each(|bound| out.double(*bound));
                known.push(Arc::clone(bounds));
            }
            put_counts(out, counts);
        }
        Shape::Exponential {
            scale,
            zero_count,
            zero_threshold,
            positive,
            negative,
        } => {
            out.signed(i64::from(*scale));
            out.varint(*zero_count);
            out.double(*zero_threshold);
            for buckets in [positive, negative] {
                out.signed(i64::from(buckets.offset));
                put_counts(out, &buckets.counts);
            }
        }
        Shape::Quantiles(quantiles) => {
            out.varint(quantiles.len() as u64);
            for (quantile, value) in quantiles {
                out.double(*quantile);
                out.double(*value);
            }
        }
    }
}

fn put_counts(out: &mut Writer, counts: &[u64]) {
    out.varint(counts.len() as u64);
    for count in counts {
        out.varint(*count);
    }
}

fn get_counts(from: &mut Reader<'_>) -> Option<Vec<u64>> {
    (0..from.length()?).map(|_| from.varint()).collect()
}

fn get_distribution(from: &mut Reader<'_>, known: &mut Vec<Arc<[f64]>>) -> Option<Distribution> {
    let header = from.byte()?;
    let count = from.varint()?;
    let mut extra = |bit: u8| match header & bit {
        0 => Some(None),
        _ => from.double().map(Some),
    };
    let (sum, min, max) = (extra(4)?, extra(2)?, extra(1)?);
    let shape = match header >> 3 {
        EXPLICIT => {
            let place = from.length_up_to(known.len() + 1)?;
            if place == known.len() {
                let bounds: Option<Vec<f64>> = (0..from.length()?).map(|_| from.double()).collect();
                known.push(bounds?.into());
            }
            Shape::Explicit {
                bounds: Arc::clone(known.get(place)?),
                counts: get_counts(from)?,
            }
        }
        EXPONENTIAL => {
            let scale = i32::try_from(from.signed()?).ok()?;
            let (zero_count, zero_threshold) = (from.varint()?, from.double()?);
            let mut buckets = || {
                let offset = i32::try_from(from.signed()?).ok()?;
                let counts = get_counts(from)?;
                Some(Buckets { offset, counts })
            };
            Shape::Exponential {
                scale,
                zero_count,
                zero_threshold,
                positive: buckets()?,
                negative: buckets()?,
            }
        }
        QUANTILES => {
            let pair = |from: &mut Reader<'_>| Some((from.double()?, from.double()?));
            let pairs: Option<Vec<_>> = (0..from.length()?).map(|_| pair(from)).collect();
            Shape::Quantiles(pairs?)
        }
        _ => return None,
    };
    Some(Distribution {
        count,
        sum,
        min,
        max,
        shape,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = PointValue> {
        let counts = || prop::collection::vec(any::<u64>(), 0..4);
        let number = any::<f64>();
        // Many points have the same bounds, or such as are only equal.
        let bound = prop_oneof![Just(0.0), Just(-0.0), any::<f64>()];
        let explicit =
            (prop::collection::vec(bound, 0..3), counts()).prop_map(|(bounds, counts)| {
                Shape::Explicit {
                    bounds: bounds.into(),
                    counts,
                }
            });
        let buckets =
            || (any::<i32>(), counts()).prop_map(|(offset, counts)| Buckets { offset, counts });
        let exponential = (
            any::<i32>(),
            any::<u64>(),
            any::<f64>(),
            buckets(),
            buckets(),
        )
            .prop_map(|(scale, zero_count, zero_threshold, positive, negative)| {
                Shape::Exponential {
                    scale,
                    zero_count,
                    zero_threshold,
                    positive,
                    negative,
                }
            });
        let quantiles =
            prop::collection::vec((any::<f64>(), any::<f64>()), 0..3).prop_map(Shape::Quantiles);
        let shape = prop_oneof![explicit, exponential, quantiles];
        let extra = || prop::option::of(any::<f64>());
        let distribution = (any::<u64>(), extra(), extra(), extra(), shape).prop_map(
            |(count, sum, min, max, shape)| {
                PointValue::Distribution(Box::new(Distribution {
                    count,
                    sum,
                    min,
                    max,
                    shape,
                }))
            },
        );
        prop_oneof![
            Just(PointValue::Nothing),
            number.prop_map(PointValue::Double),
            (-1_000_000_i32..1_000_000)
                .prop_map(|cents| PointValue::Double(f64::from(cents) / 100.0)),
            any::<i64>().prop_map(PointValue::Int),
            distribution,
        ]
    }

    fn points() -> impl Strategy<Value = Vec<MetricPoint>> {
        let point = (any::<i64>(), any::<i64>(), any::<u32>(), value()).prop_map(
            |(time, start, flags, value)| MetricPoint {
                series: 7,
                time,
                start,
                flags,
                value,
            },
        );
        prop::collection::vec(point, 0..20)
    }

    proptest! {
        /// Compared as text: a NaN is not equal to itself.
        #[test]
        fn points_come_back_as_they_were(points in points()) {
            let found = decode(7, &encode(&points)).unwrap();
            prop_assert_eq!(format!("{found:?}"), format!("{points:?}"));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(7, &bytes);
        }
    }

    #[test]
    fn readings_every_five_seconds_take_two_bytes() {
        let points: Vec<MetricPoint> = (0..100_i64)
            .map(|at| MetricPoint {
                series: 1,
                time: 1_800_000_000_000_000_000 + at * 5_000_000_000,
                start: 0,
                flags: 0,
                value: PointValue::Double((700 + (at * 37) % 60) as f64 / 10.0),
            })
            .collect();
        assert!(encode(&points).len() < 230, "{}", encode(&points).len());
    }
}
