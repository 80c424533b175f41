//! Reads of observations.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::ProjectId;

use crate::filter::{self, Condition, ObservationColumn};
use crate::page::{self, Order, Page, Paged, Part};
use crate::traces::TraceView;
use crate::{Store, StoreError};

/// An observation as readers see it.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `observations`, see migrations/0002_traces.sql"
)]
pub struct ObservationView {
    pub trace_id: String,
    pub id: String,
    pub start_time: DateTime<Utc>,
    pub end_time: Option<DateTime<Utc>>,
    pub completion_start_time: Option<DateTime<Utc>>,
    pub parent_id: Option<String>,
    pub r#type: String,
    pub name: Option<String>,
    pub level: String,
    pub status_message: Option<String>,
    pub version: Option<String>,
    pub environment: String,
    pub model: Option<String>,
    /// JSON text.
    pub model_parameters: Option<String>,
    pub prompt_name: Option<String>,
    pub prompt_version: Option<i32>,
    pub prompt_id: Option<String>,
    pub usage_details: Option<Json<BTreeMap<String, i64>>>,
    pub input_usage: Option<i64>,
    pub output_usage: Option<i64>,
    pub total_usage: Option<i64>,
    pub cost_details: Option<Json<BTreeMap<String, f64>>>,
    pub input_cost: Option<f64>,
    pub output_cost: Option<f64>,
    pub total_cost: Option<f64>,
    pub model_id: Option<String>,
    pub tier_id: Option<String>,
    pub tier_name: Option<String>,
    pub input: Option<String>,
    pub output: Option<String>,
    /// JSON text.
    pub metadata: Option<String>,
    pub metadata_decoded: bool,
    /// JSON text.
    pub tool_definitions: Option<String>,
    /// JSON text.
    pub otel: Option<String>,
    /// JSON text of `xtrace_model::observation::Sent`.
    pub sent: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = "o.trace_id, o.id, o.start_time, o.end_time, o.completion_start_time, \
    o.parent_id, o.type, o.name, o.level, o.status_message, o.version, o.environment, o.model, \
    o.model_parameters, o.prompt_name, o.prompt_version, \
    (select p.id from prompts p where p.project_id = o.project_id and p.name = o.prompt_name \
        and p.version = o.prompt_version) as prompt_id, o.usage_details, o.input_usage, \
    o.output_usage, o.total_usage, o.cost_details, o.input_cost, o.output_cost, o.total_cost, \
    o.model_id, o.tier_id, o.tier_name, o.input, o.output, o.metadata::text as metadata, \
    o.metadata_decoded, o.tool_definitions, o.otel, o.sent, o.created_at, o.updated_at";

/// A page of observations, newest first.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    conditions: &[Condition<ObservationColumn>],
    page: Page,
) -> Result<Paged<ObservationView>, StoreError> {
    let is_of_index = |one: &Condition<_>| one.column == ObservationColumn::StartTime;
    let order = Order {
        by: "o.start_time desc, o.trace_id desc, o.id desc",
        is_indexed: conditions.iter().all(is_of_index),
    };
    let push = |sql: &mut QueryBuilder<Postgres>| push_from(sql, project, conditions);
    page::read(store, COLUMNS, push, order, page).await
}

fn push_from(
    sql: &mut QueryBuilder<Postgres>,
    project: &ProjectId,
    conditions: &[Condition<ObservationColumn>],
) {
    sql.push(" from observations o");
    if conditions
        .iter()
        .any(|condition| condition.column.is_of_trace())
    {
        sql.push(" join traces t on t.project_id = o.project_id and t.id = o.trace_id");
    }
    sql.push(" where o.project_id = ")
        .push_bind(project.as_str().to_owned());
    filter::push_all(sql, conditions);
}

/// An observation with what version 2 shows of its trace.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ListedObservation {
    /// The observation.
    #[sqlx(flatten)]
    pub observation: ObservationView,
    /// Whether it stands for its trace though it has a parent.
    pub is_app_root: bool,
    /// Its trace's.
    pub trace_name: Option<String>,
    /// Its trace's.
    pub trace_tags: Vec<String>,
    /// Its trace's.
    pub trace_release: Option<String>,
    /// Its trace's.
    pub trace_user_id: Option<String>,
    /// Its trace's.
    pub trace_session_id: Option<String>,
    /// Its trace's.
    pub trace_bookmarked: bool,
    /// Its trace's.
    pub trace_public: bool,
}

/// Where a page of version 2 begins: start, trace and id of the last observation of the page before.
pub type Position = (DateTime<Utc>, String, String);

