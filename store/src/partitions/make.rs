//! New partitions. Attaching one takes a lock that readers wait for, so nothing is done under that lock which takes
//! longer the more rows there are: Postgres would read all of the default partition, to see that it holds no row
//! of that day, unless a constraint of it says so already.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{DAYS_AHEAD, DAYS_BACK_MAX, LOCK, LOCK_TIMEOUT, Partitioned, date, today};
use crate::{Store, StoreError};

/// A default partition of so many bytes is read under the lock, within a millisecond or two.
const BYTES_READ_MAX: i64 = 4 << 20;
/// Rows of one day that are moved out of the default partition; a day with more keeps all of its
/// rows there. They move within one transaction, or readers would miss them for a while, and whoever writes one
/// of them anew waits for it.
const ROWS_MOVED_MAX: i64 = 20_000;
/// Locks of Postgres' table that stand behind each day back: a question without a time takes one on every
/// partition and on every index of it, and all connections share the table.
const LOCKS_A_DAY: i64 = 100;
/// Days back that get a partition even where Postgres has its default number of locks.
const DAYS_BACK_MIN: i64 = 90;

/// How long a writer waits for one partition, besides its locks.
const WRITER_TIMEOUT: &str = "set local statement_timeout = '2s'";

/// Makes partitions for today and the days ahead. A table that can't have one now doesn't keep the others
/// from theirs; the first failure is returned at the end.
pub(crate) async fn make_ahead(store: &Store) -> Result<(), StoreError> {
    let mut connection = store.background().acquire().await?;
    let today = today(&mut connection).await?;
    let mut outcome = Ok(());
    for table in Partitioned::ALL {
        let days: BTreeSet<i64> = (today - 1..=today + DAYS_AHEAD).collect();
        let made = make_all(&mut connection, table, &days, None).await;
        outcome = outcome.and(made);
        outcome = outcome.and(drop_constraints(&mut connection, table).await);
    }
    outcome
}

/// Sets how many days back get a partition: as many as somebody keeps data (`None` is for ever), and as
/// Postgres has locks for.
pub(crate) async fn reach(store: &Store, kept_days: Option<i64>) -> Result<(), StoreError> {
    let kept = kept_days.map_or(DAYS_BACK_MAX, |days| days.clamp(1, DAYS_BACK_MAX));
    sqlx::query(
        "update upkeep set days_back = least($1, greatest($2,
            current_setting('max_locks_per_transaction')::bigint
                * current_setting('max_connections')::bigint / $3))",
    )
    .bind(kept)
    .bind(DAYS_BACK_MIN)
    .bind(LOCKS_A_DAY)
    .execute(store.background())
    .await?;
    Ok(())
}

/// Makes the partitions that are missing, for a writer who is about to write rows of these days.
pub(crate) async fn make(
    connection: &mut PgConnection,
    table: Partitioned,
    days: &BTreeSet<i64>,
) -> Result<(), StoreError> {
    make_all(connection, table, days, Some(WRITER_TIMEOUT)).await
}

async fn make_all(
    connection: &mut PgConnection,
    table: Partitioned,
    days: &BTreeSet<i64>,
    timeout: Option<&'static str>,
) -> Result<(), StoreError> {
    for day in missing(connection, table, days).await? {
        let new = New::of(table, day);
        // Within a transaction of the caller's there is one way only.
        if connection.is_in_transaction() || is_small(connection, table).await? {
            new.attach(connection, timeout, Proof::Read).await?;
        } else if new.exclude(connection).await? {
            let attached = new.attach(connection, timeout, Proof::Constraint).await;
            if attached.is_err() {
                // Rows of the day can't be written before it is gone, or the partition made.
                let _ = new.include(connection).await;
            }
            attached?;
        }
    }
    Ok(())
}

/// Days without a partition that should have one.
async fn missing(
    connection: &mut PgConnection,
    table: Partitioned,
    days: &BTreeSet<i64>,
) -> Result<Vec<i64>, StoreError> {
    let names: Vec<String> = days.iter().map(|day| table.partition(*day)).collect();
    let dates: Vec<_> = days.iter().map(|day| date(*day)).collect();
    let missing: Vec<String> = sqlx::query_scalar(
        "select k.name from unnest($1::text[], $2::timestamptz[]) k(name, day), upkeep u
          where to_regclass(k.name) is null
            and k.day >= date_trunc('day', now(), 'UTC') - make_interval(days => u.days_back)",
    )
    .bind(&names)
    .bind(dates)
    .fetch_all(connection)
    .await?;
    let is_missing = |day: &i64| missing.contains(&table.partition(*day));
    Ok(days.iter().copied().filter(is_missing).collect())
}

async fn is_small(connection: &mut PgConnection, table: Partitioned) -> Result<bool, StoreError> {
    let bytes: i64 = sqlx::query_scalar("select pg_relation_size(to_regclass($1))")
        .bind(table.default_partition())
        .fetch_one(connection)
        .await?;
    Ok(bytes <= BYTES_READ_MAX)
}

/// How Postgres learns that the default partition holds no row of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// It reads all of it, under the lock.
    Read,
    /// A constraint says so, which was checked before the lock was asked for.
    Constraint,
}

