//! Metrics: a dictionary of series, points in blocks and chunks, and answers about them.
//!
//! - Write: `series` (who may join), `insert` → `blocks`. `compact`: from `blocks` into `chunks` of one series,
//!   both written by `codec` over `bytes`. `exemplars`: links from points to traces.
//! - Read: [`series::select`] finds series, [`read::points`] their points: any dialect begins with these two.
//! - Answer: [`query()`] makes buckets of time, with `evaluate`, `growth` and `spread`; [`derived`] computes
//!   series from observations.

mod blocks;
mod bytes;
mod chunks;
mod codec;
pub mod compact;
pub mod derived;
mod evaluate;
pub mod exemplars;
mod growth;
pub(crate) mod insert;
pub mod query;
pub mod read;
mod sealed;
pub mod series;
mod set_aside;
mod spread;

pub use evaluate::Labels;
pub use query::{
    Aggregation, Answer, AnswerExemplar, AnswerSeries, BUCKETS_MAX, MetricsQuery, SERIES_MAX, query,
};
pub use series::{KnownSeries, SeriesLimits, admit};

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use self::blocks::SHARDS;
use crate::{Store, StoreError};

/// Forgets what a project measured before that time and was not moved into chunks, and series without any
/// point since.
pub(crate) async fn forget(
    store: &Store,
    project: &str,
    before: DateTime<Utc>,
) -> Result<(), StoreError> {
    const BLOCKS: &str = "delete from metric_blocks where project_id = $1 and last_at < $2";
    // A series that shares its shard with points that were not moved may have some of them.
    let series = format!(
        "delete from metric_series s where s.project_id = $1 and s.seen < $2::date
            and not exists (select from metric_blocks b where b.project_id = $1
                               and b.shard = ((s.series_id % {SHARDS}) + {SHARDS}) % {SHARDS})
            and not exists (select from metric_chunks c where c.project_id = $1 and c.series_id = s.series_id)"
    );
    for statement in [BLOCKS, &series] {
        sqlx::query(AssertSqlSafe(statement))
            .bind(project)
            .bind(before)
            .execute(store.background())
            .await?;
    }
    Ok(())
}
