//! Where the Postgres programs are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::config;

/// The programs of one Postgres installation.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    bin: PathBuf,
    /// Its major version.
    pub(super) major: u32,
}

/// The oldest version with everything that the schema uses (lz4 compression).
const MAJOR_MIN: u32 = 14;

impl Programs {
    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.bin.join(program)
    }
}

/// Finds the programs: where somebody said, on PATH, where `pg_config` says, or where Debian puts
/// them (the newest version).
pub(super) fn find(pg_bin: Option<&Path>) -> anyhow::Result<Programs> {
    if let Some(bin) = pg_bin {
        if !is_complete(bin) {
            bail!(
                "XTRACE_PG_BIN is {}, where postgres and initdb are not",
                bin.display()
            );
        }
        return with_version(bin.to_owned());
    }
    let found = on_path().or_else(by_pg_config).or_else(by_debian);
    let Some(bin) = found else {
        bail!(
            "no PostgreSQL programs found for the private database: install them \
             (Debian, Ubuntu: apt install postgresql), or set XTRACE_PG_BIN to their directory, \
             or DATABASE_URL to a server of your own"
        );
    };
    with_version(bin)
}

fn is_complete(bin: &Path) -> bool {
    ["postgres", "initdb"]
        .iter()
        .all(|program| bin.join(program).is_file())
}

/// Links on PATH are followed: Postgres finds its other files beside its real program.
fn on_path() -> Option<PathBuf> {
    let path = config::environment("PATH")?;
    let mut dirs = std::env::split_paths(&path).filter(|dir| is_complete(dir));
    let program = dirs.next()?.join("postgres").canonicalize().ok()?;
    program
        .parent()
        .filter(|bin| is_complete(bin))
        .map(Path::to_owned)
}

fn by_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let bin = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    is_complete(&bin).then_some(bin)
}

fn by_debian() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let bins = versions.filter_map(|entry| {
        let entry = entry.ok()?;
        let major: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((major, entry.path().join("bin")))
    });
    let newest = bins
        .filter(|(_, bin)| is_complete(bin))
        .max_by_key(|(major, _)| *major)?;
    Some(newest.1)
}

fn with_version(bin: PathBuf) -> anyhow::Result<Programs> {
    let postgres = bin.join("postgres");
    let output = Command::new(&postgres).arg("--version").output();
    let output = output.with_context(|| format!("{} can't be run", postgres.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let major = text
        .split_whitespace()
        .find_map(|word| {
            word.split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("{} names no version", postgres.display()))?;
    if major < MAJOR_MIN {
        bail!(
            "{} is PostgreSQL {major}; xtrace needs {MAJOR_MIN} or newer",
            postgres.display()
        );
    }
    Ok(Programs { bin, major })
}
