//! One pass over all tables: deletes what they hold of a project, a few rows at a time.

use std::time::Instant;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::tables::{self, Table};
use crate::StoreError;
use crate::background::Pulse;
use crate::error::{UNDEFINED_TABLE, is_sqlstate};
use crate::pace::Pace;

/// What a pass found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Whether it deleted rows.
    pub(super) some: bool,
    /// Whether it left rows that somebody had locked.
    pub(super) held: bool,
}

/// A project that is being erased, and the connection that this is done over.
pub(super) struct Pass<'a> {
    pub(super) connection: &'a mut PgConnection,
    pub(super) project: &'a str,
    pub(super) pulse: &'a Pulse,
    pub(super) found: Found,
}

impl Pass<'_> {
    /// Goes through all tables once.
    pub(super) async fn run(mut self) -> Result<Found, StoreError> {
        for table in tables::owned(self.connection).await? {
            if table.is_partitioned {
                self.partitions(&table).await?;
            } else {
                self.empty(&table, &table.name).await?;
            }
        }
        Ok(self.found)
    }

    /// Rows move from the default partition to those of their days, some of which may be made meanwhile.
    async fn partitions(&mut self, table: &Table) -> Result<(), StoreError> {
        let before = tables::partitions(self.connection, &table.name).await?;
        if let Some(default) = before.first() {
            self.empty(table, default).await?;
        }
        let all = tables::partitions(self.connection, &table.name).await?;
        for partition in all.iter().skip(1) {
            self.empty(table, partition).await?;
        }
        Ok(())
    }

    /// Deletes what a table, or a partition of it, holds.
    async fn empty(&mut self, table: &Table, part: &str) -> Result<(), StoreError> {
        let outcome = self.try_empty(table, part).await;
        match outcome {
            // Retention dropped it.
            Err(error) if is_sqlstate(&error, &[UNDEFINED_TABLE]) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    async fn try_empty(&mut self, table: &Table, part: &str) -> Result<(), sqlx::Error> {
        let exists = format!("select exists (select from {part} where project_id = $1)");
        let mut pace = Pace::default();
        loop {
            self.pulse.alive();
            let is_left: bool = sqlx::query_scalar(AssertSqlSafe(exists.as_str()))
                .bind(self.project)
                .fetch_one(&mut *self.connection)
                .await?;
            if !is_left {
                return Ok(());
            }
            let began = Instant::now();
            if self.delete_some(table, part, pace.rows()).await? == 0 {
                self.found.held = true;
                return Ok(());
            }
            self.found.some = true;
            pace.rest(began.elapsed()).await;
        }
    }

    /// Deletes some rows and counts them in one transaction, so that the certificate is right whenever the
    /// process ends.
    async fn delete_some(
        &mut self,
        table: &Table,
        part: &str,
        rows: i64,
    ) -> Result<u64, sqlx::Error> {
        let delete = format!(
            "delete from {part} where project_id = $1 and ctid = any(array(
                select ctid from {part} where project_id = $1 limit $2 for update skip locked))"
        );
        let mut transaction = self.connection.begin().await?;
        let deleted = sqlx::query(AssertSqlSafe(delete))
            .bind(self.project)
            .bind(rows)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        count(&mut transaction, self.project, &table.name, deleted).await?;
        transaction.commit().await?;
        Ok(deleted)
    }
}

/// Adds to what the certificate says of a table.
pub(super) async fn count(
    connection: &mut PgConnection,
    project: &str,
    table: &str,
    rows: u64,
) -> Result<(), sqlx::Error> {
    if rows == 0 {
        return Ok(());
    }
    sqlx::query(
        "update project_erasures
            set counts = counts || jsonb_build_object($2::text, coalesce((counts ->> $2)::bigint, 0) + $3)
          where id = $1 and finished_at is null",
    )
    .bind(project)
    .bind(table)
    .bind(rows.cast_signed())
    .execute(connection)
    .await?;
    Ok(())
}
