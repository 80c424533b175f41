//! Chunks: compressed points of one series, in order of time. Of two points with one time the later came last
//! and counts.

use xtrace_model::metric::SeriesId;
use xtrace_model::{MetricPoint, Micros, time};

use super::blocks::micros;
use super::codec;
use super::sealed::{Fault, Sealed};

/// Points of a chunk at most, but for those of one microsecond.
pub(super) const POINTS_MAX: usize = 720;
/// A chunk with fewer points is filled up.
pub(super) const POINTS_MIN: usize = 480;
/// What the points of a chunk may take before they are packed, as long as it has more than one.
const BYTES_MAX: usize = 4 << 20;
/// What any chunk may take when it is unpacked; nothing larger is written.
const UNPACKED_MAX: usize = 256 << 20;

/// A chunk to be written.
pub(super) struct Chunk {
    pub(super) first: Micros,
    pub(super) last: Micros,
    pub(super) points: usize,
    pub(super) data: Vec<u8>,
}

/// Chunks of points, which are sorted and told apart by time; `None` if they can't be written.
pub(super) fn of(points: &[MetricPoint]) -> Option<Vec<Chunk>> {
    let day = |point: &MetricPoint| time::day_of(micros(point.time));
    let mut chunks = Vec::new();
    for mut points in points.chunk_by(|a, b| day(a) == day(b)) {
        while !points.is_empty() {
            let values = points.iter().map(|point| &point.value);
            let mut end = codec::fitting(values, POINTS_MAX, BYTES_MAX);
            // The microsecond names the chunk.
            while end < points.len() && micros(points[end].time) == micros(points[end - 1].time) {
                end += 1;
            }
            let (part, rest) = points.split_at(end);
            chunks.push(Chunk {
                first: micros(part[0].time),
                last: micros(part[end - 1].time),
                points: end,
                data: pack(&codec::encode(part))?,
            });
            points = rest;
        }
    }
    Some(chunks)
}

/// The points of a chunk.
pub(super) fn read(series: SeriesId, sealed: &Sealed) -> Result<Vec<MetricPoint>, Fault> {
    let data = sealed.open()?;
    let points = unpack(data).and_then(|bytes| codec::decode(series, &bytes));
    points.ok_or(Fault::Damaged)
}

/// What a chunk's points take when they are unpacked, by its first bytes.
pub(super) fn unpacked_bytes(begin: &[u8]) -> usize {
    let length = begin
        .first_chunk::<4>()
        .map(|four| u32::from_le_bytes(*four));
    length.map_or(0, |length| length as usize).min(UNPACKED_MAX)
}

/// Sorts points that came in this order, and keeps the last of each time.
pub(super) fn latest(points: &mut Vec<MetricPoint>) {
    // Mostly they are in order already.
    if points.is_sorted_by(|a, b| a.time < b.time) {
        return;
    }
    points.sort_by_key(|point| point.time);
    points.dedup_by(|later, earlier| {
        let is_same = later.time == earlier.time;
        if is_same {
            std::mem::swap(later, earlier);
        }
        is_same
    });
}

/// Compressed; the first four bytes are the length of what was.
fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    const LEVEL: i32 = 3;
    if bytes.len() > UNPACKED_MAX {
        return None;
    }
    let length = u32::try_from(bytes.len()).ok()?;
    let mut packed = length.to_le_bytes().to_vec();
    packed.extend(zstd::bulk::compress(bytes, LEVEL).ok()?);
    Some(packed)
}

fn unpack(data: &[u8]) -> Option<Vec<u8>> {
    let (length, packed) = data.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length > UNPACKED_MAX {
        return None;
    }
    zstd::bulk::decompress(packed, length).ok()
}

#[cfg(test)]
mod tests {
    use xtrace_model::metric::PointValue;

    use super::*;

    fn point(time: i64, value: i64) -> MetricPoint {
        MetricPoint {
            series: 1,
            time,
            start: 0,
            flags: 0,
            value: PointValue::Int(value),
        }
    }

    fn sealed(data: &[u8]) -> Sealed {
        Sealed {
            format: 0,
            checksum: None,
            data: data.to_vec(),
        }
    }

    #[test]
    fn of_points_with_one_time_the_last_stays() {
        let mut points = vec![point(5, 1), point(3, 2), point(5, 3), point(5, 4)];
        latest(&mut points);
        assert_eq!(points, [point(3, 2), point(5, 4)]);
    }

    #[test]
    fn chunks_end_at_midnight_and_hold_a_bounded_number() {
        let day = 1000 * time::DAY;
        let mut points: Vec<MetricPoint> = (0..1000).map(|at| point(at * 1000, at)).collect();
        points.extend((0..1000).map(|at| point(day + at, at)));
        let chunks = of(&points).unwrap();
        let counts: Vec<usize> = chunks.iter().map(|chunk| chunk.points).collect();
        // The last thousand are of one microsecond.
        assert_eq!(counts, [720, 280, 1000]);
        let found: Vec<MetricPoint> = chunks
            .iter()
            .flat_map(|chunk| read(1, &sealed(&chunk.data)).unwrap())
            .collect();
        assert_eq!(found, points);
        assert_eq!(read(1, &sealed(b"nonsense")), Err(Fault::Damaged));
    }
}
