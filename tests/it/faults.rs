//! What is acknowledged is there, once, whatever dies; what can't be taken is refused; and service goes
//! on by itself. `XTRACE_TEST_LONG=1` makes the loads and pauses those of a bad day.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use xtrace::embedded_postgres::EmbeddedPostgres;
use xtrace_model::ProjectId;
use xtrace_store::{Options, Page, Store, StoreError, prompts};

use crate::harness::{
    SeparateXtrace, TOKEN, Xtrace, answer, is_long, new_database, over_tcp, skip, temp_dir, watch,
};
use crate::load::Load;
use crate::process::{Service, kill, log_of};

/// Requests of a load that are acknowledged before a fault, and again after it.
fn requests_around_a_fault() -> usize {
    if is_long() { 20_000 } else { 300 }
}

/// What a service does after a fault.
enum Expected {
    /// It ends, and is started again.
    End,
    /// It goes on by itself.
    Recovery,
}

async fn survives(name: &str, expected: Expected, kill_them: impl Fn(&Service)) {
    let dir = temp_dir(name);
    watch(&dir);
    let mut service = Service::start(&dir).await;
    let load = Load::start(&service.url, &service.token);
    load.goes_on(requests_around_a_fault()).await;
    kill_them(&service);
    let told = match expected {
        Expected::End => {
            service.child.wait().await.unwrap();
            let told = load.stop().await;
            service = Service::start(&dir).await;
            told
        }
        Expected::Recovery => {
            load.goes_on(requests_around_a_fault()).await;
            load.stop().await
        }
    };
    service.wait_until_ready().await;
    told.check(&service.url, &service.token).await;
    service.signal("-TERM");
    fs::remove_file(log_of(&dir)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_kill_of_both_under_load() {
    survives("kill-both", Expected::End, |service| {
        kill("-9", &service.postgres_pid());
        service.signal("-9");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_kill_of_xtrace_under_load() {
    survives("kill-xtrace", Expected::End, |service| service.signal("-9")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_kill_of_postgres_under_load() {
    survives("kill-postgres", Expected::Recovery, |service| {
        kill("-9", &service.postgres_pid());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_in_order_under_load() {
    let dir = temp_dir("term");
    watch(&dir);
    let mut service = Service::start(&dir).await;
    let load = Load::start(&service.url, &service.token);
    load.goes_on(requests_around_a_fault()).await;
    service.signal("-TERM");
    let began = Instant::now();
    let status = service.child.wait().await.unwrap();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(10));
    let told = load.stop().await;
    let service = Service::start(&dir).await;
    told.check(&service.url, &service.token).await;
    service.signal("-TERM");
    fs::remove_file(log_of(&dir)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_does_not_hold_up_its_end() {
    let dir = temp_dir("hanging");
    watch(&dir);
    let mut service = Service::start(&dir).await;
    assert_eq!(service.ingest("before").await, 200);
    let mut half = TcpStream::connect(service.url.trim_start_matches("http://")).unwrap();
    let head = format!(
        "POST /v1/l/batch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{",
        service.token
    );
    half.write_all(head.as_bytes()).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.signal("-TERM");
    let end = tokio::time::timeout(Duration::from_secs(10), service.child.wait()).await;
    assert!(end.expect("it still runs").unwrap().success());
    fs::remove_file(log_of(&dir)).unwrap();
}

/// Waits until `/readyz` answers 503, whose last answer is remembered for a second; the reason that it gives.
async fn turns_unready(xtrace: &SeparateXtrace) -> String {
    let began = Instant::now();
    loop {
        let (status, body) = answer(xtrace.http.get(format!("{}/readyz", xtrace.url))).await;
        if status == 503 {
            return body["reason"].as_str().unwrap().to_owned();
        }
        assert!(
            began.elapsed() < Duration::from_mins(1),
            "still ready: {body}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stops_is_waited_for() {
    let dir = temp_dir("stopped");
    watch(&dir);
    let postgres = EmbeddedPostgres::start(&dir, None).await.unwrap();
    let xtrace = SeparateXtrace::start_on(&postgres.database_url()).await;
    let load = Load::start(&xtrace.url, TOKEN);
    load.goes_on(requests_around_a_fault()).await;
    postgres.stop().await;
    assert_eq!(turns_unready(&xtrace).await, "the database does not answer");
    tokio::time::sleep(Duration::from_secs(if is_long() { 30 } else { 2 })).await;
    let _postgres = EmbeddedPostgres::start(&dir, None).await.unwrap();
    xtrace.wait_until_ready().await;
    load.goes_on(requests_around_a_fault()).await;
    load.stop().await.check(&xtrace.url, TOKEN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_may_be_cut_at_any_time() {
    let xtrace = Xtrace::start().await;
    let load = Load::start(&xtrace.url, TOKEN);
    let mut connection = xtrace.sql().await;
    let (mut cut, enough) = (0_i64, if is_long() { 200 } else { 20 });
    let began = Instant::now();
    while cut < enough {
        assert!(
            began.elapsed() < Duration::from_mins(10),
            "only {cut} were cut"
        );
        tokio::time::sleep(Duration::from_millis(37)).await;
        // In the middle of whatever they do: copying rows more often than not.
        cut += sqlx::query_scalar::<_, i64>(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
              where datname = current_database() and pid <> pg_backend_pid() and state = 'active'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
    }
    load.goes_on(requests_around_a_fault()).await;
    load.stop().await.check(&xtrace.url, TOKEN).await;
}

/// Reads, small writes, batches and readiness, many at once: all must succeed.
async fn ask_everything(xtrace: &Xtrace, round: &str) {
    let read = |path: &'static str| async move { (path, xtrace.get(path).await) };
    let reads = ["/readyz", "/api/public/traces", "/api/public/v2/prompts"];
    let reads = reads.into_iter().cycle().take(24).map(read);
    let write = |n: usize| async move {
        let prompt = json!({"name": format!("{round}-{n}"), "type": "text", "prompt": "x"});
        xtrace.post("/api/public/v2/prompts", &prompt).await
    };
    let batch = json!({"trace": {"id": round}});
    let (reads, writes, (status, said)) = futures_util::join!(
        join_all(reads),
        join_all((0..6).map(write)),
        xtrace.post("/v1/l/batch", &batch)
    );
    assert_eq!(status, 200, "{round}: {said}");
    for (path, (status, said)) in reads {
        assert_eq!(status, 200, "{round}: {path} {said}");
    }
    for (status, said) in writes {
        assert_eq!(status, 201, "{round}: {said}");
    }
}

/// The way to the database is lost without a word: no reset ever arrives. What is idle then is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_falls_silent_costs_no_later_request() {
    let (url, silences) = over_tcp(&new_database().await).await;
    let xtrace = Xtrace::start_on(&url, &[]).await;
    for round in 0..2 {
        ask_everything(&xtrace, &format!("before-{round}")).await;
    }
    for silence in 0..2 {
        silences.send_modify(|count| *count += 1);
        for round in 0..3 {
            ask_everything(&xtrace, &format!("after-{silence}-{round}")).await;
        }
    }
    let (_, text) = xtrace.text("/metrics").await;
    assert!(text.contains("xtrace_database_silences_total"), "{text}");
}

/// What is asked while the line falls silent is answered, if only with a refusal, and leaves no connection behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_a_silent_database_never_answers_ends() {
    let database = new_database().await;
    let (url, silences) = over_tcp(&database).await;
    let options = Options {
        statement_timeout: Duration::from_secs(3),
        ..Options::new(&url)
    };
    let store = Store::new(&options).unwrap();
    store.migrate().await.unwrap();
    let mut locked = PgConnection::connect(&database).await.unwrap();
    sqlx::raw_sql("begin; lock table prompts in access exclusive mode")
        .execute(&mut locked)
        .await
        .unwrap();
    let project = ProjectId::parse("p").unwrap();
    let page = Page {
        number: 1,
        limit: 10,
    };
    let ask = || prompts::list(&store, &project, &[], page);
    let mut watcher = PgConnection::connect(&database).await.unwrap();
    let silence = async {
        let waits =
            "select count(*) from pg_locks where relation = 'prompts'::regclass and not granted";
        let began = Instant::now();
        while sqlx::query_scalar::<_, i64>(waits)
            .fetch_one(&mut watcher)
            .await
            .unwrap()
            < 4
        {
            assert!(began.elapsed() < Duration::from_mins(1), "nobody waits");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        silences.send_modify(|count| *count += 1);
    };
    let (outcomes, ()) = futures_util::join!(join_all((0..4).map(|_| ask())), silence);
    for outcome in outcomes {
        let refused = matches!(outcome, Err(StoreError::Unavailable(_)));
        assert!(refused, "{:?}", outcome.map(|page| page.total));
    }
    sqlx::raw_sql("rollback")
        .execute(&mut locked)
        .await
        .unwrap();
    for _ in 0..20 {
        ask().await.unwrap();
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_refused_and_room_ends_it() {
    let mount = temp_dir("full");
    fs::create_dir_all(&mount).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let status = std::process::Command::new(program)
            .args(arguments)
            .arg(&mount)
            .status();
        status.is_ok_and(|status| status.success())
    };
    if !run(
        "mount",
        &["-t", "tmpfs", "-o", "size=120m,mode=755", "tmpfs"],
    ) {
        return skip("a disk of its own can't be mounted here; run as root to see it fill up");
    }
    let dir = mount.join("data");
    let service = Service::start(&dir).await;
    let filler = "x1y2z3 ".repeat(60_000);
    let mut acknowledged = Vec::new();
    let mut refused = false;
    for number in 0..1000 {
        let id = format!("f-{number}");
        // Random enough not to be compressed away.
        let noise = (0..20_000_u64).map(|n| ((n * 0x9e37_79b9) ^ number).to_string());
        let input: String = noise.collect();
        let body =
            json!({"observations": [{"id": id, "traceId": id, "input": input, "output": filler}]});
        let request = service.http.post(format!("{}/v1/l/batch", service.url));
        let answer = request
            .bearer_auth(&service.token)
            .json(&body)
            .send()
            .await
            .unwrap();
        match answer.status().as_u16() {
            200 => acknowledged.push(id),
            status => {
                assert_eq!(status, 503);
                assert!(answer.headers().contains_key("retry-after"));
                refused = true;
                break;
            }
        }
    }
    assert!(refused, "120 MB took {} requests", acknowledged.len());
    assert!(run("mount", &["-o", "remount,size=400m"]));
    let began = Instant::now();
    while service.ingest("after").await != 200 {
        assert!(
            began.elapsed() < Duration::from_mins(1),
            "it did not recover"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for id in &acknowledged {
        let url = format!("{}/api/public/observations/{id}", service.url);
        let (status, _) = answer(service.http.get(url).bearer_auth(&service.token)).await;
        assert_eq!(status, 200, "{id}");
    }
    end(service, &mount).await;
}

async fn end(mut service: Service, mount: &Path) {
    service.signal("-TERM");
    service.child.wait().await.unwrap();
    // Processes of Postgres that end a moment after it hold the disk.
    let mut unmounted = false;
    for _ in 0..100 {
        let umount = std::process::Command::new("umount").arg(mount).status();
        unmounted = umount.unwrap().success();
        if unmounted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(unmounted);
    fs::remove_dir_all(mount).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_leave_nothing_behind() {
    let xtrace = Xtrace::start().await;
    let address = xtrace.url.trim_start_matches("http://").to_owned();
    for number in 0..50 {
        let mut stream = TcpStream::connect(&address).unwrap();
        let body = json!({"trace": {"id": format!("gone-{number}")}}).to_string();
        let claimed = if number % 2 == 0 {
            50 << 20
        } else {
            body.len()
        };
        let head = format!(
            "POST /v1/l/batch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: {claimed}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
    }
    // What the half requests held is free again: a body that needs half of it all is taken.
    let large = json!({"trace": {"id": "large", "input": "i".repeat(40 << 20)}});
    let (status, body) = xtrace.post("/v1/l/batch", &large).await;
    assert_eq!(status, 200, "{body}");
    let (_, text) = xtrace.text("/metrics").await;
    assert!(text.contains("xtrace_queue_bytes 0\n"), "{text}");
}

/// The library that `faketime` preloads; `None` where it is not installed.
fn faketime() -> Option<String> {
    let dirs = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let mut libraries = dirs.map(|dir| dir.path().join("faketime/libfaketimeMT.so.1"));
    Some(libraries.find(|path| path.exists())?.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_back_loses_and_mixes_nothing() {
    let Some(library) = faketime() else {
        return skip("faketime is not installed");
    };
    let dir = temp_dir("clock");
    fs::create_dir_all(&dir).unwrap();
    let clock = dir.join("clock");
    fs::write(&clock, "+0").unwrap();
    let variables = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let xtrace = SeparateXtrace::start_with(&new_database().await, &variables).await;
    let post = async |path: &str, body: serde_json::Value| {
        let request = xtrace.http.post(format!("{}{path}", xtrace.url));
        let (status, said) = answer(request.bearer_auth(TOKEN).json(&body)).await;
        assert_eq!(status, 200, "{said}");
    };
    let get = async |path: &str| {
        let request = xtrace.http.get(format!("{}/api/public/{path}", xtrace.url));
        let (status, body) = answer(request.bearer_auth(TOKEN)).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    };
    let native = |name: &str, observation: &str| {
        json!({"trace": {"id": "t", "name": name, "tags": [name]}, "observations": [
            {"id": observation, "traceId": "t", "type": "GENERATION", "model": "gpt-4o",
             "usage": {"input": 10, "output": 1}}]})
    };
    let span = |id: u32| {
        json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
            "traceId": "000000000000000000000000000000c1", "spanId": format!("{id:016x}"), "name": "n",
            "startTimeUnixNano": "1768471200000000000", "endTimeUnixNano": "1768471201000000000"}]}]}]})
    };
    post("/v1/l/batch", native("first", "o-1")).await;
    post("/v1/traces", span(1)).await;
    let before = get("traces/t").await;
    fs::write(&clock, "-3d").unwrap();
    post("/v1/l/batch", native("second", "o-2")).await;
    post("/v1/traces", span(1)).await;
    post("/v1/traces", span(2)).await;
    let after = get("traces/t").await;
    // The jump is real: what has no time of its own got that of the clock.
    let start = |trace: &serde_json::Value, id: &str| {
        let observations = trace["observations"].as_array().unwrap();
        let of_id = observations.iter().find(|one| one["id"] == id).unwrap();
        of_id["startTime"].as_str().unwrap().to_owned()
    };
    assert!(start(&after, "o-2") < start(&before, "o-1"));
    assert_eq!(after["name"], "second", "the later update counts");
    assert_eq!(after["tags"], json!(["first", "second"]));
    let spans = get("traces/000000000000000000000000000000c1").await;
    assert_eq!(spans["observations"].as_array().unwrap().len(), 2);
    let daily = get("metrics/daily").await;
    let days = daily["data"].as_array().unwrap();
    let generations = days.iter().flat_map(|day| day["usage"].as_array().unwrap());
    let input: i64 = generations
        .map(|usage| usage["inputUsage"].as_i64().unwrap())
        .sum();
    assert_eq!(input, 20, "{daily}");
    fs::remove_dir_all(&dir).unwrap();
}
