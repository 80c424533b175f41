//! Columns of the list of prompts.

use super::{Column, ColumnType};

/// Columns of prompts (`p`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum PromptColumn {
    Id,
    Name,
    Type,
    Version,
    CreatedAt,
    UpdatedAt,
    Labels,
    Tags,
    Config,
}

impl Column for PromptColumn {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "name" => Self::Name,
            "type" => Self::Type,
            "version" => Self::Version,
            "createdAt" => Self::CreatedAt,
            "updatedAt" => Self::UpdatedAt,
            "labels" => Self::Labels,
            "tags" => Self::Tags,
            "config" => Self::Config,
            _ => return None,
        })
    }

    fn column_type(self) -> ColumnType {
        match self {
            Self::Id | Self::Name | Self::Type => ColumnType::Text,
            Self::Version => ColumnType::Number,
            Self::CreatedAt | Self::UpdatedAt => ColumnType::Time,
            Self::Labels | Self::Tags => ColumnType::Array,
            Self::Config => ColumnType::Object,
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Id => "p.id",
            Self::Name => "p.name",
            Self::Type => "p.type",
            Self::Version => "p.version",
            Self::CreatedAt => "p.created_at",
            Self::UpdatedAt => "p.updated_at",
            Self::Labels => "p.labels",
            Self::Tags => "p.tags",
            Self::Config => "p.config::jsonb",
        }
    }
}
