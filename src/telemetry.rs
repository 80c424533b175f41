//! xtrace's own log lines. They never hold a body, a header or a secret.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{self, LogFormat};

/// sqlx repeats Postgres' notices, such as that a table is there already, and warns for each pool of a
/// password file that it may not read, which root's is once root is left.
const DEFAULT_FILTER: &str = "info,sqlx=warn,sqlx_postgres::options::pgpass=error";

/// Writes log lines to standard error from now on; `RUST_LOG` chooses which (default `info`).
pub fn init(format: LogFormat) {
    let chosen = config::environment("RUST_LOG").unwrap_or_else(|| DEFAULT_FILTER.to_owned());
    let filter = EnvFilter::try_new(chosen).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
