//! Every major version of Langfuse's SDKs, from its registry, doing what its users do; see
//! `tests/clients/langfuse-python` and `tests/clients/langfuse-js`. `scripts/test --report` prints the matrix.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::process::Command;

use crate::clients::{program, run, script};
use crate::fake_model;
use crate::harness::{PUBLIC_KEY, SECRET_KEY, SeparateXtrace, Xtrace, free_port, new_database};

/// Where the outcomes are kept for the report.
const REPORT: &str = "target/sdk-report";

fn with_keys<'a>(command: &'a mut Command, xtrace: &Xtrace) -> &'a mut Command {
    command
        .env("LANGFUSE_HOST", &xtrace.url)
        .env("LANGFUSE_BASE_URL", &xtrace.url)
        .env("LANGFUSE_PUBLIC_KEY", PUBLIC_KEY)
        .env("LANGFUSE_SECRET_KEY", SECRET_KEY)
}

/// Runs a script whose last line says what became of each capability.
async fn check(name: &str, command: &mut Command, capabilities: usize) {
    let xtrace = Xtrace::start().await;
    let said = run(with_keys(command, &xtrace)).await;
    let outcome: BTreeMap<String, String> = serde_json::from_str(&said).unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(REPORT);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(format!("{name}.json")), &said).unwrap();
    assert!(outcome.values().all(|one| one == "ok"), "{name}: {said}");
    assert_eq!(outcome.len(), capabilities, "{name}: {said}");
}

async fn python(major: u32, file: &str, capabilities: usize) {
    let mut python = Command::new(program(&format!("langfuse-{major}/bin/python")));
    python.arg(script(&format!("langfuse-python/{file}")));
    check(&format!("python-{major}"), &mut python, capabilities).await;
}

/// A script of the JS SDK of that major.
fn node(major: u32, file: &str) -> Command {
    // Modules are found beside the script.
    let modules = program(&format!("langfuse-js-{major}/node_modules"));
    let dir = modules.parent().unwrap();
    for file in [file, "steps.mjs"] {
        // At once: another test may be reading it.
        let copy = dir.join(format!("{}-{file}", uuid::Uuid::new_v4()));
        std::fs::copy(script(&format!("langfuse-js/{file}")), &copy).unwrap();
        std::fs::rename(copy, dir.join(file)).unwrap();
    }
    let mut node = Command::new("node");
    node.arg(dir.join(file))
        .env("LANGFUSE_MAJOR", major.to_string());
    node
}

async fn javascript(major: u32, file: &str, capabilities: usize) {
    check(&format!("js-{major}"), &mut node(major, file), capabilities).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_2_sends_batches_and_reads_version_1() {
    python(2, "capabilities_2.py", 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_3_exports_and_reads_versions_1_and_2() {
    python(3, "capabilities.py", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_4_exports_and_reads_all_versions() {
    python(4, "capabilities.py", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_5_exports_and_reads_the_newest_versions_alone() {
    python(5, "capabilities.py", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn js_3_sends_batches_and_reads_version_1() {
    javascript(3, "capabilities-3.mjs", 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn js_4_exports_json_and_reads_versions_1_and_2() {
    javascript(4, "capabilities.mjs", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn js_5_exports_json_and_reads_all_versions() {
    javascript(5, "capabilities.mjs", 10).await;
}

fn integrations() -> Command {
    let mut python = Command::new(program("langfuse-integrations/bin/python"));
    python.arg(script("langfuse-integrations/calls.py"));
    python
}

/// Calls the fake model through an integration; the trace has the call with its usage.
async fn integration(mut client: Command, which: &str) {
    let xtrace = Xtrace::start().await;
    client.arg(which).arg(fake_model::start().await);
    let trace_id = run(with_keys(&mut client, &xtrace)).await;
    let (status, trace) = xtrace.get(&format!("/api/public/traces/{trace_id}")).await;
    assert_eq!(status, 200, "{trace}");
    assert_eq!(
        (&trace["name"], &trace["userId"]),
        (&json!("handle"), &json!("ada"))
    );
    // LiteLLM puts a span of the same name below it.
    let observations = trace["observations"].as_array().unwrap();
    let call = observations
        .iter()
        .find(|one| one["name"] == "ask" && one["type"] == "GENERATION")
        .unwrap_or_else(|| panic!("no generation: {trace}"));
    assert!(
        call["model"].as_str().unwrap().starts_with("gpt-4o"),
        "{call}"
    );
    // Some take the cached part of the input out of it, some don't.
    let usage = &call["usageDetails"];
    let input = usage["input"].as_i64().unwrap();
    assert!(input == 20 || input == 12, "{usage}");
    assert_eq!(usage["output"], 5, "{usage}");
    assert!(call["calculatedTotalCost"].as_f64().unwrap() > 0.0);
    assert!(call["output"].to_string().contains("Paris."), "{call}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_wrapper_tells_of_its_calls() {
    integration(integrations(), "openai").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_langchain_callback_tells_of_its_calls() {
    integration(integrations(), "langchain").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_litellm_callbacks_tell_of_their_calls() {
    // Of batches, and of OTLP.
    integration(integrations(), "langfuse").await;
    integration(integrations(), "langfuse_otel").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn integrations_of_js_tell_of_their_calls() {
    for which in ["openai", "langchain"] {
        integration(node(3, "calls-3.mjs"), which).await;
        integration(node(5, "calls.mjs"), which).await;
    }
}

/// An SDK goes on while the server is killed and comes back; what it sent is there.
async fn survives_a_restart(mut client: Command) {
    const COUNT: i64 = 100;
    let (database, address) = (new_database().await, format!("127.0.0.1:{}", free_port()));
    let first = SeparateXtrace::start_at(&address, &database, &[]).await;
    client
        .arg(COUNT.to_string())
        .env("LANGFUSE_HOST", &first.url)
        .env("LANGFUSE_BASE_URL", &first.url)
        .env("LANGFUSE_PUBLIC_KEY", PUBLIC_KEY)
        .env("LANGFUSE_SECRET_KEY", SECRET_KEY);
    let client = tokio::spawn(async move { run(&mut client).await });
    let mut sql = PgConnection::connect(&database).await.unwrap();
    let mut stored = async || {
        sqlx::query_scalar::<_, i64>("select count(*) from traces where name = 'restarted'")
            .fetch_one(&mut sql)
            .await
            .unwrap()
    };
    // Some send as they go, some all at once in the end.
    for _ in 0..100 {
        if stored().await > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.kill().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(
        stored().await < COUNT,
        "it was killed too late to show anything"
    );
    let second = SeparateXtrace::start_at(&address, &database, &[]).await;
    client.await.unwrap();
    assert_eq!(stored().await, COUNT);
    second.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_sdks_send_is_lost_in_a_restart() {
    for major in [2, 3, 4, 5] {
        let mut python = Command::new(program(&format!("langfuse-{major}/bin/python")));
        python.arg(script("langfuse-python/restart.py"));
        survives_a_restart(python).await;
    }
    for major in [3, 4, 5] {
        survives_a_restart(node(major, "restart.mjs")).await;
    }
}
