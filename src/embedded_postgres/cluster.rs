//! The data directory of the private Postgres: made once, checked at every start.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::owner::Owner;
use super::programs::Programs;

/// A Postgres data directory.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    pub(super) dir: PathBuf,
    pub(super) log: PathBuf,
}

impl Cluster {
    /// Opens the data directory, or makes it.
    pub(super) async fn open(
        data_dir: &Path,
        programs: &Programs,
        owner: &Owner,
    ) -> anyhow::Result<Self> {
        let home = data_dir.join("postgres");
        owner.make_private_dir(&home)?;
        let cluster = Self {
            dir: home.join("data"),
            log: home.join("postgres.log"),
        };
        match fs::read_to_string(cluster.dir.join("PG_VERSION")) {
            Ok(version) => cluster.check_version(version.trim(), programs)?,
            Err(_) => cluster.make(programs, owner).await?,
        }
        Ok(cluster)
    }

    fn check_version(&self, found: &str, programs: &Programs) -> anyhow::Result<()> {
        if found.parse() == Ok(programs.major) {
            return Ok(());
        }
        bail!(
            "{} was made by PostgreSQL {found}, but the programs found are of PostgreSQL {}: \
             install version {found} and set XTRACE_PG_BIN to it, or upgrade the data with pg_upgrade",
            self.dir.display(),
            programs.major
        )
    }

    /// Made beside and renamed, so that a crash leaves all or nothing.
    async fn make(&self, programs: &Programs, owner: &Owner) -> anyhow::Result<()> {
        let unfinished = self.dir.with_extension("new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        let initdb = programs.path("initdb");
        let output = owner
            .command_by_name(&initdb)
            .arg("--pgdata")
            .arg(&unfinished)
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--data-checksums",
            ])
            .output()
            .await
            .with_context(|| format!("{} can't be run", initdb.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .unwrap_or_default();
            bail!(
                "{} could not make {}: {last}{}",
                initdb.display(),
                unfinished.display(),
                owner.hint()
            );
        }
        fs::rename(&unfinished, &self.dir)?;
        Ok(())
    }
}
