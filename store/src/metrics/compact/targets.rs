//! Which chunk a late point belongs to. Chunks of a series don't overlap, and each takes in what lies between it
//! and the next one as long as it is small.

use xtrace_model::{MetricPoint, Micros};

use crate::metrics::blocks::micros;
use crate::metrics::chunks::{POINTS_MAX, POINTS_MIN};

/// Small neighbours of a chunk that grows too large are taken along up to so many points.
const POINTS_TOGETHER_MAX: usize = 4 * POINTS_MAX;

/// A chunk that is stored, without its points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) first: Micros,
    pub(super) last: Micros,
    pub(super) points: usize,
    /// Of its points, unpacked.
    pub(super) bytes: usize,
}

/// Stored chunks that are written again, and the points that they get.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Target {
    /// The first moments of the chunks, which name them.
    pub(super) chunks: Vec<Micros>,
    first: Micros,
    last: Micros,
    /// What is stored.
    pub(super) points: usize,
    pub(super) bytes: usize,
    /// In order of time.
    pub(super) fresh: Vec<MetricPoint>,
}

impl Target {
    fn of(chunk: &Stored) -> Self {
        Self {
            chunks: vec![chunk.first],
            first: chunk.first,
            last: chunk.last,
            points: chunk.points,
            bytes: chunk.bytes,
            fresh: Vec::new(),
        }
    }

    fn absorb(&mut self, other: Self) {
        self.chunks.extend(other.chunks);
        self.last = self.last.max(other.last);
        self.points += other.points;
        self.bytes += other.bytes;
        self.fresh.extend(other.fresh);
    }

    fn is_small(&self) -> bool {
        self.points < POINTS_MIN
    }

    fn is_full(&self) -> bool {
        self.points + self.fresh.len() > POINTS_MAX
    }
}

/// What becomes of the points of one series and day, both of which are sorted by time.
pub(super) fn targets(stored: &[Stored], fresh: Vec<MetricPoint>) -> Vec<Target> {
    let mut known: Vec<Target> = Vec::new();
    for chunk in stored {
        match known.last_mut() {
            // Earlier programs wrote chunks that overlap: they become ones that don't.
            Some(before) if chunk.first <= before.last => before.absorb(Target::of(chunk)),
            _ => known.push(Target::of(chunk)),
        }
    }
    // What lies between two chunks that are large enough.
    let mut between: Vec<Vec<MetricPoint>> = Vec::new();
    between.resize_with(known.len() + 1, Vec::new);
    for point in fresh {
        let at = micros(point.time);
        let next = known.partition_point(|chunk| chunk.first <= at);
        let before = next.checked_sub(1);
        let before = before.filter(|one| at <= known[*one].last || known[*one].is_small());
        let after = known.get(next).is_some_and(Target::is_small);
        match before {
            Some(place) => known[place].fresh.push(point),
            None if after => known[next].fresh.push(point),
            None => between[next].push(point),
        }
    }
    together(known, between)
}

