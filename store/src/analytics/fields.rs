//! What can be asked for: dimensions and measures of every view, with their SQL over `t` (traces), `o`
//! (observations), `s` (scores) and `e` (one element of an exploded dimension).

use super::{AnalyticsColumn, Version, View};
use crate::filter::ColumnType;

/// What rows are told apart by.
#[derive(Debug, PartialEq)]
pub struct Dimension {
    /// What callers call it.
    pub name: &'static str,
    pub(super) sql: &'static str,
    /// What it holds.
    pub column_type: ColumnType,
    /// Whether it has about as many values as there are rows.
    pub is_high_cardinality: bool,
    /// Makes a row of each element: what is joined.
    pub(super) exploded: Option<&'static str>,
    only: Option<Version>,
}

/// What is measured.
#[derive(Debug, PartialEq)]
pub struct Measure {
    /// What callers call it.
    pub name: &'static str,
    pub(super) sql: &'static str,
    /// Whether its values are numbers.
    pub is_number: bool,
    /// Whether these are integers.
    pub(super) is_whole: bool,
    /// The dimension that it is nothing without.
    pub needs: Option<&'static str>,
    only: Option<Version>,
}

const fn text(name: &'static str, sql: &'static str) -> Dimension {
    Dimension {
        name,
        sql,
        column_type: ColumnType::Text,
        is_high_cardinality: false,
        exploded: None,
        only: None,
    }
}

const fn many(name: &'static str, sql: &'static str) -> Dimension {
    Dimension {
        is_high_cardinality: true,
        ..text(name, sql)
    }
}

const fn typed(name: &'static str, sql: &'static str, column_type: ColumnType) -> Dimension {
    Dimension {
        column_type,
        ..text(name, sql)
    }
}

const fn exploded(name: &'static str, sql: &'static str, from: &'static str) -> Dimension {
    Dimension {
        exploded: Some(from),
        column_type: ColumnType::Array,
        ..text(name, sql)
    }
}

const fn only(version: Version, dimension: Dimension) -> Dimension {
    Dimension {
        only: Some(version),
        ..dimension
    }
}

const fn number(name: &'static str, sql: &'static str) -> Measure {
    Measure {
        name,
        sql,
        is_number: true,
        is_whole: false,
        needs: None,
        only: None,
    }
}

const fn whole(name: &'static str, sql: &'static str) -> Measure {
    Measure {
        is_whole: true,
        ..number(name, sql)
    }
}

/// In version 2 alone.
const fn distinct(name: &'static str, sql: &'static str) -> Measure {
    Measure {
        is_number: false,
        only: Some(Version::V2),
        ..number(name, sql)
    }
}

const COUNT: Measure = number("count", "1");
const LATENCY: &str = "(date_part('epoch', o.end_time - o.start_time) * 1000)";
/// Root observations, as lists of version 2 know them.
const IS_ROOT: &str = "(o.parent_id is null or o.root_rank is not null)";
const PER_SECOND: [&str; 2] = [
    "o.total_usage / nullif(date_part('epoch', o.end_time - o.start_time), 0)",
    "o.output_usage / nullif(date_part('epoch', o.end_time - o.start_time), 0)",
];

static TRACES: [Dimension; 9] = [
    many("id", "t.id"),
    text("name", "t.name"),
    typed("tags", "t.tags", ColumnType::Array),
    text("userId", "t.user_id"),
    text("sessionId", "t.session_id"),
    text("release", "t.release"),
    text("version", "t.version"),
    text("environment", "t.environment"),
    text(
        "timestampMonth",
        "to_char(t.ts at time zone 'utc', 'YYYY-MM')",
    ),
];

static TRACE_MEASURES: [Measure; 8] = [
    COUNT,
    whole(
        "observationsCount",
        "(t.debug_count + t.default_count + t.warning_count + t.error_count)",
    ),
    whole(
        "scoresCount",
        "(select count(*) from scores c where c.project_id = t.project_id and c.trace_id = t.id)",
    ),
    Measure {
        is_number: false,
        ..number("uniqueUserIds", "t.user_id")
    },
    Measure {
        is_number: false,
        ..number("uniqueSessionIds", "t.session_id")
    },
    number("latency", "(coalesce(t.sent_latency, t.latency) * 1000)"),
    whole("totalTokens", "t.total_usage"),
    number("totalCost", "coalesce(t.sent_total_cost, t.total_cost, 0)"),
];

