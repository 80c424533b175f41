//! A real xtrace on a real Postgres: one Postgres for the whole run, one database for each server.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{OnceCell, watch};
use xtrace::config::{Cli, Command};
use xtrace::embedded_postgres::EmbeddedPostgres;
use xtrace::server::Server;
use xtrace_model::ProjectId;
use xtrace_store::{Options, Store, keys, projects};

pub(crate) const TOKEN: &str = "test-token";
pub(crate) const ADMIN_TOKEN: &str = "test-token-of-the-administrators";
pub(crate) const PUBLIC_KEY: &str = "pk-lf-test";
pub(crate) const SECRET_KEY: &str = "sk-lf-test";

/// A running server of its own.
pub(crate) struct Xtrace {
    pub url: String,
    pub store: Store,
    pub database_url: String,
    pub http: reqwest::Client,
    pub server: Server,
}

/// The key pair of a project.
#[derive(Clone)]
pub(crate) struct Keys {
    pub public: String,
    pub secret: String,
}

impl Xtrace {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts with more flags of `xtrace serve`.
    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        Self::start_on(&new_database().await, flags).await
    }

    /// Starts on a database that is there.
    pub(crate) async fn start_on(database_url: &str, flags: &[&str]) -> Self {
        let fixed = [
            "xtrace",
            "serve",
            "--bind-addr",
            "127.0.0.1:0",
            "--database-url",
            database_url,
            "--api-bearer-token",
            TOKEN,
            "--admin-token",
            ADMIN_TOKEN,
        ];
        // Tests read as often as they like, and their fixtures are old.
        let lenient = [
            ["--xtrace-public-key", PUBLIC_KEY],
            ["--xtrace-secret-key", SECRET_KEY],
            ["--otlp-http-addr", "off"],
            ["--otlp-grpc-addr", "off"],
            ["--rate-limit-qps", "0"],
            ["--auth-failures-per-second", "0"],
            ["--traces-retention-days", "0"],
            ["--metrics-retention-days", "0"],
        ];
        let lenient = lenient
            .iter()
            .filter(|[flag, _]| !flags.contains(flag))
            .flatten();
        let line = fixed.iter().chain(lenient).chain(flags).copied();
        let Command::Serve(config) = Cli::try_from_arguments(line).unwrap().command else {
            panic!()
        };
        let server = Server::start(config).await.unwrap();
        Self {
            url: format!("http://{}", server.address()),
            store: Store::new(&Options::new(database_url)).unwrap(),
            database_url: database_url.to_owned(),
            http: reqwest::Client::new(),
            server,
        }
    }

    /// A request with the native token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(TOKEN)
    }

    /// A request with the token of administrators.
    pub(crate) fn administer(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(ADMIN_TOKEN)
    }

    /// A request with a project's key pair.
    pub(crate) fn request_as(&self, keys: &Keys, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        request.basic_auth(&keys.public, Some(&keys.secret))
    }

    /// Reads a path; status and body.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    /// Reads a path as text, with the token of administrators: `/metrics` needs that.
    pub(crate) async fn text(&self, path: &str) -> (StatusCode, String) {
        let response = self.administer(Method::GET, path).send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    /// Posts JSON; status and body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// A project with a key pair of its own.
    pub(crate) async fn project(&self, id: &str) -> Keys {
        let project = ProjectId::parse(id).unwrap();
        let keys = Keys {
            public: format!("pk-lf-{id}"),
            secret: format!("sk-lf-{id}"),
        };
        projects::ensure(&self.store, &project, Utc::now())
            .await
            .unwrap();
        keys::put(
            &self.store,
            &project,
            &keys.public,
            &keys.secret,
            Utc::now(),
        )
        .await
        .unwrap();
        keys
    }

    /// A connection to the server's database.
    pub(crate) async fn sql(&self) -> PgConnection {
        PgConnection::connect(&self.database_url).await.unwrap()
    }
}

/// A server in a process of its own, whose memory can be measured.
pub(crate) struct SeparateXtrace {
    pub url: String,
    pub http: reqwest::Client,
    child: tokio::process::Child,
}

impl SeparateXtrace {
    pub(crate) async fn start() -> Self {
        Self::start_on(&new_database().await).await
    }

    pub(crate) async fn start_on(database_url: &str) -> Self {
        Self::start_with(database_url, &[]).await
    }

    /// Starts with more variables in its environment.
    pub(crate) async fn start_with(database_url: &str, variables: &[(&str, &str)]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        Self::start_at(&address, database_url, variables).await
    }

    /// Starts at an address, where another one may have been before.
    pub(crate) async fn start_at(
        address: &str,
        database_url: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_xtrace"))
            .envs(variables.iter().copied())
            .args(["--otlp-http-addr", "off", "--otlp-grpc-addr", "off"])
            .args(["serve", "--bind-addr", address, "--api-bearer-token", TOKEN])
            .args(["--admin-token", ADMIN_TOKEN])
            .args([
                "--xtrace-public-key",
                PUBLIC_KEY,
                "--xtrace-secret-key",
                SECRET_KEY,
            ])
            .args([
                "--traces-retention-days",
                "0",
                "--rate-limit-qps",
                "0",
                "--database-url",
                database_url,
            ])
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (url, http) = (format!("http://{address}"), reqwest::Client::new());
        let xtrace = Self { url, http, child };
        xtrace.wait_until_ready().await;
        xtrace
    }

