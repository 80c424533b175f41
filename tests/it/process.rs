//! The program as people run it: its command line, its private Postgres, its end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::harness::{answer, free_port, temp_dir, watch};

pub(crate) fn xtrace() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtrace"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for variable in [
        "DATABASE_URL",
        "BIND_ADDR",
        "API_BEARER_TOKEN",
        "XTRACE_DATA_DIR",
    ] {
        command.env_remove(variable);
    }
    command
}

pub(crate) async fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test]
async fn wrong_values_stop_the_start_with_exit_code_2_and_a_sentence() {
    for (variable, value, words) in [
        ("BIND_ADDR", "here", "BIND_ADDR takes an address"),
        (
            "RATE_LIMIT_BURST",
            "0",
            "RATE_LIMIT_BURST takes a whole number from 1",
        ),
        ("DATABASE_URL", "sqlite://x", "DATABASE_URL takes a URL"),
        (
            "XTRACE_SECRET_KEY",
            "half-a-pair",
            "XTRACE_PUBLIC_KEY is not",
        ),
        ("TRACES_RETENTION_DAYS", "-1", "TRACES_RETENTION_DAYS takes"),
    ] {
        let (code, _, said) = output(xtrace().env(variable, value)).await;
        assert_eq!(code, Some(2), "{variable}: {said}");
        assert!(said.contains(words), "{said}");
    }
    let (code, _, said) = output(xtrace().arg("dance")).await;
    assert_eq!(code, Some(2), "{said}");
}

#[tokio::test]
async fn help_and_version_answer() {
    let (code, said, _) = output(xtrace().args(["serve", "--help"])).await;
    assert_eq!(code, Some(0));
    for variable in [
        "DATABASE_URL",
        "API_BEARER_TOKEN",
        "XTRACE_ADMIN_TOKEN",
        "BIND_ADDR",
        "DEFAULT_PROJECT_ID",
        "XTRACE_PUBLIC_KEY",
        "XTRACE_SECRET_KEY",
        "LANGFUSE_PUBLIC_KEY",
        "LANGFUSE_SECRET_KEY",
        "RATE_LIMIT_QPS",
        "RATE_LIMIT_BURST",
        "METRICS_RETENTION_DAYS",
        "TRACES_RETENTION_DAYS",
        "XTRACE_MAX_REQUEST_BODY_BYTES",
        "XTRACE_DATA_DIR",
        "XTRACE_PG_BIN",
        "XTRACE_LOG_FORMAT",
    ] {
        assert!(said.contains(variable), "{variable} is missing in\n{said}");
    }
    let (code, said, _) = output(xtrace().arg("version")).await;
    assert_eq!(
        (code, said.trim()),
        (Some(0), concat!("xtrace ", env!("CARGO_PKG_VERSION")))
    );
    let (code, _, said) =
        output(xtrace().args(["healthcheck", "--bind-addr", "127.0.0.1:1"])).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("127.0.0.1:1 can't be reached"), "{said}");
}

/// A service with a private Postgres under a directory of its own.
pub(crate) struct Service {
    pub(crate) dir: PathBuf,
    pub(crate) child: Child,
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) http: reqwest::Client,
}

