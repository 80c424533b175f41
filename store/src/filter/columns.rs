//! The columns that lists can be filtered by: their names on the outside, their type, their SQL.

use super::ScoreSource;

/// What a column holds, and so what it can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// Text, or one of some texts.
    Text,
    /// A number.
    Number,
    /// A time.
    Time,
    /// An array of texts.
    Array,
    /// A truth value.
    Bool,
    /// An object whose members are compared as text.
    Object,
    /// Numbers by name.
    NumberObject,
    /// Labels by name.
    CategoryObject,
    /// Truth values by name.
    BoolObject,
}

/// What an index holds of a text: an index entry must stay below 2.7 kB.
pub(crate) const PREFIX_CHARS: usize = 200;

/// A column of one list.
pub trait Column: Copy + Eq + 'static {
    /// The column of that name; several names may mean one column.
    fn parse(name: &str) -> Option<Self>;
    /// What it holds.
    fn column_type(self) -> ColumnType;
    /// The SQL expression of its value.
    fn sql(self) -> &'static str;
    /// The column with the value's first `PREFIX_CHARS` characters, which an index holds.
    fn indexed_prefix(self) -> Option<&'static str> {
        None
    }
    /// Whether an index finds objects that contain others.
    fn is_indexed_object(self) -> bool {
        false
    }
    /// The scores that it looks at, if it does.
    fn score_source(self) -> Option<ScoreSource> {
        None
    }
}

/// Columns of the trace list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the names say it; `names` lists them as clients write them"
)]
pub enum TraceColumn {
    Id,
    Name,
    Timestamp,
    UserId,
    SessionId,
    Environment,
    Version,
    Release,
    Tags,
    Bookmarked,
    Metadata,
    Latency,
    InputTokens,
    OutputTokens,
    TotalTokens,
    InputCost,
    OutputCost,
    TotalCost,
    Level,
    WarningCount,
    ErrorCount,
    DefaultCount,
    DebugCount,
    ScoresAvg,
    ScoreCategories,
    ScoreBooleans,
}

impl TraceColumn {
    /// Whether it is computed over the trace's observations.
    pub fn is_aggregate(self) -> bool {
        self.sql().starts_with("a.") || self.sql().starts_with("coalesce(t.sent")
    }
}

impl Column for TraceColumn {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "id" | "traceId" => Self::Id,
            "name" | "traceName" => Self::Name,
            "timestamp" => Self::Timestamp,
            "userId" => Self::UserId,
            "sessionId" => Self::SessionId,
            "environment" => Self::Environment,
            "version" => Self::Version,
            "release" => Self::Release,
            "tags" | "traceTags" => Self::Tags,
            "bookmarked" => Self::Bookmarked,
            "metadata" => Self::Metadata,
            "latency" => Self::Latency,
            "inputTokens" => Self::InputTokens,
            "outputTokens" => Self::OutputTokens,
            "totalTokens" | "tokens" => Self::TotalTokens,
            "inputCost" => Self::InputCost,
            "outputCost" => Self::OutputCost,
            "totalCost" => Self::TotalCost,
            "level" => Self::Level,
            "warningCount" => Self::WarningCount,
            "errorCount" => Self::ErrorCount,
            "defaultCount" => Self::DefaultCount,
            "debugCount" => Self::DebugCount,
            "scores_avg" | "scores" => Self::ScoresAvg,
            "score_categories" => Self::ScoreCategories,
            "score_booleans" => Self::ScoreBooleans,
            _ => return None,
        })
    }

    fn column_type(self) -> ColumnType {
        match self {
            Self::Id
            | Self::Name
            | Self::UserId
            | Self::SessionId
            | Self::Environment
            | Self::Version
            | Self::Release
            | Self::Level => ColumnType::Text,
            Self::Timestamp => ColumnType::Time,
            Self::Tags => ColumnType::Array,
            Self::Bookmarked => ColumnType::Bool,
            Self::Metadata => ColumnType::Object,
            Self::ScoresAvg => ColumnType::NumberObject,
            Self::ScoreCategories => ColumnType::CategoryObject,
            Self::ScoreBooleans => ColumnType::BoolObject,
            _ => ColumnType::Number,
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Id => "t.id",
            Self::Name => "t.name",
            Self::Timestamp => "t.ts",
            Self::UserId => "t.user_id",
            Self::SessionId => "t.session_id",
            Self::Environment => "t.environment",
            Self::Version => "t.version",
            Self::Release => "t.release",
            Self::Tags => "t.tags",
            Self::Bookmarked => "coalesce(t.bookmarked, false)",
            Self::Metadata => "t.metadata",
            Self::Latency => "coalesce(t.sent_latency, a.latency, 0)",
            Self::InputTokens => "a.input_tokens",
            Self::OutputTokens => "a.output_tokens",
            Self::TotalTokens => "a.total_tokens",
            Self::InputCost => "a.input_cost",
            Self::OutputCost => "a.output_cost",
            Self::TotalCost => "coalesce(t.sent_total_cost, a.total_cost, 0)",
            Self::Level => "a.level",
            Self::WarningCount => "a.warning_count",
            Self::ErrorCount => "a.error_count",
            Self::DefaultCount => "a.default_count",
            Self::DebugCount => "a.debug_count",
            Self::ScoresAvg | Self::ScoreCategories | Self::ScoreBooleans => "null",
        }
    }

    fn indexed_prefix(self) -> Option<&'static str> {
        match self {
            Self::Name => Some("t.name_key"),
            Self::UserId => Some("t.user_key"),
            Self::SessionId => Some("t.session_key"),
            Self::Environment => Some("t.environment_key"),
            Self::Version => Some("t.version_key"),
            Self::Release => Some("t.release_key"),
            _ => None,
        }
    }

    fn is_indexed_object(self) -> bool {
        self == Self::Metadata
    }

    fn score_source(self) -> Option<ScoreSource> {
        match self {
            Self::ScoresAvg => Some(ScoreSource::Numbers),
            Self::ScoreCategories => Some(ScoreSource::Categories),
            Self::ScoreBooleans => Some(ScoreSource::Booleans),
            _ => None,
        }
    }
}