    /// Ends it as `kill -9` does.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub(crate) async fn wait_until_ready(&self) {
        let began = Instant::now();
        let ask = || self.http.get(format!("{}/readyz", self.url)).send();
        while !ask().await.is_ok_and(|answer| answer.status() == 200) {
            assert!(began.elapsed().as_secs() < 60, "not ready after a minute");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The most memory that it ever held, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        self.status_mib("VmHWM:")
    }

    /// The memory that it holds now, in MiB.
    pub(crate) fn resident_mib(&self) -> u64 {
        self.status_mib("VmRSS:")
    }

    fn status_mib(&self, member: &str) -> u64 {
        let file = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(file).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(member)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}

/// Whether tests take as long as faults do on a bad day.
pub(crate) fn is_long() -> bool {
    std::env::var_os("XTRACE_TEST_LONG").is_some()
}

/// Ends a test that can't run on this machine: it fails, unless `XTRACE_TEST_MAY_SKIP` allows that
/// nothing is tested.
pub(crate) fn skip(why: &str) {
    let may_skip = std::env::var_os("XTRACE_TEST_MAY_SKIP").is_some();
    assert!(
        may_skip,
        "{why}; XTRACE_TEST_MAY_SKIP=1 leaves this test out"
    );
    eprintln!("{why}: nothing is tested");
}

/// Makes Postgres refuse rows of a table with the name `poison`, since no input is known that it refuses. A server
/// that makes or analyzes partitions meanwhile may end the attempt, which is then made again.
pub(crate) async fn refuse_poison(connection: &mut PgConnection, table: &str) {
    let sql = format!("alter table {table} add constraint no_poison check (name <> 'poison')");
    let began = Instant::now();
    while let Err(error) = sqlx::query(AssertSqlSafe(sql.clone()))
        .execute(&mut *connection)
        .await
    {
        assert!(began.elapsed().as_secs() < 60, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until nothing of the projects that fit the condition is left to be taken up into sums.
pub(crate) async fn until_summed_up(
    connection: &mut PgConnection,
    condition: &str,
    patience: Duration,
) {
    let sql = format!(
        "select (select count(*) from usage_dirty where {condition})
              + (select count(*) from usage_hourly where cost is null and {condition})"
    );
    let began = Instant::now();
    loop {
        let waiting: i64 = sqlx::query_scalar(AssertSqlSafe(sql.clone()))
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        if waiting == 0 {
            return;
        }
        assert!(
            began.elapsed() < patience,
            "{waiting} rows wait to be summed up"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The database over TCP, by a relay to the socket that `url` names. Whenever the sender says so, it falls silent:
/// what is connected then stays so, and nothing passes.
pub(crate) async fn over_tcp(url: &str) -> (String, watch::Sender<u32>) {
    let parsed: reqwest::Url = url.parse().unwrap();
    let mut parameters = parsed.query_pairs();
    let (_, dir) = parameters.find(|(name, _)| name == "host").unwrap();
    let socket = format!("{dir}/.s.PGSQL.5432");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (silences, heard) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let (socket, mut heard) = (socket.clone(), heard.clone());
            heard.mark_unchanged();
            tokio::spawn(async move {
                let mut unix = UnixStream::connect(&socket).await.unwrap();
                let silenced = async {
                    // Without a sender it never falls silent.
                    if heard.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    _ = copy_bidirectional(&mut tcp, &mut unix) => {}
                    () = silenced => std::future::pending().await,
                }
            });
        }
    });
    let path = parsed.path();
    (
        format!("postgres://xtrace@{address}{path}?sslmode=disable"),
        silences,
    )
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Sends a request; status and body (null if it is no JSON).
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let (client, request) = request.build_split();
    let request = request.unwrap();
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let response = client.execute(request).await.unwrap();
    let status = response.status();
    let body = response.bytes().await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    crate::official::check(&method, &path, status, &body);
    (status, body)
}

/// A new, empty database in the run's Postgres.
pub(crate) async fn new_database() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "it_{}_{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    );
    let server = superuser_url().await;
    let mut connection = PgConnection::connect(server).await.unwrap();
    let statement = format!("create database {name} owner xtrace template template0");
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .unwrap();
    let own = server.replace("/postgres?", &format!("/{name}?"));
    own.replace("postgres://postgres@", "postgres://xtrace@")
}

/// The run's Postgres, as its superuser. It outlives the runtime of the test that started it; a watchdog stops it
/// and removes its data when the run ends.
pub(crate) async fn superuser_url() -> &'static str {
    static POSTGRES: OnceCell<String> = OnceCell::const_new();
    POSTGRES
        .get_or_init(|| async {
            let dir = temp_dir("it-postgres");
            let postgres = EmbeddedPostgres::start(&dir, None).await.unwrap();
            let url = postgres.superuser_url();
            // Its tests restart it; here it just runs until the watchdog stops it.
            std::mem::forget(postgres);
            watch(&dir);
            url
        })
        .await
}

/// A directory of this run that Postgres' own user can reach.
pub(crate) fn temp_dir(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("xtrace-{name}-{}-{number}", std::process::id()))
}

#[expect(
    clippy::zombie_processes,
    reason = "the watchdog outlives this process"
)]
/// Stops the Postgres under `dir` and removes it once this process is gone.
pub(crate) fn watch(dir: &std::path::Path) {
    const SCRIPT: &str = "while kill -0 $0 2>/dev/null; do sleep 0.3; done
        pid=$(head -n 1 $1/postgres/data/postmaster.pid 2>/dev/null)
        [ -n \"$pid\" ] && kill -INT $pid && while kill -0 $pid 2>/dev/null; do sleep 0.1; done
        rm -rf $1";
    std::process::Command::new("sh")
        .args(["-c", SCRIPT, &std::process::id().to_string()])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
}
