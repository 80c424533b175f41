//! Reads points of series: from chunks and from blocks, in one snapshot.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use xtrace_model::metric::SeriesId;
use xtrace_model::{MetricPoint, ProjectId, time};

use super::blocks::{self, micros, shard_of};
use super::chunks;
use super::sealed::Sealed;
use crate::{Store, StoreError};

/// Points that one question may unpack.
const POINTS_MAX: usize = 20_000_000;

/// The first and the last moment of a question, both within it.
pub type Range = (DateTime<Utc>, DateTime<Utc>);

#[derive(sqlx::FromRow)]
struct ChunkRow {
    series_id: SeriesId,
    #[sqlx(flatten)]
    sealed: Sealed,
}

/// Hands over the points of each series in order of time, series by series.
pub async fn points(
    store: &Store,
    project: &ProjectId,
    series: &[SeriesId],
    range: Range,
    mut take: impl FnMut(SeriesId, &[MetricPoint]),
) -> Result<(), StoreError> {
    let mut snapshot = store.read().snapshot().await?;
    let (from, to) = (time::from_utc(range.0), time::from_utc(range.1));
    let is_within = |point: &MetricPoint| (from..=to).contains(&micros(point.time));
    let mut fresh = in_blocks(snapshot.connection(), project, series, range).await?;
    let day = time::to_utc(time::day_of(from) * time::DAY);
    let mut rows = sqlx::query_as::<_, ChunkRow>(
        "select series_id, format, checksum, data from metric_chunks
          where project_id = $1 and series_id = any($2) and first_at between $3 and $4 and last_at >= $5
          order by series_id, first_at",
    )
    .bind(project.as_str())
    .bind(series)
    .bind(day)
    .bind(range.1)
    .bind(range.0)
    .fetch(snapshot.connection());
    let mut all = 0;
    let mut present: Option<(SeriesId, Vec<MetricPoint>)> = None;
    let mut finish =
        |id: SeriesId, mut points: Vec<MetricPoint>, fresh: Option<Vec<MetricPoint>>| {
            points.extend(fresh.unwrap_or_default());
            points.retain(is_within);
            chunks::latest(&mut points);
            if !points.is_empty() {
                take(id, &points);
            }
        };
    while let Some(ChunkRow {
        series_id: id,
        sealed,
    }) = rows.try_next().await?
    {
        let points = chunks::read(id, &sealed).unwrap_or_default();
        all += points.len();
        if all > POINTS_MAX {
            return Err(StoreError::Timeout);
        }
        match &mut present {
            Some((series, before)) if *series == id => before.extend(points),
            _ => {
                if let Some((id, before)) = present.replace((id, points)) {
                    finish(id, before, fresh.remove(&id));
                }
            }
        }
    }
    if let Some((id, before)) = present {
        finish(id, before, fresh.remove(&id));
    }
    for (id, points) in fresh {
        finish(id, points, None);
    }
    drop(rows);
    snapshot.finish().await?;
    Ok(())
}

/// What was not moved into chunks yet, in order of arrival.
async fn in_blocks(
    connection: &mut sqlx::PgConnection,
    project: &ProjectId,
    series: &[SeriesId],
    range: Range,
) -> Result<HashMap<SeriesId, Vec<MetricPoint>>, StoreError> {
    let wanted: HashSet<SeriesId> = series.iter().copied().collect();
    let shards: HashSet<i16> = series.iter().map(|id| shard_of(*id)).collect();
    let mut rows = sqlx::query_as::<_, Sealed>(
        "select format, checksum, data from metric_blocks
          where project_id = $1 and shard = any($2) and first_at <= $3 and last_at >= $4 order by id",
    )
    .bind(project.as_str())
    .bind(shards.into_iter().collect::<Vec<_>>())
    .bind(range.1)
    .bind(range.0)
    .fetch(connection);
    let mut found: HashMap<SeriesId, Vec<MetricPoint>> = HashMap::new();
    while let Some(sealed) = rows.try_next().await? {
        let _ = blocks::read(&sealed, Some(&wanted), |id, points| {
            found.entry(id).or_default().extend(points);
        });
    }
    Ok(found)
}

/// When each series was measured last, as far as that is within the range.
pub(super) async fn newest(
    store: &Store,
    project: &ProjectId,
    series: &[SeriesId],
    range: Range,
) -> Result<HashMap<SeriesId, DateTime<Utc>>, StoreError> {
    let mut snapshot = store.read().snapshot().await?;
    let day = time::to_utc(time::day_of(time::from_utc(range.0)) * time::DAY);
    let rows: Vec<(SeriesId, DateTime<Utc>)> = sqlx::query_as(
        "select series_id, max(least(last_at, $4)) from metric_chunks
          where project_id = $1 and series_id = any($2) and first_at between $3 and $4 and last_at >= $5
          group by series_id",
    )
    .bind(project.as_str())
    .bind(series)
    .bind(day)
    .bind(range.1)
    .bind(range.0)
    .fetch_all(snapshot.connection())
    .await?;
    let mut newest: HashMap<SeriesId, DateTime<Utc>> = rows.into_iter().collect();
    let (from, to) = (time::from_utc(range.0), time::from_utc(range.1));
    for (id, points) in in_blocks(snapshot.connection(), project, series, range).await? {
        let times = points.iter().map(|point| micros(point.time));
        if let Some(last) = times.filter(|at| (from..=to).contains(at)).max() {
            let last = time::to_utc(last);
            let known = newest.entry(id).or_insert(last);
            *known = last.max(*known);
        }
    }
    snapshot.finish().await?;
    Ok(newest)
}
