//! Connections to Postgres, and what each session is told once it is open.
//!
//! Settings are sent with `SET` after connecting instead of as start parameters: connection poolers
//! refuse those, or accept them and drop them without a word.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, PgPool};

use crate::line::Line;

/// How long a request waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection of its own may take; the pools bound theirs by [`ACQUIRE_TIMEOUT`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// Answers to readers, each statement within the given time.
    Read(Duration),
    /// What opens a request, within the given time.
    Access(Duration),
    /// What requests write.
    Write,
    /// Work that no request waits for.
    Background,
    /// Migrations: they rewrite whole tables, and need the planner as Postgres means it.
    Schema,
}

/// Writes only look up keys; a hash or merge join would read every partition for that. Plans are made
/// for every execution: one that was made while a table (such as the partition of a new day) was empty
/// reads all of it ever after, and one for all values can't leave partitions out.
const WRITE_PLANS: &str = "set enable_seqscan = off; set enable_hashjoin = off; \
    set enable_mergejoin = off; set plan_cache_mode = force_custom_plan; ";
/// Which partitions and which index are right depends on the values.
const READ_PLANS: &str = "set default_transaction_read_only = on; \
    set plan_cache_mode = force_custom_plan; ";
/// Twice a second Postgres looks whether the client of a running statement is still there, and ends what
/// nobody waits for any more. Some systems can't tell; there such a statement ends by its timeout.
const LOOK_FOR_CLIENT: &str = "do $$ begin \
    perform set_config('client_connection_check_interval', '500', false); \
    exception when others then null; end $$; ";

/// Over TCP, Postgres gives up a client that has vanished within two minutes instead of hours: until then its
/// session counts, and holds its locks. Sockets of the same machine need none of this and ignore it.
const KEEPALIVE: &str = "set tcp_keepalives_idle = 60; set tcp_keepalives_interval = 10; \
    set tcp_keepalives_count = 3; set tcp_user_timeout = 90000; ";

impl Purpose {
    /// The statements that every session begins with. Nothing waits without end: not for a statement,
    /// not for a lock that somebody took by hand, not for a client that vanished inside a transaction.
    pub(crate) fn settings(self) -> String {
        let presence = match self {
            Self::Read(_) | Self::Access(_) => LOOK_FOR_CLIENT,
            _ => "",
        };
        let (plans, [statement_ms, lock_ms, idle_ms]) = match self {
            Self::Read(limit) | Self::Access(limit) => {
                (READ_PLANS, [limit.as_millis(), 5_000, 60_000])
            }
            Self::Write => (WRITE_PLANS, [60_000, 5_000, 60_000]),
            Self::Background => ("", [15 * 60_000, 30_000, 5 * 60_000]),
            // A table that a migration waits for is one that readers wait for behind it.
            Self::Schema => ("", [0, 1_000, 0]),
        };
        format!(
            "{plans}{presence}{KEEPALIVE}set jit = off; set statement_timeout = {statement_ms}; \
             set lock_timeout = {lock_ms}; set idle_in_transaction_session_timeout = {idle_ms}"
        )
    }
}

/// A URL as the options of every connection.
pub(crate) fn options(database_url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = database_url.parse()?;
    // PostgreSQL 12 and newer print the shortest exact digits anyway, and poolers refuse the parameter.
    Ok(options.application_name("xtrace").extra_float_digits(None))
}

/// A pool that connects when first needed.
pub(crate) fn pool(
    options: &PgConnectOptions,
    line: &Line,
    purpose: Purpose,
    connections_max: u32,
) -> PgPool {
    let settings = purpose.settings();
    let (before, after) = (line.clone(), line.clone());
    let mut pool = PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // Asked with a deadline instead.
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let line = before.clone();
            Box::pin(async move { Ok(line.is_alive(connection, meta.idle_for).await) })
        });
    // A statement that was given up comes back with its connection, and the library would wait for its end as
    // long as it takes. Reads close such connections themselves (`reading`).
    if !matches!(purpose, Purpose::Read(_)) {
        pool = pool.after_release(move |connection, _| {
            let line = after.clone();
            Box::pin(async move { Ok(line.is_alive(connection, Duration::ZERO).await) })
        });
    }
    pool.after_connect(move |connection, _| {
        let settings = sqlx::raw_sql(AssertSqlSafe(settings.clone()));
        Box::pin(async move { settings.execute(connection).await.map(|_| ()) })
    })
    .connect_lazy_with(options.clone())
}

/// A connection outside the pools, whose failure names its cause.
pub(crate) async fn connection(
    options: &PgConnectOptions,
    purpose: Purpose,
) -> Result<PgConnection, sqlx::Error> {
    let connect = async {
        let mut connection = options.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(purpose.settings()))
            .execute(&mut connection)
            .await?;
        Ok(connection)
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connect)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}
