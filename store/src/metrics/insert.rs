//! Writes the points of a transaction: as blocks, with their series and exemplars.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use xtrace_model::metric::{Exemplar, PointValue, SeriesId};
use xtrace_model::{Batch, MetricPoint, ProjectId, time};

use super::blocks::{self, micros};
use super::sealed::{FORMAT, checksum};
use super::series::{self, SeriesCache};
use crate::StoreError;

/// Writes what batches hold of metrics; returns the series to remember once the transaction is committed.
pub(crate) async fn write(
    connection: &mut PgConnection,
    cache: &SeriesCache,
    batches: &[&Batch],
    now: DateTime<Utc>,
) -> Result<Vec<(ProjectId, SeriesId)>, StoreError> {
    series::check_left_out(connection, cache, batches).await?;
    let new_series = series::write(connection, batches, now).await?;
    let points = batches
        .iter()
        .map(|batch| (&batch.project, batch.points.as_slice()));
    BlockRows::of(points).insert(connection, now).await?;
    let exemplars = batches
        .iter()
        .flat_map(|batch| of_project(&batch.project, &batch.exemplars));
    ExemplarRows::of(exemplars).insert(connection).await?;
    Ok(new_series)
}

fn of_project<'a, T>(
    project: &'a ProjectId,
    items: &'a [T],
) -> impl Iterator<Item = (&'a ProjectId, &'a T)> {
    items.iter().map(move |item| (project, item))
}

/// Columns of blocks.
#[derive(Default)]
struct BlockRows<'a> {
    projects: Vec<&'a str>,
    shards: Vec<i16>,
    firsts: Vec<DateTime<Utc>>,
    lasts: Vec<DateTime<Utc>>,
    counts: Vec<i32>,
    checksums: Vec<i64>,
    data: Vec<Vec<u8>>,
}

impl<'a> BlockRows<'a> {
    fn of(points: impl Iterator<Item = (&'a ProjectId, &'a [MetricPoint])>) -> Self {
        let mut rows = Self::default();
        for (project, blocks) in blocks::of(points) {
            for block in blocks {
                rows.projects.push(project.as_str());
                rows.shards.push(block.shard);
                rows.firsts.push(time::to_utc(block.first));
                rows.lasts.push(time::to_utc(block.last));
                rows.counts
                    .push(i32::try_from(block.points).unwrap_or(i32::MAX));
                rows.checksums.push(checksum(&block.data));
                rows.data.push(block.data);
            }
        }
        rows
    }

    async fn insert(
        self,
        connection: &mut PgConnection,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        if self.projects.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into metric_blocks (project_id, shard, first_at, last_at, points, data, checksum, stored_at, format)
             select *, $8, $9 from unnest($1::text[], $2::smallint[], $3::timestamptz[], $4::timestamptz[],
                                          $5::int[], $6::bytea[], $7::bigint[])",
        )
        .bind(self.projects)
        .bind(self.shards)
        .bind(self.firsts)
        .bind(self.lasts)
        .bind(self.counts)
        .bind(self.data)
        .bind(self.checksums)
        .bind(now)
        .bind(FORMAT)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Columns of exemplars.
#[derive(Default)]
struct ExemplarRows<'a> {
    projects: Vec<&'a str>,
    series: Vec<SeriesId>,
    times: Vec<DateTime<Utc>>,
    ids: Vec<i64>,
    traces: Vec<Option<&'a str>>,
    data: Vec<String>,
}

impl<'a> ExemplarRows<'a> {
    fn of(exemplars: impl Iterator<Item = (&'a ProjectId, &'a Exemplar)>) -> Self {
        let mut rows = Self::default();
        for (project, exemplar) in exemplars {
            let text = super::exemplars::to_json(exemplar);
            rows.projects.push(project.as_str());
            rows.series.push(exemplar.series);
            rows.times.push(time::to_utc(micros(exemplar.point_time)));
            rows.ids
                .push(xxhash_rust::xxh3::xxh3_64(text.as_bytes()).cast_signed());
            rows.traces.push(exemplar.trace_id.as_deref());
            rows.data.push(text);
        }
        rows
    }

    async fn insert(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.projects.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into metric_exemplars (project_id, series_id, ts, id, trace_id, data)
             select * from unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::bigint[], $5::text[],
                                  $6::text[])
             on conflict do nothing",
        )
        .bind(self.projects)
        .bind(self.series)
        .bind(self.times)
        .bind(self.ids)
        .bind(self.traces)
        .bind(self.data)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Writes points of another form as blocks.
pub(super) async fn old_points(
    connection: &mut PgConnection,
    rows: Vec<(String, SeriesId, DateTime<Utc>, f64)>,
) -> Result<(), StoreError> {
    let points: Vec<(ProjectId, MetricPoint)> = rows
        .into_iter()
        .filter_map(|(project, series, at, value)| {
            let point = MetricPoint {
                series,
                time: time::from_utc(at).saturating_mul(1000),
                start: 0,
                flags: 0,
                value: PointValue::Double(value),
            };
            Some((ProjectId::parse(project).ok()?, point))
        })
        .collect();
    let points = points.iter();
    let points = points.map(|(project, point)| (project, std::slice::from_ref(point)));
    let rows = BlockRows::of(points);
    rows.insert(connection, Utc::now()).await
}
