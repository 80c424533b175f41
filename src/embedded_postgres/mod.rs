//! A private Postgres: found, made, started, watched and stopped by xtrace. It listens on a Unix
//! socket that only its owner can open, and keeps all its durability settings.
//!
//! - `programs`: where the Postgres programs are.
//! - `owner`: whom Postgres runs as, for it refuses to be root.
//! - `cluster`: the data directory: made once, checked at every start.
//! - `postmaster`: which process works there. `log`: what it says. `memory`: how much it may take.
//! - `process`: the running server: started or adopted, restarted when it dies, stopped.

mod cluster;
mod log;
mod memory;
mod owner;
mod postmaster;
mod process;
mod programs;

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::OFlags;
use xtrace_store::private_cluster;

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
        let lock = prepare(data_dir, owner)?;
        let cluster = Cluster::open(data_dir, &programs, &owner).await?;
        let socket_dir = socket_dir(data_dir);
        owner.make_private_dir(&socket_dir)?;
        let server = Server::start(programs, owner, cluster, socket_dir).await?;
        // Everything but this runs as a role that owns one database and nothing else.
        let superuser = |database: &str| url_of(server.socket_dir(), SUPERUSER, database);
        if let Err(fault) = private_cluster::give_to(ROLE, superuser).await {
            server.stop().await;
            return Err(fault.into());
        }
        Ok(Self {
            server,
            _lock: lock,
        })
    }

    /// Where the Postgres answers that another xtrace runs under `data_dir`; none if nobody does.
    pub fn running(data_dir: &Path) -> Option<String> {
        Self::is_in_use(data_dir).then(|| url_of(&socket_dir(data_dir), ROLE, ROLE))
    }

    /// Where it answers.
    pub fn database_url(&self) -> String {
        url_of(self.server.socket_dir(), ROLE, ROLE)
    }

    /// Where it answers its superuser, for tests that make more databases.
    pub fn superuser_url(&self) -> String {
        url_of(self.server.socket_dir(), SUPERUSER, "postgres")
    }

    /// Whether an xtrace runs under `data_dir`.
    pub(crate) fn is_in_use(data_dir: &Path) -> bool {
        let lock = File::open(data_dir.join(LOCK));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Stops the Postgres that an xtrace which is gone left running under `data_dir`.
    pub(crate) fn stop_orphan(data_dir: &Path) -> anyhow::Result<()> {
        let cluster = data_dir.join("postgres/data");
        match postmaster::of(&cluster) {
            Some(pid) if !postmaster::stop(&cluster, pid) => {
                bail!("the Postgres that runs there does not stop")
            }
            _ => Ok(()),
        }
    }

    /// Stops it; all of its data is on disk.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// The role that everything runs as, and the database that it owns.
const ROLE: &str = "xtrace";
/// The role that a cluster begins with.
const SUPERUSER: &str = "postgres";
const LOCK: &str = "xtrace.lock";

fn url_of(socket_dir: &Path, role: &str, database: &str) -> String {
    let host: String =
        form_urlencoded::byte_serialize(socket_dir.as_os_str().as_encoded_bytes()).collect();
    format!("postgres://{role}@localhost/{database}?host={host}")
}

/// Makes the data directory and locks it for this process.
fn prepare(data_dir: &Path, owner: Owner) -> anyhow::Result<File> {
    let context = || format!("the data directory {} can't be used", data_dir.display());
    if !data_dir.exists() {
        fs::create_dir_all(data_dir).with_context(context)?;
        let mode = fs::Permissions::from_mode(owner.mode_above());
        fs::set_permissions(data_dir, mode).with_context(context)?;
    }
    // Others who could open it could hold it.
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default())
        .open(data_dir.join(LOCK))
        .with_context(context)?;
    lock.set_permissions(fs::Permissions::from_mode(0o600))
        .with_context(context)?;
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
fn socket_dir(data_dir: &Path) -> PathBuf {
    const SOCKET_NAME_BYTES: usize = "/.s.PGSQL.5432.lock".len();
    let near = data_dir.join("run");
    if near.as_os_str().len() + SOCKET_NAME_BYTES < 107 {
        return near;
    }
    let hash = xxhash_rust::xxh3::xxh3_64(data_dir.as_os_str().as_encoded_bytes());
    std::env::temp_dir().join(format!("xtrace-{hash:016x}"))
}
