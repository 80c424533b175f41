//! Moves the oldest blocks of one shard, in transactions that are bounded by what they read and write.
//!
//! Blocks are taken away by the transaction that moves the last of their points. Until then points may lie in
//! a block and in a chunk as well; they are the same, and a reader keeps one.

use std::collections::BTreeMap;
use std::mem;

use metrics::counter;
use sqlx::{PgConnection, PgTransaction};
use xtrace_model::metric::SeriesId;
use xtrace_model::{MetricPoint, Micros, time};

use super::LOCK;
use super::rows::{self, BlockRow, ChunkRow, Key};
use super::targets::{Target, targets};
use crate::metrics::blocks::{self, micros};
use crate::metrics::chunks::{self, Chunk};
use crate::metrics::set_aside::{self, Damaged};
use crate::{Store, StoreError};

/// Stored points that one transaction writes again, and their bytes when they are unpacked; the first chunks
/// may have more.
const STORED_POINTS_MAX: usize = 200_000;
const STORED_BYTES_MAX: usize = 4 << 20;
/// Series and days that are looked up at once.
const KEYS_MAX: usize = 256;

#[derive(PartialEq)]
pub(super) enum Moved {
    /// There may be more.
    Some,
    /// Nothing is left.
    Nothing,
}

/// What is in the blocks and was not moved yet.
struct Fresh {
    blocks: Vec<i64>,
    damaged: Vec<Damaged>,
    points: BTreeMap<Key, Vec<MetricPoint>>,
}

/// Moves the oldest blocks of a shard.
pub(super) async fn move_blocks(
    store: &Store,
    project: &str,
    shard: i16,
) -> Result<Moved, StoreError> {
    let mut transaction = begin(store).await?;
    let taken = rows::blocks(&mut transaction, project, shard).await?;
    if taken.is_empty() {
        return Ok(Moved::Nothing);
    }
    let mut fresh = aside(move || unpack(shard, taken)).await?;
    loop {
        let mut damaged = move_part(&mut transaction, (project, shard), &mut fresh).await?;
        let is_last = fresh.points.is_empty();
        if is_last {
            damaged.append(&mut fresh.damaged);
            rows::delete_blocks(&mut transaction, project, shard, &fresh.blocks).await?;
        }
        set_aside::keep(&mut transaction, project, &damaged).await?;
        transaction.commit().await?;
        set_aside::report(project, &damaged);
        if is_last {
            return Ok(Moved::Some);
        }
        transaction = begin(store).await?;
        if !rows::are_there(&mut transaction, project, shard, &fresh.blocks).await? {
            // Another process has moved them meanwhile, and maybe later ones, which count more.
            return Ok(Moved::Some);
        }
    }
}

/// A connection for each transaction: others who work in the background come in between.
async fn begin(store: &Store) -> Result<PgTransaction<'static>, StoreError> {
    let mut transaction = store.background().begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

/// Computes on a thread that serves nobody.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| StoreError::Unavailable(Some(sqlx::Error::WorkerCrashed)))
}

fn unpack(shard: i16, taken: BTreeMap<i64, BlockRow>) -> Fresh {
    let mut fresh = Fresh {
        blocks: taken.keys().copied().collect(),
        damaged: Vec::new(),
        points: BTreeMap::new(),
    };
    for block in taken.into_values() {
        let read = blocks::read(&block.sealed, None, |series, points| {
            for point in points {
                let day = time::day_of(micros(point.time));
                fresh.points.entry((day, series)).or_default().push(point);
            }
        });
        if read.is_err() {
            fresh.damaged.push(Damaged {
                shard,
                series: None,
                first: block.first_at,
                last: block.last_at,
                points: block.points,
                sealed: block.sealed,
            });
        }
    }
    fresh.points.values_mut().for_each(chunks::latest);
    fresh
}

/// Moves as many points as one transaction may; answers which stored chunks could not be read.
async fn move_part(
    connection: &mut PgConnection,
    (project, shard): (&str, i16),
    fresh: &mut Fresh,
) -> Result<Vec<Damaged>, StoreError> {
    let (mut points, mut bytes) = (0, 0);
    let mut chosen: Vec<(SeriesId, Target)> = Vec::new();
    let mut is_full = false;
    while !is_full && !fresh.points.is_empty() {
        let keys: Vec<Key> = fresh.points.keys().take(KEYS_MAX).copied().collect();
        let mut stored = rows::stored(connection, project, &keys).await?;
        for key in keys {
            let of_key = fresh.points.remove(&key).unwrap_or_default();
            for target in targets(&stored.remove(&key).unwrap_or_default(), of_key) {
                let fits = points + target.points <= STORED_POINTS_MAX
                    && bytes + target.bytes <= STORED_BYTES_MAX;
                is_full |= !fits && !chosen.is_empty();
                if is_full {
                    let left = fresh.points.entry(key).or_default();
                    left.extend(target.fresh);
                    continue;
                }
                points += target.points;
                bytes += target.bytes;
                chosen.push((key.1, target));
            }
            if is_full {
                break;
            }
        }
    }
    let names = chosen.iter().flat_map(|(series, target)| {
        let chunks = target.chunks.iter();
        chunks.map(|first| (*series, *first))
    });
    let names: Vec<(SeriesId, Micros)> = names.collect();
    let taken = rows::take_chunks(connection, project, &names).await?;
    let written = aside(move || merge(shard, chosen, taken)).await?;
    let Some(Merged { chunks, damaged }) = written else {
        let fault = "points are more than a chunk can hold";
        return Err(StoreError::Internal(sqlx::Error::Encode(fault.into())));
    };
    let moved: usize = chunks.iter().map(|(_, chunk)| chunk.points).sum();
    rows::write_chunks(connection, project, chunks).await?;
    counter!("xtrace_moved_points_total").increment(moved as u64);
    Ok(damaged)
}

struct Merged {
    chunks: Vec<(SeriesId, Chunk)>,
    damaged: Vec<Damaged>,
}

/// Stored points and fresh ones together; `None` if they can't be written.
fn merge(
    shard: i16,
    chosen: Vec<(SeriesId, Target)>,
    mut taken: BTreeMap<(SeriesId, Micros), ChunkRow>,
) -> Option<Merged> {
    let mut merged = Merged {
        chunks: Vec::new(),
        damaged: Vec::new(),
    };
    for (series, mut target) in chosen {
        let mut points = Vec::with_capacity(target.points + target.fresh.len());
        // What is stored came before.
        for first in &target.chunks {
            let Some(row) = taken.remove(&(series, *first)) else {
                continue;
            };
            match chunks::read(series, &row.sealed) {
                Ok(stored) => points.extend(stored),
                Err(_) => merged.damaged.push(Damaged {
                    shard,
                    series: Some(series),
                    first: row.first_at,
                    last: row.last_at,
                    points: row.points,
                    sealed: row.sealed,
                }),
            }
        }
        points.append(&mut target.fresh);
        chunks::latest(&mut points);
        let chunks = chunks::of(&points)?.into_iter();
        merged.chunks.extend(chunks.map(|chunk| (series, chunk)));
        drop(mem::take(&mut points));
    }
    Some(merged)
}
