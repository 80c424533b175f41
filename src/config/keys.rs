//! What the commands that look after keys and prices are told.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use xtrace_model::ProjectId;
use xtrace_model::caller::Scopes;

use super::DatabaseConfig;
use super::values::parse_project;

/// What can be done with keys.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Make a key pair, and its project if that is new; prints both keys.
    Create {
        /// Where data lives.
        #[command(flatten)]
        database: DatabaseConfig,
        /// The project that it opens.
        #[arg(long, default_value = "default", value_parser = parse_project)]
        project: ProjectId,
        /// What people call it.
        #[arg(long)]
        name: Option<String>,
        /// What it may do: read, write, scores, admin, between commas.
        #[arg(long, default_value = "read,write,scores")]
        scopes: ScopeList,
        /// When it ends, such as 2027-01-01T00:00:00Z.
        #[arg(long)]
        expires_at: Option<DateTime<Utc>>,
    },
    /// Print all key pairs, without their secrets.
    List {
        /// Where data lives.
        #[command(flatten)]
        database: DatabaseConfig,
        /// Of this project alone.
        #[arg(long, value_parser = parse_project)]
        project: Option<ProjectId>,
    },
    /// Put a new key pair in the place of one, with its project and scopes; prints both keys. The
    /// generated pair changes in the file of credentials too.
    Rotate {
        /// Where data lives.
        #[command(flatten)]
        database: DatabaseConfig,
        /// Hours that the old pair goes on to open the project.
        #[arg(long, default_value = "0", value_parser = clap::value_parser!(u32).range(0..=8760))]
        grace_hours: u32,
        /// Its public key, or its id.
        key: String,
    },
    /// End a key pair; servers know within a second.
    Revoke {
        /// Where data lives.
        #[command(flatten)]
        database: DatabaseConfig,
        /// Its public key, or its id.
        key: String,
    },
}

impl KeysCommand {
    pub(super) fn database_mut(&mut self) -> &mut DatabaseConfig {
        match self {
            Self::Create { database, .. }
            | Self::List { database, .. }
            | Self::Rotate { database, .. }
            | Self::Revoke { database, .. } => database,
        }
    }

    /// Where data lives.
    pub fn database(&self) -> &DatabaseConfig {
        match self {
            Self::Create { database, .. }
            | Self::List { database, .. }
            | Self::Rotate { database, .. }
            | Self::Revoke { database, .. } => database,
        }
    }
}

/// Scopes on the command line.
#[derive(Debug, Clone, Copy)]
pub struct ScopeList(pub Scopes);

impl FromStr for ScopeList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = text.split(',').collect();
        let scopes = Scopes::parse(&names);
        scopes
            .map(Self)
            .ok_or_else(|| "takes some of read, write, scores, admin, between commas".to_owned())
    }
}

/// Which costs are computed anew.
#[derive(Debug, Clone, Args)]
pub struct RepriceConfig {
    /// Where data lives.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// Of this project alone.
    #[arg(long, value_parser = parse_project)]
    pub project: Option<ProjectId>,
    /// Of traces that begin at this time or later.
    #[arg(long, default_value = "0001-01-01T00:00:00Z")]
    pub from: DateTime<Utc>,
    /// Of traces that begin before this time.
    #[arg(long, default_value = "9999-01-01T00:00:00Z")]
    pub to: DateTime<Utc>,
}
