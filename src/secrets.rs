//! Credentials that nobody configured: made on first start, kept in the data directory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

use crate::config::{KeyPair, ServeConfig};

/// What opens the default project.
pub struct Secrets {
    /// The native token.
    pub api_token: String,
    /// The BasicAuth key pair.
    pub key_pair: KeyPair,
    /// The file that holds what was generated, if anything was.
    pub file: Option<PathBuf>,
}

const FILE: &str = "credentials.env";

/// What is configured, if that is all.
pub fn configured(config: &ServeConfig) -> anyhow::Result<Option<Secrets>> {
    let pair = config.key_pair().map_err(anyhow::Error::msg)?;
    let both = config.api_token().zip(pair);
    Ok(both.map(|(token, key_pair)| Secrets {
        api_token: token.to_owned(),
        key_pair,
        file: None,
    }))
}

/// What is configured; what isn't, from the file; what isn't there either, new.
pub fn load_or_make(config: &ServeConfig, data_dir: &Path) -> anyhow::Result<Secrets> {
    let file = data_dir.join(FILE);
    let kept = Kept::load_or_make(&file)
        .with_context(|| format!("credentials can't be kept in {}", file.display()))?;
    let pair = config.key_pair().map_err(anyhow::Error::msg)?;
    Ok(Secrets {
        api_token: config.api_token().map_or(kept.token, str::to_owned),
        key_pair: pair.unwrap_or(KeyPair {
            public: kept.public,
            secret: kept.secret,
        }),
        file: Some(file),
    })
}

/// The file's content: three lines that a shell can source.
struct Kept {
    token: String,
    public: String,
    secret: String,
}

impl Kept {
    fn load_or_make(file: &Path) -> anyhow::Result<Self> {
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(&text)
                .context("the file is not as xtrace wrote it; repair or delete it"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::make(file),
            Err(error) => Err(error.into()),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned).filter(|value| !value.is_empty())
        };
        Some(Self {
            token: value("API_BEARER_TOKEN")?,
            public: value("XTRACE_PUBLIC_KEY")?,
            secret: value("XTRACE_SECRET_KEY")?,
        })
    }

    /// Written beside and renamed, so that a crash leaves all or nothing.
    fn make(file: &Path) -> anyhow::Result<Self> {
        let (public, secret) = xtrace_store::keys::fresh_pair();
        let kept = Self {
            token: format!("xt-{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
            public,
            secret,
        };
        let unfinished = file.with_extension("env.new");
        let mut written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        writeln!(written, "API_BEARER_TOKEN={}", kept.token)?;
        writeln!(written, "XTRACE_PUBLIC_KEY={}", kept.public)?;
        writeln!(written, "XTRACE_SECRET_KEY={}", kept.secret)?;
        written.sync_all()?;
        fs::rename(&unfinished, file)?;
        Ok(kept)
    }
}
