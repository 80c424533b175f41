//! Reads points of series: from chunks and from blocks, in one snapshot.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::PgConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use xtrace_model::metric::SeriesId;
use xtrace_model::{MetricPoint, Micros, ProjectId, time};

use super::blocks::{micros, shard_of};
pub use super::fold::Fold;
use super::fold::{Folding, Row};
use super::sealed::Sealed;
use super::turns::{self, Turn};
use crate::reading::Snapshot;
use crate::{Store, StoreError};

/// Bytes that are evaluated on the thread that serves the request; more go to a thread of their own.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// Questions of all projects that may have such a thread at once.
const ASIDE_MAX: usize = 3;
/// Rows that are handed to it at once, and their bytes: each time wakes it, which takes as long as some rows do.
const HANDED_ROWS_MAX: usize = 32;
const HANDED_BYTES_MAX: usize = 256 << 10;
/// Hands full of rows on their way to it.
const HANDS_AHEAD_MAX: usize = 2;
/// How long a question may take in all.
pub(super) const TIME_MAX: Duration = Duration::from_secs(15);
/// With more series than these, blocks are weighed before they are read.
const SERIES_UNWEIGHED_MAX: usize = 64;
/// Points of blocks that are read at once, and their bytes; the first shard may have more.
const POINTS_TOGETHER_MAX: i64 = 500_000;
const BYTES_TOGETHER_MAX: i64 = 4 << 20;

/// The first and the last moment of a question, both within it.
pub type Range = (DateTime<Utc>, DateTime<Utc>);

#[derive(sqlx::FromRow)]
struct ChunkRow {
    series_id: SeriesId,
    first_at: DateTime<Utc>,
    #[sqlx(flatten)]
    sealed: Sealed,
}

impl From<ChunkRow> for Row {
    fn from(row: ChunkRow) -> Self {
        Self::Chunk {
            series: row.series_id,
            first: time::from_utc(row.first_at),
            sealed: row.sealed,
        }
    }
}

/// Sends the blocks of the shards that series are in.
async fn send_blocks<F: Fold>(
    snapshot: &mut Snapshot,
    worker: &mut Worker<'_, F>,
    project: &ProjectId,
    ids: &[SeriesId],
    range: Range,
) -> Result<(), StoreError> {
    let shards: HashSet<i16> = ids.iter().map(|id| shard_of(*id)).collect();
    let mut rows = sqlx::query_as::<_, Sealed>(
        "select format, checksum, data from metric_blocks
          where project_id = $1 and shard = any($2) and first_at <= $3 and last_at >= $4 order by id",
    )
    .bind(project.as_str())
    .bind(shards.into_iter().collect::<Vec<_>>())
    .bind(range.1)
    .bind(range.0)
    .fetch(snapshot.connection());
    while let Some(sealed) = rows.try_next().await? {
        worker.send(Row::Block(sealed)).await?;
    }
    Ok(())
}

/// Hands over the points of each series in order of time, series by series.
pub async fn points<F: Fold>(
    store: &Store,
    project: &ProjectId,
    series: &[SeriesId],
    range: Range,
    fold: F,
) -> Result<F, StoreError> {
    let deadline = Instant::now() + TIME_MAX;
    let mut snapshot = store.read().snapshot().await?;
    let micros = (time::from_utc(range.0), time::from_utc(range.1));
    let folding = Folding::new(fold, series, micros);
    let mut worker = Worker::new(project, folding, deadline);
    for ids in groups(snapshot.connection(), project, series, range).await? {
        send_blocks(&mut snapshot, &mut worker, project, &ids, range).await?;
        let mut rows = sqlx::query_as::<_, ChunkRow>(
            "select series_id, first_at, format, checksum, data from metric_chunks
              where project_id = $1 and series_id = any($2) and first_at between $3 and $4 and last_at >= $5
              order by series_id, first_at",
        )
        .bind(project.as_str())
        .bind(&ids)
        .bind(day_of(range.0))
        .bind(range.1)
        .bind(range.0)
        .fetch(snapshot.connection());
        while let Some(row) = rows.try_next().await? {
            worker.send(row.into()).await?;
        }
        drop(rows);
        worker.send(Row::End).await?;
    }
    snapshot.finish().await?;
    worker.finish().await
}

/// Chunks that hold a moment begin on its day.
fn day_of(at: DateTime<Utc>) -> DateTime<Utc> {
    time::to_utc(time::day_of(time::from_utc(at)) * time::DAY)
}

