//! Credentials that nobody configured: made on first start, kept in the data directory.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::OFlags;
use uuid::Uuid;

use crate::config::{Database, KeyPair, ServeConfig};

/// What opens the default project, and what administers.
pub struct Secrets {
    /// What exporters send.
    pub api_token: String,
    /// What makes projects and keys, if there is such a token.
    pub admin_token: Option<String>,
    /// The BasicAuth key pair.
    pub key_pair: KeyPair,
    /// The file that holds what was generated, if anything was.
    pub file: Option<PathBuf>,
    /// Variables whose values are short.
    short: Vec<&'static str>,
}

const FILE: &str = "credentials.env";
/// Random text of this length can't be guessed; what people choose is guessed sooner.
pub const SECRET_CHARS: usize = 32;

impl Secrets {
    /// Log lines at start: where credentials are, and which of them are weak.
    pub fn say_what_is_to_be_known(&self) {
        for variable in &self.short {
            tracing::warn!(
                "{variable} has fewer than {SECRET_CHARS} characters and can be guessed; \
                 `openssl rand -hex 32` makes a better one"
            );
        }
        if self.admin_token.is_none() {
            tracing::info!(
                "no XTRACE_ADMIN_TOKEN is set: only keys with the scope admin, and `xtrace keys`, administer"
            );
        }
        if let Some(file) = &self.file {
            tracing::info!("credentials are in {}", file.display());
        }
    }
}

/// What is configured, if that is all. Without a data directory in use nothing is made for the token of
/// administrators alone.
pub fn configured(config: &ServeConfig) -> anyhow::Result<Option<Secrets>> {
    let pair = config.key_pair().map_err(anyhow::Error::msg)?;
    let Some((token, key_pair)) = config.api_token().zip(pair) else {
        return Ok(None);
    };
    let is_embedded = matches!(config.database().database(), Database::Embedded { .. });
    if config.admin_token().is_none() && is_embedded {
        return Ok(None);
    }
    Ok(Some(Secrets {
        api_token: token.to_owned(),
        admin_token: config.admin_token().map(str::to_owned),
        key_pair,
        file: None,
        short: config.short_secrets(),
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
        admin_token: Some(config.admin_token().map_or(kept.admin, str::to_owned)),
        key_pair: pair.unwrap_or(KeyPair {
            public: kept.public,
            secret: kept.secret,
        }),
        file: Some(file),
        short: config.short_secrets(),
    })
}

/// Writes a new pair into the file of credentials, if that holds the old one.
pub fn replace_pair(data_dir: &Path, old_public: &str, new: &KeyPair) -> anyhow::Result<bool> {
    let file = data_dir.join(FILE);
    let Some(text) = read(&file)? else {
        return Ok(false);
    };
    let Some((mut kept, _)) = Kept::parse(&text).filter(|(kept, _)| kept.public == old_public)
    else {
        return Ok(false);
    };
    kept.public.clone_from(&new.public);
    kept.secret.clone_from(&new.secret);
    kept.write(&file)?;
    Ok(true)
}

/// The file's content: four lines that a shell can source.
struct Kept {
    token: String,
    admin: String,
    public: String,
    secret: String,
}

fn fresh_token(prefix: &str) -> String {
    format!(
        "{prefix}-{}{}",
        Uuid::new_v4().simple(),
        Uuid::new_v4().simple()
    )
}

impl Kept {
    fn load_or_make(file: &Path) -> anyhow::Result<Self> {
        let Some(text) = read(file)? else {
            let (public, secret) = xtrace_store::keys::fresh_pair();
            let kept = Self {
                token: fresh_token("xt"),
                admin: fresh_token("xta"),
                public,
                secret,
            };
            kept.write(file)?;
            return Ok(kept);
        };
        let (kept, is_complete) = Self::parse(&text)
            .context("the file is not as xtrace wrote it; repair or delete it")?;
        if !is_complete {
            kept.write(file)?;
            tracing::info!(
                "XTRACE_ADMIN_TOKEN is new in {}; API_BEARER_TOKEN no longer administers",
                file.display()
            );
        }
        Ok(kept)
    }

    /// And whether the file has all lines: older ones lack the token of administrators.
    fn parse(text: &str) -> Option<(Self, bool)> {
        let value = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned).filter(|value| !value.is_empty())
        };
        let admin = value("XTRACE_ADMIN_TOKEN");
        let is_complete = admin.is_some();
        let kept = Self {
            token: value("API_BEARER_TOKEN")?,
            admin: admin.unwrap_or_else(|| fresh_token("xta")),
            public: value("XTRACE_PUBLIC_KEY")?,
            secret: value("XTRACE_SECRET_KEY")?,
        };
        Some((kept, is_complete))
    }

    /// Written under another name and renamed, so that a crash leaves all or nothing.
    fn write(&self, file: &Path) -> anyhow::Result<()> {
        let unfinished = file.with_extension("env.new");
        // Left by a crash, or put there by somebody; never written through.
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        writeln!(written, "API_BEARER_TOKEN={}", self.token)?;
        writeln!(written, "XTRACE_PUBLIC_KEY={}", self.public)?;
        writeln!(written, "XTRACE_SECRET_KEY={}", self.secret)?;
        writeln!(written, "XTRACE_ADMIN_TOKEN={}", self.admin)?;
        written.sync_all()?;
        fs::rename(&unfinished, file)?;
        Ok(())
    }
}

/// A file of secrets; none if it is not there. Links are not followed, and a file that others could read
/// is closed to them.
fn read(file: &Path) -> anyhow::Result<Option<String>> {
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let opened = File::options()
        .read(true)
        .custom_flags(no_follow)
        .open(file);
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = opened.metadata()?;
    if !metadata.is_file() {
        bail!("it is no file");
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        opened.set_permissions(fs::Permissions::from_mode(0o600))?;
        tracing::warn!(
            "others could read {}; its mode is 600 now. If somebody did, delete it and start again",
            file.display()
        );
    }
    let mut text = String::new();
    opened.read_to_string(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_file_gains_a_token_of_administrators() {
        let dir = std::env::temp_dir().join(format!("xtrace-secrets-{}", Uuid::new_v4()));
        fs::create_dir(&dir).unwrap();
        let file = dir.join(FILE);
        fs::write(
            &file,
            "API_BEARER_TOKEN=a\nXTRACE_PUBLIC_KEY=b\nXTRACE_SECRET_KEY=c\n",
        )
        .unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        // What a crash or a stranger left is not written through.
        let target = dir.join("target");
        fs::write(&target, "untouched").unwrap();
        std::os::unix::fs::symlink(&target, dir.join("credentials.env.new")).unwrap();
        let first = Kept::load_or_make(&file).unwrap();
        let second = Kept::load_or_make(&file).unwrap();
        assert_eq!((first.token.as_str(), first.secret.as_str()), ("a", "c"));
        assert!(first.admin.len() > 60 && first.admin == second.admin);
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&target, &file).unwrap();
        assert!(Kept::load_or_make(&file).is_err(), "a link is not followed");
        fs::remove_dir_all(&dir).unwrap();
    }
}