/// In order of time; a chunk that has become too large takes small ones behind it along, or each late point
/// would leave another small one.
fn together(known: Vec<Target>, between: Vec<Vec<MetricPoint>>) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    let mut between = between.into_iter();
    let gap = |fresh: Option<Vec<MetricPoint>>| Target {
        fresh: fresh.unwrap_or_default(),
        ..Target::default()
    };
    targets.push(gap(between.next()));
    for chunk in known {
        match targets.last_mut() {
            Some(before)
                if !before.chunks.is_empty()
                    && !before.fresh.is_empty()
                    && before.is_full()
                    && before.points < POINTS_TOGETHER_MAX
                    && chunk.is_small() =>
            {
                before.absorb(chunk);
            }
            _ => targets.push(chunk),
        }
        let fresh = gap(between.next());
        if !fresh.fresh.is_empty() {
            targets.push(fresh);
        }
    }
    targets.retain(|target| !target.fresh.is_empty());
    targets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xtrace_model::metric::PointValue;

    use super::*;

    fn point(at: Micros) -> MetricPoint {
        MetricPoint {
            series: 1,
            time: at * 1000,
            start: 0,
            flags: 0,
            value: PointValue::Int(0),
        }
    }

    fn chunk(first: Micros, last: Micros, points: usize) -> Stored {
        Stored {
            first,
            last,
            points,
            bytes: points,
        }
    }

    fn planned(stored: &[Stored], fresh: &[Micros]) -> Vec<(Vec<Micros>, Vec<Micros>)> {
        let fresh = fresh.iter().map(|at| point(*at)).collect();
        let times = |target: Target| target.fresh.iter().map(|one| micros(one.time)).collect();
        targets(stored, fresh)
            .into_iter()
            .map(|target| (target.chunks.clone(), times(target)))
            .collect()
    }

    #[test]
    fn a_point_touches_its_chunk_alone() {
        let full = [
            chunk(0, 9, 720),
            chunk(20, 29, 720),
            chunk(40, 49, 720),
            chunk(60, 61, 2),
        ];
        assert_eq!(planned(&full, &[5]), [(vec![0], vec![5])]);
        // An old point and a new one: what lies between them stays where it is.
        assert_eq!(
            planned(&full, &[5, 70]),
            [(vec![0], vec![5]), (vec![60], vec![70])]
        );
        // Between two full ones, before a small one, and before all.
        assert_eq!(planned(&full, &[15]), [(vec![], vec![15])]);
        assert_eq!(planned(&full, &[55]), [(vec![60], vec![55])]);
        assert_eq!(planned(&full, &[-1]), [(vec![], vec![-1])]);
        assert_eq!(planned(&[], &[1, 2]), [(vec![], vec![1, 2])]);
    }

    #[test]
    fn small_ones_behind_a_full_one_are_taken_along() {
        let stored = [
            chunk(0, 9, 720),
            chunk(10, 10, 1),
            chunk(11, 12, 2),
            chunk(13, 19, 700),
        ];
        assert_eq!(planned(&stored, &[5]), [(vec![0, 10, 11], vec![5])]);
    }

    #[test]
    fn chunks_that_overlap_become_one_target() {
        let stored = [chunk(0, 50, 100), chunk(10, 20, 720), chunk(60, 70, 720)];
        assert_eq!(planned(&stored, &[30]), [(vec![0, 10], vec![30])]);
    }

    proptest! {
        /// Every point has one target, and targets and untouched chunks never overlap.
        #[test]
        fn targets_never_overlap(
            sizes in prop::collection::vec((0..5_i64, 0..5_i64, 1..721_usize), 0..8),
            fresh in prop::collection::btree_set(-5..90_i64, 0..30),
        ) {
            let mut at = 0;
            let mut stored = Vec::new();
            for (gap, length, points) in sizes {
                let first = at + gap;
                at = first + length + 1;
                stored.push(chunk(first, first + length, points));
            }
            let found = targets(&stored, fresh.iter().map(|at| point(*at)).collect());
            let mut given: Vec<Micros> = Vec::new();
            let mut ranges: Vec<(Micros, Micros)> = Vec::new();
            let mut taken: Vec<Micros> = Vec::new();
            for target in &found {
                let times: Vec<Micros> = target.fresh.iter().map(|one| micros(one.time)).collect();
                let of_chunks = stored.iter().filter(|one| target.chunks.contains(&one.first));
                let ends: Vec<Micros> = of_chunks.flat_map(|one| [one.first, one.last]).chain(times.clone()).collect();
                ranges.push((*ends.iter().min().unwrap(), *ends.iter().max().unwrap()));
                taken.extend(&target.chunks);
                given.extend(times);
            }
            let left = stored.iter().filter(|one| !taken.contains(&one.first));
            ranges.extend(left.map(|one| (one.first, one.last)));
            ranges.sort_unstable();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", ranges);
            prop_assert_eq!(given, fresh.into_iter().collect::<Vec<_>>());
        }
    }
}
