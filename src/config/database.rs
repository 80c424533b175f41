//! Where data lives: at a URL, or in a private Postgres under the data directory.

use std::path::PathBuf;

use clap::Args;

use super::values::parse_database_url;
use super::{environment, files};
use crate::embedded_postgres::EmbeddedPostgres;

/// Where data lives.
#[derive(Debug, Clone, Args)]
pub struct DatabaseConfig {
    /// A postgres:// URL, or DATABASE_URL_FILE: a file that holds it. Unset: a private Postgres is
    /// started under the data directory.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Where the private Postgres and generated credentials are kept. Default: /var/lib/xtrace for
    /// root, else $XDG_DATA_HOME/xtrace or ~/.local/share/xtrace.
    #[arg(long, env = "XTRACE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Account that a process becomes that was started as root, by name or number. Unset: `xtrace`
    /// where there is such an account, else a user id that no account has.
    #[arg(long = "user", env = "XTRACE_USER", value_name = "USER")]
    user: Option<String>,
    /// Directory of the Postgres programs (postgres, initdb). Unset: PATH, pg_config, then the
    /// newest of /usr/lib/postgresql/*/bin.
    #[arg(long, env = "XTRACE_PG_BIN", value_name = "DIR")]
    pg_bin: Option<PathBuf>,
}

/// Where the database is to be found.
#[derive(Debug, Clone)]
pub enum Database {
    /// At a URL.
    Url(String),
    /// A private one under the data directory.
    Embedded {
        /// Where the Postgres programs are, if somebody said so.
        pg_bin: Option<PathBuf>,
    },
}

impl DatabaseConfig {
    pub(super) fn take_secrets(&mut self) -> Result<(), String> {
        files::fill("DATABASE_URL", &mut self.database_url, parse_database_url)
    }

    /// Where the database is to be found.
    pub fn database(&self) -> Database {
        match &self.database_url {
            Some(url) => Database::Url(url.clone()),
            None => Database::Embedded {
                pg_bin: self.pg_bin.clone(),
            },
        }
    }

    /// The private Postgres that another xtrace runs here right now, if one does.
    pub fn running(&self) -> anyhow::Result<Option<String>> {
        match self.database() {
            Database::Url(_) => Ok(None),
            Database::Embedded { .. } => Ok(EmbeddedPostgres::running(&self.data_dir()?)),
        }
    }

    /// The chosen account.
    pub(super) fn user(&self) -> Option<String> {
        self.user.clone()
    }

    /// Where files are kept, also once the process runs as another user.
    pub(crate) fn pin_data_dir(&mut self) -> anyhow::Result<PathBuf> {
        let dir = self.data_dir()?;
        self.data_dir = Some(dir.clone());
        Ok(dir)
    }

    /// Where files are kept.
    pub fn data_dir(&self) -> anyhow::Result<PathBuf> {
        let path = |name: &str| {
            environment(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        if let Some(dir) = &self.data_dir {
            return Ok(std::path::absolute(dir)?);
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/xtrace"));
        }
        let share = path("XDG_DATA_HOME").or_else(|| Some(path("HOME")?.join(".local/share")));
        share.map(|share| share.join("xtrace")).ok_or_else(|| {
            anyhow::anyhow!("no data directory: set XTRACE_DATA_DIR, for HOME is not set either")
        })
    }
}
