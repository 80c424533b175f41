//! Databases that will not do, or not yet: what is said, and the exit code that scripts see.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::{Child, Command};
use xtrace::embedded_postgres::EmbeddedPostgres;

use crate::harness::{
    SeparateXtrace, TOKEN, Xtrace, answer, free_port, new_database, superuser_url, temp_dir, watch,
};
use crate::process::{kill, output, xtrace};

const LONG: Duration = Duration::from_mins(1);

/// `xtrace serve` on a database.
fn serve(database_url: &str, address: &str) -> Command {
    let mut command = xtrace();
    command
        .args([
            "serve",
            "--bind-addr",
            address,
            "--database-url",
            database_url,
        ])
        .args(["--otlp-http-addr", "off", "--otlp-grpc-addr", "off"])
        .args(["--api-bearer-token", TOKEN])
        .args([
            "--xtrace-public-key",
            "pk-lf-startup",
            "--xtrace-secret-key",
            "sk-lf-startup",
        ]);
    command
}

async fn execute(database_url: &str, statements: &str) {
    let mut connection = PgConnection::connect(database_url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
}

/// The tables that xtrace 0.1.0 made, as far as it is known by them.
const SEED: &str = "
    create table _sqlx_migrations (version bigint primary key, description text not null,
        installed_on timestamptz not null default now(), success boolean not null,
        checksum bytea not null, execution_time bigint not null);
    insert into _sqlx_migrations values (1, 'init', now(), true, '\\x01', 1);
    create table traces (id uuid primary key, project_id text, \"timestamp\" timestamptz, name text);
    insert into traces values ('0af76519-16cd-43dd-8448-eb211c80319c', 'default', now(), 'kept')";

#[tokio::test(flavor = "multi_thread")]
async fn databases_that_will_not_do_are_named_with_a_code() {
    let newer = Xtrace::start().await.database_url;
    execute(&newer, "update schema_meta set oldest_program = '99.1.0'").await;
    let seed = new_database().await;
    execute(&seed, SEED).await;
    let foreign = new_database().await;
    execute(&foreign, "create table traces (id text primary key)").await;
    let missing = new_database().await.replace("it_", "never_made_");
    let server = superuser_url().await;
    execute(
        server,
        "create database latin encoding 'LATIN1' locale 'C' template template0",
    )
    .await;
    let latin = server.replace("/postgres?", "/latin?");
    let poor = new_database().await;
    execute(server, "create role poor login").await;
    execute(
        &poor.replace("xtrace@", "postgres@"),
        "revoke create on schema public from public",
    )
    .await;
    let poor = poor.replace("xtrace@", "poor@");
    for (url, code, words) in [
        (&newer, 7, "it needs xtrace 99.1.0 or newer, and this is 0."),
        (
            &seed,
            7,
            "made by xtrace 0.1; `xtrace import seed` will copy it",
        ),
        (&foreign, 7, "tables of another program"),
        (&missing, 3, "does not exist"),
        (&latin, 3, "its encoding is LATIN1"),
        (&poor, 3, "grant create on schema public to poor"),
    ] {
        for command in ["serve", "migrate"] {
            let mut command = match command {
                "serve" => serve(url, "127.0.0.1:0"),
                other => {
                    let mut command = xtrace();
                    command.args([other, "--database-url", url]);
                    command
                }
            };
            let (found, _, said) = output(&mut command).await;
            assert_eq!(found, Some(code), "{words}: {said}");
            assert!(said.contains(words), "{said}");
            let sentences = said.lines().filter(|line| line.contains("ERROR")).count();
            assert_eq!(sentences, 1, "{said}");
        }
    }
    let mut connection = PgConnection::connect(&seed).await.unwrap();
    let kept: String = sqlx::query_scalar("select name from traces")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(kept, "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_keys_leaves_the_schema_alone() {
    let database = new_database().await;
    let (code, _, said) =
        output(xtrace().args(["keys", "list", "--database-url", &database])).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("`xtrace migrate` makes the tables"), "{said}");
    let tables = "select count(*) from pg_class where relnamespace = 'public'::regnamespace";
    let mut connection = PgConnection::connect(&database).await.unwrap();
    let count: i64 = sqlx::query_scalar(tables)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(count, 0);
}

/// The next release has run its migrations and serves; programs of this one start, go on, and write
/// next to it until a migration says that they must not.
#[tokio::test(flavor = "multi_thread")]
async fn programs_run_on_a_newer_schema_that_lets_them() {
    let running = Xtrace::start().await;
    let database = running.database_url.clone();
    let post = |id: &str| {
        json!({"trace": {"id": id, "name": "n"}, "observations": [
        {"id": format!("{id}-o"), "traceId": id, "name": "o", "startTime": "2026-01-15T10:00:00Z"}]})
    };
    assert_eq!(
        running.post("/v1/l/batch", &post("before")).await.0,
        StatusCode::OK
    );
    let tables = [
        "traces",
        "observations",
        "scores",
        "logs",
        "metric_series",
        "projects",
        "api_keys",
    ];
    let columns =
        tables.map(|table| format!("alter table {table} add column of_the_next_release text"));
    let mut expand = columns.join("; ");
    expand += "; create table things_of_the_next_release (project_id text primary key);
        insert into _sqlx_migrations values (9999, 'next release', now(), true, '\\x00', 1);
        update schema_meta set oldest_program = '0.2.0'";
    execute(&database, &expand).await;
    assert_eq!(
        running.post("/v1/l/batch", &post("after")).await.0,
        StatusCode::OK
    );
    let started = Xtrace::start_on(&database, &[]).await;
    assert_eq!(
        started.post("/v1/l/batch", &post("restarted")).await.0,
        StatusCode::OK
    );
    for server in [&running, &started] {
        for id in ["before", "after", "restarted"] {
            let (status, trace) = server.get(&format!("/api/public/traces/{id}")).await;
            assert_eq!(status, StatusCode::OK, "{id}: {trace}");
            assert_eq!(trace["observations"].as_array().unwrap().len(), 1, "{id}");
        }
    }
    execute(
        &database,
        "update schema_meta set oldest_program = '99.0.0'",
    )
    .await;
    let (code, _, said) = output(&mut serve(&database, "127.0.0.1:0")).await;
    assert_eq!(code, Some(7), "{said}");
}

async fn readiness(http: &reqwest::Client, address: &str) -> Option<(StatusCode, String)> {
    let request = http.get(format!("http://{address}/readyz"));
    request.try_clone()?.send().await.ok()?;
    let (status, body) = answer(request).await;
    Some((
        status,
        body["reason"].as_str().unwrap_or_default().to_owned(),
    ))
}

pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < LONG, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_judged_once_it_is_there() {
    let dir = temp_dir("away");
    watch(&dir);
    let postgres = EmbeddedPostgres::start(&dir, None).await.unwrap();
    let url = postgres.database_url();
    execute(&url, SEED).await;
    postgres.stop().await;
    let address = format!("127.0.0.1:{}", free_port());
    let child = serve(&url, &address).spawn().unwrap();
    let http = reqwest::Client::new();
    let reason = until("an answer", async || readiness(&http, &address).await).await;
    assert_eq!(reason.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        reason.1.contains("the database is out of reach"),
        "{}",
        reason.1
    );
    let _postgres = EmbeddedPostgres::start(&dir, None).await.unwrap();
    let ended = tokio::time::timeout(LONG, child.wait_with_output()).await;
    let ended = ended.expect("it goes on to wait").unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(7), "{said}");
    assert!(
        said.contains("waiting for it") && said.contains("made by xtrace 0.1"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_wait_for_another_process_and_survive_a_cut() {
    let database = new_database().await;
    let mut other = PgConnection::connect(&database).await.unwrap();
    sqlx::query("select pg_advisory_lock(132441530524517)") // the lock of store/src/schema.rs
        .execute(&mut other)
        .await
        .unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut child = serve(&database, &address).spawn().unwrap();
    // It asks for the lock until its connection is cut; then it serves, and says what it waits for.
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and application_name = 'xtrace'
                  and query like '%pg_try_advisory_lock%'";
    until("a connection that waits", async || {
        let cut: Vec<bool> = sqlx::query_scalar(cut).fetch_all(&mut other).await.unwrap();
        cut.first().copied()
    })
    .await;
    let http = reqwest::Client::new();
    let (status, reason) = until("an answer", async || readiness(&http, &address).await).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        reason.contains("terminating connection") || reason.contains("out of reach"),
        "{reason}"
    );
    other.close().await.unwrap();
    until("readiness", async || {
        let (status, _) = readiness(&http, &address).await?;
        (status == StatusCode::OK).then_some(())
    })
    .await;
    child.kill().await.unwrap();
}

/// Load balancers see that it stops before it stops taking requests; a second signal does not wait.
#[tokio::test(flavor = "multi_thread")]
async fn readiness_turns_first_and_a_second_signal_ends_it_at_once() {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = serve(&new_database().await, &address);
    let mut child = command.env("XTRACE_SHUTDOWN_DELAY", "600").spawn().unwrap();
    let http = reqwest::Client::new();
    let turned = async |expected: StatusCode| {
        until("readiness", async || {
            let (status, reason) = readiness(&http, &address).await?;
            (status == expected).then_some(reason)
        })
        .await
    };
    turned(StatusCode::OK).await;
    let pid = child.id().unwrap().to_string();
    kill("-TERM", &pid);
    let reason = turned(StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(reason, "the service is stopping");
    let request = http.post(format!("http://{address}/v1/l/batch"));
    let body = json!({"trace": {"id": "t"}});
    let (status, answered) = answer(request.bearer_auth(TOKEN).json(&body)).await;
    assert_eq!(status, StatusCode::OK, "{answered}");
    kill("-TERM", &pid);
    let ended = tokio::time::timeout(LONG, child.wait()).await;
    assert_eq!(ended.expect("it goes on").unwrap().code(), Some(1));
}

/// A pgbouncer before the run's Postgres; the URL through it.
async fn pooler(database_url: &str, mode: &str) -> (Child, String) {
    let (_, host) = database_url.split_once("host=").unwrap();
    let socket: String = form_urlencoded::parse(format!("host={host}").as_bytes())
        .next()
        .unwrap()
        .1
        .into_owned();
    let user = database_url
        .split("//")
        .nth(1)
        .unwrap()
        .split('@')
        .next()
        .unwrap();
    let path = database_url.split("localhost/").nth(1).unwrap();
    let name = path.split('?').next().unwrap();
    let port = free_port();
    let dir = temp_dir("pooler");
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("pgbouncer.ini");
    let settings = format!(
        "[databases]\n{name} = host={socket} dbname={name} user={user}\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = {mode}\ndefault_pool_size = 40\n"
    );
    std::fs::write(&file, settings).unwrap();
    let owner = std::fs::metadata(&socket).unwrap();
    let mut command = std::process::Command::new("/usr/sbin/pgbouncer");
    command
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let me = std::fs::metadata(Path::new("/proc/self")).unwrap().uid();
    if me != owner.uid() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let child = Command::from(command).kill_on_drop(true).spawn();
    let child = child.expect("pgbouncer is missing; scripts/test installs it");
    until("pgbouncer", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .ok()
    })
    .await;
    (child, format!("postgres://{user}@127.0.0.1:{port}/{name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_drops_settings_is_refused_and_another_serves() {
    for mode in ["transaction", "statement"] {
        let (_pooler, url) = pooler(&new_database().await, mode).await;
        let (code, _, said) = output(&mut serve(&url, "127.0.0.1:0")).await;
        assert_eq!(code, Some(3), "{mode}: {said}");
        assert!(said.contains("pool_mode = session"), "{mode}: {said}");
    }
    let (_pooler, url) = pooler(&new_database().await, "session").await;
    let xtrace = SeparateXtrace::start_on(&url).await;
    let body = json!({"trace": {"id": "t", "name": "through a pooler"}});
    let request = xtrace.http.post(format!("{}/v1/l/batch", xtrace.url));
    let (status, answered) = answer(request.bearer_auth(TOKEN).json(&body)).await;
    assert_eq!(status, StatusCode::OK, "{answered}");
}
