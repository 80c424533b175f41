//! Flags and environment, each setting both. The only reader of the environment.

mod database;
mod files;
mod keys;
mod limits;
mod values;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use xtrace_compat::MediaSettings;
use xtrace_model::ProjectId;
use xtrace_store::metrics::SeriesLimits;

pub use database::{Database, DatabaseConfig};
pub use keys::{KeysCommand, RepriceConfig, ScopeList};
pub use limits::LimitsConfig;
use values::{
    parse_admin_token, parse_bind_addr, parse_body_bytes, parse_burst, parse_delay, parse_key,
    parse_metrics_days, parse_origin, parse_project, parse_public_url, parse_qps, parse_secret_key,
    parse_token, parse_traces_days,
};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "xtrace",
    version,
    about = "AI observability on PostgreSQL: OpenTelemetry in, Langfuse's API and metrics out.",
    long_about = "AI observability on PostgreSQL: OpenTelemetry in, Langfuse's API and metrics out.\n\n\
                  Without a command, `xtrace` serves. Without DATABASE_URL it runs a private Postgres \
                  of its own under the data directory."
)]
pub struct Cli {
    /// How log lines are written.
    #[arg(
        long,
        env = "XTRACE_LOG_FORMAT",
        value_enum,
        default_value = "text",
        global = true
    )]
    pub log_format: LogFormat,
    #[command(subcommand)]
    chosen: Option<Command>,
    #[command(flatten)]
    serve: ServeConfig,
    /// What to do.
    #[clap(skip = Command::Version)]
    pub command: Command,
}

/// What `xtrace` can do.
#[derive(Debug, Clone, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Command {
    /// Serve until SIGTERM or Ctrl-C (the default).
    Serve(ServeConfig),
    /// Bring the database's schema up to date, then exit.
    Migrate(DatabaseConfig),
    /// Ask a running server whether it is ready; exit code 0 if so.
    Healthcheck(HealthcheckConfig),
    /// Make, list and revoke key pairs; beside a running server too.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Compute the costs of stored observations anew, after prices changed.
    Reprice(RepriceConfig),
    /// Print which projects were deleted, or are being, and how many rows went from each table.
    Erasures(DatabaseConfig),
    /// Print the version.
    Version,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything that `xtrace serve` can be told.
