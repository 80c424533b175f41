//! The rows that a move takes away and writes.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use xtrace_model::metric::SeriesId;
use xtrace_model::{Micros, time};

use super::targets::Stored;
use crate::StoreError;
use crate::metrics::chunks::{self, Chunk};
use crate::metrics::sealed::{FORMAT, Sealed, checksum};
use crate::partitions::{self, Partitioned};

pub(super) type Time = DateTime<Utc>;

/// Points of the blocks that are moved at once, and their bytes; the first block may have more.
const BLOCK_POINTS_MAX: i64 = 200_000;
const BLOCK_BYTES_MAX: i64 = 4 << 20;

/// A block that is moved.
#[derive(sqlx::FromRow)]
pub(super) struct BlockRow {
    pub(super) id: i64,
    pub(super) first_at: Time,
    pub(super) last_at: Time,
    pub(super) points: i32,
    #[sqlx(flatten)]
    pub(super) sealed: Sealed,
}

/// The oldest blocks of a shard, up to the first one of a later program. Their rows are locked, so that no
/// one takes them away meanwhile.
pub(super) async fn blocks(
    connection: &mut PgConnection,
    project: &str,
    shard: i16,
) -> Result<BTreeMap<i64, BlockRow>, StoreError> {
    let rows: Vec<BlockRow> = sqlx::query_as(
        "select id, first_at, last_at, points, format, checksum, data from metric_blocks
          where project_id = $1 and shard = $2 and id = any(array(
            select id from (select id, sum(points) over older - points as points_before,
                                   sum(octet_length(data)) over older - octet_length(data) as bytes_before,
                                   max(format) over older as newest
                              from metric_blocks where project_id = $1 and shard = $2
                            window older as (order by id)) b
             where points_before < $3 and bytes_before < $4 and newest <= $5))
            for update",
    )
    .bind(project)
    .bind(shard)
    .bind(BLOCK_POINTS_MAX)
    .bind(BLOCK_BYTES_MAX)
    .bind(FORMAT)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// Locks the blocks again; whether all of them are still there.
pub(super) async fn are_there(
    connection: &mut PgConnection,
    project: &str,
    shard: i16,
    ids: &[i64],
) -> Result<bool, StoreError> {
    let found: Vec<i64> = sqlx::query_scalar(
        "select id from metric_blocks where project_id = $1 and shard = $2 and id = any($3) for update",
    )
    .bind(project)
    .bind(shard)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(found.len() == ids.len())
}

pub(super) async fn delete_blocks(
    connection: &mut PgConnection,
    project: &str,
    shard: i16,
    ids: &[i64],
) -> Result<(), StoreError> {
    sqlx::query("delete from metric_blocks where project_id = $1 and shard = $2 and id = any($3)")
        .bind(project)
        .bind(shard)
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// A series on a day, in order of days: neighbours lie in one partition.
pub(super) type Key = (i64, SeriesId);

#[derive(sqlx::FromRow)]
struct StoredRow {
    series_id: SeriesId,
    first_at: Time,
    last_at: Time,
    points: i32,
    format: i16,
    begin: Vec<u8>,
}

/// What is stored of these series and days, without the points, in order of time.
pub(super) async fn stored(
    connection: &mut PgConnection,
    project: &str,
    keys: &[Key],
) -> Result<BTreeMap<Key, Vec<Stored>>, StoreError> {
    let begin = |day: i64| time::to_utc(day.saturating_mul(time::DAY));
    let day = |(day, _): &Key| begin(*day);
    let end = |(day, _): &Key| begin(day.saturating_add(1));
    // By index, in the partition of each day: others may be large.
    let rows: Vec<StoredRow> = sqlx::query_as(
        "select c.* from unnest($2::bigint[], $3::timestamptz[], $4::timestamptz[]) k(series_id, day, day_end)
          cross join lateral (
            select series_id, first_at, last_at, points, format, substring(data from 1 for 4) as begin
              from metric_chunks
             where project_id = $1 and series_id = k.series_id and first_at >= k.day and first_at < k.day_end
               and first_at >= $5 and first_at < $6
             order by first_at offset 0) c",
    )
    .bind(project)
    .bind(keys.iter().map(|(_, series)| *series).collect::<Vec<_>>())
    .bind(keys.iter().map(day).collect::<Vec<_>>())
    .bind(keys.iter().map(end).collect::<Vec<_>>())
    .bind(keys.iter().map(day).min())
    .bind(keys.iter().map(end).max())
    .fetch_all(connection)
    .await?;
    let mut stored: BTreeMap<Key, Vec<Stored>> = BTreeMap::new();
    for row in rows {
        if row.format > FORMAT {
            let fault =
                "a chunk was written by a later version of xtrace, which moves these points";
            return Err(StoreError::Internal(sqlx::Error::Decode(fault.into())));
        }
        let first = time::from_utc(row.first_at);
        let key = (time::day_of(first), row.series_id);
        stored.entry(key).or_default().push(Stored {
            first,
            last: time::from_utc(row.last_at),
            points: usize::try_from(row.points).unwrap_or_default(),
            bytes: chunks::unpacked_bytes(&row.begin),
        });
    }
    Ok(stored)
}

/// A chunk that is written again.
#[derive(sqlx::FromRow)]
pub(super) struct ChunkRow {
    pub(super) series_id: SeriesId,
    pub(super) first_at: Time,
    pub(super) last_at: Time,
    pub(super) points: i32,
    #[sqlx(flatten)]
    pub(super) sealed: Sealed,
}

/// Takes chunks away, by their series and first moments.
pub(super) async fn take_chunks(
    connection: &mut PgConnection,
    project: &str,
    keys: &[(SeriesId, Micros)],
) -> Result<BTreeMap<(SeriesId, Micros), ChunkRow>, StoreError> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let firsts: Vec<Time> = keys.iter().map(|(_, first)| time::to_utc(*first)).collect();
    let rows: Vec<ChunkRow> = sqlx::query_as(
        "delete from metric_chunks c using unnest($2::bigint[], $3::timestamptz[]) k(series_id, first_at)
          where c.project_id = $1 and c.series_id = k.series_id and c.first_at = k.first_at
            and c.first_at between $4 and $5
         returning c.series_id, c.first_at, c.last_at, c.points, c.format, c.checksum, c.data",
    )
    .bind(project)
    .bind(keys.iter().map(|(series, _)| *series).collect::<Vec<_>>())
    .bind(&firsts)
    .bind(firsts.iter().min())
    .bind(firsts.iter().max())
    .fetch_all(connection)
    .await?;
    let key = |row: &ChunkRow| (row.series_id, time::from_utc(row.first_at));
    Ok(rows.into_iter().map(|row| (key(&row), row)).collect())
}

/// Writes chunks, in partitions of their days.
pub(super) async fn write_chunks(
    connection: &mut PgConnection,
    project: &str,
    chunks: Vec<(SeriesId, Chunk)>,
) -> Result<(), StoreError> {
    let (mut ids, mut firsts, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut counts, mut checksums, mut data) = (Vec::new(), Vec::new(), Vec::new());
    let mut days = BTreeSet::new();
    for (id, chunk) in chunks {
        days.insert(time::day_of(chunk.first));
        ids.push(id);
        firsts.push(time::to_utc(chunk.first));
        lasts.push(time::to_utc(chunk.last));
        counts.push(i32::try_from(chunk.points).unwrap_or(i32::MAX));
        checksums.push(checksum(&chunk.data));
        data.push(chunk.data);
    }
    let days = partitions::worthy(days.into_iter(), Utc::now());
    partitions::make(&mut *connection, Partitioned::MetricChunks, &days).await?;
    sqlx::query(
        "insert into metric_chunks (project_id, series_id, first_at, last_at, points, checksum, data, format)
         select $1, *, $8 from unnest($2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::int[], $6::bigint[],
                                      $7::bytea[])",
    )
    .bind(project)
    .bind(ids)
    .bind(firsts)
    .bind(lasts)
    .bind(counts)
    .bind(checksums)
    .bind(data)
    .bind(FORMAT)
    .execute(connection)
    .await?;
    Ok(())
}