/// Series whose blocks are few enough to be held at once, by whole shards.
async fn groups(
    connection: &mut PgConnection,
    project: &ProjectId,
    series: &[SeriesId],
    range: Range,
) -> Result<Vec<Vec<SeriesId>>, StoreError> {
    if series.len() <= SERIES_UNWEIGHED_MAX {
        return Ok(vec![series.to_vec()]);
    }
    let mut by_shard: BTreeMap<i16, Vec<SeriesId>> = BTreeMap::new();
    for id in series {
        by_shard.entry(shard_of(*id)).or_default().push(*id);
    }
    let weights: Vec<(i16, i64, i64)> = sqlx::query_as(
        "select shard, sum(points)::bigint, sum(octet_length(data))::bigint from metric_blocks
          where project_id = $1 and shard = any($2) and first_at <= $3 and last_at >= $4 group by shard",
    )
    .bind(project.as_str())
    .bind(by_shard.keys().copied().collect::<Vec<_>>())
    .bind(range.1)
    .bind(range.0)
    .fetch_all(connection)
    .await?;
    let weights: HashMap<i16, (i64, i64)> = weights
        .into_iter()
        .map(|(shard, points, bytes)| (shard, (points, bytes)))
        .collect();
    let mut groups: Vec<Vec<SeriesId>> = vec![Vec::new()];
    let (mut points, mut bytes) = (0, 0);
    for (shard, ids) in by_shard {
        let (more_points, more_bytes) = weights.get(&shard).copied().unwrap_or_default();
        let is_over =
            points + more_points > POINTS_TOGETHER_MAX || bytes + more_bytes > BYTES_TOGETHER_MAX;
        if is_over && groups.last().is_some_and(|group| !group.is_empty()) {
            groups.push(Vec::new());
            (points, bytes) = (0, 0);
        }
        points += more_points;
        bytes += more_bytes;
        if let Some(group) = groups.last_mut() {
            group.extend(ids);
        }
    }
    Ok(groups)
}

/// Where rows are folded: on the serving thread as long as they are few, then on one of their own.
struct Worker<'a, F> {
    project: &'a ProjectId,
    deadline: Instant,
    bytes: usize,
    place: Place<F>,
}

enum Place<F> {
    Here(Box<Folding<F>>),
    Aside(Aside<F>),
    /// Between the two, and after an end.
    Nowhere,
}

/// A thread that folds, and rows that it will be handed next.
struct Aside<F> {
    hands: mpsc::Sender<Vec<Row>>,
    rows: Vec<Row>,
    bytes: usize,
    folded: JoinHandle<Result<Box<Folding<F>>, StoreError>>,
}

impl<'a, F: Fold> Worker<'a, F> {
    fn new(project: &'a ProjectId, folding: Folding<F>, deadline: Instant) -> Self {
        Self {
            project,
            deadline,
            bytes: 0,
            place: Place::Here(Box::new(folding)),
        }
    }

    async fn send(&mut self, row: Row) -> Result<(), StoreError> {
        if Instant::now() > self.deadline {
            return Err(StoreError::Timeout);
        }
        self.bytes += row.weight();
        if let Place::Here(folding) = &mut self.place {
            if self.bytes <= INLINE_BYTES_MAX {
                return folding.take(&row);
            }
            let permits = permits(self.project, self.deadline).await?;
            if let Place::Here(folding) = std::mem::replace(&mut self.place, Place::Nowhere) {
                self.place = Place::Aside(Aside::new(folding, permits, self.deadline));
            }
        }
        if let Place::Aside(aside) = &mut self.place
            && aside.send(row).await
        {
            return Ok(());
        }
        // It has ended before all rows were there, and says why.
        let ended = std::mem::replace(&mut self.place, Place::Nowhere);
        ended.folded().await.and(Err(StoreError::Timeout))
    }

    async fn finish(self) -> Result<F, StoreError> {
        Ok(self.place.folded().await?.finish())
    }
}

impl<F: Fold> Place<F> {
    async fn folded(self) -> Result<Box<Folding<F>>, StoreError> {
        match self {
            Self::Here(folding) => Ok(folding),
            Self::Aside(mut aside) => {
                // Whether it has ended already, it says itself.
                aside.hand_over().await;
                drop(aside.hands);
                let folded = aside.folded.await;
                folded.map_err(|_| StoreError::Unavailable(Some(sqlx::Error::WorkerCrashed)))?
            }
            Self::Nowhere => Err(StoreError::Timeout),
        }
    }
}

