//! Poolers that hand one session of Postgres to several clients in turn.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};

use crate::connect::{self, Purpose};

/// A pooler of one connection would keep the second session waiting.
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 3;

/// Whether transactions of two open sessions may meet in one process of Postgres, so that what one
/// session is told is lost, or reaches another one.
pub(crate) async fn shares_sessions(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let mut first = connect::connection(options, Purpose::Schema).await?;
    let mut second = connect::connection(options, Purpose::Schema).await?;
    let watched = async {
        for _ in 0..ATTEMPTS {
            let before = process(&mut first).await?;
            sqlx::raw_sql("begin").execute(&mut second).await?;
            let other = process(&mut second).await?;
            let after = process(&mut first).await?;
            sqlx::raw_sql("rollback").execute(&mut second).await?;
            if before == other || before != after {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let found = match tokio::time::timeout(TIMEOUT, watched).await {
        Ok(Ok(found)) => Ok(found),
        // Statement pooling refuses transactions, in words of its own.
        Ok(Err(sqlx::Error::Database(_))) | Err(_) => Ok(true),
        Ok(Err(error)) => Err(error),
    };
    let _ = first.close().await;
    let _ = second.close().await;
    found
}

/// Which process of Postgres answers; asked without a prepared statement, which poolers may not know.
async fn process(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let row = sqlx::raw_sql("select pg_backend_pid()::text")
        .fetch_one(connection)
        .await?;
    row.try_get(0)
}
