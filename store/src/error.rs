//! What can go wrong between xtrace and its database, by what the caller can do about it.

use std::time::Duration;

/// A failed read or write.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The write queue is full; nothing was taken. Send again after the given time.
    #[error("the write queue is full")]
    Overloaded {
        /// How long to wait.
        retry_after: Duration,
    },
    /// Postgres can't be reached, is starting, or shuts down. Send again later.
    #[error("the database is unavailable")]
    Unavailable(#[source] Option<sqlx::Error>),
    /// The query took longer than the statement timeout. Ask for less.
    #[error("the query took too long; ask for a shorter range or for less")]
    Timeout,
    /// Postgres can't hold a value as it is; sending it again won't help.
    #[error("the database refuses a value")]
    Refused(#[source] sqlx::Error),
    /// A mistake of ours.
    #[error("a database query failed")]
    Internal(#[source] sqlx::Error),
}

/// A key that is there already.
pub(crate) const UNIQUE_VIOLATION: &str = "23505";

/// Whether Postgres answered with one of these SQLSTATEs.
pub(crate) fn is_sqlstate(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| codes.contains(&code.as_ref()))
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => Self::Unavailable(Some(error)),
            sqlx::Error::Database(database) => {
                match database.code().unwrap_or_default().as_ref() {
                    "57014" => Self::Timeout,
                    // Connection, resources, locks, operator intervention, system and rollback errors.
                    code if ["08", "53", "55", "57", "58", "40"]
                        .contains(&code.get(..2).unwrap_or("")) =>
                    {
                        Self::Unavailable(Some(error))
                    }
                    // Data exceptions, violated constraints (but repeated keys, which are ours to
                    // handle) and exceeded program limits.
                    UNIQUE_VIOLATION => Self::Internal(error),
                    code if ["22", "23", "54"].contains(&code.get(..2).unwrap_or("")) => {
                        Self::Refused(error)
                    }
                    _ => Self::Internal(error),
                }
            }
            _ => Self::Internal(error),
        }
    }
}

impl StoreError {
    /// A short name, for counting.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "queue_full",
            Self::Unavailable(_) => "database_unavailable",
            Self::Timeout => "timeout",
            Self::Refused(_) => "value",
            Self::Internal(_) => "internal",
        }
    }

    /// The same failure for another caller of the same transaction; causes are logged once.
    pub(crate) fn for_another(&self) -> Self {
        match self {
            Self::Overloaded { retry_after } => Self::Overloaded {
                retry_after: *retry_after,
            },
            Self::Timeout => Self::Timeout,
            Self::Refused(_) | Self::Internal(_) | Self::Unavailable(_) => Self::Unavailable(None),
        }
    }
}