/// A partition to be.
struct New {
    table: Partitioned,
    name: String,
    /// The first moment of its day, and that of the next.
    from: String,
    to: String,
}

impl New {
    fn of(table: Partitioned, day: i64) -> Self {
        Self {
            table,
            name: table.partition(day),
            from: date(day).to_rfc3339(),
            to: date(day + 1).to_rfc3339(),
        }
    }

    /// The name of the constraint that keeps rows of the day out of the default partition.
    fn constraint(&self) -> String {
        format!("{EXCLUDES}{}", self.name)
    }

    /// From now on rows of the day are refused, as [`crate::error::CHECK_VIOLATION`], until the partition is
    /// there. False if there are too many rows of the day in the default partition to move.
    async fn exclude(&self, connection: &mut PgConnection) -> Result<bool, StoreError> {
        let (column, default) = (self.table.column(), self.table.default_partition());
        let Self { from, to, .. } = self;
        let mut transaction = connection.begin().await?;
        lock(&mut transaction).await?;
        let sql = format!(
            "select count(*) from (select from {default}
              where {column} >= '{from}' and {column} < '{to}' limit $1) of_day"
        );
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(ROWS_MOVED_MAX + 1)
            .fetch_one(&mut *transaction)
            .await?;
        if rows > ROWS_MOVED_MAX {
            tracing::warn!(partition = %self.name, "a day has too many rows in the default partition and stays there");
            return Ok(false);
        }
        let constraint = self.constraint();
        let statements = [
            format!("alter table {default} drop constraint if exists {constraint}"),
            format!(
                "alter table {default} add constraint {constraint}
                    check ({column} < '{from}' or {column} >= '{to}') not valid"
            ),
        ];
        run(&mut transaction, &statements).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Lets rows of the day into the default partition again.
    async fn include(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let default = self.table.default_partition();
        let constraint = self.constraint();
        let mut transaction = connection.begin().await?;
        lock(&mut transaction).await?;
        let statement = format!("alter table {default} drop constraint if exists {constraint}");
        run(&mut transaction, &[statement]).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Makes the partition. Rows of its day that wait in the default one move along.
    async fn attach(
        &self,
        connection: &mut PgConnection,
        timeout: Option<&'static str>,
        proof: Proof,
    ) -> Result<(), StoreError> {
        let mut transaction = connection.begin().await?;
        lock(&mut transaction).await?;
        if let Some(timeout) = timeout {
            sqlx::query(timeout).execute(&mut *transaction).await?;
        }
        // `to_regclass` may still not know of a table that was made while the lock was waited for.
        let is_there: bool = sqlx::query_scalar(
            "select exists (select from pg_class c join pg_class parent using (relnamespace)
                             where c.relname = $1 and parent.oid = to_regclass($2))",
        )
        .bind(&self.name)
        .bind(self.table.table())
        .fetch_one(&mut *transaction)
        .await?;
        if !is_there {
            run(&mut transaction, &self.statements(proof)).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Up to `attach` readers wait for none of this; what follows takes no longer for more rows.
    fn statements(&self, proof: Proof) -> Vec<String> {
        let (parent, column) = (self.table.table(), self.table.column());
        let (default, constraint) = (self.table.default_partition(), self.constraint());
        let Self { name, from, to, .. } = self;
        let mut statements = vec![
            format!(
                "create table {name} (like {parent} including all,
                    constraint {name}_day check ({column} >= '{from}' and {column} < '{to}'))"
            ),
            format!(
                "with moved as (delete from {default}
                  where {column} >= '{from}' and {column} < '{to}' returning *)
                 insert into {name} select * from moved"
            ),
        ];
        if proof == Proof::Constraint {
            statements.push(format!(
                "alter table {default} validate constraint {constraint}"
            ));
        }
        statements.push(format!(
            "alter table {parent} attach partition {name} for values from ('{from}') to ('{to}')"
        ));
        statements.push(format!("alter table {name} drop constraint {name}_day"));
        if proof == Proof::Constraint {
            statements.push(format!(
                "alter table {default} drop constraint {constraint}"
            ));
        }
        statements
    }
}

/// Constraints of default partitions begin with this.
pub(crate) const EXCLUDES: &str = "not_in_";

/// Makes whoever else makes or drops partitions wait, or gives up before readers notice.
async fn lock(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query(LOCK_TIMEOUT).execute(&mut *connection).await?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(connection)
        .await?;
    Ok(())
}

async fn run(connection: &mut PgConnection, statements: &[String]) -> Result<(), StoreError> {
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement.as_str()))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Drops constraints that a process left which ended while it made a partition.
async fn drop_constraints(
    connection: &mut PgConnection,
    table: Partitioned,
) -> Result<(), StoreError> {
    let default = table.default_partition();
    let left: Vec<String> = sqlx::query_scalar(
        "select conname::text from pg_constraint
          where conrelid = to_regclass($1) and starts_with(conname::text, $2)",
    )
    .bind(&default)
    .bind(EXCLUDES)
    .fetch_all(&mut *connection)
    .await?;
    for constraint in left {
        let mut transaction = connection.begin().await?;
        lock(&mut transaction).await?;
        let statement = format!("alter table {default} drop constraint if exists {constraint}");
        run(&mut transaction, &[statement]).await?;
        transaction.commit().await?;
    }
    Ok(())
}
