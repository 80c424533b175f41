//! Blocks: the points of one transaction, by project and shard, sorted by series. A row of a few bytes a
//! point, instead of a row a point.

use std::collections::{BTreeMap, HashSet};

use xtrace_model::metric::{Nanos, SeriesId};
use xtrace_model::{MetricPoint, Micros, ProjectId};

use super::bytes::{Reader, Writer};
use super::codec;
use super::sealed::{Fault, Sealed};

/// Series are spread over so many shards; who asks for one reads one shard's blocks.
pub(super) const SHARDS: usize = 64;
/// Points of one block at most,
const POINTS_MAX: usize = 4096;
/// and bytes, as long as it has more than one point.
const BYTES_MAX: usize = 2 << 20;

/// A block to be written.
pub(crate) struct Block {
    pub(crate) shard: i16,
    pub(crate) first: Micros,
    pub(crate) last: Micros,
    pub(crate) points: usize,
    pub(crate) data: Vec<u8>,
}

/// The shard of a series.
pub(crate) fn shard_of(series: SeriesId) -> i16 {
    // The low bits of a hash are as good as any.
    i16::try_from(series.cast_unsigned() % SHARDS as u64).unwrap_or_default()
}

/// The microsecond that a nanosecond lies in.
pub(crate) fn micros(time: Nanos) -> Micros {
    time.div_euclid(1000)
}

/// Blocks of points, which are in order of arrival.
pub(crate) fn of<'a>(
    points: impl Iterator<Item = (&'a ProjectId, &'a [MetricPoint])>,
) -> BTreeMap<&'a ProjectId, Vec<Block>> {
    let mut by_project: BTreeMap<&ProjectId, Vec<Vec<&MetricPoint>>> = BTreeMap::new();
    for (project, points) in points.filter(|(_, points)| !points.is_empty()) {
        let shards = by_project
            .entry(project)
            .or_insert_with(|| vec![Vec::new(); SHARDS]);
        for point in points {
            let shard = shard_of(point.series).unsigned_abs();
            shards[usize::from(shard)].push(point);
        }
    }
    by_project
        .into_iter()
        .map(|(project, shards)| (project, of_shards(shards)))
        .collect()
}

fn of_shards(shards: Vec<Vec<&MetricPoint>>) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (shard, mut points) in (0_i16..).zip(shards) {
        // Stable: of two with one time, the later stays the later.
        points.sort_by_key(|point| (point.series, point.time));
        let mut rest = points.as_slice();
        while !rest.is_empty() {
            let fitting =
                codec::fitting(rest.iter().map(|point| &point.value), POINTS_MAX, BYTES_MAX);
            let (part, others) = rest.split_at(fitting);
            blocks.push(block(shard, part));
            rest = others;
        }
    }
    blocks
}

fn block(shard: i16, points: &[&MetricPoint]) -> Block {
    let mut out = Writer::default();
    for run in points.chunk_by(|a, b| a.series == b.series) {
        out.fixed(run[0].series);
        out.bytes(&codec::encode(run));
    }
    let times = || points.iter().map(|point| micros(point.time));
    Block {
        shard,
        first: times().min().unwrap_or_default(),
        last: times().max().unwrap_or_default(),
        points: points.len(),
        data: out.into_bytes(),
    }
}

/// The points of a block, of these series or of all; in their order. Whatever precedes a fault was handed over.
pub(super) fn read(
    sealed: &Sealed,
    wanted: Option<&HashSet<SeriesId>>,
    mut take: impl FnMut(SeriesId, Vec<MetricPoint>),
) -> Result<(), Fault> {
    let mut from = Reader::new(sealed.open()?);
    let mut outcome = Ok(());
    while !from.is_empty() {
        let run = from.fixed().zip(from.bytes());
        let (series, bytes) = run.ok_or(Fault::Damaged)?;
        if wanted.is_none_or(|wanted| wanted.contains(&series)) {
            match codec::decode(series, bytes) {
                Some(points) => take(series, points),
                // The next series can still be found.
                None => outcome = Err(Fault::Damaged),
            }
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use xtrace_model::metric::{Distribution, PointValue, Shape};

    use super::*;
    use crate::metrics::sealed::{FORMAT, checksum};

    fn sealed(data: Vec<u8>) -> Sealed {
        Sealed {
            format: FORMAT,
            checksum: Some(checksum(&data)),
            data,
        }
    }

    fn histogram(time: Nanos, buckets: usize) -> MetricPoint {
        let bounds: Vec<f64> = (1..buckets).map(|bound| bound as f64).collect();
        MetricPoint {
            series: 7,
            time,
            start: 0,
            flags: 0,
            value: PointValue::Distribution(Box::new(Distribution {
                count: u64::MAX,
                sum: Some(1.0),
                min: None,
                max: None,
                shape: Shape::Explicit {
                    bounds: bounds.into(),
                    counts: vec![u64::MAX; buckets],
                },
            })),
        }
    }

    /// Written in several blocks, each of which can be read again, whatever the buckets weigh.
    #[test]
    fn heavy_points_are_split_and_stay_readable() {
        let project = ProjectId::parse("p").unwrap();
        // The last one alone is more than a block is aimed at, and more than 16 MiB.
        let sizes = [4096; 100].into_iter().chain([1_000_000]);
        let points: Vec<MetricPoint> = (0..)
            .zip(sizes)
            .map(|(time, buckets)| histogram(time, buckets))
            .collect();
        let blocks = of(std::iter::once((&project, points.as_slice())));
        let blocks = &blocks[&project];
        assert!(blocks.len() > 2);
        assert!(
            blocks
                .iter()
                .all(|block| block.points == 1 || block.data.len() <= BYTES_MAX)
        );
        let mut found = Vec::new();
        for block in blocks {
            read(&sealed(block.data.clone()), None, |_, points| {
                found.extend(points);
            })
            .unwrap();
        }
        assert_eq!(found, points);
    }

    #[test]
    fn a_damaged_run_does_not_hide_the_others() {
        let mut out = Writer::default();
        for (series, bytes) in [(1, vec![0xff; 9]), (2, codec::encode(&[histogram(5, 2)]))] {
            out.fixed(series);
            out.bytes(&bytes);
        }
        let mut found = Vec::new();
        // Without a checksum: that would refuse the whole block.
        let old = Sealed {
            checksum: None,
            ..sealed(out.into_bytes())
        };
        let outcome = read(&old, None, |series, _| found.push(series));
        assert_eq!((outcome, found), (Err(Fault::Damaged), vec![2]));
    }
}
