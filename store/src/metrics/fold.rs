//! From rows of blocks and chunks to points in order, a chunk at a time: a series is never held whole.

use std::collections::{BTreeMap, HashSet};
use std::mem;

use metrics::counter;
use xtrace_model::metric::{PointValue, SeriesId, Shape};
use xtrace_model::{MetricPoint, Micros};

use super::blocks::{self, micros};
use super::chunks;
use super::sealed::{Fault, Sealed};
use crate::StoreError;

/// Points that one question may unpack, and their bytes before they are.
const POINTS_MAX: usize = 20_000_000;
const BYTES_MAX: usize = 512 << 20;
/// What points of blocks may take at once.
const FRESH_BYTES_MAX: usize = 48 << 20;

/// Who takes points.
pub trait Fold: Send + 'static {
    /// Points of a series, in order of time. They come in several calls, one after the other; then those of the next series do.
    fn add(&mut self, series: SeriesId, points: &[MetricPoint]) -> Result<(), StoreError>;

    /// Some rows could not be read: what was added is not all.
    fn miss(&mut self) {}
}

/// Keeps them all.
impl Fold for BTreeMap<SeriesId, Vec<MetricPoint>> {
    fn add(&mut self, series: SeriesId, points: &[MetricPoint]) -> Result<(), StoreError> {
        self.entry(series).or_default().extend_from_slice(points);
        Ok(())
    }
}

/// A row of the answer to a question.
pub(super) enum Row {
    /// Blocks come first, in order of their arrival,
    Block(Sealed),
    /// then chunks in order of series and time,
    Chunk {
        series: SeriesId,
        first: Micros,
        sealed: Sealed,
    },
    /// then an end, behind which other series may follow.
    End,
}

impl Row {
    /// Bytes that are looked at.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Block(sealed) => sealed.data.len(),
            Self::Chunk { sealed, .. } => sealed.data.len() + chunks::unpacked_bytes(&sealed.data),
            Self::End => 0,
        }
    }
}

/// What is asked, and how far it is answered.
pub(super) struct Folding<F> {
    fold: F,
    wanted: HashSet<SeriesId>,
    from: Micros,
    to: Micros,
    points: usize,
    bytes: usize,
    /// What is in blocks, in order of arrival.
    fresh: BTreeMap<SeriesId, Vec<MetricPoint>>,
    fresh_bytes: usize,
    present: Option<Present>,
}

/// The series whose chunks come.
struct Present {
    series: SeriesId,
    /// Of chunks, and not handed over: a chunk that follows may begin before they end.
    pending: Vec<MetricPoint>,
    /// Of blocks, in order of time, and not handed over.
    fresh: std::iter::Peekable<std::vec::IntoIter<MetricPoint>>,
}

impl<F: Fold> Folding<F> {
    pub(super) fn new(fold: F, series: &[SeriesId], (from, to): (Micros, Micros)) -> Self {
        Self {
            fold,
            wanted: series.iter().copied().collect(),
            from,
            to,
            points: 0,
            bytes: 0,
            fresh: BTreeMap::new(),
            fresh_bytes: 0,
            present: None,
        }
    }

    pub(super) fn take(&mut self, row: &Row) -> Result<(), StoreError> {
        self.bytes += row.weight();
        match row {
            Row::Block(sealed) => self.block(sealed),
            Row::Chunk {
                series,
                first,
                sealed,
            } => self.chunk(*series, *first, sealed)?,
            Row::End => self.end()?,
        }
        if self.points > POINTS_MAX || self.bytes > BYTES_MAX || self.fresh_bytes > FRESH_BYTES_MAX
        {
            return Err(StoreError::TooBroad(format!(
                "it reads more than {POINTS_MAX} points, or too many large ones; ask for a shorter range, or for \
                 fewer series by labels"
            )));
        }
        Ok(())
    }

    pub(super) fn finish(self) -> F {
        self.fold
    }