#[derive(Debug, Clone, Args)]
pub struct ServeConfig {
    #[command(flatten)]
    database: DatabaseConfig,
    /// Address to listen on.
    #[arg(long, env = "BIND_ADDR", default_value = "127.0.0.1:8742", value_parser = parse_bind_addr)]
    pub bind_addr: SocketAddr,
    /// Address where `GET /metrics` answers without credentials. Unset: only beside the other paths,
    /// with credentials.
    #[arg(long, env = "METRICS_ADDR", value_parser = parse_bind_addr)]
    pub metrics_addr: Option<SocketAddr>,
    /// Address of a second listener for OTLP over HTTP alone, or `off`. If it is taken, xtrace warns
    /// and goes on.
    #[arg(long, env = "OTLP_HTTP_ADDR", default_value = "127.0.0.1:4318")]
    pub otlp_http_addr: Listen,
    /// Address for OTLP over gRPC, which BIND_ADDR answers too, or `off`. If it is taken, xtrace warns
    /// and goes on.
    #[arg(long, env = "OTLP_GRPC_ADDR", default_value = "127.0.0.1:4317")]
    pub otlp_grpc_addr: Listen,
    /// Web pages that may send OTLP: origins between commas, or `*` for all.
    #[arg(long, env = "OTLP_CORS_ORIGINS", default_value = "*", value_delimiter = ',', value_parser = parse_origin)]
    pub otlp_cors_origins: Vec<HeaderValue>,
    /// The native token: writes to the default project and reads it, as `Authorization: Bearer …`.
    /// Unset: one is generated on first start and kept in the data directory. Other users see the
    /// arguments of a process: prefer the variable, or API_BEARER_TOKEN_FILE, which names a file.
    #[arg(long, env = "API_BEARER_TOKEN", hide_env_values = true)]
    api_bearer_token: Option<String>,
    /// The token of administrators: makes projects and keys, and sees the metrics of the whole service;
    /// or XTRACE_ADMIN_TOKEN_FILE. Unset: generated like the native token, if anything is.
    #[arg(
        long = "admin-token",
        env = "XTRACE_ADMIN_TOKEN",
        hide_env_values = true
    )]
    admin_token: Option<String>,
    /// Project of the token and of the key pair.
    #[arg(long, env = "DEFAULT_PROJECT_ID", default_value = "default", value_parser = parse_project)]
    pub default_project_id: ProjectId,
    /// Public key of the default project's key pair. Unset: a pair is generated on first start.
    #[arg(long, env = "XTRACE_PUBLIC_KEY", value_parser = parse_key)]
    xtrace_public_key: Option<String>,
    /// Secret key of the default project's key pair, or XTRACE_SECRET_KEY_FILE.
    #[arg(long, env = "XTRACE_SECRET_KEY", hide_env_values = true)]
    xtrace_secret_key: Option<String>,
    /// The same as XTRACE_PUBLIC_KEY, which goes first.
    #[arg(long, env = "LANGFUSE_PUBLIC_KEY", value_parser = parse_key)]
    langfuse_public_key: Option<String>,
    /// The same as XTRACE_SECRET_KEY, which goes first; or LANGFUSE_SECRET_KEY_FILE.
    #[arg(long, env = "LANGFUSE_SECRET_KEY", hide_env_values = true)]
    langfuse_secret_key: Option<String>,
    /// Read requests per second and credential; 0 turns limiting off.
    #[arg(long, env = "RATE_LIMIT_QPS", default_value = "20", value_parser = parse_qps)]
    rate_limit_qps: u32,
    /// Read requests at once per credential.
    #[arg(long, env = "RATE_LIMIT_BURST", default_value = "40", value_parser = parse_burst)]
    pub rate_limit_burst: NonZeroU32,
    /// Days until metric points are dropped; 0 keeps all.
    #[arg(long, env = "METRICS_RETENTION_DAYS", default_value = "30", value_parser = parse_metrics_days)]
    metrics_retention_days: u32,
    /// Days until traces are dropped; 0 keeps all.
    #[arg(long, env = "TRACES_RETENTION_DAYS", default_value = "90", value_parser = parse_traces_days)]
    traces_retention_days: u32,
    /// Bytes of a request body at most, on the wire and decompressed alike.
    #[arg(
        long = "max-request-body-bytes",
        env = "XTRACE_MAX_REQUEST_BODY_BYTES",
        default_value = "67108864",
        value_parser = parse_body_bytes
    )]
    pub body_bytes_max: usize,
    /// Where clients reach this service, such as `https://traces.example.com`; links to media begin with
    /// it. Unset: the host that was asked.
    #[arg(long = "xtrace-public-url", env = "XTRACE_PUBLIC_URL", value_parser = parse_public_url)]
    public_url: Option<String>,
    /// Bytes of a media file at most.
    #[arg(
        long = "max-media-bytes",
        env = "XTRACE_MAX_MEDIA_BYTES",
        default_value = "1000000000"
    )]
    media_bytes_max: u64,
    /// Active series of one metric at most, in a project.
    #[arg(
        long = "max-series-per-metric",
        env = "XTRACE_MAX_SERIES_PER_METRIC",
        default_value = "10000"
    )]
    series_per_metric_max: usize,
    /// Active series of a project at most.
    #[arg(
        long = "max-series-per-project",
        env = "XTRACE_MAX_SERIES_PER_PROJECT",
        default_value = "100000"
    )]
    series_per_project_max: usize,
    /// How much callers may take.
    #[command(flatten)]
    pub limits: LimitsConfig,
    /// Seconds that requests are still taken after SIGTERM while `/readyz` answers 503 already, so that
    /// load balancers notice first.
    #[arg(long = "shutdown-delay", env = "XTRACE_SHUTDOWN_DELAY", default_value = "0", value_parser = parse_delay)]
    shutdown_delay: Duration,
}

/// Where a listener that can be done without listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() || text.eq_ignore_ascii_case("off") {
            return Ok(Self(None));
        }
        let address = text
            .parse()
            .map_err(|_| "takes an address and a port such as 127.0.0.1:4317, or off".to_owned())?;
        Ok(Self(Some(address)))
    }
}

/// Which server `xtrace healthcheck` asks.
#[derive(Debug, Clone, Args)]
pub struct HealthcheckConfig {
    /// Address of the server.
    #[arg(long, env = "BIND_ADDR", default_value = "127.0.0.1:8742", value_parser = parse_bind_addr)]
    pub bind_addr: SocketAddr,
}

/// A key pair.
#[derive(Clone)]
pub struct KeyPair {
    /// Names it.
    pub public: String,
    /// Proves it.
    pub secret: String,
}

impl Cli {
    /// Parses arguments and environment; prints help or a fault and ends the process with exit
    /// code 0 or 2.
    pub fn from_command_line() -> Self {
        Self::try_from_arguments(std::env::args_os()).unwrap_or_else(|fault| fault.exit())
    }

