//! What one request contributes: the currency of the write path.

use std::collections::HashMap;

use crate::metric::{Exemplar, Series, SeriesId};
use crate::{LogRecord, MetricPoint, Observation, ProjectId, Score, Trace};

/// The rows of one request, or a part of them; see [`Batch::into_parts`].
#[derive(Debug, Clone)]
pub struct Batch {
    /// Who owns them.
    pub project: ProjectId,
    /// Parts of traces.
    pub traces: Vec<Trace>,
    /// Parts of observations.
    pub observations: Vec<Observation>,
    /// Metric points.
    pub points: Vec<MetricPoint>,
    /// Series that points are of, as far as the dictionary may lack them.
    pub series: Vec<Series>,
    /// By which memory of the dictionary the others were left out: what it held may be lost since.
    pub series_known_as_of: u64,
    /// Exemplars of points.
    pub exemplars: Vec<Exemplar>,
    /// Log records.
    pub logs: Vec<LogRecord>,
    /// Parts of scores.
    pub scores: Vec<Score>,
    /// Bytes of memory that the rows hold, for the queue's bound.
    pub bytes: usize,
}

impl Batch {
    /// A batch without rows.
    pub fn new(project: ProjectId) -> Self {
        Self {
            project,
            traces: Vec::new(),
            observations: Vec::new(),
            points: Vec::new(),
            series: Vec::new(),
            series_known_as_of: 0,
            exemplars: Vec::new(),
            logs: Vec::new(),
            scores: Vec::new(),
            bytes: 0,
        }
    }

    /// Names every row that a sender counts: observations, log records and scores by their ids, points by the
    /// name of their series where that is known, and traces where nothing else came.
    pub fn ids(&self) -> impl Iterator<Item = String> {
        let names: HashMap<SeriesId, &str> = self
            .series
            .iter()
            .map(|series| (series.id, series.name.as_str()))
            .collect();
        let traces = self.traces.iter().map(|trace| trace.id.as_str());
        let traces = traces.filter(|_| self.observations.is_empty());
        let observations = self.observations.iter().map(|one| one.id.as_str());
        let logs = self.logs.iter().map(|record| record.id.as_str());
        let scores = self.scores.iter().map(|score| score.id.as_str());
        let points = self.points.iter().map(move |point| {
            let name = names.get(&point.series);
            name.map_or_else(|| format!("series {:x}", point.series), ToString::to_string)
        });
        let named = traces.chain(observations).chain(logs).chain(scores);
        named.map(str::to_owned).chain(points)
    }

    /// How many rows it holds.
    pub fn rows(&self) -> usize {
        self.traces.len()
            + self.observations.len()
            + self.points.len()
            + self.logs.len()
            + self.scores.len()
    }
}
