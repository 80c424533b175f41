//! Experiments: what the spans of runs tell of themselves. An item is the observation at the root of what was
//! done for one item of a dataset.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::ProjectId;

use crate::filter::{self, Column, Condition, ExperimentColumn, ExperimentItemColumn};
use crate::page::{self, Part};
use crate::{Store, StoreError};

/// Whether an observation is the root of an item: as it says itself, or for want of a parent.
pub(crate) const IS_ITEM: &str = "(o.experiment is not null and \
    coalesce(o.experiment ->> 'itemRootObservationId' = o.id, o.parent_id is null))";

/// An experiment, as its items within a range of time tell.
#[derive(Debug, sqlx::FromRow)]
pub struct Experiment {
    /// Its id; runs over datasets have the same.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// The dataset that it runs over.
    pub dataset_id: Option<String>,
    /// JSON text.
    pub metadata: Option<String>,
    /// When the first item began.
    pub start_time: DateTime<Utc>,
    /// When the last item ended.
    pub end_time: DateTime<Utc>,
    /// When the last item began.
    pub last_start: DateTime<Utc>,
    /// How many items there are.
    pub item_count: i64,
}

/// An item.
#[derive(Debug, sqlx::FromRow)]
#[expect(missing_docs, reason = "columns of the table `observations`")]
pub struct ExperimentItem {
    pub id: String,
    pub trace_id: String,
    pub start_time: DateTime<Utc>,
    pub end_time: Option<DateTime<Utc>>,
    pub level: String,
    pub environment: String,
    pub input: Option<String>,
    pub output: Option<String>,
    /// JSON text.
    pub metadata: Option<String>,
    pub metadata_decoded: bool,
    /// JSON text: what its span tells of the experiment.
    pub experiment: String,
}

/// What is asked for.
#[derive(Debug)]
pub struct ExperimentQuery<C, P> {
    /// Items that began at this time or later,
    pub from: DateTime<Utc>,
    /// and before this one.
    pub to: Option<DateTime<Utc>>,
    /// All of them must hold.
    pub conditions: Vec<Condition<C>>,
    /// Where the page before ended.
    pub after: Option<P>,
    /// Most rows of the page.
    pub limit: i64,
}

/// Experiments, the one that was last active first. A page ends with when its last item began, and its id.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    query: &ExperimentQuery<ExperimentColumn, (DateTime<Utc>, String)>,
) -> Result<Part<Experiment>, StoreError> {
    // What the newest item tells of its experiment is read once it is known which experiments are answered.
    let mut sql = QueryBuilder::new(
        "select g.*, newest.name, newest.description, newest.dataset_id, newest.metadata
           from (select o.experiment ->> 'id' as id,
                        min(o.start_time) as start_time, max(coalesce(o.end_time, o.start_time)) as end_time,
                        max(o.start_time) as last_start, count(*) as item_count",
    );
    push_from(&mut sql, project, query);
    sql.push(" group by 1");
    if let Some((last, id)) = &query.after {
        sql.push(" having (max(o.start_time), o.experiment ->> 'id') < (")
            .push_bind(*last);
        sql.push(", ").push_bind(id.clone()).push(")");
    }
    sql.push(" order by last_start desc, id desc limit ")
        .push_bind(query.limit + 1);
    sql.push(
        ") g cross join lateral (
                 select o.experiment ->> 'name' as name, o.experiment ->> 'description' as description,
                        o.experiment ->> 'datasetId' as dataset_id, (o.experiment -> 'metadata')::text as metadata",
    );
    push_from(&mut sql, project, query);
    sql.push(
        " and o.experiment ->> 'id' = g.id and o.start_time = g.last_start
                  order by o.trace_id desc, o.id desc limit 1) newest
          order by g.last_start desc, g.id desc",
    );
    page::part(store, sql, query.limit).await
}

/// Items, newest first. A page ends with the start, trace and id of its last item.
pub async fn items(
    store: &Store,
    project: &ProjectId,
    query: &ExperimentQuery<ExperimentItemColumn, (DateTime<Utc>, String, String)>,
) -> Result<Part<ExperimentItem>, StoreError> {
    let mut sql = QueryBuilder::new(
        "select o.id, o.trace_id, o.start_time, o.end_time, o.level, o.environment, o.input, o.output,
                o.metadata::text as metadata, o.metadata_decoded, o.experiment::text as experiment",
    );
    push_from(&mut sql, project, query);
    if let Some((start, trace, id)) = &query.after {
        sql.push(" and o.start_time <= ").push_bind(*start);
        sql.push(" and (o.start_time, o.trace_id, o.id) < (")
            .push_bind(*start);
        sql.push(", ").push_bind(trace.clone());
        sql.push(", ").push_bind(id.clone()).push(")");
    }
    sql.push(" order by o.start_time desc, o.trace_id desc, o.id desc");
    page::part(store, sql, query.limit).await
}

fn push_from<C: Column, P>(
    sql: &mut QueryBuilder<Postgres>,
    project: &ProjectId,
    query: &ExperimentQuery<C, P>,
) {
    sql.push(" from observations o where o.project_id = ")
        .push_bind(project.as_str().to_owned());
    sql.push(" and o.experiment is not null and ").push(IS_ITEM);
    sql.push(" and o.start_time >= ").push_bind(query.from);
    if let Some(to) = query.to {
        sql.push(" and o.start_time < ").push_bind(to);
    }
    filter::push_all(sql, &query.conditions);
}
