//! The running server: started or adopted, restarted when it dies, stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::task::JoinHandle;

use super::cluster::Cluster;
use super::owner::Owner;
use super::programs::Programs;
use super::{log, memory, postmaster};

/// Postgres replays its log after a crash; more than this needs a look at its own log.
const START_TIMEOUT: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(5);
const WATCH: Duration = Duration::from_millis(500);

/// A server that is kept running.
pub(super) struct Server {
    launch: Arc<Launch>,
    stopping: Arc<AtomicBool>,
    watcher: JoinHandle<()>,
}

/// Everything that a start needs.
struct Launch {
    programs: Programs,
    owner: Owner,
    cluster: Cluster,
    socket_dir: PathBuf,
}

impl Server {
    pub(super) async fn start(
        programs: Programs,
        owner: Owner,
        cluster: Cluster,
        socket_dir: PathBuf,
    ) -> anyhow::Result<Self> {
        let launch = Arc::new(Launch {
            programs,
            owner,
            cluster,
            socket_dir,
        });
        if launch.answers().await {
            tracing::info!("adopted the private Postgres that an earlier xtrace left running");
        } else {
            launch.start().await?;
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let watcher = tokio::spawn(watch(Arc::clone(&launch), Arc::clone(&stopping)));
        Ok(Self {
            launch,
            stopping,
            watcher,
        })
    }

    pub(super) fn socket_dir(&self) -> &Path {
        &self.launch.socket_dir
    }

    /// Stops at once: running transactions are rolled back, committed ones are on disk.
    pub(super) async fn stop(self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.watcher.abort();
        let cluster = self.launch.cluster.dir.clone();
        let stopped = tokio::task::spawn_blocking(move || {
            postmaster::of(&cluster).is_none_or(|pid| postmaster::stop(&cluster, pid))
        });
        if !stopped.await.unwrap_or(false) {
            tracing::warn!("the private Postgres takes long to stop and is left to itself");
        }
    }
}

/// Starts Postgres again whenever it is gone.
async fn watch(launch: Arc<Launch>, stopping: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(WATCH).await;
        if let Err(error) = log::keep_short(&launch.cluster.log) {
            tracing::debug!(%error, "the log of the private Postgres can't be moved aside");
        }
        let lives = postmaster::of(&launch.cluster.dir).is_some();
        if lives || stopping.load(Ordering::SeqCst) {
            continue;
        }
        tracing::warn!("the private Postgres is gone; starting it again");
        if let Err(error) = launch.start().await {
            tracing::error!("{error:#}");
        }
    }
}

impl Launch {
    /// Whether a server accepts connections and is through with its recovery.
    async fn answers(&self) -> bool {
        if UnixStream::connect(self.socket_dir.join(".s.PGSQL.5432"))
            .await
            .is_err()
        {
            return false;
        }
        let file = fs::read_to_string(self.cluster.dir.join("postmaster.pid")).unwrap_or_default();
        // The eighth line is the server's state.
        file.lines()
            .nth(7)
            .is_some_and(|state| state.trim() == "ready")
    }

    /// Starts Postgres and waits until it answers. After a crash of the server alone its orphans
    /// hold the shared memory for a moment, and the first starts fail.
    async fn start(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut child = self.spawn()?;
        while !self.answers().await {
            if let Some(status) = child.try_wait()? {
                let reason = self.last_log_line();
                let transient = [
                    "pre-existing shared memory block",
                    "\"postmaster.pid\" already exists",
                ];
                if !transient.iter().any(|words| reason.contains(words))
                    || began.elapsed() > START_TIMEOUT
                {
                    bail!("the private Postgres did not start ({status}): {reason}");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                child = self.spawn()?;
            }
            if began.elapsed() > START_TIMEOUT {
                bail!(
                    "the private Postgres does not answer after {} s; its log is {}",
                    START_TIMEOUT.as_secs(),
                    self.cluster.log.display()
                );
            }
            tokio::time::sleep(POLL).await;
        }
        // Reaps the process when it ends; it is not killed with this handle.
        tokio::spawn(async move { child.wait().await });
        Ok(())
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = log::open(&self.cluster.log);
        let log =
            log.with_context(|| format!("{} can't be written", self.cluster.log.display()))?;
        let postgres = self.programs.path("postgres");
        let mut command = self.owner.command(&postgres);
        command.arg("-D").arg(&self.cluster.dir);
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} can't be run", postgres.display()))
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let memory = memory::mib();
        let shared_mb = (memory / 4).clamp(32, 4096);
        let mut settings = vec![
            (
                "unix_socket_directories",
                format!("\"{}\"", self.socket_dir.display()),
            ),
            ("shared_buffers", format!("{shared_mb}MB")),
            ("work_mem", format!("{}MB", (memory / 64).clamp(4, 32))),
            (
                "maintenance_work_mem",
                format!("{}MB", (memory / 16).clamp(16, 256)),
            ),
        ];
        settings.extend(
            SETTINGS
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        settings
    }

    fn last_log_line(&self) -> String {
        let log = fs::read(&self.cluster.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]).into_owned();
        let telling = tail
            .lines()
            .rev()
            .find(|line| line.contains("FATAL") || line.contains("ERROR"));
        telling
            .or(tail.lines().last())
            .unwrap_or("its log is empty")
            .to_owned()
    }
}

/// What the private Postgres is told. Durability stays on: an acknowledged row survives a crash.
const SETTINGS: [(&str, &str); 24] = [
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("wal_buffers", "16MB"),
    ("wal_compression", "lz4"),
    ("max_wal_size", "8GB"),
    ("min_wal_size", "256MB"),
    ("checkpoint_timeout", "15min"),
    ("checkpoint_completion_target", "0.9"),
    ("default_toast_compression", "lz4"),
    ("jit", "off"),
    ("random_page_cost", "1.1"),
    ("autovacuum_vacuum_insert_scale_factor", "0.05"),
    ("max_connections", "100"),
    // A question without a time takes a lock on every partition and on every index of it.
    ("max_locks_per_transaction", "512"),
    ("log_min_messages", "warning"),
    ("log_timezone", "UTC"),
    // Statements and the details of errors quote what people sent.
    ("log_error_verbosity", "terse"),
    ("log_min_error_statement", "panic"),
    ("temp_file_limit", "8GB"),
];
