//! Whether a database will do, and bringing its schema up to date.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use crate::connect::{self, Purpose};
use crate::facts::Facts;
use crate::pooler;
use crate::unusable::Unusable;

/// The lock is ours to take, since the library waits for its own without a word; migrations of newer
/// programs are judged by `oldest_program`.
pub(crate) static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("../migrations");
    migrator.set_ignore_missing(true).set_locking(false);
    migrator
});

/// The advisory lock under which migrations run; any number that all programs share.
const LOCK: i64 = 0x7874_7261_6365;
/// Another process may be rewriting large tables.
const LOCK_WAIT: Duration = Duration::from_mins(30);
const LOCK_PAUSE: Duration = Duration::from_millis(250);
const REMINDER: Duration = Duration::from_secs(10);
/// Attempts of one migration that waits for a table, a second each.
const TABLE_ATTEMPTS: u32 = 60;

/// Judges the database, and runs the migrations that it lacks.
pub(crate) async fn bring_up_to_date(options: &PgConnectOptions) -> Result<(), Unusable> {
    if pooler::shares_sessions(options).await? {
        return Err(Unusable::Unfit(
            "a connection pooler in transaction mode stands before it, and drops what xtrace tells its \
             sessions; set the pooler to session mode (pgbouncer: pool_mode = session), or connect directly"
                .to_owned(),
        ));
    }
    let mut connection = connect::connection(options, Purpose::Schema).await?;
    let outcome = migrate(&mut connection).await;
    // Closed in any case: the lock, and what a failure left behind, end with the connection.
    let _ = connection.close().await;
    outcome
}

/// Judges the database and changes nothing. One that lacks migrations will do for looking, but not an
/// empty one.
pub(crate) async fn inspect(options: &PgConnectOptions) -> Result<(), Unusable> {
    let mut connection = connect::connection(options, Purpose::Schema).await?;
    let facts = Facts::read(&mut connection).await;
    let _ = connection.close().await;
    let facts = facts?;
    facts.judge()?;
    if facts.is_empty() {
        return Err(Unusable::Unfit(
            "it is empty; `xtrace migrate` makes the tables".to_owned(),
        ));
    }
    Ok(())
}

async fn migrate(connection: &mut PgConnection) -> Result<(), Unusable> {
    let facts = Facts::read(connection).await?;
    facts.judge()?;
    if facts.lacks_nothing() {
        return Ok(());
    }
    facts.judge_privileges()?;
    lock(connection).await?;
    // A newer program may have held the lock.
    Facts::read(connection).await?.judge()?;
    let mut attempt = 1;
    loop {
        let error = match MIGRATIONS.run_direct(None, connection, false).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !waits_for_a_table(&error) || attempt == TABLE_ATTEMPTS {
            return Err(error.into());
        }
        tracing::warn!(%error, attempt, "a migration waits for a table that somebody uses, and tries again");
        attempt += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn waits_for_a_table(error: &sqlx::migrate::MigrateError) -> bool {
    use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};
    match error {
        Execute(cause) | ExecuteMigration(cause, _) => crate::error::is_sqlstate(cause, &["55P03"]),
        _ => false,
    }
}

/// Takes the lock of migrations, and says so while somebody else has it.
async fn lock(connection: &mut PgConnection) -> Result<(), Unusable> {
    let began = Instant::now();
    let mut said = None::<Instant>;
    loop {
        let is_ours: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut *connection)
            .await?;
        if is_ours {
            return Ok(());
        }
        if began.elapsed() > LOCK_WAIT {
            return Err(Unusable::Away(
                "another process holds the lock of migrations".to_owned(),
            ));
        }
        if said.is_none_or(|said| said.elapsed() > REMINDER) {
            tracing::warn!("another process runs migrations on this database; waiting for it");
            said = Some(Instant::now());
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}
