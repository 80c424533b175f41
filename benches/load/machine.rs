//! What is measured and on what: a Postgres and an xtrace of the benchmark's own, and their processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::{Child, Command};
use xtrace::embedded_postgres::EmbeddedPostgres;

pub(crate) const TOKEN: &str = "bench-token";

/// A private Postgres under a directory that is removed at the end.
pub(crate) struct Postgres {
    dir: PathBuf,
    server: EmbeddedPostgres,
}

impl Postgres {
    pub(crate) async fn start() -> Self {
        let root =
            std::env::var_os("XTRACE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = root.join(format!("xtrace-bench-{}", std::process::id()));
        let server = EmbeddedPostgres::start(&dir, None).await.unwrap();
        Self { dir, server }
    }

    /// A new, empty database; its URL.
    pub(crate) async fn database(&self, name: &str) -> String {
        let url = self.server.superuser_url();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let statement = AssertSqlSafe(format!("create database {name} template template0"));
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
        url.replace("/postgres?", &format!("/{name}?"))
    }

    /// Removes a database, so that the next part starts with an idle server.
    pub(crate) async fn drop_database(&self, name: &str) {
        let mut connection = PgConnection::connect(&self.server.superuser_url())
            .await
            .unwrap();
        for statement in [
            format!("drop database {name} with (force)"),
            "checkpoint".to_owned(),
        ] {
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut connection)
                .await
                .unwrap();
        }
    }

    /// CPU time of the server and all its processes so far, those that ended included.
    pub(crate) fn cpu(&self) -> Duration {
        let file = fs::read_to_string(self.dir.join("postgres/data/postmaster.pid")).unwrap();
        let postmaster: u32 = file.lines().next().unwrap().trim().parse().unwrap();
        let children = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = Stat::of(pid)?;
            (stat.parent == postmaster).then_some(stat.own)
        });
        let own = Stat::of(postmaster).unwrap();
        own.own + own.ended_children + children.sum::<Duration>()
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await;
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

struct Stat {
    parent: u32,
    own: Duration,
    ended_children: Duration,
}

impl Stat {
    /// From `/proc/<pid>/stat`, whose times are in hundredths of a second.
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| rest[at].parse::<u64>().unwrap_or_default() * 10;
        Some(Self {
            parent: rest[1].parse().ok()?,
            own: Duration::from_millis(ticks(11) + ticks(12)),
            ended_children: Duration::from_millis(ticks(13) + ticks(14)),
        })
    }
}

/// CPU time of this process: of the load generator.
pub(crate) fn own_cpu() -> Duration {
    Stat::of(std::process::id()).unwrap().own
}

/// An xtrace in a process of its own.
pub(crate) struct Xtrace {
    pub(crate) url: String,
    child: Child,
}

impl Xtrace {
    pub(crate) async fn start(database_url: &str) -> Self {
        Self::spawn(
            Path::new(env!("CARGO_BIN_EXE_xtrace")),
            &["serve"],
            database_url,
        )
        .await
    }

    /// The same receivers over a writer that sends one `INSERT` a row.
    pub(crate) async fn start_row_by_row(database_url: &str) -> Self {
        let bench = std::env::current_exe().unwrap();
        Self::spawn(&bench, &["serve-row-by-row"], database_url).await
    }

    async fn spawn(program: &Path, arguments: &[&str], database_url: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap().to_string();
        drop(port);
        let child = Command::new(program)
            .args(arguments)
            .args(["--bind-addr", &address, "--database-url", database_url])
            .args(["--api-bearer-token", TOKEN, "--rate-limit-qps", "0"])
            .args([
                "--xtrace-public-key",
                "pk-bench",
                "--xtrace-secret-key",
                "sk-bench",
            ])
            .args([
                "--traces-retention-days",
                "0",
                "--metrics-retention-days",
                "0",
            ])
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = format!("http://{address}");
        let began = Instant::now();
        while !reqwest::get(format!("{url}/readyz"))
            .await
            .is_ok_and(|r| r.status() == 200)
        {
            assert!(began.elapsed().as_secs() < 60, "not ready after a minute");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { url, child }
    }

    pub(crate) fn cpu(&self) -> Duration {
        Stat::of(self.child.id().unwrap()).unwrap().own
    }

    /// Memory in MiB: now, and the most that it ever held.
    pub(crate) fn memory_mib(&self) -> (u64, u64) {
        let file = format!("/proc/{}/status", self.child.id().unwrap());
        let status = fs::read_to_string(file).unwrap();
        let mib = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
        };
        (mib("VmRSS:"), mib("VmHWM:"))
    }

    pub(crate) async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// What the numbers were measured on.
pub(crate) fn description() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "))
        .unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores of {model}")
}
