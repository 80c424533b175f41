//! A private Postgres: found, made, started, watched and stopped by xtrace. It listens on a Unix
//! socket that only its owner can open, and keeps all its durability settings.
//!
//! - `programs`: where the Postgres programs are.
//! - `owner`: whom Postgres runs as, for it refuses to be root.
//! - `cluster`: the data directory: made once, checked at every start.
//! - `process`: the running server: started or adopted, restarted when it dies, stopped.

mod cluster;
mod owner;
mod process;
mod programs;

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use cluster::Cluster;
use owner::Owner;
use process::Server;

/// A running private Postgres; holds the lock on its data directory.
pub struct EmbeddedPostgres {
    server: Server,
    _lock: File,
}

impl EmbeddedPostgres {
    /// Starts Postgres under `data_dir`, or adopts the one that a killed xtrace left running.
    pub async fn start(data_dir: &Path, pg_bin: Option<&Path>) -> anyhow::Result<Self> {
        let programs = programs::find(pg_bin)?;
        let owner = Owner::choose()?;
        let lock = prepare(data_dir)?;
        let cluster = Cluster::open(data_dir, &programs, &owner).await?;
        let socket_dir = socket_dir(data_dir, &owner)?;
        let server = Server::start(programs, owner, cluster, socket_dir).await?;
        Ok(Self {
            server,
            _lock: lock,
        })
    }

    /// Where the Postgres answers that another xtrace runs under `data_dir`; none if nobody does.
    pub fn running(data_dir: &Path) -> anyhow::Result<Option<String>> {
        let Ok(lock) = File::open(data_dir.join("xtrace.lock")) else {
            return Ok(None);
        };
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let dir = socket_dir(data_dir, &Owner::choose()?)?;
                Ok(Some(url_of(&dir)))
            }
            _ => Ok(None),
        }
    }

    /// Where it answers.
    pub fn database_url(&self) -> String {
        url_of(self.server.socket_dir())
    }

    /// Stops it; all of its data is on disk.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

fn url_of(socket_dir: &Path) -> String {
    let host: String =
        form_urlencoded::byte_serialize(socket_dir.as_os_str().as_encoded_bytes()).collect();
    format!("postgres://postgres@localhost/postgres?host={host}")
}

/// Makes the data directory and locks it for this process.
fn prepare(data_dir: &Path) -> anyhow::Result<File> {
    let context = || format!("the data directory {} can't be used", data_dir.display());
    if !data_dir.exists() {
        fs::create_dir_all(data_dir).with_context(context)?;
        // Postgres' own user must be able to pass through.
        fs::set_permissions(data_dir, fs::Permissions::from_mode(0o711)).with_context(context)?;
    }
    let lock = File::create(data_dir.join("xtrace.lock")).with_context(context)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "the data directory {} is in use by another xtrace",
                data_dir.display()
            )
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(context),
    }
}

/// The socket's path must fit into 107 bytes; a long data directory gets a short one elsewhere.
fn socket_dir(data_dir: &Path, owner: &Owner) -> anyhow::Result<PathBuf> {
    const SOCKET_NAME_BYTES: usize = "/.s.PGSQL.5432.lock".len();
    let near = data_dir.join("run");
    let dir = if near.as_os_str().len() + SOCKET_NAME_BYTES < 107 {
        near
    } else {
        let hash = xxhash_rust::xxh3::xxh3_64(data_dir.as_os_str().as_encoded_bytes());
        std::env::temp_dir().join(format!("xtrace-{hash:016x}"))
    };
    owner.make_private_dir(&dir)?;
    Ok(dir)
}
