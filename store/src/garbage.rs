//! What nothing refers to any more, and what refers to nothing: links of traces that are gone, files without links,
//! pieces that are nobody's bytes, and what people said of traces and observations that are gone.
//!
//! All of it must be older than a time, for a trace may come after its files, and an upload takes a while. Tables
//! are gone through once, a few of their pages at a time, and what is locked is left for the next round.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use crate::background::Pulse;
use crate::pace::in_batches;
use crate::{Store, StoreError};

/// Pages of a table that one statement looks at.
const PAGES: i64 = 64;
const REST_MAX: Duration = Duration::from_secs(1);

/// Whether what a row `g` is about is there.
const OBJECT: &str = "case g.object_type
            when 'TRACE' then exists (select from traces t
                where t.project_id = g.project_id and t.id = g.object_id)
            when 'OBSERVATION' then exists (select from observations o
                where o.project_id = g.project_id and o.id = g.object_id)
            when 'PROMPT' then exists (select from prompts p
                where p.project_id = g.project_id and p.id = g.object_id)
            else true end";

/// Tables, and which of their rows `g` are garbage.
fn steps() -> [(&'static str, String); 5] {
    [
        (
            "media_links",
            "g.created_at < $1 and g.owner_kind <> 'item' and not exists (
                select from traces t where t.project_id = g.project_id and t.id = g.owner_id)"
                .to_owned(),
        ),
        (
            "media",
            "g.updated_at < $1 and not exists (
                select from media_links l where l.project_id = g.project_id and l.media_id = g.id)"
                .to_owned(),
        ),
        (
            "media_chunks",
            "g.created_at < $1 and not exists (
                select from media m where m.project_id = g.project_id and m.upload_id = g.upload_id)"
                .to_owned(),
        ),
        ("comments", format!("g.created_at < $1 and not {OBJECT}")),
        (
            "annotation_queue_items",
            format!("g.updated_at < $1 and not {OBJECT}"),
        ),
    ]
}

/// Deletes garbage from before that time. A table that fails doesn't hold up the others.
pub(crate) async fn collect(
    store: &Store,
    before: DateTime<Utc>,
    pulse: &Pulse,
) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    for (table, is_garbage) in steps() {
        let swept = sweep(store, (table, &is_garbage), before, pulse).await;
        outcome = outcome.and(swept);
    }
    outcome
}

async fn sweep(
    store: &Store,
    (table, is_garbage): (&str, &str),
    before: DateTime<Utc>,
    pulse: &Pulse,
) -> Result<(), StoreError> {
    let pages: i64 = sqlx::query_scalar(
        "select pg_relation_size(to_regclass($1)) / current_setting('block_size')::bigint",
    )
    .bind(table)
    .fetch_one(store.background())
    .await?;
    let delete = format!(
        "delete from {table} where ctid = any(array(
            select g.ctid from {table} g
             where g.ctid >= $2::text::tid and g.ctid < $3::text::tid and {is_garbage}
             limit $4 for update of g skip locked))"
    );
    let delete = delete.as_str();
    for first in (0..pages).step_by(usize::try_from(PAGES).unwrap_or(1)) {
        let (began, from) = (Instant::now(), &format!("({first},0)"));
        let to = &format!("({},0)", first + PAGES);
        in_batches(pulse, |rows| async move {
            let deleted = sqlx::query(AssertSqlSafe(delete))
                .bind(before)
                .bind(from)
                .bind(to)
                .bind(rows)
                .execute(store.background())
                .await?;
            Ok(deleted.rows_affected())
        })
        .await?;
        tokio::time::sleep(began.elapsed().min(REST_MAX)).await;
    }
    Ok(())
}