    /// Parses arguments (the first names the program) and environment.
    pub fn try_from_arguments<T: Into<OsString> + Clone>(
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut cli = Self::try_parse_from(arguments)?;
        cli.command = cli
            .chosen
            .take()
            .unwrap_or_else(|| Command::Serve(cli.serve.clone()));
        cli.command
            .take_secrets()
            .map_err(|fault| Self::command().error(ErrorKind::ValueValidation, fault))?;
        Ok(cli)
    }
}

impl Command {
    /// Where data lives and whom root becomes, of a command that needs a database.
    pub(crate) fn database_mut(&mut self) -> Option<(&mut DatabaseConfig, Option<String>)> {
        let database = match self {
            Self::Serve(config) => &mut config.database,
            Self::Migrate(database) | Self::Erasures(database) => database,
            Self::Keys(command) => command.database_mut(),
            Self::Reprice(config) => &mut config.database,
            Self::Healthcheck(_) | Self::Version => return None,
        };
        let user = database.user();
        Some((database, user))
    }

    /// Whether files are kept in the data directory: the private Postgres, or generated credentials.
    pub(crate) fn keeps_files(&mut self) -> bool {
        let lacks_secrets = match self {
            Self::Serve(config) => config.lacks_secrets(),
            _ => false,
        };
        let is_embedded = self
            .database_mut()
            .is_some_and(|(database, _)| matches!(database.database(), Database::Embedded { .. }));
        lacks_secrets || is_embedded
    }

    fn take_secrets(&mut self) -> Result<(), String> {
        match self {
            Self::Serve(config) => config.take_secrets(),
            Self::Migrate(database) | Self::Erasures(database) => database.take_secrets(),
            Self::Keys(command) => command.database_mut().take_secrets(),
            Self::Reprice(config) => config.database.take_secrets(),
            Self::Healthcheck(_) | Self::Version => Ok(()),
        }
    }
}

impl ServeConfig {
    fn take_secrets(&mut self) -> Result<(), String> {
        self.database.take_secrets()?;
        files::fill("API_BEARER_TOKEN", &mut self.api_bearer_token, parse_token)?;
        files::fill(
            "XTRACE_ADMIN_TOKEN",
            &mut self.admin_token,
            parse_admin_token,
        )?;
        let secret = parse_secret_key;
        files::fill("XTRACE_SECRET_KEY", &mut self.xtrace_secret_key, secret)?;
        files::fill("LANGFUSE_SECRET_KEY", &mut self.langfuse_secret_key, secret)?;
        self.key_pair().map(|_| ())
    }

    /// Variables of secrets that are shorter than they should be.
    pub fn short_secrets(&self) -> Vec<&'static str> {
        let secrets = [
            ("API_BEARER_TOKEN", &self.api_bearer_token),
            ("XTRACE_SECRET_KEY", &self.xtrace_secret_key),
            ("LANGFUSE_SECRET_KEY", &self.langfuse_secret_key),
        ];
        let short = secrets.into_iter().filter(|(_, secret)| {
            let chars = secret.as_ref().map(String::len);
            chars.is_some_and(|chars| chars < crate::secrets::SECRET_CHARS)
        });
        short.map(|(variable, _)| variable).collect()
    }

    /// Whether credentials have to be generated.
    pub fn lacks_secrets(&self) -> bool {
        !matches!(self.key_pair(), Ok(Some(_))) || self.api_token().is_none()
    }

    /// The configured token of administrators.
    pub fn admin_token(&self) -> Option<&str> {
        self.admin_token.as_deref()
    }

    /// Where data lives.
    pub fn database(&self) -> &DatabaseConfig {
        &self.database
    }

    /// The configured token.
    pub fn api_token(&self) -> Option<&str> {
        self.api_bearer_token.as_deref()
    }

    /// The configured key pair; half a pair is a fault.
    pub fn key_pair(&self) -> Result<Option<KeyPair>, String> {
        let pairs = [
            ("XTRACE", &self.xtrace_public_key, &self.xtrace_secret_key),
            (
                "LANGFUSE",
                &self.langfuse_public_key,
                &self.langfuse_secret_key,
            ),
        ];
        let mut found = None;
        for (family, public, secret) in pairs {
            match (public, secret) {
                (Some(public), Some(secret)) => {
                    found = found.or(Some(KeyPair {
                        public: public.clone(),
                        secret: secret.clone(),
                    }));
                }
                (Some(_), None) => return Err(half_pair(family, "PUBLIC", "SECRET")),
                (None, Some(_)) => return Err(half_pair(family, "SECRET", "PUBLIC")),
                (None, None) => {}
            }
        }
        Ok(found)
    }

    /// Read requests per second, if they are limited.
    pub fn reads_per_second(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.rate_limit_qps)
    }

    /// From SIGTERM to the last request that is taken.
    pub fn shutdown_delay(&self) -> Duration {
        self.shutdown_delay
    }

    /// How media are kept.
    pub fn media(&self) -> MediaSettings {
        MediaSettings {
            public_url: self.public_url.clone(),
            bytes_max: self.media_bytes_max,
        }
    }

    /// How many series there may be.
    pub fn series_limits(&self) -> SeriesLimits {
        SeriesLimits {
            per_metric: self.series_per_metric_max,
            per_project: self.series_per_project_max,
        }
    }

    /// How long data is kept.
    pub fn retention(&self) -> xtrace_store::Retention {
        let days = |days: u32| (days > 0).then_some(i64::from(days));
        xtrace_store::Retention {
            traces_days: days(self.traces_retention_days),
            metrics_days: days(self.metrics_retention_days),
        }
    }
}

