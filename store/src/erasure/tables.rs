//! Which tables hold rows of projects, as the database itself says: a table that a newer program added is among
//! them.

use sqlx::PgConnection;

use crate::StoreError;

/// Rows move from a table into those behind it, and are derived from it, each time in a transaction that takes
/// away what they were made of. Who looks in this order and finds nothing has missed nothing.
const IN_ORDER: [&str; 14] = [
    "metric_points",
    "metric_blocks",
    "metric_chunks",
    "metric_set_aside",
    "observations",
    "traces",
    // Triggers fill it when traces are deleted.
    "usage_dirty",
    "traces_hourly",
    "usage_hourly",
    "usage_shared",
    "usage_daily",
    "usage_shared_daily",
    "latency_hourly",
    "latency_daily",
];

/// A table of rows that have owners.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Table {
    /// Quoted where that is needed.
    pub(super) name: String,
    pub(super) is_partitioned: bool,
}

/// All tables whose rows are projects', in the order to be gone through.
pub(super) async fn owned(connection: &mut PgConnection) -> Result<Vec<Table>, StoreError> {
    let mut tables: Vec<Table> = sqlx::query_as(
        "select format('%I', c.relname) as name, c.relkind = 'p' as is_partitioned
           from pg_class p join pg_class c on c.relnamespace = p.relnamespace and c.relowner = p.relowner
           join pg_attribute a on a.attrelid = c.oid and a.attname = 'project_id' and not a.attisdropped
          where p.oid = 'projects'::regclass and c.relkind in ('r', 'p') and not c.relispartition
          order by 1",
    )
    .fetch_all(connection)
    .await?;
    tables.sort_by_key(|table| IN_ORDER.iter().position(|name| *name == table.name));
    Ok(tables)
}

/// The partitions of a table as they are now, the default one first.
pub(super) async fn partitions(
    connection: &mut PgConnection,
    table: &str,
) -> Result<Vec<String>, StoreError> {
    let found = sqlx::query_scalar(
        "select c.oid::regclass::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
          where i.inhparent = $1::regclass
          order by pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT', c.relname",
    )
    .bind(table)
    .fetch_all(connection)
    .await?;
    Ok(found)
}
