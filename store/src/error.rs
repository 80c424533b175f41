//! What can go wrong between xtrace and its database, by what the caller can do about it.

use std::time::Duration;

use crate::reading::Bound;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

/// A failed read or write.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The write queue is full; nothing was taken. Send again after the given time.
    #[error("the write queue is full")]
    Overloaded {
        /// How long to wait.
        retry_after: Duration,
    },
    /// The project asks too much at once. Ask again after the given time, one question after the other.
    #[error("this project has too many questions at once; ask them one after the other")]
    Busy {
        /// How long to wait.
        retry_after: Duration,
    },
    /// The answer is larger than answers may be. Ask for less.
    #[error("the answer would have more than {} MB; ask for a smaller limit, fewer fields or a shorter range", crate::ANSWER_BYTES_MAX / 1_000_000)]
    TooLarge,
    /// Postgres can't be reached, is starting, or shuts down. Send again later.
    #[error("the database is unavailable")]
    Unavailable(#[source] Option<sqlx::Error>),
    /// The query took longer than the statement timeout. Ask for less.
    #[error("the query took too long; ask for a shorter range or for less")]
    Timeout,
    /// The question reaches more than one may; the text says what to narrow.
    #[error("this question is too large: {0}")]
    TooBroad(String),
    /// The project is being deleted, or there is none: nothing is stored for it, now or later.
    #[error("this project is being deleted or does not exist; nothing is stored for it")]
    ProjectGone,
    /// Postgres can't hold a value as it is; sending it again won't help.
    #[error("the database refuses a value")]
    Refused(#[source] sqlx::Error),
    /// A mistake of ours.
    #[error("a database query failed")]
    Internal(#[source] sqlx::Error),
}

/// A key that is there already.
pub(crate) const UNIQUE_VIOLATION: &str = "23505";

/// A statement that took longer than its timeout.
pub(crate) const QUERY_CANCELED: &str = "57014";

const CHECK_VIOLATION: &str = "23514";
/// A table that is not there, or not any more.
pub(crate) const UNDEFINED_TABLE: &str = "42P01";

/// Whether a row was refused because the partition of its day is being made; it is taken once that is done.
/// The default partition refuses it by a constraint of that name, or, once the partition is attached, by
/// Postgres' own condition, which has no name.
pub(crate) fn is_partition_in_the_making(error: &sqlx::Error) -> bool {
    let constraint = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::constraint);
    is_sqlstate(error, &[CHECK_VIOLATION])
        && constraint.is_none_or(|name| name.starts_with(crate::partitions::EXCLUDES))
}

/// Whether Postgres answered with one of these SQLSTATEs.
pub(crate) fn is_sqlstate(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| codes.contains(&code.as_ref()))
}

/// What a log may hold of a failure: of Postgres' words only the code and the names of what was hit. Its
/// message, detail and context quote values of rows, which are what senders sent.
fn cause_for_log(cause: &sqlx::Error) -> String {
    match cause {
        sqlx::Error::Database(database) => {
            let postgres = database.try_downcast_ref::<PgDatabaseError>();
            let hit = [
                ("sqlstate", database.code().as_deref().map(str::to_owned)),
                ("constraint", database.constraint().map(str::to_owned)),
                ("table", database.table().map(str::to_owned)),
                (
                    "column",
                    postgres
                        .and_then(PgDatabaseError::column)
                        .map(str::to_owned),
                ),
            ];
            let named = hit
                .into_iter()
                .filter_map(|(what, name)| Some(format!("{what} {}", name?)));
            named.collect::<Vec<_>>().join(", ")
        }
        sqlx::Error::ColumnDecode { index, .. } => format!("column {index} can't be decoded"),
        sqlx::Error::Decode(_) => "a value can't be decoded".to_owned(),
        sqlx::Error::Encode(_) => "a value can't be encoded".to_owned(),
        sqlx::Error::Migrate(error) => match &**error {
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => {
                format!("migration: {}", cause_for_log(cause))
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let Some(bound) = Bound::of(&error) {
            return bound.into();
        }
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => Self::Unavailable(Some(error)),
            sqlx::Error::Database(database) => {
                match database.code().unwrap_or_default().as_ref() {
                    QUERY_CANCELED => Self::Timeout,
                    // Connection, resources, locks, operator intervention, system and rollback errors.
                    code if ["08", "53", "55", "57", "58", "40"]
                        .contains(&code.get(..2).unwrap_or("")) =>
                    {
                        Self::Unavailable(Some(error))
                    }
                    // Data exceptions, violated constraints (but repeated keys, which are ours to
                    // handle) and exceeded program limits.
                    UNIQUE_VIOLATION => Self::Internal(error),
                    CHECK_VIOLATION if is_partition_in_the_making(&error) => {
                        Self::Unavailable(Some(error))
                    }
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

impl From<Bound> for StoreError {
    fn from(bound: Bound) -> Self {
        const RETRY_AFTER: Duration = Duration::from_secs(5);
        match bound {
            Bound::Turns | Bound::Memory => Self::Busy {
                retry_after: RETRY_AFTER,
            },
            Bound::Bytes => Self::TooLarge,
        }
    }
}

impl StoreError {
    /// Nothing came back in time.
    pub(crate) fn silent() -> Self {
        let cause = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Self::Unavailable(Some(cause.into()))
    }

    /// What a log may hold of the cause; see `cause_for_log`.
    pub fn for_log(&self) -> String {
        match self {
            Self::Overloaded { .. }
            | Self::Busy { .. }
            | Self::TooLarge
            | Self::Timeout
            | Self::TooBroad(_)
            | Self::ProjectGone
            | Self::Unavailable(None) => self.to_string(),
            Self::Unavailable(Some(cause)) | Self::Refused(cause) | Self::Internal(cause) => {
                cause_for_log(cause)
            }
        }
    }

    /// A short name, for counting.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "queue_full",
            Self::Busy { .. } => "busy",
            Self::TooLarge => "too_large",
            Self::Unavailable(_) => "database_unavailable",
            Self::Timeout => "timeout",
            Self::TooBroad(_) => "question_too_large",
            Self::ProjectGone => "project_gone",
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
            Self::Busy { retry_after } => Self::Busy {
                retry_after: *retry_after,
            },
            Self::TooLarge => Self::TooLarge,
            Self::Timeout => Self::Timeout,
            Self::TooBroad(what) => Self::TooBroad(what.clone()),
            Self::ProjectGone => Self::ProjectGone,
            Self::Refused(_) | Self::Internal(_) | Self::Unavailable(_) => Self::Unavailable(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_name_what_was_hit_and_no_values() {
        let check = |cause: sqlx::Error, expected: &str| {
            assert_eq!(StoreError::from(cause).for_log(), expected);
        };
        check(
            sqlx::Error::Decode("odd value 'secret'".into()),
            "a value can't be decoded",
        );
        check(
            sqlx::Error::ColumnDecode {
                index: "\"input\"".to_owned(),
                source: "odd value 'secret'".into(),
            },
            "column \"input\" can't be decoded",
        );
    }
}
