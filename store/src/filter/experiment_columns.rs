//! Columns of the lists of experiments and of their items.

use super::{Column, ColumnType};

/// Columns of experiments, as the observations (`o`) at the root of their items tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum ExperimentColumn {
    Id,
    Name,
    DatasetId,
}

impl Column for ExperimentColumn {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "name" => Self::Name,
            "datasetId" => Self::DatasetId,
            _ => return None,
        })
    }

    fn column_type(self) -> ColumnType {
        ColumnType::Text
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Id => "(o.experiment ->> 'id')",
            Self::Name => "coalesce(o.experiment ->> 'name', '')",
            Self::DatasetId => "(o.experiment ->> 'datasetId')",
        }
    }
}

/// Columns of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum ExperimentItemColumn {
    ExperimentId,
    ExperimentName,
    ExperimentItemId,
    DatasetId,
}

impl Column for ExperimentItemColumn {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "experimentId" => Self::ExperimentId,
            "experimentName" => Self::ExperimentName,
            "experimentItemId" => Self::ExperimentItemId,
            "datasetId" | "experimentDatasetId" => Self::DatasetId,
            _ => return None,
        })
    }

    fn column_type(self) -> ColumnType {
        ColumnType::Text
    }

    fn sql(self) -> &'static str {
        match self {
            Self::ExperimentId => "(o.experiment ->> 'id')",
            Self::ExperimentName => "coalesce(o.experiment ->> 'name', '')",
            Self::ExperimentItemId => "(o.experiment ->> 'itemId')",
            Self::DatasetId => "(o.experiment ->> 'datasetId')",
        }
    }
}
