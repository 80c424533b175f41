//! What the planner knows of tables with partitions. Autovacuum looks at each partition when it has changed,
//! but never at the whole table, without which a look-up by trace reads far too much.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::connect::Purpose;
use crate::partitions::Partitioned;
use crate::{Store, StoreError};

/// Since this version one can look at the whole without looking at every partition again.
const ONLY_SINCE: i32 = 180_000;

/// Refreshes the statistics of the tables that need it: once a day, and when one has doubled.
pub(crate) async fn refresh(store: &Store) -> Result<(), StoreError> {
    let mut connection = store.background().acquire().await?;
    let version: i32 = sqlx::query_scalar("select current_setting('server_version_num')::int")
        .fetch_one(&mut *connection)
        .await?;
    let only = if version >= ONLY_SINCE { "only " } else { "" };
    for table in Partitioned::ALL {
        if is_due(&mut connection, table).await? {
            let statement = AssertSqlSafe(format!("analyze {only}{}", table.table()));
            sqlx::query(statement).execute(&mut *connection).await?;
        }
    }
    drop(connection);
    make_indexes(store).await
}

async fn is_due(connection: &mut PgConnection, table: Partitioned) -> Result<bool, StoreError> {
    let is_due: bool = sqlx::query_scalar(
        "select rows > 0 and (analyzed is null or analyzed < now() - interval '1 day'
                or rows > 2 * greatest(c.reltuples, 0))
           from pg_class c
           cross join lateral (
                select greatest(p.last_analyze, p.last_autoanalyze) as analyzed
                  from pg_stat_all_tables p where p.relid = c.oid) parent
           cross join lateral (
                select coalesce(sum(s.n_live_tup), 0) as rows
                  from pg_inherits i join pg_stat_all_tables s on s.relid = i.inhrelid
                 where i.inhparent = c.oid) parts
          where c.oid = to_regclass($1)",
    )
    .bind(table.table())
    .fetch_one(connection)
    .await?;
    Ok(is_due)
}

/// Indexes that are too long in the making for a migration, which would hold up writers meanwhile. What
/// needs them works without, but reads more.
const INDEXES: [(&str, &str); 1] = [(
    "traces_early",
    // Traces that were given a later time than that of their first observation.
    "create index concurrently if not exists traces_early on traces (project_id, first_start, id)
      where first_start < ts",
)];

/// Names the lock that one process at a time makes indexes under.
const LOCK: i64 = 0x7874_7261_6365_0031;

async fn make_indexes(store: &Store) -> Result<(), StoreError> {
    // Waits for older transactions to end, and holds up nobody while it does.
    let mut connection = store.connect(Purpose::Schema).await?;
    for setting in ["set lock_timeout = 0", "set statement_timeout = 0"] {
        sqlx::query(setting).execute(&mut connection).await?;
    }
    // Two that make one index would each wait for the other's transaction. The lock ends with the connection.
    let is_alone: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut connection)
        .await?;
    if is_alone {
        for (name, statement) in INDEXES {
            make_index(&mut connection, name, statement).await?;
        }
    }
    Ok(connection.close().await?)
}

async fn make_index(
    connection: &mut PgConnection,
    name: &str,
    statement: &'static str,
) -> Result<(), StoreError> {
    let is_valid: Option<bool> =
        sqlx::query_scalar("select indisvalid from pg_index where indexrelid = to_regclass($1)")
            .bind(name)
            .fetch_optional(&mut *connection)
            .await?;
    if is_valid == Some(false) {
        // A process left it which ended while it made it.
        let drop = AssertSqlSafe(format!("drop index concurrently if exists {name}"));
        sqlx::query(drop).execute(&mut *connection).await?;
    }
    if is_valid != Some(true) {
        sqlx::query(statement).execute(connection).await?;
    }
    Ok(())
}
