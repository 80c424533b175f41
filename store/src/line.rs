//! The way to Postgres, which may be lost without a word: a host loses its power, a firewall forgets a
//! connection. What is sent then is answered by nobody, and no error ever comes.
//!
//! The library opens its sockets itself and sets no keepalive on them, so silence is noticed here: a connection
//! that was idle is asked for a sign of life before it is used, with a deadline. One that stays silent casts
//! doubt on all that were idle by then, and those are replaced unasked. The other end notices by the keepalive
//! that sessions are told to use (`connect.rs`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use sqlx::pool::PoolConnection;
use sqlx::{Connection, PgConnection, Postgres};
use tokio::time::timeout;

/// How long a sign of life may take. It is a part of the time that a request waits for a connection, so that
/// there is time left to open another.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How long a statement may stay silent after Postgres should have ended it.
pub(crate) const OVERTIME: Duration = Duration::from_secs(5);

/// What all connections of a store know of the way to Postgres.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line(Arc<Mutex<Option<Instant>>>);

impl Line {
    /// Something was sent that nobody answered: what has been idle since before now is replaced.
    pub(crate) fn fell_silent(&self) {
        const SAID_AGAIN_AFTER: Duration = Duration::from_secs(30);
        let now = Instant::now();
        let before = self.last().replace(now);
        counter!("xtrace_database_silences_total").increment(1);
        if before.is_none_or(|before| now.duration_since(before) > SAID_AGAIN_AFTER) {
            tracing::warn!(
                "a connection to the database stays silent; it and those that are idle are replaced"
            );
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection that was idle for so long may be used.
    pub(crate) async fn is_alive(&self, connection: &mut PgConnection, idle_for: Duration) -> bool {
        let silence = *self.last();
        if silence.is_some_and(|silence| silence.elapsed() <= idle_for) {
            return false;
        }
        match timeout(SIGN_OF_LIFE, connection.ping()).await {
            Ok(outcome) => outcome.is_ok(),
            Err(_) => {
                self.fell_silent();
                false
            }
        }
    }

    /// Whether a connection may be used that somebody keeps and last used then. One that was idle for a while is
    /// asked for a sign of life: what it is used for may have long deadlines.
    pub(crate) async fn still_serves(&self, connection: &mut PgConnection, used: Instant) -> bool {
        const IDLE_MAX: Duration = Duration::from_secs(1);
        let idle_for = used.elapsed();
        idle_for <= IDLE_MAX || self.is_alive(connection, idle_for).await
    }

    /// Gives a connection back to its pool, which asks for a sign of life as well, and by itself would wait for it
    /// without end.
    pub(crate) async fn give_back(&self, mut connection: PoolConnection<Postgres>) {
        let returned = connection.return_to_pool();
        if timeout(SIGN_OF_LIFE, returned).await.is_err() {
            self.fell_silent();
        }
    }

    /// What a statement answers, unless it stays silent for so long.
    pub(crate) async fn heard<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        timeout(limit, answer).await.unwrap_or_else(|_| {
            self.fell_silent();
            Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
        })
    }
}