/// Which part of a list is wanted.
#[derive(Debug)]
pub struct Slice {
    /// Where the page before ended.
    pub after: Option<Position>,
    /// Most observations of the page.
    pub limit: i64,
    /// Whether input and output are read too.
    pub with_io: bool,
}

/// Observations of a slice, newest first.
pub async fn list_after(
    store: &Store,
    project: &ProjectId,
    conditions: &[Condition<ObservationColumn>],
    slice: &Slice,
) -> Result<Part<ListedObservation>, StoreError> {
    let columns = if slice.with_io {
        COLUMNS.to_owned()
    } else {
        COLUMNS.replace(
            "o.input, o.output",
            "null::text as input, null::text as output",
        )
    };
    let mut sql = QueryBuilder::new("select ");
    sql.push(columns).push(
        ", o.root_rank is not null as is_app_root, t.name as trace_name, t.tags as trace_tags,
           t.release as trace_release, t.user_id as trace_user_id, t.session_id as trace_session_id,
           coalesce(t.bookmarked, false) as trace_bookmarked,
           coalesce(t.public, false) as trace_public
          from observations o join traces t on t.project_id = o.project_id and t.id = o.trace_id
         where o.project_id = ",
    );
    sql.push_bind(project.as_str().to_owned());
    filter::push_all(&mut sql, conditions);
    if let Some((start, trace, id)) = &slice.after {
        // The first of both leaves partitions out.
        sql.push(" and o.start_time <= ").push_bind(*start);
        sql.push(" and (o.start_time, o.trace_id, o.id) < (")
            .push_bind(*start);
        sql.push(", ").push_bind(trace.clone());
        sql.push(", ").push_bind(id.clone()).push(")");
    }
    sql.push(" order by o.start_time desc, o.trace_id desc, o.id desc");
    page::part(store, sql, slice.limit).await
}

/// The observation of that id that began last, if several traces have one.
pub async fn find(
    store: &Store,
    project: &ProjectId,
    id: &str,
) -> Result<Option<ObservationView>, StoreError> {
    let mut sql = QueryBuilder::new("select ");
    sql.push(COLUMNS)
        .push(" from observations o where o.project_id = ");
    sql.push_bind(project.as_str().to_owned())
        .push(" and o.id = ")
        .push_bind(id.to_owned());
    sql.push(" order by o.start_time desc, o.trace_id limit 1");
    Ok(sql.build_query_as().fetch_optional(store.read()).await?)
}

/// The traces of the observations of these ids, in order of their start.
pub async fn traces_of(
    store: &Store,
    project: &ProjectId,
    ids: &[String],
) -> Result<Vec<(String, String)>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    // No index is to be found by the project: in a partition that was never analysed, one that begins with it
    // looks as good as that of ids, and reads all of it.
    let found = sqlx::query_as(
        "select id, trace_id from observations where project_id || '' = $1 and id = any($2)
          order by start_time, trace_id",
    )
    .bind(project.as_str())
    .bind(ids)
    .fetch_all(store.write())
    .await?;
    Ok(found)
}

/// Bytes of all that is long of a trace's observations; of metadata as it is stored, compressed.
pub async fn payload_bytes(
    store: &Store,
    project: &ProjectId,
    trace: &TraceView,
) -> Result<i64, StoreError> {
    let mut sql = QueryBuilder::new(
        "select coalesce(sum(coalesce(octet_length(o.input), 0) + coalesce(octet_length(o.output), 0)
                + coalesce(octet_length(o.otel), 0) + coalesce(octet_length(o.tool_definitions), 0)
                + coalesce(octet_length(o.model_parameters), 0) + coalesce(octet_length(o.status_message), 0)
                + coalesce(pg_column_size(o.metadata), 0)), 0)::bigint",
    );
    push_of_trace(&mut sql, project, trace);
    Ok(sql.build_query_scalar().fetch_one(store.read()).await?)
}

/// All observations of a trace, in order of their start.
pub async fn of_trace(
    store: &Store,
    project: &ProjectId,
    trace: &TraceView,
) -> Result<Vec<ObservationView>, StoreError> {
    let mut sql = QueryBuilder::new("select ");
    sql.push(COLUMNS);
    push_of_trace(&mut sql, project, trace);
    sql.push(" order by o.start_time, o.id");
    page::all(store, sql).await
}

fn push_of_trace(sql: &mut QueryBuilder<Postgres>, project: &ProjectId, trace: &TraceView) {
    sql.push(" from observations o where o.project_id = ")
        .push_bind(project.as_str().to_owned());
    sql.push(" and o.trace_id = ").push_bind(trace.id.clone());
    sql.push(" and o.start_time between ")
        .push_bind(trace.first_start);
    sql.push(" and ").push_bind(trace.last_start);
}
