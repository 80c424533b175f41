//! Who is asked for.

use std::collections::BTreeMap;

use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::ProjectId;
use xtrace_model::metric::{Kind, SeriesId, Temporality};

use crate::{Store, StoreError};

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
    pub labels: BTreeMap<String, String>,
    /// Its labels, and attributes of its resource.
    pub lookup: BTreeMap<String, String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    series_id: SeriesId,
    kind: i16,
    temporality: i16,
    is_monotonic: bool,
    labels: Json<BTreeMap<String, String>>,
    lookup: Json<BTreeMap<String, String>>,
}

/// The series that match.
pub async fn select(
    store: &Store,
    project: &ProjectId,
    selector: &Selector,
) -> Result<Vec<Found>, StoreError> {
    let mut sql: QueryBuilder<Postgres> = QueryBuilder::new(
        "select series_id, kind, temporality, is_monotonic, labels, lookup from metric_series
          where project_id = ",
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
    let rows: Vec<Row> = sql.build_query_as().fetch_all(store.read()).await?;
    let place = |number: i16| usize::try_from(number).unwrap_or_default();
    let found = |row: Row| Found {
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
        labels: row.labels.0,
        lookup: row.lookup.0,
    };
    Ok(rows.into_iter().map(found).collect())
}

/// Names of all metrics, sorted; found by skipping through the dictionary's index.
pub async fn names(store: &Store, project: &ProjectId) -> Result<Vec<String>, StoreError> {
    let names = sqlx::query_scalar(include_str!("../../sql/metric_names.sql"))
        .bind(project.as_str())
        .fetch_all(store.read())
        .await?;
    Ok(names)
}
