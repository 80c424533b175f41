//! Moves points from blocks into chunks, a shard at a time, while others read and write.
//!
//! One transaction takes blocks away and writes the chunks that hold their points, so every reader's snapshot
//! has each point once, and a crash leaves either what was or what is. Points that come late go into the chunk
//! of their time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use metrics::{counter, gauge};
use sqlx::PgConnection;
use xtrace_model::metric::SeriesId;
use xtrace_model::{MetricPoint, time};

use super::blocks::{self, micros};
use super::chunks;
use crate::partitions::{self, Partitioned};
use crate::{Store, StoreError};

const INTERVAL: Duration = Duration::from_secs(5);
/// Blocks of a shard are moved when they are so many bytes: whoever reads one series reads them all.
const BYTES_MIN: i64 = 512 << 10;
/// Fewer bytes are moved when they are so old: chunks are smaller, and quicker to read.
const AGE_MIN: TimeDelta = TimeDelta::minutes(10);
/// Points that one transaction moves.
const POINTS_MAX: i64 = 200_000;
/// An older program that still runs may write rows: they are looked for in one round of so many.
const ROUNDS_OF_OLD_ROWS: u64 = 60;
/// Names the lock that one process at a time moves points under.
const LOCK: i64 = 0x7874_7261_6365_0003;

/// Moves points until the task is dropped.
pub async fn run(store: Store) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0_u64.. {
        interval.tick().await;
        let moved = if round % ROUNDS_OF_OLD_ROWS == 0 {
            once(&store, BYTES_MIN).await
        } else {
            move_shards(&store, BYTES_MIN).await
        };
        if let Err(error) = moved {
            tracing::debug!(%error, cause = error.for_log(), "points are moved into chunks a little later");
        }
    }
}

/// Moves what an older program wrote, and the blocks of every shard that holds so many bytes, or old ones.
pub async fn once(store: &Store, bytes_min: i64) -> Result<(), StoreError> {
    move_rows(store).await?;
    move_shards(store, bytes_min).await
}

async fn move_shards(store: &Store, bytes_min: i64) -> Result<(), StoreError> {
    let shards: Vec<(String, i16, i64)> = sqlx::query_as(
        "select project_id, shard, sum(octet_length(data))::bigint from metric_blocks group by 1, 2
         having sum(octet_length(data)) >= $1 or min(stored_at) < $2 order by 3 desc",
    )
    .bind(bytes_min)
    .bind(Utc::now() - AGE_MIN)
    .fetch_all(store.background())
    .await?;
    gauge!("xtrace_metric_shards_due").set(shards.len() as f64);
    for (project, shard, _) in shards {
        while move_blocks(store, &project, shard).await? == Moved::Some {}
    }
    Ok(())
}

#[derive(PartialEq)]
enum Moved {
    /// There may be more.
    Some,
    /// Nothing is left.
    Nothing,
}

type Time = DateTime<Utc>;

async fn move_blocks(store: &Store, project: &str, shard: i16) -> Result<Moved, StoreError> {
    // A connection for each: others who work in the background come in between.
    let mut transaction = store.background().begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    let blocks: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "delete from metric_blocks where project_id = $1 and shard = $2 and id = any(array(
            select id from (select id, sum(points) over (order by id) - points as before from metric_blocks
                             where project_id = $1 and shard = $2) b
             where before < $3))
         returning id, data",
    )
    .bind(project)
    .bind(shard)
    .bind(POINTS_MAX)
    .fetch_all(&mut *transaction)
    .await?;
    if blocks.is_empty() {
        return Ok(Moved::Nothing);
    }
    let blocks: BTreeMap<i64, Vec<u8>> = blocks.into_iter().collect();
    let mut series: BTreeMap<SeriesId, Vec<MetricPoint>> = BTreeMap::new();
    for data in blocks.values() {
        blocks::read(data, None, |id, points| {
            series.entry(id).or_default().extend(points);
        });
    }
    drop(blocks);
    add_stored(&mut transaction, project, &mut series).await?;
    let moved: usize = series.values().map(Vec::len).sum();
    write(&mut transaction, project, series).await?;
    transaction.commit().await?;
    counter!("xtrace_moved_points_total").increment(moved as u64);
    Ok(Moved::Some)
}

