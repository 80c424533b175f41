//! Blocks and chunks that can't be read: their bytes are kept where nothing reads or writes them.

use chrono::{DateTime, Utc};
use metrics::{counter, gauge};
use sqlx::PgConnection;
use xtrace_model::metric::SeriesId;

use super::sealed::Sealed;
use crate::{Store, StoreError};

/// A row that can't be read.
#[derive(Debug, Clone)]
pub(super) struct Damaged {
    pub(super) shard: i16,
    /// Of a chunk.
    pub(super) series: Option<SeriesId>,
    pub(super) first: DateTime<Utc>,
    pub(super) last: DateTime<Utc>,
    pub(super) points: i32,
    pub(super) sealed: Sealed,
}

/// Keeps rows that are taken away in the same transaction.
pub(super) async fn keep(
    connection: &mut PgConnection,
    project: &str,
    rows: &[Damaged],
) -> Result<(), StoreError> {
    for row in rows {
        sqlx::query(
            "insert into metric_set_aside (project_id, shard, series_id, first_at, last_at, points, format, checksum,
                    data, set_aside_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(project)
        .bind(row.shard)
        .bind(row.series)
        .bind(row.first)
        .bind(row.last)
        .bind(row.points)
        .bind(row.sealed.format)
        .bind(row.sealed.checksum)
        .bind(&row.sealed.data)
        .bind(Utc::now())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Says so, once the transaction is committed.
pub(super) fn report(project: &str, rows: &[Damaged]) {
    for row in rows {
        let kind = if row.series.is_some() {
            "chunk"
        } else {
            "block"
        };
        counter!("xtrace_metric_rows_damaged_total", "kind" => kind).increment(1);
        tracing::error!(
            project, kind, shard = row.shard, series = row.series, first = %row.first, last = %row.last,
            points = row.points, "points can't be read; their bytes are kept in metric_set_aside"
        );
    }
}

/// Shows how many rows there are.
pub(super) async fn count(store: &Store) -> Result<(), StoreError> {
    let rows: i64 = sqlx::query_scalar("select count(*) from metric_set_aside")
        .fetch_one(store.background())
        .await?;
    gauge!("xtrace_metric_rows_set_aside").set(rows as f64);
    Ok(())
}
