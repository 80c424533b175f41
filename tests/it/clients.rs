//! Real SDKs from their registries against the server; `scripts/test` makes their environments.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{PUBLIC_KEY, SECRET_KEY, TOKEN, Xtrace};

/// A program of `target/clients`.
pub(crate) fn program(path: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/clients")
        .join(path);
    assert!(
        program.exists(),
        "{} is missing; scripts/test makes it",
        program.display()
    );
    program
}

/// A script of `tests/clients`.
pub(crate) fn script(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(path)
}

/// Runs a client to its end; it must succeed. Returns the last line that it printed.
pub(crate) async fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    said.lines().last().unwrap_or_default().to_owned()
}

pub(crate) fn named<'a>(trace: &'a Value, name: &str) -> &'a Value {
    let observations = trace["observations"].as_array().unwrap();
    observations
        .iter()
        .find(|observation| observation["name"] == name)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_otel_python_sdk_exports_gzipped_protobuf_over_http() {
    let xtrace = Xtrace::start().await;
    otel_python(&xtrace, "http", &xtrace.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_otel_python_sdk_exports_gzipped_protobuf_over_grpc() {
    let xtrace = Xtrace::start_with(&["--otlp-grpc-addr", "127.0.0.1:0"]).await;
    let of_its_own = format!("http://{}", xtrace.server.otlp_grpc_address().unwrap());
    otel_python(&xtrace, "grpc", &of_its_own).await;
    // The main listener takes gRPC as well.
    otel_python(&xtrace, "grpc", &xtrace.url).await;
}

async fn otel_python(xtrace: &Xtrace, protocol: &str, endpoint: &str) {
    let mut python = Command::new(program("otel-python/bin/python"));
    python
        .arg(script("otel-python/export.py"))
        .arg(protocol)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        // Percent-encoded, as OpenTelemetry's specification wants it.
        .env(
            "OTEL_EXPORTER_OTLP_HEADERS",
            format!("authorization=Bearer%20{TOKEN}"),
        );
    let trace_id = run(&mut python).await;
    let (_, trace) = xtrace.get(&format!("/api/public/traces/{trace_id}")).await;
    assert_eq!(trace["observations"].as_array().unwrap().len(), 602);
    assert_eq!(
        (&trace["userId"], &trace["environment"]),
        (&json!("ada"), &json!("staging"))
    );
    let chat = named(&trace, "chat gpt-4o");
    assert_eq!(chat["parentObservationId"], named(&trace, "handle")["id"]);
    assert_eq!(
        (&chat["type"], &chat["totalTokens"]),
        (&json!("GENERATION"), &json!(15))
    );
    assert_eq!(chat["input"], json!([{"role": "user", "content": "hi"}]));
    assert_eq!(
        chat["metadata"]["otel"]["links"][0]["attributes"],
        json!({"why": "test"})
    );
    assert!((chat["calculatedTotalCost"].as_f64().unwrap() - 0.000_075).abs() < 1e-12);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_otel_python_sdk_exports_logs() {
    for protocol in ["http", "grpc"] {
        let xtrace = Xtrace::start().await;
        let mut python = Command::new(program("otel-python/bin/python"));
        python
            .arg(script("otel-python/logs.py"))
            .arg(protocol)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &xtrace.url)
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            .env(
                "OTEL_EXPORTER_OTLP_HEADERS",
                format!("authorization=Bearer%20{TOKEN}"),
            );
        let trace_id = run(&mut python).await;
        let (_, all) = xtrace.get("/api/public/logs").await;
        let (outside, event, inside) = (&all["data"][0], &all["data"][1], &all["data"][2]);
        assert_eq!(outside["body"], "out of it");
        assert_eq!(outside["traceId"], Value::Null);
        assert_eq!(event["eventName"], "gen_ai.user.message");
        assert_eq!(event["body"], json!({"content": "hi", "role": "user"}));
        assert_eq!(inside["attributes"], json!({"n": 1, "list": ["a", "b"]}));
        assert_eq!(
            (&inside["severityNumber"], &inside["severityText"]),
            (&json!(13), &json!("WARN"))
        );
        assert_eq!(inside["traceId"], json!(trace_id));
        assert_eq!(inside["resourceAttributes"]["service.name"], "py-app");
        let (_, of_trace) = xtrace
            .get(&format!("/api/public/logs?traceId={trace_id}"))
            .await;
        assert_eq!(of_trace["data"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_otel_python_sdk_exports_metrics() {
    for (protocol, temporality) in [("http", "cumulative"), ("grpc", "delta")] {
        let xtrace = Xtrace::start().await;
        let mut python = Command::new(program("otel-python/bin/python"));
        python
            .arg(script("otel-python/metrics.py"))
            .args([protocol, temporality])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &xtrace.url)
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            .env(
                "OTEL_EXPORTER_OTLP_HEADERS",
                format!("authorization=Bearer%20{TOKEN}"),
            );
        let trace_id = run(&mut python).await;
        let ask = async |query: &str| {
            let path = format!("/api/public/metrics/query?step=1d&{query}");
            let (status, body) = xtrace.get(&path).await;
            assert_eq!(status, 200, "{query}: {body}");
            body
        };
        for (query, expected) in [
            ("name=requests&agg=increase", 23.0),
            ("name=depth&agg=last", 3.0),
            ("name=duration&agg=count", 10.0),
            ("name=duration&agg=avg", 0.55),
            ("name=size&agg=max", 512.0),
            ("name=temperature&environment=staging", 36.6),
        ] {
            let body = ask(query).await;
            let values = &body["data"][0]["values"];
            // The export may have begun before midnight.
            let sum: f64 = values
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["value"].as_f64().unwrap())
                .sum();
            assert!(
                (sum - expected).abs() < 1e-9,
                "{temporality} {query}: {body}"
            );
        }
        let body = ask("name=requests&exemplars=true").await;
        assert_eq!(
            body["data"][0]["labels"],
            json!({"model": "gpt-4o", "stream": "true"})
        );
        assert_eq!(body["exemplars"][0]["traceId"], json!(trace_id), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_otel_rust_sdk_exports_zstd_over_http_and_grpc() {
    let xtrace = Xtrace::start().await;
    for protocol in ["http", "grpc"] {
        let mut client = Command::new(program("otel-rust-target/debug/otel-rust"));
        client
            .arg(protocol)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &xtrace.url)
            .env(
                "OTEL_EXPORTER_OTLP_HEADERS",
                format!("authorization=Bearer%20{TOKEN}"),
            );
        let trace_id = run(&mut client).await;
        let (status, trace) = xtrace.get(&format!("/api/public/traces/{trace_id}")).await;
        assert_eq!(status, 200, "{protocol}: {trace}");
        let chat = named(&trace, "chat gpt-4o");
        assert_eq!(chat["parentObservationId"], named(&trace, "handle")["id"]);
        assert_eq!(
            (&chat["type"], &chat["totalTokens"]),
            (&json!("GENERATION"), &json!(15))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_otel_js_sdk_exports_json() {
    let xtrace = Xtrace::start().await;
    // Modules are found beside the script.
    let dir = program("otel-js/node_modules").parent().unwrap().to_owned();
    std::fs::copy(script("otel-js/export.mjs"), dir.join("export.mjs")).unwrap();
    let mut node = Command::new("node");
    node.arg(dir.join("export.mjs"))
        .env("XTRACE_URL", &xtrace.url)
        .env("XTRACE_AUTHORIZATION", format!("Bearer {TOKEN}"));
    let trace_id = run(&mut node).await;
    let (_, trace) = xtrace.get(&format!("/api/public/traces/{trace_id}")).await;
    assert_eq!(trace["sessionId"], "s-js");
    let chat = named(&trace, "chat gpt-4o");
    assert_eq!(chat["parentObservationId"], named(&trace, "handle")["id"]);
    assert_eq!(
        (&chat["level"], &chat["statusMessage"]),
        (&json!("ERROR"), &json!("tool failed"))
    );
    assert_eq!(
        chat["output"],
        json!([{"role": "assistant", "content": "yo"}])
    );
    assert_eq!(
        chat["usageDetails"],
        json!({"input": 10, "output": 5, "total": 15})
    );
    assert_eq!(chat["metadata"]["otel"]["events"][0]["name"], "first token");
}

async fn langfuse_python(environment: &str) -> Value {
    let xtrace = Xtrace::start().await;
    let mut python = Command::new(program(&format!("{environment}/bin/python")));
    python
        .arg(script("langfuse-python/trace.py"))
        .env("LANGFUSE_HOST", &xtrace.url)
        .env("LANGFUSE_BASE_URL", &xtrace.url)
        .env("LANGFUSE_PUBLIC_KEY", PUBLIC_KEY)
        .env("LANGFUSE_SECRET_KEY", SECRET_KEY);
    let trace_id = run(&mut python).await;
    let (status, trace) = xtrace.get(&format!("/api/public/traces/{trace_id}")).await;
    assert_eq!(status, 200, "{trace}");
    assert_eq!(trace["userId"], "ada");
    assert_eq!(trace["sessionId"], "s-1");
    assert_eq!(trace["tags"], json!(["a", "b"]));
    assert_eq!(trace["name"], "handle");
    assert_eq!(
        (&trace["input"], &trace["output"]),
        (&json!({"q": "hi"}), &json!({"a": "hello"}))
    );
    assert_eq!(trace["metadata"]["tier"], "gold");
    let (retrieve, llm) = (named(&trace, "retrieve"), named(&trace, "llm"));
    assert_eq!(
        retrieve["parentObservationId"],
        named(&trace, "handle")["id"]
    );
    assert_eq!(llm["parentObservationId"], retrieve["id"]);
    assert_eq!(
        (&retrieve["type"], &llm["type"]),
        (&json!("RETRIEVER"), &json!("GENERATION"))
    );
    assert_eq!(
        llm["usageDetails"],
        json!({"input": 10, "output": 5, "total": 15})
    );
    assert_eq!(llm["modelParameters"], json!({"temperature": 0.2}));
    assert_eq!(retrieve["metadata"]["count"], 1);
    retrieve["metadata"]["text"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn langfuse_python_3_traces_and_checks_its_keys() {
    // 3.x sends texts as they are, and readers take them for JSON.
    assert_eq!(langfuse_python("langfuse-3").await, json!(123));
}

#[tokio::test(flavor = "multi_thread")]
async fn langfuse_python_5_traces_and_keeps_the_type_of_metadata() {
    assert_eq!(langfuse_python("langfuse-5").await, json!("123"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_rust_client_works_unchanged() {
    let xtrace = Xtrace::start().await;
    let mut client = Command::new(program("published-rust/debug/published-client"));
    run(client.arg(format!("{}/", xtrace.url)).arg(TOKEN)).await;
}
