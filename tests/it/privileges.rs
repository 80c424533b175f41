//! Whom xtrace and its Postgres run as, and whom data belongs to.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use sqlx::{Connection, PgConnection};
use xtrace::embedded_postgres::EmbeddedPostgres;
use xtrace_store::{Options, Store};

use crate::harness::{temp_dir, watch};
use crate::process::{Service, log_of, output, xtrace};

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A line of `/proc/<pid>/status`.
fn status(pid: &str, name: &str) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    let numbers = line.trim_start_matches(':').split_whitespace();
    numbers.map(|number| number.parse().unwrap()).collect()
}

/// A connection as the role of a service's own, or as another.
async fn connect(dir: &Path, role: &str, database: &str) -> PgConnection {
    let url = format!(
        "postgres://{role}@localhost/{database}?host={}",
        dir.join("run").display().to_string().replace('/', "%2F")
    );
    PgConnection::connect(&url).await.unwrap()
}

async fn text(connection: &mut PgConnection, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_xtrace_nor_its_postgres_has_rights_to_lose() {
    let dir = temp_dir("unprivileged");
    watch(&dir);
    let mut service = Service::start(&dir).await;
    let pids = [
        service.child.id().unwrap().to_string(),
        service.postgres_pid(),
    ];
    let own = fs::metadata(&dir).unwrap().uid();
    assert_ne!(own, 0);
    for pid in &pids {
        assert_eq!(status(pid, "Uid"), [own; 4]);
        assert_eq!(status(pid, "Gid"), [fs::metadata(&dir).unwrap().gid(); 4]);
        assert_eq!(status(pid, "NoNewPrivs"), [1]);
        assert!(!status(pid, "Groups").contains(&0));
    }
    if is_root() {
        let accounts = fs::read_to_string("/etc/passwd").unwrap();
        for other in ["postgres:", "nobody:"] {
            let line = accounts
                .lines()
                .find(|line| line.starts_with(other))
                .unwrap();
            assert_ne!(line.split(':').nth(2).unwrap(), own.to_string(), "{other}");
        }
    }
    for (path, expected) in [
        ("", 0o700),
        ("xtrace.lock", 0o600),
        ("run", 0o700),
        ("postgres/postgres.log", 0o600),
    ] {
        let found = fs::metadata(dir.join(path)).unwrap();
        assert_eq!(
            (found.mode() & 0o777, found.uid()),
            (expected, own),
            "{path}"
        );
    }
    let mut connection = connect(&dir, "xtrace", "xtrace").await;
    let rights = "select concat(rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls)
                    from pg_roles where rolname = current_user";
    assert_eq!(text(&mut connection, rights).await, "fffff");
    assert_eq!(text(&mut connection, "show data_checksums").await, "on");
    assert_eq!(
        text(&mut connection, "show log_error_verbosity").await,
        "terse"
    );
    let program = sqlx::query("copy (select 1) to program 'true'");
    assert!(program.execute(&mut connection).await.is_err());
    service.signal("-TERM");
    service.child.wait().await.unwrap();
    fs::remove_file(log_of(&dir)).unwrap();
}

fn own_all(dir: &Path, uid: u32) {
    let given = std::process::Command::new("chown")
        .args(["-hR", &format!("{uid}:{uid}")])
        .arg(dir)
        .status()
        .unwrap();
    assert!(given.success());
}

/// A data directory as versions before left it: the tables are the superuser's, in its database; root
/// owns the top, and another account what Postgres uses.
async fn old_data(dir: &Path) {
    let postgres = EmbeddedPostgres::start(dir, None).await.unwrap();
    let superuser = postgres.superuser_url();
    let mut connection = PgConnection::connect(&superuser).await.unwrap();
    for statement in ["drop database xtrace", "drop role xtrace"] {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let store = Store::new(&Options::new(&superuser)).unwrap();
    store.migrate().await.unwrap();
    store.close().await;
    sqlx::query("insert into projects (id, name, created_at) values ('kept', 'kept', now())")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    postgres.stop().await;
    let credentials = "API_BEARER_TOKEN=xt-kept-kept-kept-kept-kept-kept-kept\n\
        XTRACE_PUBLIC_KEY=pk-lf-kept\nXTRACE_SECRET_KEY=sk-lf-kept-kept-kept-kept-kept\n";
    fs::write(dir.join("credentials.env"), credentials).unwrap();
    if is_root() {
        own_all(dir, 101);
        for path in ["", "credentials.env", "xtrace.lock"] {
            chown(dir.join(path), Some(0), Some(0)).unwrap();
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_an_older_version_changes_hands() {
    let dir = temp_dir("handed-over");
    watch(&dir);
    old_data(&dir).await;
    // A file that is also somewhere else is not given away, and nothing starts.
    let (elsewhere, linked) = (dir.with_extension("root"), dir.join("postgres/linked"));
    if is_root() {
        fs::write(&elsewhere, "root's").unwrap();
        fs::hard_link(&elsewhere, &linked).unwrap();
        let mut refused = xtrace();
        refused
            .args(["serve", "--bind-addr", "127.0.0.1:0", "--data-dir"])
            .arg(&dir);
        let (code, _, said) = output(&mut refused).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("linked has several names"), "{said}");
        assert_eq!(fs::metadata(&elsewhere).unwrap().uid(), 0);
        fs::remove_file(&linked).unwrap();
        // A link is given away itself, and not what it leads to.
        std::os::unix::fs::symlink(&elsewhere, &linked).unwrap();
    }
    let mut service = Service::start(&dir).await;
    assert_eq!(service.token, "xt-kept-kept-kept-kept-kept-kept-kept");
    assert_eq!(service.ingest("after").await, 200);
    let own = fs::metadata(&dir).unwrap().uid();
    for path in ["credentials.env", "postgres/data/PG_VERSION", "run"] {
        assert_eq!(fs::metadata(dir.join(path)).unwrap().uid(), own, "{path}");
    }
    if is_root() {
        assert_eq!(fs::metadata(&elsewhere).unwrap().uid(), 0);
        assert_eq!(fs::symlink_metadata(&linked).unwrap().uid(), own);
        fs::remove_file(&elsewhere).unwrap();
    }
    let credentials = fs::read_to_string(dir.join("credentials.env")).unwrap();
    assert!(credentials.contains("XTRACE_ADMIN_TOKEN=xta-"));
    let mut connection = connect(&dir, "xtrace", "xtrace").await;
    let kept = "select name from projects where id = 'kept'";
    assert_eq!(text(&mut connection, kept).await, "kept");
    let others = "select count(*)::text from pg_class
                   where relnamespace = 'public'::regnamespace and relowner <> 'xtrace'::regrole";
    assert_eq!(text(&mut connection, others).await, "0");
    service.signal("-TERM");
    service.child.wait().await.unwrap();
    fs::remove_file(log_of(&dir)).unwrap();
}

/// The number in Postgres' file is believed only if a Postgres works there.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_file_of_the_server_signals_nobody() {
    let dir = temp_dir("forged");
    watch(&dir);
    let postgres = EmbeddedPostgres::start(&dir, None).await.unwrap();
    postgres.stop().await;
    let mut bystander = tokio::process::Command::new("sleep")
        .arg("600")
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = bystander.id().unwrap();
    let file = dir.join("postgres/data/postmaster.pid");
    let mut numbers = vec!["1".to_owned(), "-1".to_owned(), "0".to_owned()];
    if is_root() {
        // As the same user, Postgres itself believes that a server of its own runs, and won't start.
        numbers.push(pid.to_string());
    }
    for number in numbers {
        fs::write(&file, format!("{number}\n/\n0\n5432\n/\n\n0 0\nready\n")).unwrap();
        let postgres = EmbeddedPostgres::start(&dir, None).await;
        if let Ok(postgres) = postgres {
            postgres.stop().await;
        }
        assert!(bystander.try_wait().unwrap().is_none(), "{number}");
    }
    fs::remove_file(&file).unwrap_or_default();
}