    fn block(&mut self, sealed: &Sealed) {
        let (fresh, count, bytes) = (&mut self.fresh, &mut self.points, &mut self.fresh_bytes);
        let read = blocks::read(sealed, Some(&self.wanted), |id, points| {
            *count += points.len();
            *bytes += points.iter().map(weight).sum::<usize>();
            fresh.entry(id).or_default().extend(points);
        });
        self.check(read, "block");
    }

    fn chunk(
        &mut self,
        series: SeriesId,
        first: Micros,
        sealed: &Sealed,
    ) -> Result<(), StoreError> {
        if self.present.as_ref().map(|present| present.series) != Some(series) {
            self.hand_over(None)?;
            let mut fresh = self.fresh.remove(&series).unwrap_or_default();
            chunks::latest(&mut fresh);
            self.present = Some(Present {
                series,
                pending: Vec::new(),
                fresh: fresh.into_iter().peekable(),
            });
        }
        self.hand_over(Some(first))?;
        match chunks::read(series, sealed) {
            Ok(points) => {
                self.points += points.len();
                if let Some(present) = &mut self.present {
                    if present.pending.is_empty() {
                        present.pending = points;
                    } else {
                        present.pending.extend(points);
                    }
                }
            }
            Err(fault) => self.check(Err(fault), "chunk"),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), StoreError> {
        self.hand_over(None)?;
        self.present = None;
        self.fresh_bytes = 0;
        for (series, mut points) in mem::take(&mut self.fresh) {
            chunks::latest(&mut points);
            self.give(series, points)?;
        }
        Ok(())
    }

    /// Hands over what is before that time, or all.
    fn hand_over(&mut self, until: Option<Micros>) -> Result<(), StoreError> {
        let Some(present) = &mut self.present else {
            return Ok(());
        };
        let is_before = |point: &MetricPoint| until.is_none_or(|until| micros(point.time) < until);
        present.pending.sort_by_key(|point| point.time);
        let end = present.pending.partition_point(is_before);
        // Mostly all of them: chunks rarely overlap.
        let rest = present.pending.split_off(end);
        let mut points = mem::replace(&mut present.pending, rest);
        // What is in a block came later.
        while let Some(point) = present.fresh.next_if(is_before) {
            points.push(point);
        }
        chunks::latest(&mut points);
        let series = present.series;
        self.give(series, points)
    }

    fn give(&mut self, series: SeriesId, mut points: Vec<MetricPoint>) -> Result<(), StoreError> {
        let range = self.from..=self.to;
        let is_within = |point: &MetricPoint| range.contains(&micros(point.time));
        // They are in order of time, so that the first and the last stand for all.
        if !points.first().is_some_and(is_within) || !points.last().is_some_and(is_within) {
            points.retain(is_within);
        }
        if points.is_empty() {
            return Ok(());
        }
        self.fold.add(series, &points)
    }

    fn check(&mut self, read: Result<(), Fault>, kind: &'static str) {
        let Err(fault) = read else {
            return;
        };
        self.fold.miss();
        let cause = match fault {
            Fault::Newer => "newer",
            Fault::Damaged => "damaged",
        };
        counter!("xtrace_metric_rows_unread_total", "kind" => kind, "cause" => cause).increment(1);
        tracing::error!(
            kind,
            cause,
            "points can't be read; the answer is without them"
        );
    }
}

/// What a point holds in memory.
fn weight(point: &MetricPoint) -> usize {
    let PointValue::Distribution(one) = &point.value else {
        return size_of::<MetricPoint>();
    };
    let numbers = match &one.shape {
        // Bounds are shared within a run.
        Shape::Explicit { counts, .. } => counts.len(),
        Shape::Exponential {
            positive, negative, ..
        } => positive.counts.len() + negative.counts.len(),
        Shape::Quantiles(quantiles) => 2 * quantiles.len(),
    };
    size_of::<MetricPoint>() + 200 + 8 * numbers
}
