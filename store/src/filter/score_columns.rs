//! Columns of the score lists.

use super::{Column, ColumnType};

/// Columns of scores (`s`) and of their traces (`t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum ScoreColumn {
    Id,
    Name,
    Source,
    Value,
    StringValue,
    BooleanValue,
    DataType,
    Comment,
    AuthorUserId,
    Timestamp,
    TraceId,
    ObservationId,
    SessionId,
    DatasetRunId,
    ConfigId,
    QueueId,
    Environment,
    Metadata,
    UserId,
    TraceName,
    TraceTags,
    TraceEnvironment,
}

impl ScoreColumn {
    /// Whether it is a column of the score's trace.
    pub fn is_of_trace(self) -> bool {
        self.sql().starts_with("t.")
    }
}

impl Column for ScoreColumn {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "name" => Self::Name,
            "source" => Self::Source,
            "value" => Self::Value,
            "stringValue" => Self::StringValue,
            "booleanValue" => Self::BooleanValue,
            "dataType" => Self::DataType,
            "comment" => Self::Comment,
            "authorUserId" => Self::AuthorUserId,
            "timestamp" => Self::Timestamp,
            "traceId" => Self::TraceId,
            "observationId" => Self::ObservationId,
            "sessionId" => Self::SessionId,
            "datasetRunId" => Self::DatasetRunId,
            "configId" => Self::ConfigId,
            "queueId" => Self::QueueId,
            "environment" => Self::Environment,
            "metadata" => Self::Metadata,
            "userId" => Self::UserId,
            "traceName" => Self::TraceName,
            "trace_tags" | "traceTags" => Self::TraceTags,
            _ => return None,
        })
    }

    fn column_type(self) -> ColumnType {
        match self {
            Self::Value => ColumnType::Number,
            Self::BooleanValue => ColumnType::Bool,
            Self::Timestamp => ColumnType::Time,
            Self::Metadata => ColumnType::Object,
            Self::TraceTags => ColumnType::Array,
            _ => ColumnType::Text,
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Id => "s.id",
            Self::Name => "s.name",
            Self::Source => "s.source",
            Self::Value => "s.value",
            Self::StringValue => "s.string_value",
            Self::BooleanValue => "(case when s.data_type = 'BOOLEAN' then s.value = 1 end)",
            Self::DataType => "s.data_type",
            Self::Comment => "s.comment",
            // Nobody has an account here.
            Self::AuthorUserId => "null::text",
            Self::Timestamp => "s.ts",
            Self::TraceId => "s.trace_id",
            Self::ObservationId => "s.observation_id",
            Self::SessionId => "s.session_id",
            Self::DatasetRunId => "s.run_id",
            Self::ConfigId => "s.config_id",
            Self::QueueId => "s.queue_id",
            Self::Environment => "s.environment",
            Self::Metadata => "s.metadata::jsonb",
            Self::UserId => "t.user_id",
            Self::TraceName => "t.name",
            Self::TraceTags => "t.tags",
            Self::TraceEnvironment => "t.environment",
        }
    }
}
