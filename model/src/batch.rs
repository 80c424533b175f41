//! What one request contributes: the currency of the write path.

use crate::metric::{Exemplar, Series};
use crate::{LogRecord, MetricPoint, Observation, ProjectId, Score, Trace};

/// The rows of one request; they are committed together or not at all.
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
            exemplars: Vec::new(),
            logs: Vec::new(),
            scores: Vec::new(),
            bytes: 0,
        }
    }

    /// Takes all rows but the first `count` out, into a batch of their own.
    #[must_use]
    pub fn split_off(&mut self, count: usize) -> Self {
        let traces = count.min(self.traces.len());
        let observations = (count - traces).min(self.observations.len());
        let points = (count - traces - observations).min(self.points.len());
        let logs = (count - traces - observations - points).min(self.logs.len());
        let scores = (count - traces - observations - points - logs).min(self.scores.len());
        Self {
            project: self.project.clone(),
            traces: self.traces.split_off(traces),
            observations: self.observations.split_off(observations),
            points: self.points.split_off(points),
            // Of no harm where they are not needed.
            series: self.series.clone(),
            exemplars: self.exemplars.clone(),
            logs: self.logs.split_off(logs),
            scores: self.scores.split_off(scores),
            bytes: self.bytes,
        }
    }

    /// Ids of its traces, observations, log records and scores, and names of its series.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let traces = self.traces.iter().map(|trace| trace.id.as_str());
        let observations = self.observations.iter().map(|one| one.id.as_str());
        let points = self.series.iter().map(|series| series.name.as_str());
        let logs = self.logs.iter().map(|record| record.id.as_str());
        let scores = self.scores.iter().map(|score| score.id.as_str());
        traces
            .chain(observations)
            .chain(points)
            .chain(logs)
            .chain(scores)
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
