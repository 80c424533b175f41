//! Reads of traces.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::{ProjectId, TraceId};

use crate::filter::{self, Condition, Test, TraceColumn};
use crate::page::{Page, Paged};
use crate::{Store, StoreError};

/// A trace as readers see it.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `traces`, see migrations/0002_traces.sql"
)]
pub struct TraceView {
    pub id: String,
    pub ts: DateTime<Utc>,
    pub name: Option<String>,
    pub user_id: Option<String>,
    pub session_id: Option<String>,
    pub release: Option<String>,
    pub version: Option<String>,
    pub environment: String,
    pub external_id: Option<String>,
    pub public: Option<bool>,
    pub bookmarked: Option<bool>,
    pub tags: Vec<String>,
    /// JSON text.
    pub metadata: Option<String>,
    pub metadata_decoded: bool,
    pub input: Option<String>,
    pub output: Option<String>,
    pub sent_latency: Option<f64>,
    pub sent_total_cost: Option<f64>,
    pub first_start: Option<DateTime<Utc>>,
    pub last_start: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What is computed over a trace's observations.
#[derive(Debug, Clone, Default, sqlx::FromRow)]
pub struct Rollup {
    /// The trace.
    pub trace_id: String,
    /// Ids of its observations, in order of their start.
    pub observation_ids: Vec<String>,
    /// Seconds from the first start to the last end.
    pub latency: Option<f64>,
    /// USD.
    pub total_cost: Option<f64>,
}

/// What a list of traces is asked for.
#[derive(Debug, Clone)]
pub struct TraceQuery {
    /// Conditions, all of which must hold.
    pub conditions: Vec<Condition<TraceColumn>>,
    /// Which environments' observations count for aggregates; empty means all.
    pub environments: Vec<String>,
    /// What the list is sorted by.
    pub order: TraceOrder,
    /// Smallest first.
    pub ascending: bool,
    /// Whether input, output and metadata are wanted.
    pub with_io: bool,
    /// Which page.
    pub page: Page,
}

/// What traces can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TraceOrder {
    Id,
    Timestamp,
    Name,
    UserId,
    Release,
    Version,
    Public,
    Bookmarked,
    SessionId,
}

impl TraceOrder {
    /// The order of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "timestamp" => Self::Timestamp,
            "name" => Self::Name,
            "userId" => Self::UserId,
            "release" => Self::Release,
            "version" => Self::Version,
            "public" => Self::Public,
            "bookmarked" => Self::Bookmarked,
            "sessionId" => Self::SessionId,
            _ => return None,
        })
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Id => "t.id",
            Self::Timestamp => "t.ts",
            Self::Name => "t.name",
            Self::UserId => "t.user_id",
            Self::Release => "t.release",
            Self::Version => "t.version",
            Self::Public => "coalesce(t.public, false)",
            Self::Bookmarked => "coalesce(t.bookmarked, false)",
            Self::SessionId => "t.session_id",
        }
    }
}

const COLUMNS: &str = "t.id, t.ts, t.name, t.user_id, t.session_id, t.release, t.version, \
    t.environment, t.external_id, t.public, t.bookmarked, t.tags, t.metadata_decoded, \
    t.sent_latency, t.sent_total_cost, t.first_start, t.last_start, t.created_at, t.updated_at";
const IO_COLUMNS: &str = ", t.metadata::text as metadata, t.input, t.output";
const NO_IO_COLUMNS: &str = ", null::text as metadata, null::text as input, null::text as output";

/// Langfuse's rule: from first start to last end; without any end, to the last start.
const LATENCY: &str = "extract(epoch from greatest(max(o.end_time), \
    case when max(o.end_time) is null then max(o.start_time) end) - min(o.start_time))::float8";

/// A page of traces.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    query: &TraceQuery,
) -> Result<Paged<TraceView>, StoreError> {
    let mut count = QueryBuilder::new("select count(*)");
    push_from(&mut count, project, query);
    let total: i64 = count.build_query_scalar().fetch_one(store.read()).await?;

    let mut rows = QueryBuilder::new("select ");
    rows.push(COLUMNS).push(if query.with_io {
        IO_COLUMNS
    } else {
        NO_IO_COLUMNS
    });
    push_from(&mut rows, project, query);
    let direction = if query.ascending { " asc" } else { " desc" };
    rows.push(" order by ")
        .push(query.order.sql())
        .push(direction);
    // The primary index runs by time and id; nulls would need an order of their own there.
    rows.push(if query.order == TraceOrder::Timestamp {
        ""
    } else {
        " nulls last"
    });
    rows.push(", t.id").push(direction);
    rows.push(" limit ")
        .push_bind(query.page.limit)
        .push(" offset ")
        .push_bind(query.page.offset());
    let rows = rows.build_query_as().fetch_all(store.read()).await?;
    Ok(Paged { rows, total })
}

