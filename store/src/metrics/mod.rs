//! Metrics: a dictionary of series, points in blocks and chunks, and answers about them.
//!
//! - Write: `series` (who may join), `insert` → `blocks`. `compact`: from `blocks` into `chunks` of one series,
//!   both written by `codec` over `bytes`. `exemplars`: links from points to traces.
//! - Read: [`series::select`] finds series, [`read::points`] their points, which `fold` puts in order: any dialect
//!   begins with these two.
//! - Answer: [`query()`] makes buckets of time, with `evaluate`, `growth`, `spread` and `powers`; [`derived`] computes
//!   series from observations.

mod blocks;
mod bytes;
mod chunks;
mod codec;
pub mod compact;
pub mod derived;
mod evaluate;
pub mod exemplars;
mod fold;
mod growth;
pub(crate) mod insert;
mod powers;
pub mod query;
pub mod read;
mod sealed;
pub mod series;
mod set_aside;
mod spread;
mod turns;

pub use evaluate::Labels;
pub use query::{
    Aggregation, Answer, AnswerExemplar, AnswerSeries, BUCKETS_MAX, MetricsQuery, SERIES_MAX, query,
};
pub use series::{KnownSeries, SeriesKey, SeriesLimits, admit};

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use xtrace_model::metric::SeriesId;

use self::blocks::SHARDS;
use crate::background::Pulse;
use crate::pace::in_batches;
use crate::{Store, StoreError};

/// Series that are looked at together when they may have ended.
const ENDED_MAX: i64 = 1000;

/// Forgets what a project measured before that time and was not moved into chunks, and series without any
/// point since.
pub(crate) async fn forget(
    store: &Store,
    project: &str,
    before: DateTime<Utc>,
    pulse: &Pulse,
) -> Result<(), StoreError> {
    // A block that is being moved is left: its points go with their chunk.
    const BLOCKS: &str = "delete from metric_blocks where project_id = $1 and ctid = any(array(
            select ctid from metric_blocks where project_id = $1 and last_at < $2
             limit $3 for update skip locked))";
    const SET_ASIDE: &str =
        "delete from metric_set_aside where project_id = $1 and ctid = any(array(
            select ctid from metric_set_aside where project_id = $1 and last_at < $2
             limit $3 for update skip locked))";
    for statement in [BLOCKS, SET_ASIDE] {
        in_batches(pulse, |rows| async move {
            let deleted = sqlx::query(statement)
                .bind(project)
                .bind(before)
                .bind(rows)
                .execute(store.background())
                .await?;
            Ok(deleted.rows_affected())
        })
        .await?;
    }
    forget_series(store, project, before).await
}

/// A series that was silent since then has ended unless it has points of a later time. A block that was stored
/// since holds none of it; an older one may, of the series of its shard.
async fn forget_series(
    store: &Store,
    project: &str,
    before: DateTime<Utc>,
) -> Result<(), StoreError> {
    let sql = format!(
        "select s.series_id,
                (select 1 from metric_blocks b
                  where b.project_id = $1 and b.shard = ((s.series_id % {SHARDS}) + {SHARDS}) % {SHARDS}
                    and b.stored_at < $2 limit 1) is null
            and (select 1 from metric_chunks c
                  where c.project_id = $1 and c.series_id = s.series_id limit 1) is null
           from (select series_id from metric_series
                  where project_id = $1 and seen < $2::date and series_id > $3 order by series_id limit $4) s
          order by 1"
    );
    let mut after = SeriesId::MIN;
    loop {
        let silent: Vec<(SeriesId, bool)> = sqlx::query_as(AssertSqlSafe(sql.as_str()))
            .bind(project)
            .bind(before)
            .bind(after)
            .bind(ENDED_MAX)
            .fetch_all(store.background())
            .await?;
        let Some((last, _)) = silent.last().copied() else {
            return Ok(());
        };
        let ended = silent.iter().filter(|(_, has_ended)| *has_ended);
        sqlx::query(
            "delete from metric_series where project_id = $1 and series_id = any($2) and seen < $3::date",
        )
        .bind(project)
        .bind(ended.map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(before)
        .execute(store.background())
        .await?;
        after = last;
    }
}
