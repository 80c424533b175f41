//! Metrics: a dictionary of series, points in blocks and chunks, and answers about them.
//!
//! - Write: `series` (who may join), `insert` → `blocks`. `compact`: from `blocks` into `chunks` of one series,
//!   both written by `codec` over `bytes`. `exemplars`: links from points to traces.
//! - Read: [`series::select`] finds series, [`read::points`] their points: any dialect begins with these two.
//! - Answer: [`query`] makes buckets of time, with `evaluate`, `growth` and `spread`; [`derived`] computes
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
pub mod series;
mod spread;

pub use evaluate::Labels;
pub use query::{
    Aggregation, Answer, AnswerExemplar, AnswerSeries, BUCKETS_MAX, MetricsQuery, SERIES_MAX, query,
};
pub use series::{KnownSeries, SeriesLimits, admit};

use chrono::{DateTime, Utc};

use crate::{Store, StoreError};

/// Forgets what was not moved into chunks before that time, and series without any point since.
pub(crate) async fn forget(store: &Store, before: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query("delete from metric_blocks where last_at < $1 and project_id is not null")
        .bind(before)
        .execute(store.background())
        .await?;
    sqlx::query(
        "delete from metric_series s where s.seen < $1::date
            and not exists (select from metric_blocks b where b.project_id = s.project_id
                               and b.shard = ((s.series_id % 64) + 64) % 64)
            and not exists (select from metric_chunks c
                             where c.project_id = s.project_id and c.series_id = s.series_id)",
    )
    .bind(before)
    .execute(store.background())
    .await?;
    Ok(())
}
