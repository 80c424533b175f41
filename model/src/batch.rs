//! What one request contributes: the currency of the write path.

use crate::{MetricPoint, Observation, ProjectId, Trace};

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
            bytes: 0,
        }
    }

    /// How many rows it holds.
    pub fn rows(&self) -> usize {
        self.traces.len() + self.observations.len() + self.points.len()
    }
}
