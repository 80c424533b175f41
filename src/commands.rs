//! Commands that look after keys, prices and deleted projects, beside a running server or without one.

use anyhow::bail;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use xtrace_model::ProjectId;
use xtrace_store::keys::{self, NewKey};
use xtrace_store::{Options, Store, erasure, projects, writer};

use crate::config::{DatabaseConfig, KeyPair, KeysCommand, RepriceConfig};
use crate::embedded_postgres::EmbeddedPostgres;
use crate::secrets;
use crate::server::{open_database, open_store};

/// How a command uses the database.
#[derive(Clone, Copy)]
enum Use {
    /// Reads it, or changes a row; the schema stays as it is.
    AsItIs,
    /// Needs the schema of this program.
    Migrated,
}

/// A store for one command, and the Postgres that runs for it alone.
struct Session {
    store: Store,
    embedded: Option<EmbeddedPostgres>,
}

impl Session {
    /// Brings the schema up to date if the command needs that.
    async fn open(config: &DatabaseConfig, how: Use) -> anyhow::Result<Self> {
        let (url, embedded) = match config.running()? {
            Some(url) => (url, None),
            None => open_database(config).await?,
        };
        let session = Self {
            store: open_store(&Options::new(url))?,
            embedded,
        };
        let opened = match how {
            Use::AsItIs => session.store.inspect().await,
            Use::Migrated => session.store.migrate().await,
        };
        match opened {
            Ok(()) => Ok(session),
            Err(fault) => {
                session.close().await;
                Err(fault.into())
            }
        }
    }

    async fn close(self) {
        self.store.close().await;
        if let Some(postgres) = self.embedded {
            postgres.stop().await;
        }
    }
}

/// `xtrace keys …`; returns what is to be printed.
pub async fn keys(command: &KeysCommand) -> anyhow::Result<String> {
    let how = match command {
        KeysCommand::List { .. } | KeysCommand::Revoke { .. } => Use::AsItIs,
        KeysCommand::Create { .. } | KeysCommand::Rotate { .. } => Use::Migrated,
    };
    let session = Session::open(command.database(), how).await?;
    let said = run_keys(&session.store, command).await;
    session.close().await;
    said
}

async fn run_keys(store: &Store, command: &KeysCommand) -> anyhow::Result<String> {
    match command {
        KeysCommand::Create {
            project,
            name,
            scopes,
            expires_at,
            ..
        } => {
            let (public_key, secret_key) = keys::fresh_pair();
            let key = NewKey {
                public_key,
                secret_key,
                name: name.clone(),
                scopes: scopes.0,
                expires_at: *expires_at,
            };
            let now = Utc::now();
            projects::ensure(store, project, now).await?;
            if keys::add(store, project, &key, now).await?.is_err() {
                bail!("a key of that name is there already; try again");
            }
            // Two lines that a shell can source; the secret is nowhere else.
            Ok(format!(
                "LANGFUSE_PUBLIC_KEY={}\nLANGFUSE_SECRET_KEY={}\n",
                key.public_key, key.secret_key
            ))
        }
        KeysCommand::Rotate {
            database,
            key,
            grace_hours,
        } => {
            let (public, secret) = keys::fresh_pair();
            let now = Utc::now();
            let old_ends_at = now + TimeDelta::hours(i64::from(*grace_hours));
            let times = (now, old_ends_at);
            let Some(old) = keys::rotate(store, key, (&public, &secret), times).await? else {
                bail!("there is no open key {key}; `xtrace keys list` shows all")
            };
            let pair = format!("LANGFUSE_PUBLIC_KEY={public}\nLANGFUSE_SECRET_KEY={secret}\n");
            let new = KeyPair { public, secret };
            if !secrets::replace_pair(&database.data_dir()?, &old, &new)? {
                tracing::info!("if {old} is configured somewhere, put the new pair there");
            }
            Ok(pair)
        }
        KeysCommand::List { project, .. } => list(store, project.as_ref()).await,
        KeysCommand::Revoke { key, .. } => {
            if keys::revoke(store, None, key).await? {
                return Ok(format!("{key} is revoked\n"));
            }
            bail!("there is no key {key}; `xtrace keys list` shows all")
        }
    }
}

async fn list(store: &Store, project: Option<&ProjectId>) -> anyhow::Result<String> {
    let mut said =
        String::from("PROJECT\tPUBLIC KEY\tSECRET\tSCOPES\tCREATED\tEXPIRES\tSOURCE\tNAME\n");
    for key in keys::list(store, project).await? {
        let day = |time: DateTime<Utc>| time.format("%Y-%m-%d").to_string();
        let columns = [
            key.project_id,
            key.public_key,
            key.display_secret,
            key.scopes.join(","),
            day(key.created_at),
            key.expires_at.map_or_else(|| "never".to_owned(), day),
            key.source.unwrap_or_else(|| "made".to_owned()),
            key.name.unwrap_or_default(),
        ];
        // Names are anybody's words, and this is somebody's terminal.
        let columns = columns.map(|text| text.escape_debug().to_string());
        said.push_str(&columns.join("\t"));
        said.push('\n');
    }
    Ok(said)
}

/// `xtrace erasures`; returns what is to be printed.
pub async fn erasures(config: &DatabaseConfig) -> anyhow::Result<String> {
    let session = Session::open(config, Use::Migrated).await?;
    let found = erasure::list(&session.store).await;
    session.close().await;
    let mut said = String::from("PROJECT\tNAME\tASKED\tFINISHED\tDELETED ROWS\n");
    let second = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    for erasure in found? {
        let columns = [
            erasure.id,
            erasure.name.unwrap_or_default(),
            second(erasure.asked_at),
            erasure
                .finished_at
                .map_or_else(|| "not yet".to_owned(), second),
        ];
        let columns = columns.map(|text| text.escape_debug().to_string());
        let line = format!("{}\t{}\n", columns.join("\t"), erasure.counts);
        said.push_str(&line);
    }
    Ok(said)
}

/// `xtrace reprice`; returns what is to be printed.
pub async fn reprice(config: RepriceConfig) -> anyhow::Result<String> {
    let session = Session::open(&config.database, Use::Migrated).await?;
    let said = run_reprice(&session.store, &config).await;
    session.close().await;
    said
}

async fn run_reprice(store: &Store, config: &RepriceConfig) -> anyhow::Result<String> {
    let chosen = match &config.project {
        Some(project) => vec![project.clone()],
        None => {
            let all = projects::all(store).await?.into_iter();
            all.filter_map(|project| ProjectId::parse(project.id).ok())
                .collect()
        }
    };
    let mut said = String::new();
    for project in chosen {
        let changed = writer::reprice(store, &project, (config.from, config.to)).await?;
        let line = format!("{project}: {changed} observations have other costs now\n");
        said.push_str(&line);
    }
    Ok(said)
}
