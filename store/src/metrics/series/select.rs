//! Who is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::ProjectId;
use xtrace_model::metric::{Kind, SeriesId, Temporality};

use crate::{Store, StoreError};

/// Series that one question may reach; of more, those that were silent before its range are left out.
const SERIES_MAX: usize = 50_000;
/// What their labels may take.
const BYTES_MAX: usize = 16 << 20;
/// Names of metrics that are listed.
const NAMES_MAX: i64 = 100_000;

/// Which series are asked for.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// The metric's name.
    pub name: String,
    /// Labels, or attributes of the resource, that a series must have, compared as text.
    pub labels: BTreeMap<String, String>,
    /// The environment, if only one counts.
    pub environment: Option<String>,
}

/// A series of an answer.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its hash.
    pub id: SeriesId,
    /// What it measures.
    pub kind: Kind,
    /// What its values are sums of.
    pub temporality: Temporality,
    /// Whether its sum only grows.
    pub is_monotonic: bool,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its labels, and attributes of its resource.
    pub lookup: Arc<BTreeMap<String, String>>,
}

#[derive(sqlx::FromRow)]
struct Row {
    series_id: SeriesId,
    kind: i16,
    temporality: i16,
    is_monotonic: bool,
    labels: Json<BTreeMap<String, String>>,
    /// Unless they are the labels.
    lookup: Option<Json<BTreeMap<String, String>>>,
    bytes: i32,
}

impl From<Row> for Found {
    fn from(row: Row) -> Self {
        let place = |number: i16| usize::try_from(number).unwrap_or_default();
        let labels = Arc::new(row.labels.0);
        Self {
            id: row.series_id,
            kind: Kind::ALL
                .get(place(row.kind))
                .copied()
                .unwrap_or(Kind::Gauge),
            temporality: Temporality::ALL
                .get(place(row.temporality))
                .copied()
                .unwrap_or_default(),
            is_monotonic: row.is_monotonic,
            lookup: row
                .lookup
                .map_or_else(|| Arc::clone(&labels), |lookup| Arc::new(lookup.0)),
            labels,
        }
    }
}

/// The series that match. A metric may have had very many; then those count that sent something since the day
/// before the range begins.
pub async fn select(
    store: &Store,
    project: &ProjectId,
    selector: &Selector,
    from: DateTime<Utc>,
) -> Result<Vec<Found>, StoreError> {
    if let Some(found) = find(store, project, selector, None).await? {
        return Ok(found);
    }
    if let Some(found) = find(store, project, selector, Some(from.min(Utc::now()))).await? {
        return Ok(found);
    }
    Err(StoreError::TooBroad(format!(
        "it reaches more than {SERIES_MAX} series, or labels of more than {} MB; name labels of those that are meant",
        BYTES_MAX >> 20
    )))
}

/// `None` if there are too many.
async fn find(
    store: &Store,
    project: &ProjectId,
    selector: &Selector,
    since: Option<DateTime<Utc>>,
) -> Result<Option<Vec<Found>>, StoreError> {
    let mut sql: QueryBuilder<Postgres> = QueryBuilder::new(
        "select series_id, kind, temporality, is_monotonic, labels, nullif(lookup, labels) as lookup,
                pg_column_size(labels) + pg_column_size(lookup) as bytes
           from metric_series where project_id = ",
    );
    sql.push_bind(project.as_str());
    sql.push(" and name = ").push_bind(&selector.name);
    if !selector.labels.is_empty() {
        sql.push(" and lookup @> ")
            .push_bind(Json(&selector.labels));
    }
    if let Some(environment) = &selector.environment {
        sql.push(" and environment = ").push_bind(environment);
    }
    if let Some(since) = since {
        // Points may be a little younger than their arrival.
        sql.push(" and seen >= ")
            .push_bind(since.date_naive() - chrono::Days::new(1));
    }
    sql.push(" limit ")
        .push_bind(i64::try_from(SERIES_MAX).unwrap_or(i64::MAX) + 1);
    let mut rows = sql.build_query_as::<Row>().fetch(store.read());
    let mut found = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        bytes += usize::try_from(row.bytes).unwrap_or_default();
        found.push(row.into());
        if found.len() > SERIES_MAX || bytes > BYTES_MAX {
            return Ok(None);
        }
    }
    Ok(Some(found))
}

/// Names of all metrics, sorted; found by skipping through the dictionary's index.
pub async fn names(store: &Store, project: &ProjectId) -> Result<Vec<String>, StoreError> {
    let names = sqlx::query_scalar(include_str!("../../sql/metric_names.sql"))
        .bind(project.as_str())
        .bind(NAMES_MAX)
        .fetch_all(store.read())
        .await?;
    Ok(names)
}