/// Columns of the observation list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the names say it; `parse` lists them as clients write them"
)]
pub enum ObservationColumn {
    Id,
    Type,
    Name,
    TraceId,
    StartTime,
    EndTime,
    Environment,
    Level,
    StatusMessage,
    Version,
    UserId,
    SessionId,
    TraceName,
    TraceTags,
    ParentObservationId,
    Latency,
    TimeToFirstToken,
    TokensPerSecond,
    InputTokens,
    OutputTokens,
    TotalTokens,
    InputCost,
    OutputCost,
    TotalCost,
    Model,
    PromptName,
    PromptVersion,
    Metadata,
    Input,
    Output,
    IsRoot,
    HasParent,
    HasInput,
    HasOutput,
    Release,
    ModelId,
    ExperimentId,
    ExperimentName,
    ExperimentDatasetId,
    IsExperimentItem,
    ToolNames,
    CalledToolNames,
    ToolDefinitions,
    ToolCalls,
}

impl ObservationColumn {
    /// Whether it is a column of the observation's trace.
    pub fn is_of_trace(self) -> bool {
        self.sql().starts_with("t.")
    }
}

impl Column for ObservationColumn {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "type" => Self::Type,
            "name" => Self::Name,
            "traceId" => Self::TraceId,
            "startTime" => Self::StartTime,
            "endTime" => Self::EndTime,
            "environment" => Self::Environment,
            "level" => Self::Level,
            "statusMessage" => Self::StatusMessage,
            "version" => Self::Version,
            "userId" => Self::UserId,
            "sessionId" => Self::SessionId,
            "traceName" => Self::TraceName,
            "traceTags" | "tags" => Self::TraceTags,
            "parentObservationId" => Self::ParentObservationId,
            "latency" => Self::Latency,
            "timeToFirstToken" => Self::TimeToFirstToken,
            "tokensPerSecond" => Self::TokensPerSecond,
            "inputTokens" => Self::InputTokens,
            "outputTokens" => Self::OutputTokens,
            "totalTokens" | "tokens" => Self::TotalTokens,
            "inputCost" => Self::InputCost,
            "outputCost" => Self::OutputCost,
            "totalCost" => Self::TotalCost,
            "model" | "providedModelName" => Self::Model,
            "promptName" => Self::PromptName,
            "promptVersion" => Self::PromptVersion,
            "metadata" => Self::Metadata,
            "input" => Self::Input,
            "output" => Self::Output,
            "isRootObservation" => Self::IsRoot,
            "hasParentObservation" => Self::HasParent,
            "hasInput" => Self::HasInput,
            "hasOutput" => Self::HasOutput,
            "release" => Self::Release,
            "modelId" => Self::ModelId,
            "traceEnvironment" => Self::Environment,
            "experimentId" => Self::ExperimentId,
            "experimentName" => Self::ExperimentName,
            "experimentDatasetId" => Self::ExperimentDatasetId,
            "isExperimentItemRootSpan" => Self::IsExperimentItem,
            "toolNames" => Self::ToolNames,
            "calledToolNames" => Self::CalledToolNames,
            "toolDefinitions" => Self::ToolDefinitions,
            "toolCalls" => Self::ToolCalls,
            _ => return None,
        })
    }

    fn column_type(self) -> ColumnType {
        match self {
            Self::StartTime | Self::EndTime => ColumnType::Time,
            Self::TraceTags | Self::ToolNames | Self::CalledToolNames => ColumnType::Array,
            Self::Metadata => ColumnType::Object,
            Self::IsRoot
            | Self::HasParent
            | Self::HasInput
            | Self::HasOutput
            | Self::IsExperimentItem => ColumnType::Bool,
            Self::Latency
            | Self::TimeToFirstToken
            | Self::TokensPerSecond
            | Self::InputTokens
            | Self::OutputTokens
            | Self::TotalTokens
            | Self::InputCost
            | Self::OutputCost
            | Self::TotalCost
            | Self::PromptVersion
            | Self::ToolDefinitions
            | Self::ToolCalls => ColumnType::Number,
            _ => ColumnType::Text,
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Id => "o.id",
            Self::Type => "o.type",
            Self::Name => "o.name",
            Self::TraceId => "o.trace_id",
            Self::StartTime => "o.start_time",
            Self::EndTime => "o.end_time",
            Self::Environment => "o.environment",
            Self::Level => "o.level",
            Self::StatusMessage => "o.status_message",
            Self::Version => "o.version",
            Self::UserId => "t.user_id",
            Self::SessionId => "t.session_id",
            Self::TraceName => "t.name",
            Self::TraceTags => "t.tags",
            Self::ParentObservationId => "o.parent_id",
            Self::Latency => {
                "coalesce((o.sent::jsonb ->> 'latency')::float8, \
                 extract(epoch from o.end_time - o.start_time)::float8)"
            }
            Self::TimeToFirstToken => {
                "coalesce((o.sent::jsonb ->> 'timeToFirstToken')::float8, \
                 extract(epoch from o.completion_start_time - o.start_time)::float8)"
            }
            Self::TokensPerSecond => {
                "(o.output_usage / nullif(extract(epoch from o.end_time - o.start_time), 0))::float8"
            }
            Self::InputTokens => "o.input_usage",
            Self::OutputTokens => "o.output_usage",
            Self::TotalTokens => "o.total_usage",
            Self::InputCost => "o.input_cost",
            Self::OutputCost => "o.output_cost",
            Self::TotalCost => "o.total_cost",
            Self::Model => "o.model",
            Self::PromptName => "o.prompt_name",
            Self::PromptVersion => "o.prompt_version",
            Self::Metadata => "o.metadata",
            Self::Input => "o.input",
            Self::Output => "o.output",
            Self::IsRoot => "(o.parent_id is null or o.root_rank is not null)",
            Self::HasParent => "(o.parent_id is not null)",
            Self::HasInput => "(o.input is not null)",
            Self::HasOutput => "(o.output is not null)",
            Self::Release => "t.release",
            Self::ModelId => "o.model_id",
            Self::ExperimentId => "o.experiment ->> 'id'",
            Self::ExperimentName => "o.experiment ->> 'name'",
            Self::ExperimentDatasetId => "o.experiment ->> 'datasetId'",
            Self::IsExperimentItem => crate::experiments::IS_ITEM,
            Self::ToolNames => "tool_names(o.tool_definitions)",
            Self::CalledToolNames => "called_tools(o.output)",
            Self::ToolDefinitions => "cardinality(tool_names(o.tool_definitions))",
            Self::ToolCalls => "cardinality(called_tools(o.output))",
        }
    }
}