fn half_pair(family: &str, has: &str, lacks: &str) -> String {
    format!("{family}_{has}_KEY is set but {family}_{lacks}_KEY is not; set both or neither")
}

/// A variable of the environment that is set and not empty.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(arguments: &[&str]) -> Result<ServeConfig, String> {
        let line = ["xtrace", "serve"].iter().chain(arguments);
        match Cli::try_from_arguments(line)
            .map_err(|error| error.to_string())?
            .command
        {
            Command::Serve(config) => Ok(config),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn wrong_values_name_the_variable_and_what_it_takes() {
        let check = |flag: &str, value: &str, words: &str| {
            let fault = serve(&[flag, value]).unwrap_err();
            assert!(fault.contains(words), "{fault}");
        };
        check("--bind-addr", "8742", "BIND_ADDR takes an address");
        check(
            "--rate-limit-burst",
            "0",
            "RATE_LIMIT_BURST takes a whole number from 1",
        );
        check("--rate-limit-qps", "many", "RATE_LIMIT_QPS");
        check("--database-url", "mysql://x", "DATABASE_URL takes a URL");
        check("--metrics-retention-days", "soon", "METRICS_RETENTION_DAYS");
        check(
            "--max-request-body-bytes",
            "1",
            "XTRACE_MAX_REQUEST_BODY_BYTES",
        );
        check("--api-bearer-token", "a b", "API_BEARER_TOKEN");
        check("--xtrace-public-key", "a:b", "KEY");
        check(
            "--admin-token",
            "thirty-one-characters-are-in-it",
            "XTRACE_ADMIN_TOKEN takes 32",
        );
        check("--default-project-id", "", "DEFAULT_PROJECT_ID");
    }

    #[test]
    fn half_a_key_pair_is_a_fault() {
        let fault = serve(&["--langfuse-secret-key", "half of it"]).unwrap_err();
        assert!(
            fault.contains("LANGFUSE_SECRET_KEY takes visible"),
            "{fault}"
        );
        let fault = serve(&["--langfuse-secret-key", "a-secret"]).unwrap_err();
        assert!(fault.contains(
            "LANGFUSE_SECRET_KEY is set but LANGFUSE_PUBLIC_KEY is not; set both or neither"
        ));
        let flags = [
            "--langfuse-public-key",
            "lp",
            "--langfuse-secret-key",
            "a-secret",
        ];
        assert_eq!(
            serve(&flags).unwrap().key_pair().unwrap().unwrap().public,
            "lp"
        );
    }

    #[test]
    fn wrong_secrets_are_not_quoted() {
        for (flag, value) in [
            ("--api-bearer-token", "hush me"),
            ("--xtrace-secret-key", "hush"),
            ("--admin-token", "hush-hush"),
            ("--database-url", "mysql://hush"),
        ] {
            let fault = serve(&[flag, value]).unwrap_err();
            assert!(
                fault.contains("takes") && !fault.contains("hush"),
                "{fault}"
            );
        }
    }

    #[test]
    fn zero_turns_limits_off() {
        let config = serve(&["--rate-limit-qps", "0", "--traces-retention-days", "0"]).unwrap();
        assert_eq!(config.reads_per_second(), None);
        assert_eq!(config.retention().traces_days, None);
        assert_eq!(config.retention().metrics_days, Some(30));
    }
}
