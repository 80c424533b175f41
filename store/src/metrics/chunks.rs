//! Chunks: compressed points of one series, in order of time. Of two points with one time the later came last
//! and counts.

use xtrace_model::metric::SeriesId;
use xtrace_model::{MetricPoint, Micros, time};

use super::blocks::micros;
use super::codec;

/// Points of a chunk at most, but for those of one microsecond.
const POINTS_MAX: usize = 720;
/// A chunk with fewer points is filled up.
pub(super) const POINTS_MIN: i32 = 480;
/// What points may take when they are unpacked.
const BYTES_MAX: usize = 256 << 20;

/// A chunk to be written.
pub(super) struct Chunk {
    pub(super) first: Micros,
    pub(super) last: Micros,
    pub(super) points: usize,
    pub(super) data: Vec<u8>,
}

/// Chunks of points, which are sorted and told apart by time.
pub(super) fn of(points: &[MetricPoint]) -> Vec<Chunk> {
    let day = |point: &MetricPoint| time::day_of(micros(point.time));
    let mut chunks = Vec::new();
    for mut points in points.chunk_by(|a, b| day(a) == day(b)) {
        while !points.is_empty() {
            let mut end = points.len().min(POINTS_MAX);
            // The microsecond names the chunk.
            while end < points.len() && micros(points[end].time) == micros(points[end - 1].time) {
                end += 1;
            }
            let (part, rest) = points.split_at(end);
            chunks.push(Chunk {
                first: micros(part[0].time),
                last: micros(part[end - 1].time),
                points: end,
                data: pack(&codec::encode(part)),
            });
            points = rest;
        }
    }
    chunks
}

/// The points of a chunk; none if it is damaged.
pub(super) fn read(series: SeriesId, data: &[u8]) -> Vec<MetricPoint> {
    let points = unpack(data).and_then(|bytes| codec::decode(series, &bytes));
    points.unwrap_or_else(|| {
        tracing::error!(series, "a chunk of points is damaged");
        Vec::new()
    })
}

/// Sorts points that came in this order, and keeps the last of each time.
pub(super) fn latest(points: &mut Vec<MetricPoint>) {
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
fn pack(bytes: &[u8]) -> Vec<u8> {
    const LEVEL: i32 = 3;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut packed = length.to_le_bytes().to_vec();
    packed.extend(zstd::bulk::compress(bytes, LEVEL).unwrap_or_default());
    packed
}

fn unpack(data: &[u8]) -> Option<Vec<u8>> {
    let (length, packed) = data.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length > BYTES_MAX {
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
        let chunks = of(&points);
        let counts: Vec<usize> = chunks.iter().map(|chunk| chunk.points).collect();
        // The last thousand are of one microsecond.
        assert_eq!(counts, [720, 280, 1000]);
        let read: Vec<MetricPoint> = chunks
            .iter()
            .flat_map(|chunk| read(1, &chunk.data))
            .collect();
        assert_eq!(read, points);
        assert!(super::read(1, b"nonsense").is_empty());
    }
}
