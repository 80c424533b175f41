//! Reads of traces.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::{ProjectId, TraceId};

use crate::filter::{self, Condition, TraceColumn};
use crate::page::{self, Page, Paged};
use crate::reading::ANSWER_BYTES_MAX;
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
    /// How many observations it has.
    pub observation_count: i64,
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
    TotalCost,
    Latency,
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
            "totalCost" => Self::TotalCost,
            "latency" => Self::Latency,
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
            Self::TotalCost => "coalesce(t.sent_total_cost, t.total_cost, 0)",
            Self::Latency => "coalesce(t.sent_latency, t.latency, 0)",
        }
    }

    /// Null values come last, but where an index decides and there are none.
    fn nulls_last(self) -> &'static str {
        match self {
            Self::Timestamp | Self::TotalCost | Self::Latency => "",
            _ => " nulls last",
        }
    }
}

const COLUMNS: &str = "t.id, t.ts, t.name, t.user_id, t.session_id, t.release, t.version, \
    t.environment, t.external_id, t.public, t.bookmarked, t.tags, t.metadata_decoded, \
    t.sent_latency, t.sent_total_cost, t.first_start, t.last_start, t.created_at, t.updated_at, \
    t.debug_count::bigint + t.default_count + t.warning_count + t.error_count as observation_count";
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
    let count = page::count(store, |sql| push_from(sql, project, query, Found::Anyhow)).await?;
    if count.ends_before(query.page) {
        return Ok(Paged::of(Vec::new(), query.page, count));
    }
    // Postgres would walk the index of the order for rare matches, and sort half the table for
    // frequent ones; here it is known which they are.
    let rare = !query.conditions.is_empty() && count.is_few();
    let found = if rare && !query.is_in_index_order() {
        Found::First
    } else {
        Found::Anyhow
    };
    let direction = if query.ascending { " asc" } else { " desc" };
    let order = query.order;
    let push_order = |sql: &mut QueryBuilder<Postgres>| {
        sql.push(" order by ")
            .push(order.sql())
            .push(direction)
            .push(order.nulls_last());
        sql.push(", t.id").push(direction);
    };
    let mut rows = QueryBuilder::new("select ");
    rows.push(COLUMNS).push(if query.with_io {
        IO_COLUMNS
    } else {
        NO_IO_COLUMNS
    });
    // The page's keys come first, mostly from an index alone: rows before the page are not visited.
    rows.push(" from (select t.id");
    push_from(&mut rows, project, query, found);
    push_order(&mut rows);
    rows.push(" limit ").push_bind(query.page.limit);
    rows.push(" offset ").push_bind(query.page.offset());
    rows.push(") page join traces t on t.id = page.id and t.project_id = ");
    rows.push_bind(project.as_str().to_owned());
    push_order(&mut rows);
    rows.push(" limit ").push_bind(query.page.limit);
    let rows = rows.build_query_as().fetch_all(store.read()).await?;
    Ok(Paged::of(rows, query.page, count))
}

impl TraceQuery {
    /// Whether an index holds what matches in the order that is asked for.
    fn is_in_index_order(&self) -> bool {
        let of_index = |condition: &Condition<TraceColumn>| {
            condition.column == TraceColumn::Timestamp || condition.is_indexed_equality()
        };
        self.order == TraceOrder::Timestamp && self.conditions.iter().all(of_index)
    }
}

/// How matching traces are found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// All of them, before they are sorted.
    First,
    /// As Postgres thinks best.
    Anyhow,
}

fn push_from(
    sql: &mut QueryBuilder<Postgres>,
    project: &ProjectId,
    query: &TraceQuery,
    found: Found,
) {
    sql.push(if found == Found::First {
        " from (select t.* from traces t"
    } else {
        " from traces t"
    });
    let is_aggregate = |condition: &Condition<TraceColumn>| condition.column.is_aggregate();
    if query.conditions.iter().any(is_aggregate) {
        push_aggregates(sql, &query.environments);
    }
    sql.push(" where t.project_id = ")
        .push_bind(project.as_str().to_owned());
    filter::push_all(sql, &query.conditions);
    if found == Found::First {
        sql.push(" offset 0) t");
    }
}