impl Service {
    pub(crate) async fn start(dir: &Path) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = xtrace();
        command.args(["serve", "--log-format", "json", "--bind-addr", &address]);
        command.args(["--rate-limit-qps", "0"]);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(log_of(dir))
            .unwrap();
        let child = command
            .arg("--data-dir")
            .arg(dir)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut service = Self {
            dir: dir.to_owned(),
            child,
            url: format!("http://{address}"),
            token: String::new(),
            http: reqwest::Client::new(),
        };
        service.wait_until_ready().await;
        let secrets = fs::read_to_string(dir.join("credentials.env")).unwrap();
        service.token = secrets
            .lines()
            .next()
            .unwrap()
            .replace("API_BEARER_TOKEN=", "");
        service
    }

    pub(crate) async fn wait_until_ready(&mut self) {
        let began = Instant::now();
        loop {
            let ready = self.http.get(format!("{}/readyz", self.url)).send().await;
            if ready.is_ok_and(|response| response.status() == 200) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!(
                    "xtrace ended with {status}: {}",
                    fs::read_to_string(log_of(&self.dir)).unwrap()
                );
            }
            assert!(
                began.elapsed() < Duration::from_mins(1),
                "not ready after a minute"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn ingest(&self, id: &str) -> u16 {
        let body = json!({"trace": {"id": id, "name": "kept"}});
        let request = self
            .http
            .post(format!("{}/v1/l/batch", self.url))
            .bearer_auth(&self.token);
        request
            .json(&body)
            .send()
            .await
            .map_or(0, |response| response.status().as_u16())
    }

    async fn traces(&self) -> Value {
        let url = format!("{}/api/public/traces?fields=core", self.url);
        answer(self.http.get(url).bearer_auth(&self.token)).await.1
    }

    pub(crate) fn postgres_pid(&self) -> String {
        let file = self.dir.join("postgres/data/postmaster.pid");
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    }

    pub(crate) fn signal(&self, signal: &str) {
        kill(signal, &self.child.id().unwrap().to_string());
    }
}

pub(crate) fn log_of(dir: &Path) -> PathBuf {
    dir.with_extension("log")
}

pub(crate) fn kill(signal: &str, pid: &str) {
    let sent = std::process::Command::new("kill")
        .args([signal, pid])
        .status()
        .unwrap();
    assert!(sent.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_with_no_configuration_and_survives_every_kill() {
    let dir = temp_dir("embedded");
    watch(&dir);
    let mut service = Service::start(&dir).await;
    let mode = |path: &str| fs::metadata(dir.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("credentials.env"), 0o600);
    assert_eq!((mode("run"), mode("postgres")), (0o700, 0o700));
    let first_token = service.token.clone();
    assert_eq!(service.ingest("before").await, 200);

    // Another xtrace on the same data is refused in one sentence.
    let mut second = xtrace();
    second
        .args(["serve", "--bind-addr", "127.0.0.1:0", "--data-dir"])
        .arg(&dir);
    let (code, _, said) = output(&mut second).await;
    assert_eq!(code, Some(3));
    assert!(said.contains("is in use by another xtrace"), "{said}");

    // xtrace is killed: its Postgres lives on and is adopted.
    let orphan = service.postgres_pid();
    service.signal("-9");
    service.child.wait().await.unwrap();
    let mut service = Service::start(&dir).await;
    assert_eq!(service.postgres_pid(), orphan);
    assert_eq!(service.token, first_token);
    assert_eq!(service.traces().await["meta"]["totalItems"], 1);

    // Postgres is killed: it is back by itself. (Until its orphans notice, they go on to commit.)
    kill("-9", &orphan);
    let began = Instant::now();
    while service.postgres_pid() == orphan || service.ingest("after").await != 200 {
        assert!(
            began.elapsed() < Duration::from_mins(1),
            "Postgres did not come back"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    service.wait_until_ready().await;
    assert_eq!(service.traces().await["meta"]["totalItems"], 2);

    // SIGTERM ends both, with exit code 0.
    service.signal("-TERM");
    let began = Instant::now();
    let status = service.child.wait().await.unwrap();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(!dir.join("postgres/data/postmaster.pid").exists());

    // Log lines are JSON, and hold no secret.
    let log = fs::read_to_string(log_of(&dir)).unwrap();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["message"].is_string(), "{line}");
    }
    assert!(log.contains("credentials are in") && !log.contains(&first_token));

    // Data of another major version is refused in one sentence.
    fs::write(dir.join("postgres/data/PG_VERSION"), "9\n").unwrap();
    let mut third = xtrace();
    third
        .args(["serve", "--bind-addr", "127.0.0.1:0", "--data-dir"])
        .arg(&dir);
    let (code, _, said) = output(&mut third).await;
    assert_eq!(code, Some(3));
    assert!(said.contains("was made by PostgreSQL 9"), "{said}");
    fs::remove_file(log_of(&dir)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_waited_for() {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = xtrace();
    let (token, secret) = ("a-token-of-32-characters-or-more", "a-secret");
    command.args([
        "serve",
        "--bind-addr",
        &address,
        "--api-bearer-token",
        token,
    ]);
    command.args(["--xtrace-public-key", "p", "--xtrace-secret-key", secret]);
    command.args(["--database-url", "postgres://nobody@127.0.0.1:1/none"]);
    let mut child = command.spawn().unwrap();
    let http = reqwest::Client::new();
    let began = Instant::now();
    let url = format!("http://{address}");
    while http.get(format!("{url}/healthz")).send().await.is_err() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "it does not listen"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (status, body) = answer(http.get(format!("{url}/readyz"))).await;
    assert_eq!(status, 503);
    assert!(
        body["reason"].as_str().unwrap().contains("database"),
        "{body}"
    );
    let request = http.post(format!("{url}/v1/l/batch")).bearer_auth(token);
    let response = request
        .json(&json!({"trace": {"id": "t"}}))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let (status, _) = answer(
        http.get(format!("{url}/api/public/projects"))
            .basic_auth("p", Some(secret)),
    )
    .await;
    assert_eq!(status, 503);
    child.kill().await.unwrap();
}
