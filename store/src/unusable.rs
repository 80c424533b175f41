//! Why a database can't be used, by what is to be done about it.

use sqlx::migrate::MigrateError;

use crate::StoreError;

/// Why a database can't be used; the words are for the operator and hold no secret.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It is out of reach or busy, and may be well later.
    #[error("the database is out of reach: {0}")]
    Away(String),
    /// It will not do until somebody changes something.
    #[error("the database can't be used: {0}")]
    Unfit(String),
    /// Its schema is that of a newer program or of another one.
    #[error("the schema of the database is not for this program: {0}")]
    Foreign(String),
}

impl From<sqlx::Error> for Unusable {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default();
                of_sqlstate(&code, refusal.message())
            }
            sqlx::Error::Io(cause) => Self::Away(cause.to_string()),
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                Self::Away(error.to_string())
            }
            sqlx::Error::Protocol(_) => Self::Away(error.to_string()),
            sqlx::Error::Tls(cause) => Self::Unfit(format!(
                "TLS failed: {cause}; see sslmode and sslrootcert of DATABASE_URL"
            )),
            _ => Self::Unfit(error.to_string()),
        }
    }
}

/// By the class of the SQLSTATE. Source: PostgreSQL, appendix A.
fn of_sqlstate(code: &str, message: &str) -> Unusable {
    match code {
        // A wrong role, password, host or database, and what poolers don't take.
        "08P01" => Unusable::Unfit(message.to_owned()),
        "42501" => Unusable::Unfit(format!(
            "{message}; the role of DATABASE_URL must own what xtrace made, or be able to make it"
        )),
        _ if ["08", "25", "40", "53", "55", "57", "58"].contains(&code.get(..2).unwrap_or("")) => {
            Unusable::Away(message.to_owned())
        }
        _ => Unusable::Unfit(format!("{message} (SQLSTATE {code})")),
    }
}

impl From<MigrateError> for Unusable {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(cause) => cause.into(),
            MigrateError::ExecuteMigration(cause, version) => match Self::from(cause) {
                Self::Unfit(words) => Self::Unfit(format!("migration {version} failed: {words}")),
                other => other,
            },
            MigrateError::VersionMismatch(version) => Self::Foreign(format!(
                "migration {version} is not the one that this program knows"
            )),
            other => Self::Unfit(other.to_string()),
        }
    }
}

impl From<StoreError> for Unusable {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(Some(cause))
            | StoreError::Internal(cause)
            | StoreError::Refused(cause) => cause.into(),
            other => Self::Away(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_stays() {
        for (code, stays) in [
            ("57P03", false), // starting up
            ("53300", false), // too many clients
            ("55P03", false), // a lock
            ("25006", false), // a standby
            ("08006", false),
            ("28P01", true), // a wrong password
            ("3D000", true), // no such database
            ("42501", true), // a missing privilege
            ("08P01", true), // a pooler that refuses a parameter
        ] {
            let found = of_sqlstate(code, "words");
            assert_eq!(matches!(found, Unusable::Unfit(_)), stays, "{code}");
            assert!(found.to_string().contains("words"));
        }
        let away = Unusable::from(sqlx::Error::from(std::io::Error::other("refused")));
        assert!(matches!(away, Unusable::Away(_)), "{away}");
    }
}
