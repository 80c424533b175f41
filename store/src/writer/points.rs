//! Metric points of a transaction: series that are new go to the dictionary, points to their day.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};
use xtrace_model::metric::Series;
use xtrace_model::{Batch, Micros, ProjectId, time};

use super::insert::{Method, Rows};
use crate::StoreError;
use crate::error::{UNIQUE_VIOLATION, is_sqlstate};

/// Newest value by project, series and time, with the series itself.
pub(super) type Latest<'a> = BTreeMap<(&'a ProjectId, i64, Micros), (&'a Series, f64)>;

/// Series that are in the dictionary for sure.
#[derive(Default)]
pub(super) struct KnownSeries(HashSet<(ProjectId, i64)>);

/// Bounds the memory of what is known; the dictionary itself ignores repeats.
const KNOWN_SERIES_MAX: usize = 200_000;

impl KnownSeries {
    pub(super) fn remember(&mut self, series: Vec<(ProjectId, i64)>) {
        if self.0.len() + series.len() > KNOWN_SERIES_MAX {
            self.0.clear();
        }
        self.0.extend(series);
    }
}

/// The points of all batches; of two with one series and time the later counts.
pub(super) fn latest<'a>(batches: &[&'a Batch]) -> Latest<'a> {
    let mut latest = Latest::new();
    for batch in batches {
        for point in &batch.points {
            let id = point.series.id(&batch.project);
            latest.insert(
                (&batch.project, id, point.time),
                (&point.series, point.value),
            );
        }
    }
    latest
}

/// Writes the points; returns the series to remember once the transaction is committed.
pub(super) async fn write(
    connection: &mut PgConnection,
    method: Method,
    known: &KnownSeries,
    points: &Latest<'_>,
    now: DateTime<Utc>,
) -> Result<Vec<(ProjectId, i64)>, StoreError> {
    if points.is_empty() {
        return Ok(Vec::new());
    }
    let new_series = write_series(connection, known, points, now).await?;
    if method != Method::Copy || !copy(connection, points).await? {
        upsert(connection, points).await?;
    }
    Ok(new_series)
}

/// Whether all points are new; else nothing is written.
async fn copy(connection: &mut PgConnection, points: &Latest<'_>) -> Result<bool, StoreError> {
    const COLUMNS: &[&str] = &["project_id", "series_id", "ts", "value"];
    let mut rows = Rows::new("metric_points", COLUMNS, Method::Copy);
    for ((project, series, at), (_, value)) in points {
        rows.row()
            .text(Some(project.as_str()))
            .int8(Some(*series))
            .time(Some(*at))
            .float8(Some(*value));
    }
    let mut savepoint = connection.begin().await?;
    match rows.insert(&mut savepoint).await {
        Ok(()) => {
            savepoint.commit().await?;
            Ok(true)
        }
        Err(StoreError::Internal(cause)) if is_sqlstate(&cause, &[UNIQUE_VIOLATION]) => {
            savepoint.rollback().await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Points that are there already get the newer value.
async fn upsert(connection: &mut PgConnection, points: &Latest<'_>) -> Result<(), StoreError> {
    let keys = || points.keys();
    sqlx::query(
        "insert into metric_points (project_id, series_id, ts, value)
         select * from unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::float8[])
         on conflict (project_id, series_id, ts) do update set value = excluded.value
          where metric_points.value is distinct from excluded.value",
    )
    .bind(keys().map(|key| key.0.as_str()).collect::<Vec<_>>())
    .bind(keys().map(|key| key.1).collect::<Vec<_>>())
    .bind(keys().map(|key| time::to_utc(key.2)).collect::<Vec<_>>())
    .bind(points.values().map(|(_, value)| *value).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_series(
    connection: &mut PgConnection,
    known: &KnownSeries,
    points: &Latest<'_>,
    now: DateTime<Utc>,
) -> Result<Vec<(ProjectId, i64)>, StoreError> {
    let mut new: BTreeMap<(ProjectId, i64), &Series> = BTreeMap::new();
    for ((project, id, _), (series, _)) in points {
        let key = ((*project).clone(), *id);
        if !known.0.contains(&key) {
            new.insert(key, series);
        }
    }
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let labels =
        |series: &&Series| serde_json::to_string(&series.labels).expect("maps of texts serialise");
    sqlx::query(
        "insert into metric_series (project_id, series_id, name, environment, labels, created_at)
         select p, s, n, e, l::jsonb, $6
           from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[]) u(p, s, n, e, l)
         on conflict do nothing",
    )
    .bind(new.keys().map(|(project, _)| project.as_str()).collect::<Vec<_>>())
    .bind(new.keys().map(|(_, id)| *id).collect::<Vec<_>>())
    .bind(new.values().map(|series| series.name.as_str()).collect::<Vec<_>>())
    .bind(new.values().map(|series| series.environment.as_str()).collect::<Vec<_>>())
    .bind(new.values().map(labels).collect::<Vec<_>>())
    .bind(now)
    .execute(connection)
    .await?;
    Ok(new.into_keys().collect())
}
