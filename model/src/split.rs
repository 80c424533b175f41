//! Large batches in parts of bounded size, so that no request makes a transaction that others wait long for.
//! What belongs together stays together where it can: a trace with its observations, points with their
//! series and exemplars. Merging makes up for the rest, since parts of one thing merge in any order.

use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh3::xxh3_64;

use crate::metric::{Exemplar, MetricPoint, Series, SeriesId, Shape};
use crate::{Batch, LogRecord, Observation, Score, Trace, TraceId, Tree};

/// Bytes of a document or record beyond its texts, by estimate.
const DOCUMENT_BYTES: usize = 1000;

impl Batch {
    /// All rows in parts of at most so many rows and bytes each, but at least one row. The parts are to
    /// be written in their order.
    pub fn into_parts(self, rows_max: usize, bytes_max: usize) -> Vec<Self> {
        if self.rows() <= rows_max && self.bytes <= bytes_max {
            return vec![self];
        }
        self.split(rows_max.max(1), bytes_max, true)
    }

    /// Two parts of about as many rows, whatever belongs together; a batch of one row is one part.
    pub fn into_halves(self) -> Vec<Self> {
        let half = self.rows().div_ceil(2).max(1);
        self.split(half, usize::MAX, false)
    }

    fn split(mut self, rows_max: usize, bytes_max: usize, keep_traces: bool) -> Vec<Self> {
        let mut parts = Parts {
            empty: Self {
                series_known_as_of: self.series_known_as_of,
                ..Self::new(self.project.clone())
            },
            done: Vec::new(),
            rows_max,
            bytes_max,
        };
        // Stable: of several versions of one thing the order stays.
        let by_trace = |id: &TraceId| xxh3_64(id.as_str().as_bytes());
        self.observations
            .sort_by_cached_key(|observation| by_trace(&observation.trace_id));
        let mut homes: HashMap<u64, usize> = HashMap::new();
        for observation in self.observations {
            let home = by_trace(&observation.trace_id);
            let (at, part) = parts.with_room(observation_bytes(&observation));
            part.observations.push(observation);
            if keep_traces {
                homes.entry(home).or_insert(at);
            }
        }
        for trace in self.traces {
            let bytes = trace_bytes(&trace);
            let part = match homes.get(&by_trace(&trace.id)) {
                Some(at) => parts.at(*at, bytes),
                None => parts.with_room(bytes).1,
            };
            part.traces.push(trace);
        }
        for record in self.logs {
            parts.with_room(log_bytes(&record)).1.logs.push(record);
        }
        for score in self.scores {
            parts.with_room(score_bytes(&score)).1.scores.push(score);
        }
        parts.add_points(self.points, self.series, self.exemplars);
        parts.done
    }
}

struct Parts {
    empty: Batch,
    done: Vec<Batch>,
    rows_max: usize,
    bytes_max: usize,
}

impl Parts {
    /// The place of the part that the next row goes to, and the part.
    fn with_room(&mut self, bytes: usize) -> (usize, &mut Batch) {
        let has_room = self.done.last().is_some_and(|part| {
            part.rows() < self.rows_max && part.bytes.saturating_add(bytes) <= self.bytes_max
        });
        if !has_room {
            self.done.push(self.empty.clone());
        }
        let at = self.done.len() - 1;
        (at, self.at(at, bytes))
    }

    fn at(&mut self, at: usize, bytes: usize) -> &mut Batch {
        let part = &mut self.done[at];
        part.bytes = part.bytes.saturating_add(bytes);
        part
    }

    /// Every part describes the series of its points that are described at all: each can stand alone.
    fn add_points(
        &mut self,
        mut points: Vec<MetricPoint>,
        series: Vec<Series>,
        exemplars: Vec<Exemplar>,
    ) {
        let mut series: HashMap<SeriesId, Series> =
            series.into_iter().map(|one| (one.id, one)).collect();
        let mut of_points: HashMap<(SeriesId, i64), Vec<Exemplar>> = HashMap::new();
        for exemplar in exemplars {
            let point = (exemplar.series, exemplar.point_time);
            of_points.entry(point).or_default().push(exemplar);
        }
        points.sort_by_key(|point| point.series);
        let mut described: HashSet<(usize, SeriesId)> = HashSet::new();
        for point in points {
            let of_point = of_points.remove(&(point.series, point.time));
            let of_point = of_point.unwrap_or_default();
            let attributes = of_point.iter().map(|one| 100 + one.attributes.len());
            let bytes = point_bytes(&point) + attributes.sum::<usize>();
            let (at, part) = self.with_room(bytes);
            if described.insert((at, point.series)) {
                part.series.extend(series.get(&point.series).cloned());
            }
            part.exemplars.extend(of_point);
            part.points.push(point);
        }
        // What no point is of goes with the last part.
        let described: HashSet<SeriesId> = described.into_iter().map(|(_, id)| id).collect();
        series.retain(|id, _| !described.contains(id));
        let exemplars: Vec<Exemplar> = of_points.into_values().flatten().collect();
        if let Some(part) = self.done.last_mut() {
            part.series.extend(series.into_values());
            part.exemplars.extend(exemplars);
        }
    }
}

fn length(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}