/// Takes chunks away that points belong to, and puts what was in them before the points.
async fn add_stored(
    connection: &mut PgConnection,
    project: &str,
    series: &mut BTreeMap<SeriesId, Vec<MetricPoint>>,
) -> Result<(), StoreError> {
    let (mut ids, mut days, mut firsts, mut lasts) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, points) in series.iter() {
        let times = || points.iter().map(|point| micros(point.time));
        let (first, last) = (
            times().min().unwrap_or_default(),
            times().max().unwrap_or_default(),
        );
        ids.push(*id);
        days.push(time::to_utc(time::day_of(first) * time::DAY));
        firsts.push(time::to_utc(first));
        lasts.push(time::to_utc(last));
    }
    let extent: (Option<&Time>, Option<&Time>) = (days.iter().min(), lasts.iter().max());
    let stored: Vec<(SeriesId, Time, i32, Vec<u8>)> = sqlx::query_as(
        "delete from metric_chunks c
          using unnest($2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[])
                u(series_id, day, first_at, last_at)
          where c.project_id = $1 and c.series_id = u.series_id
            and c.first_at between u.day and u.last_at and (c.last_at >= u.first_at or c.points < $8)
            and c.first_at between $6 and $7
         returning c.series_id, c.first_at, c.points, c.data",
    )
    .bind(project)
    .bind(&ids)
    .bind(&days)
    .bind(&firsts)
    .bind(&lasts)
    .bind(extent.0)
    .bind(extent.1)
    .bind(chunks::POINTS_MIN)
    .fetch_all(connection)
    .await?;
    for (id, _, _, data) in stored {
        let points = series.entry(id).or_default();
        // What is stored came before; that of two chunks never has one time.
        points.splice(0..0, chunks::read(id, &data));
    }
    Ok(())
}

async fn write(
    connection: &mut PgConnection,
    project: &str,
    series: BTreeMap<SeriesId, Vec<MetricPoint>>,
) -> Result<(), StoreError> {
    let (mut ids, mut firsts, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut counts, mut data) = (Vec::new(), Vec::new());
    let mut days = BTreeSet::new();
    for (id, mut points) in series {
        chunks::latest(&mut points);
        for chunk in chunks::of(&points) {
            days.insert(time::day_of(chunk.first));
            ids.push(id);
            firsts.push(time::to_utc(chunk.first));
            lasts.push(time::to_utc(chunk.last));
            counts.push(i32::try_from(chunk.points).unwrap_or(i32::MAX));
            data.push(chunk.data);
        }
    }
    let days = partitions::worthy(days.into_iter(), Utc::now());
    partitions::make(&mut *connection, Partitioned::MetricChunks, &days).await?;
    sqlx::query(
        "insert into metric_chunks (project_id, series_id, first_at, last_at, points, data)
         select $1, * from unnest($2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::int[], $6::bytea[])",
    )
    .bind(project)
    .bind(ids)
    .bind(firsts)
    .bind(lasts)
    .bind(counts)
    .bind(data)
    .execute(connection)
    .await?;
    Ok(())
}

/// Rows of single points, which programs before this one wrote, become blocks.
async fn move_rows(store: &Store) -> Result<(), StoreError> {
    const ROWS_MAX: i64 = 50_000;
    loop {
        let mut transaction = store.background().begin().await?;
        let rows: Vec<(String, SeriesId, Time, f64)> = sqlx::query_as(
            "delete from metric_points p using (select tableoid, ctid from metric_points limit $1) k
              where p.tableoid = k.tableoid and p.ctid = k.ctid
             returning p.project_id, p.series_id, p.ts, p.value",
        )
        .bind(ROWS_MAX)
        .fetch_all(&mut *transaction)
        .await?;
        if rows.is_empty() {
            return Ok(());
        }
        super::insert::old_points(&mut transaction, rows).await?;
        transaction.commit().await?;
    }
}