static OBSERVATIONS: [Dimension; 29] = [
    many("id", "o.id"),
    many("traceId", "o.trace_id"),
    text("traceName", "t.name"),
    text("environment", "o.environment"),
    many("parentObservationId", "o.parent_id"),
    text("type", "o.type"),
    text("name", "o.name"),
    text("level", "o.level"),
    text("version", "o.version"),
    typed("tags", "t.tags", ColumnType::Array),
    text("providedModelName", "o.model"),
    text("promptName", "o.prompt_name"),
    text("promptVersion", "o.prompt_version::text"),
    many("userId", "t.user_id"),
    many("sessionId", "t.session_id"),
    text("traceRelease", "t.release"),
    text("traceVersion", "t.version"),
    text(
        "startTimeMonth",
        "to_char(o.start_time at time zone 'utc', 'YYYY-MM')",
    ),
    exploded(
        "toolNames",
        "e_tool.name",
        "unnest(tool_names(o.tool_definitions)) e_tool(name)",
    ),
    exploded(
        "calledToolNames",
        "e_call.name",
        "unnest(called_tools(o.output)) e_call(name)",
    ),
    only(Version::V2, text("release", "t.release")),
    only(
        Version::V2,
        typed("isRootObservation", IS_ROOT, ColumnType::Bool),
    ),
    only(
        Version::V2,
        Dimension {
            exploded: Some("jsonb_each_text(o.cost_details) e_cost(kind, value)"),
            ..text("costType", "e_cost.kind")
        },
    ),
    only(
        Version::V2,
        Dimension {
            exploded: Some("jsonb_each_text(o.usage_details) e_usage(kind, value)"),
            ..text("usageType", "e_usage.kind")
        },
    ),
    only(
        Version::V2,
        many("experimentName", "(o.experiment ->> 'name')"),
    ),
    only(
        Version::V2,
        many("experimentDatasetId", "(o.experiment ->> 'datasetId')"),
    ),
    only(Version::V2, many("experimentId", "(o.experiment ->> 'id')")),
    only(Version::V2, text("modelId", "o.model_id")),
    only(Version::V2, text("traceEnvironment", "t.environment")),
];

static OBSERVATION_MEASURES: [Measure; 20] = [
    COUNT,
    number("latency", LATENCY),
    number(
        "streamingLatency",
        "(date_part('epoch', o.end_time - o.completion_start_time) * 1000)",
    ),
    number(
        "timeToFirstToken",
        "(date_part('epoch', o.completion_start_time - o.start_time) * 1000)",
    ),
    whole("inputTokens", "o.input_usage"),
    whole("outputTokens", "o.output_usage"),
    whole("totalTokens", "o.total_usage"),
    number("tokensPerSecond", PER_SECOND[0]),
    number("outputTokensPerSecond", PER_SECOND[1]),
    number("inputCost", "o.input_cost"),
    number("outputCost", "o.output_cost"),
    number("totalCost", "o.total_cost"),
    whole(
        "countScores",
        "(select count(*) from scores c where c.project_id = o.project_id and c.trace_id = o.trace_id
             and c.observation_id = o.id)",
    ),
    whole("toolDefinitions", "cardinality(tool_names(o.tool_definitions))"),
    whole("toolCalls", "cardinality(called_tools(o.output))"),
    distinct("traceId", "o.trace_id"),
    distinct("uniqueUserIds", "t.user_id"),
    distinct("uniqueSessionIds", "t.session_id"),
    Measure {
        needs: Some("costType"),
        only: Some(Version::V2),
        ..number("costByType", "e_cost.value::float8")
    },
    Measure {
        needs: Some("usageType"),
        only: Some(Version::V2),
        ..number("usageByType", "e_usage.value::float8")
    },
];