fn observation_bytes(observation: &Observation) -> usize {
    let texts = [
        &observation.input,
        &observation.output,
        &observation.otel,
        &observation.model_parameters,
        &observation.tool_definitions,
        &observation.experiment,
        &observation.status_message,
    ];
    let texts = texts.into_iter().map(|text| length(text.text()));
    DOCUMENT_BYTES + texts.sum::<usize>() + observation.metadata.weight()
}

fn trace_bytes(trace: &Trace) -> usize {
    DOCUMENT_BYTES
        + length(trace.input.text())
        + length(trace.output.text())
        + [&trace.metadata, &trace.resource_metadata]
            .into_iter()
            .map(Tree::weight)
            .sum::<usize>()
        + trace.root_metadata.weight()
}

fn log_bytes(record: &LogRecord) -> usize {
    DOCUMENT_BYTES + length(record.body.as_deref()) + record.attributes.len() + record.rest.len()
}

fn score_bytes(score: &Score) -> usize {
    let text = score.value.get().and_then(|value| value.text());
    DOCUMENT_BYTES + length(text) + length(score.comment.text()) + length(score.metadata.text())
}

fn point_bytes(point: &MetricPoint) -> usize {
    let numbers = point
        .value
        .distribution()
        .map_or(0, |distribution| match &distribution.shape {
            Shape::Explicit { counts, .. } => 2 * counts.len(),
            Shape::Exponential {
                positive, negative, ..
            } => positive.counts.len() + negative.counts.len(),
            Shape::Quantiles(values) => 2 * values.len(),
        });
    100 + 8 * numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::PointValue;
    use crate::register::{RANK_EXPLICIT, Register, Stamp};
    use crate::{ObservationId, ProjectId};

    /// Traces of ten observations each, told in turns, with texts of 100 bytes.
    fn batch(observations: usize) -> Batch {
        let mut batch = Batch::new(ProjectId::parse("p").unwrap());
        let traces = observations.div_ceil(10);
        let id = |n: usize| TraceId::parse(format!("t-{n}")).unwrap();
        batch.traces = (0..traces).map(|n| Trace::new(id(n))).collect();
        for n in 0..observations {
            let own = ObservationId::parse(format!("o-{n}")).unwrap();
            let mut observation = Observation::new(id(n % traces), own);
            let stamp = Stamp::latest(RANK_EXPLICIT, 0, 0);
            observation.input = Register::new("i".repeat(100), stamp);
            batch.observations.push(observation);
        }
        batch.bytes = observations * 3000;
        batch
    }

    fn ids(parts: &[Batch]) -> Vec<String> {
        let ids = parts.iter().flat_map(|part| {
            let traces = part.traces.iter().map(|trace| trace.id.as_str().to_owned());
            let observations = part.observations.iter();
            traces.chain(observations.map(|one| one.id.as_str().to_owned()))
        });
        let mut ids: Vec<String> = ids.collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn parts_are_bounded_and_hold_everything_once() {
        let all = ids(&[batch(1000)]);
        for (rows_max, bytes_max) in [(100, usize::MAX), (usize::MAX, 50_000), (1, 1)] {
            let parts = batch(1000).into_parts(rows_max, bytes_max);
            assert!(parts.len() > 9, "{}", parts.len());
            assert_eq!(ids(&parts), all);
            for part in &parts {
                // A trace's own row goes with its observations.
                assert!(part.observations.len() <= rows_max);
                let alone = part.observations.len() <= 1;
                assert!(
                    alone || part.bytes <= 2 * bytes_max.min(1 << 40),
                    "{}",
                    part.bytes
                );
            }
        }
        assert_eq!(batch(10).into_parts(100, 1 << 20).len(), 1);
    }

    #[test]
    fn a_trace_stays_with_its_observations() {
        let parts = batch(1000).into_parts(100, usize::MAX);
        let homes = parts.iter().flat_map(|part| {
            let traces: HashSet<&TraceId> =
                part.observations.iter().map(|one| &one.trace_id).collect();
            traces
        });
        // Each border cuts one trace at most.
        assert!(homes.count() < 100 + parts.len());
    }

    #[test]
    fn halves_come_down_to_single_rows() {
        let (mut left, mut single) = (vec![batch(37)], Vec::new());
        while let Some(part) = left.pop() {
            if part.rows() == 1 {
                single.push(part);
            } else {
                left.extend(part.into_halves());
            }
        }
        assert_eq!(single.len(), 41);
        assert_eq!(ids(&single), ids(&[batch(37)]));
    }

    #[test]
    fn points_keep_their_series_and_exemplars() {
        let mut batch = Batch::new(ProjectId::parse("p").unwrap());
        for n in 0..100_i64 {
            batch.points.push(MetricPoint {
                series: n % 5,
                time: n,
                start: 0,
                flags: 0,
                value: PointValue::Int(n),
            });
            batch.exemplars.push(Exemplar {
                series: n % 5,
                point_time: n,
                time: n,
                value: PointValue::Int(n),
                trace_id: None,
                span_id: None,
                attributes: String::new(),
            });
        }
        let parts = batch.into_parts(30, usize::MAX);
        assert_eq!(parts.len(), 4);
        for part in &parts {
            assert!(part.points.len() <= 30);
            let points: HashSet<_> = part
                .points
                .iter()
                .map(|one| (one.series, one.time))
                .collect();
            let exemplars = part.exemplars.iter();
            let exemplars: HashSet<_> = exemplars.map(|one| (one.series, one.point_time)).collect();
            assert_eq!(points, exemplars);
        }
    }
}
