//! Blocks: the points of one transaction, by project and shard, sorted by series. A row of a few bytes a
//! point, instead of a row a point.

use std::collections::{BTreeMap, HashSet};

use xtrace_model::metric::{Nanos, SeriesId};
use xtrace_model::{MetricPoint, Micros, ProjectId};

use super::bytes::{Reader, Writer};
use super::codec;

/// Series are spread over so many shards; who asks for one reads one shard's blocks.
pub(super) const SHARDS: u64 = 64;
/// Points of one block at most.
const POINTS_MAX: usize = 4096;

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
    i16::try_from(series.cast_unsigned() % SHARDS).unwrap_or_default()
}

/// The microsecond that a nanosecond lies in.
pub(crate) fn micros(time: Nanos) -> Micros {
    time.div_euclid(1000)
}

/// Blocks of points, which are in order of arrival.
pub(crate) fn of<'a>(
    points: impl Iterator<Item = (&'a ProjectId, &'a MetricPoint)>,
) -> BTreeMap<&'a ProjectId, Vec<Block>> {
    let mut by_shard: BTreeMap<(&ProjectId, i16), Vec<&MetricPoint>> = BTreeMap::new();
    for (project, point) in points {
        let key = (project, shard_of(point.series));
        by_shard.entry(key).or_default().push(point);
    }
    let mut blocks: BTreeMap<&ProjectId, Vec<Block>> = BTreeMap::new();
    for ((project, shard), mut points) in by_shard {
        // Stable: of two with one time, the later stays the later.
        points.sort_by_key(|point| (point.series, point.time));
        let cut = points.chunks(POINTS_MAX).map(|points| block(shard, points));
        blocks.entry(project).or_default().extend(cut);
    }
    blocks
}

fn block(shard: i16, points: &[&MetricPoint]) -> Block {
    let mut out = Writer::default();
    for run in points.chunk_by(|a, b| a.series == b.series) {
        let run: Vec<MetricPoint> = run.iter().map(|point| (*point).clone()).collect();
        out.fixed(run[0].series);
        out.bytes(&codec::encode(&run));
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

/// The points of a block, of these series or of all; in their order. What can't be read is left out.
pub(super) fn read(
    data: &[u8],
    wanted: Option<&HashSet<SeriesId>>,
    mut take: impl FnMut(SeriesId, Vec<MetricPoint>),
) {
    let mut from = Reader::new(data);
    while !from.is_empty() {
        let Some((series, bytes)) = from.fixed().zip(from.bytes()) else {
            tracing::error!("a block of points is damaged");
            return;
        };
        if wanted.is_none_or(|wanted| wanted.contains(&series)) {
            match codec::decode(series, bytes) {
                Some(points) => take(series, points),
                None => tracing::error!(series, "points in a block are damaged"),
            }
        }
    }
}