static SCORES: [Dimension; 28] = [
    many("id", "s.id"),
    text("environment", "s.environment"),
    text("name", "s.name"),
    text("source", "s.source"),
    text("dataType", "s.data_type"),
    many("traceId", "s.trace_id"),
    text("configId", "s.config_id"),
    many("observationId", "s.observation_id"),
    text(
        "timestampMonth",
        "to_char(s.ts at time zone 'utc', 'YYYY-MM')",
    ),
    text(
        "timestampDay",
        "to_char(s.ts at time zone 'utc', 'YYYY-MM-DD')",
    ),
    text("traceName", "t.name"),
    typed("tags", "t.tags", ColumnType::Array),
    many("userId", "t.user_id"),
    only(Version::V1, many("sessionId", "t.session_id")),
    only(Version::V2, many("sessionId", "s.session_id")),
    text("traceRelease", "t.release"),
    text("traceVersion", "t.version"),
    text("observationName", "o.name"),
    text("observationModelName", "o.model"),
    text("observationPromptName", "o.prompt_name"),
    text("observationPromptVersion", "o.prompt_version::text"),
    // Scores don't say who evaluated.
    many("evaluatorId", "null::text"),
    only(Version::V2, many("datasetRunId", "s.run_id")),
    only(Version::V2, many("experimentId", "s.run_id")),
    only(
        Version::V2,
        many(
            "experimentName",
            "(select r.name from dataset_runs r where r.project_id = s.project_id and r.id = s.run_id)",
        ),
    ),
    typed("value", "s.value", ColumnType::Number),
    text("stringValue", "s.string_value"),
    typed("booleanValue", "(s.value = 1)", ColumnType::Bool),
];

static SCORE_MEASURES: [Measure; 2] = [COUNT, number("value", "s.value")];

impl View {
    fn has(self, version: Version, name: &str, only: Option<Version>) -> bool {
        let of_view = match name {
            "value" => self == Self::NumericScores,
            "stringValue" => self == Self::CategoricalScores,
            "booleanValue" => self == Self::BooleanScores,
            _ => true,
        };
        of_view && only.is_none_or(|only| only == version)
    }

    /// Its dimensions.
    pub fn dimensions(self, version: Version) -> impl Iterator<Item = &'static Dimension> {
        let all: &'static [Dimension] = match self {
            Self::Traces => &TRACES,
            Self::Observations => &OBSERVATIONS,
            _ => &SCORES,
        };
        all.iter()
            .filter(move |one| self.has(version, one.name, one.only))
    }

    /// Its measures.
    pub fn measures(self, version: Version) -> impl Iterator<Item = &'static Measure> {
        let all: &'static [Measure] = match self {
            Self::Traces => &TRACE_MEASURES,
            Self::Observations => &OBSERVATION_MEASURES,
            Self::CategoricalScores => &SCORE_MEASURES[..1],
            _ => &SCORE_MEASURES,
        };
        all.iter()
            .filter(move |one| one.only.is_none_or(|only| only == version))
    }

    /// The time that its rows are at.
    pub(super) fn time(self) -> &'static str {
        match self {
            Self::Traces => "t.ts",
            Self::Observations => "o.start_time",
            _ => "s.ts",
        }
    }

    fn metadata(self) -> &'static str {
        match self {
            Self::Traces => "t.metadata",
            Self::Observations => "o.metadata",
            _ => "s.metadata::jsonb",
        }
    }
}

/// A column that conditions may name.
pub fn column(view: View, version: Version, name: &str) -> Option<AnalyticsColumn> {
    let of = |sql, column_type| Some(AnalyticsColumn { sql, column_type });
    match (view, name) {
        (_, "metadata") => return of(view.metadata(), ColumnType::Object),
        (View::Observations, "startTime") => return of("o.start_time", ColumnType::Time),
        (View::Observations, "endTime") => return of("o.end_time", ColumnType::Time),
        (View::Observations, "toolNames") => {
            return of("tool_names(o.tool_definitions)", ColumnType::Array);
        }
        (View::Observations, "calledToolNames") => {
            return of("called_tools(o.output)", ColumnType::Array);
        }
        (View::Observations, "startTimeMonth") => {}
        (View::Traces, "timestamp") => return of("t.ts", ColumnType::Time),
        (_, "timestamp") if view != View::Observations => return of("s.ts", ColumnType::Time),
        _ => {}
    }
    if let Some(found) = view.dimensions(version).find(|one| one.name == name) {
        return of(found.sql, found.column_type);
    }
    let measure = view
        .measures(version)
        .find(|one| one.name == name && one.is_number)?;
    let is_plain = measure.needs.is_none() && name != "count";
    is_plain.then_some(AnalyticsColumn {
        sql: measure.sql,
        column_type: ColumnType::Number,
    })
}