/// Sums over the trace's observations: those that its row holds, or, for some environments only, sums
/// over their observations.
fn push_aggregates(sql: &mut QueryBuilder<Postgres>, environments: &[String]) {
    if environments.is_empty() {
        sql.push(
            " cross join lateral (select t.latency, t.input_usage::float8 as input_tokens, \
             t.output_usage::float8 as output_tokens, t.total_usage::float8 as total_tokens, \
             t.input_cost, t.output_cost, t.total_cost, t.warning_count, t.error_count, \
             t.default_count, t.debug_count, case when t.error_count > 0 then 'ERROR' \
             when t.warning_count > 0 then 'WARNING' when t.default_count > 0 then 'DEFAULT' \
             when t.debug_count > 0 then 'DEBUG' end as level) a",
        );
        return;
    }
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
         and o.start_time between t.first_start and t.last_start and o.environment = any(",
    );
    sql.push_bind(environments.to_vec()).push(")) a");
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

/// All traces of a session, newest first.
pub async fn of_session(
    store: &Store,
    project: &ProjectId,
    session: &str,
) -> Result<Vec<TraceView>, StoreError> {
    let mut sql = QueryBuilder::new("select ");
    sql.push(COLUMNS)
        .push(IO_COLUMNS)
        .push(" from traces t where t.project_id = ");
    sql.push_bind(project.as_str().to_owned())
        .push(" and t.session_key = left(")
        .push_bind(session.to_owned());
    sql.push(", 200) and t.session_id = ")
        .push_bind(session.to_owned())
        .push(" order by t.ts desc, t.id desc");
    page::all(store, sql).await
}

/// Observations of traces whose ids are collected unseen; more are measured first.
const IDS_UNMEASURED_MAX: i64 = 100_000;

/// What is computed over the observations of some traces, which must be of one project.
pub async fn rollups(
    store: &Store,
    project: &ProjectId,
    traces: &[TraceView],
    environments: &[String],
) -> Result<Vec<Rollup>, StoreError> {
    let Some(extents) = Extents::of(traces) else {
        return Ok(Vec::new());
    };
    let push_from = |sql: &mut QueryBuilder<Postgres>| {
        extents.push_observations(sql, project);
        if !environments.is_empty() {
            sql.push(" and o.environment = any(")
                .push_bind(environments.to_vec())
                .push(")");
        }
    };
    let observations: i64 = traces.iter().map(|trace| trace.observation_count).sum();
    if observations > IDS_UNMEASURED_MAX {
        // Each stands between quotes, before a comma.
        let mut sql =
            QueryBuilder::new("select coalesce(sum(octet_length(o.id) + 3), 0)::bigint from ");
        push_from(&mut sql);
        let bytes: i64 = sql.build_query_scalar().fetch_one(store.read()).await?;
        if usize::try_from(bytes).is_ok_and(|bytes| bytes > ANSWER_BYTES_MAX) {
            return Err(StoreError::TooLarge);
        }
    }
    let mut sql = QueryBuilder::new("select o.trace_id, ");
    sql.push(LATENCY)
        .push(" as latency, sum(o.total_cost) as total_cost, ");
    // Collects at most as many bytes as an answer has: more than a few were measured.
    sql.push("array_agg(o.id::text order by o.start_time, o.id) as observation_ids from ");
    push_from(&mut sql);
    sql.push(" group by o.trace_id");
    page::all(store, sql).await
}

/// Ids of traces, and from when to when their observations begin.
struct Extents {
    ids: Vec<String>,
    firsts: Vec<DateTime<Utc>>,
    lasts: Vec<DateTime<Utc>>,
    all: (DateTime<Utc>, DateTime<Utc>),
}

impl Extents {
    /// Those of traces that have observations; none if none has.
    fn of(traces: &[TraceView]) -> Option<Self> {
        let extent = |trace: &TraceView| Some((trace.first_start?, trace.last_start?));
        let traces = traces
            .iter()
            .filter_map(|trace| Some((trace.id.clone(), extent(trace)?)));
        let (ids, extents): (Vec<String>, Vec<_>) = traces.unzip();
        let (firsts, lasts): (Vec<DateTime<Utc>>, Vec<DateTime<Utc>>) = extents.into_iter().unzip();
        let all = (*firsts.iter().min()?, *lasts.iter().max()?);
        Some(Self {
            ids,
            firsts,
            lasts,
            all,
        })
    }

    /// Appends their observations `o`, and ` where true`: one look-up a trace, in the partitions of its extent only.
    fn push_observations(&self, sql: &mut QueryBuilder<Postgres>, project: &ProjectId) {
        sql.push("unnest(").push_bind(self.ids.clone());
        sql.push("::text[], ").push_bind(self.firsts.clone());
        sql.push("::timestamptz[], ")
            .push_bind(self.lasts.clone())
            .push(
                "::timestamptz[]) k(id, first_start, last_start) cross join lateral (
             select o.* from observations o where o.trace_id = k.id
                and o.start_time between k.first_start and k.last_start and o.project_id = ",
            );
        sql.push_bind(project.as_str().to_owned());
        sql.push(" and o.start_time between ").push_bind(self.all.0);
        sql.push(" and ").push_bind(self.all.1);
        sql.push(" offset 0) o where true");
    }
}