fn push_from(sql: &mut QueryBuilder<Postgres>, project: &ProjectId, query: &TraceQuery) {
    let by_tags = |condition: &&Condition<TraceColumn>| {
        condition.column == TraceColumn::Tags && !matches!(condition.test, Test::Overlaps(_, true))
    };
    // Postgres would walk the time index for rare tags; the fence makes it use the tags' own.
    let (tagged, others): (Vec<_>, Vec<_>) = query
        .conditions
        .iter()
        .partition(|condition| by_tags(condition));
    if tagged.is_empty() {
        sql.push(" from traces t");
    } else {
        sql.push(" from (select t.* from traces t where t.project_id = ")
            .push_bind(project.as_str().to_owned());
        filter::push_all(sql, &tagged.into_iter().cloned().collect::<Vec<_>>());
        sql.push(" offset 0) t");
    }
    if others
        .iter()
        .any(|condition| condition.column.is_aggregate())
    {
        push_aggregates(sql, &query.environments);
    }
    sql.push(" where t.project_id = ")
        .push_bind(project.as_str().to_owned());
    filter::push_all(sql, &others.into_iter().cloned().collect::<Vec<_>>());
}

fn push_aggregates(sql: &mut QueryBuilder<Postgres>, environments: &[String]) {
    sql.push(" cross join lateral (select ").push(LATENCY).push(
        " as latency, coalesce(sum(o.input_usage), 0)::float8 as input_tokens, \
         coalesce(sum(o.output_usage), 0)::float8 as output_tokens, \
         coalesce(sum(o.total_usage), 0)::float8 as total_tokens, \
         coalesce(sum(o.input_cost), 0) as input_cost, coalesce(sum(o.output_cost), 0) as output_cost, \
         sum(o.total_cost) as total_cost, \
         (array['DEBUG', 'DEFAULT', 'WARNING', 'ERROR'])[max(array_position(array['DEBUG', 'DEFAULT', 'WARNING', 'ERROR'], o.level))] as level, \
         count(*) filter (where o.level = 'WARNING') as warning_count, \
         count(*) filter (where o.level = 'ERROR') as error_count, \
         count(*) filter (where o.level = 'DEFAULT') as default_count, \
         count(*) filter (where o.level = 'DEBUG') as debug_count \
         from observations o where o.project_id = t.project_id and o.trace_id = t.id \
         and o.start_time between t.first_start and t.last_start",
    );
    if !environments.is_empty() {
        sql.push(" and o.environment = any(")
            .push_bind(environments.to_vec())
            .push(")");
    }
    sql.push(") a");
}

/// A trace by its id, in either spelling of a UUID.
pub async fn find(
    store: &Store,
    project: &ProjectId,
    id: &TraceId,
) -> Result<Option<TraceView>, StoreError> {
    let ids: Vec<String> = std::iter::once(id.clone())
        .chain(id.other_spelling())
        .map(TraceId::into_string)
        .collect();
    let mut sql = QueryBuilder::new("select ");
    sql.push(COLUMNS)
        .push(IO_COLUMNS)
        .push(" from traces t where t.project_id = ");
    sql.push_bind(project.as_str().to_owned())
        .push(" and t.id = any(")
        .push_bind(ids);
    sql.push(") order by t.id = ")
        .push_bind(id.as_str().to_owned())
        .push(" desc limit 1");
    Ok(sql.build_query_as().fetch_optional(store.read()).await?)
}

/// What is computed over the observations of some traces, which must be of one project.
pub async fn rollups(
    store: &Store,
    project: &ProjectId,
    traces: &[TraceView],
    environments: &[String],
) -> Result<Vec<Rollup>, StoreError> {
    let (Some(first), Some(last)) = (
        traces.iter().filter_map(|trace| trace.first_start).min(),
        traces.iter().filter_map(|trace| trace.last_start).max(),
    ) else {
        return Ok(Vec::new());
    };
    let ids: Vec<String> = traces.iter().map(|trace| trace.id.clone()).collect();
    let mut sql = QueryBuilder::new("select o.trace_id, ");
    sql.push(LATENCY)
        .push(" as latency, sum(o.total_cost) as total_cost, ");
    sql.push(
        "array_agg(o.id::text order by o.start_time, o.id) as observation_ids from observations o",
    );
    sql.push(" where o.project_id = ")
        .push_bind(project.as_str().to_owned());
    sql.push(" and o.trace_id = any(")
        .push_bind(ids)
        .push(") and o.start_time between ");
    sql.push_bind(first).push(" and ").push_bind(last);
    if !environments.is_empty() {
        sql.push(" and o.environment = any(")
            .push_bind(environments.to_vec())
            .push(")");
    }
    sql.push(" group by o.trace_id");
    Ok(sql.build_query_as().fetch_all(store.read()).await?)
}