impl<F: Fold> Aside<F> {
    fn new(
        mut folding: Box<Folding<F>>,
        permits: [OwnedSemaphorePermit; 2],
        deadline: Instant,
    ) -> Self {
        let (hands, mut coming) = mpsc::channel::<Vec<Row>>(HANDS_AHEAD_MAX);
        let folded = tokio::task::spawn_blocking(move || {
            while let Some(rows) = coming.blocking_recv() {
                for row in rows {
                    if Instant::now() > deadline {
                        return Err(StoreError::Timeout);
                    }
                    folding.take(&row)?;
                }
            }
            drop(permits);
            Ok(folding)
        });
        Self {
            hands,
            rows: Vec::new(),
            bytes: 0,
            folded,
        }
    }

    /// Whether it still takes rows.
    async fn send(&mut self, row: Row) -> bool {
        self.bytes += row.weight();
        self.rows.push(row);
        if self.rows.len() < HANDED_ROWS_MAX && self.bytes < HANDED_BYTES_MAX {
            return true;
        }
        self.hand_over().await
    }

    async fn hand_over(&mut self) -> bool {
        self.bytes = 0;
        self.hands
            .send(std::mem::take(&mut self.rows))
            .await
            .is_ok()
    }
}

/// Waits for a thread, of all and of those that the project may have.
async fn permits(
    project: &ProjectId,
    deadline: Instant,
) -> Result<[OwnedSemaphorePermit; 2], StoreError> {
    static ALL: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(ASIDE_MAX)));
    let own = turns::wait(project, Turn::Thread, deadline).await?;
    let all = Arc::clone(&ALL).acquire_owned();
    let all = tokio::time::timeout_at(deadline.into(), all).await;
    // They are never closed.
    let all = all
        .map_err(|_| StoreError::Timeout)?
        .map_err(|_| StoreError::Timeout)?;
    Ok([own, all])
}

/// When each series was measured last, as far as that is within the range.
pub(super) async fn newest(
    store: &Store,
    project: &ProjectId,
    series: &[SeriesId],
    range: Range,
) -> Result<HashMap<SeriesId, DateTime<Utc>>, StoreError> {
    let deadline = Instant::now() + TIME_MAX;
    let mut snapshot = store.read().snapshot().await?;
    // Chunks that end within the range say it themselves.
    let rows: Vec<(SeriesId, DateTime<Utc>)> = sqlx::query_as(
        "select series_id, max(last_at) from metric_chunks
          where project_id = $1 and series_id = any($2) and first_at between $3 and $4
            and last_at between $5 and $4
          group by series_id",
    )
    .bind(project.as_str())
    .bind(series)
    .bind(day_of(range.0))
    .bind(range.1)
    .bind(range.0)
    .fetch_all(snapshot.connection())
    .await?;
    let known = rows
        .into_iter()
        .map(|(id, last)| (id, time::from_utc(last)))
        .collect();
    let micros = (time::from_utc(range.0), time::from_utc(range.1));
    let folding = Folding::new(Newest { known }, series, micros);
    let mut worker = Worker::new(project, folding, deadline);
    for ids in groups(snapshot.connection(), project, series, range).await? {
        send_blocks(&mut snapshot, &mut worker, project, &ids, range).await?;
        // Those that reach beyond its end may have no point in it.
        let mut rows = sqlx::query_as::<_, ChunkRow>(
            "select series_id, first_at, format, checksum, data from metric_chunks
              where project_id = $1 and series_id = any($2) and first_at between $3 and $4 and last_at > $4
              order by series_id, first_at",
        )
        .bind(project.as_str())
        .bind(&ids)
        .bind(day_of(range.0))
        .bind(range.1)
        .fetch(snapshot.connection());
        while let Some(row) = rows.try_next().await? {
            worker.send(row.into()).await?;
        }
        drop(rows);
        worker.send(Row::End).await?;
    }
    snapshot.finish().await?;
    let newest = worker.finish().await?.known.into_iter();
    Ok(newest.map(|(id, last)| (id, time::to_utc(last))).collect())
}

struct Newest {
    known: HashMap<SeriesId, Micros>,
}

impl Fold for Newest {
    fn add(&mut self, series: SeriesId, points: &[MetricPoint]) -> Result<(), StoreError> {
        if let Some(last) = points.last() {
            let last = micros(last.time);
            let known = self.known.entry(series).or_insert(last);
            *known = last.max(*known);
        }
        Ok(())
    }
}
