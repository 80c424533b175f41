//! Instrumentations of LLM applications as their users run them, against a model server of our own.
//! What they send differs; what is asked of an observation does not.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::clients::{named, program, run, script};
use crate::fake_model;
use crate::harness::{TOKEN, Xtrace};

/// Runs a client; the trace that it sent.
async fn trace_of(xtrace: &Xtrace, client: &mut Command) -> Value {
    client
        .arg(fake_model::start().await)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &xtrace.url)
        .env(
            "OTEL_EXPORTER_OTLP_HEADERS",
            format!("authorization=Bearer%20{TOKEN}"),
        );
    let trace_id = run(client).await;
    let (_, trace) = xtrace.get(&format!("/api/public/traces/{trace_id}")).await;
    assert_eq!(trace["name"], "handle");
    trace
}

fn python(path: &str) -> Command {
    let mut python = Command::new(program("instrumentations/bin/python"));
    python.arg(script(path));
    python
}

/// The observations below `parent`, by start.
fn below<'a>(trace: &'a Value, parent: &Value) -> Vec<&'a Value> {
    let observations = trace["observations"].as_array().unwrap().iter();
    let mut below: Vec<&Value> = observations
        .filter(|one| one["parentObservationId"] == parent["id"])
        .collect();
    below.sort_by_key(|one| one["startTime"].as_str().unwrap().to_owned());
    below
}

/// A call that the fake model answered: 20 tokens in, 5 out.
fn check_chat(chat: &Value, cached: Option<i64>) {
    assert_eq!(chat["type"], "GENERATION", "{chat}");
    assert_eq!(chat["model"], "gpt-4o-2024-08-06");
    assert_eq!(chat["modelParameters"]["temperature"], json!(0.5));
    check_usage(chat, cached);
}

fn check_usage(chat: &Value, cached: Option<i64>) {
    let usage = &chat["usageDetails"];
    assert_eq!(usage["input_cached_tokens"].as_i64(), cached, "{chat}");
    assert_eq!(usage["input"], json!(20 - cached.unwrap_or(0)));
    assert_eq!((&usage["output"], &usage["total"]), (&json!(5), &json!(25)));
    assert!(chat["calculatedTotalCost"].as_f64().unwrap() > 0.0);
}

/// The span `handle` with a call that ended in a tool, a streamed one and an embedding below it.
fn check_openai(trace: &Value, cached: Option<i64>) -> [Value; 3] {
    let [called, streamed, embedding] = below(trace, named(trace, "handle"))[..] else {
        panic!("{trace:#}");
    };
    check_chat(called, cached);
    check_chat(streamed, cached);
    assert_eq!(
        (&embedding["type"], &embedding["model"]),
        (&json!("EMBEDDING"), &json!("text-embedding-3-small"))
    );
    assert_eq!(embedding["totalTokens"], json!(4));
    [called, streamed, embedding].map(Clone::clone)
}

#[tokio::test(flavor = "multi_thread")]
async fn openinference_of_openai() {
    let xtrace = Xtrace::start().await;
    let mut client = python("instrumentations/openai_calls.py");
    let trace = trace_of(&xtrace, client.arg("openinference")).await;
    let [called, streamed, embedding] = check_openai(&trace, Some(8));
    let asked = json!({"role": "user", "content": "What is the capital of France?"});
    assert_eq!(called["input"]["messages"][1], asked);
    let call = &called["output"]["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "capital");
    let tools = &called["metadata"]["otel"]["toolDefinitions"];
    assert_eq!(tools[0]["function"]["name"], "capital");
    assert_eq!(
        streamed["output"]["choices"][0]["message"]["content"],
        "Paris."
    );
    assert_ne!(streamed["completionStartTime"], Value::Null);
    assert_eq!(embedding["input"]["input"], "Paris");
}

#[tokio::test(flavor = "multi_thread")]
async fn openllmetry_of_openai() {
    let xtrace = Xtrace::start().await;
    let mut client = python("instrumentations/openai_calls.py");
    let trace = trace_of(&xtrace, client.arg("openllmetry")).await;
    let [called, streamed, embedding] = check_openai(&trace, Some(8));
    let said = |text: &str| json!([{"type": "text", "content": text}]);
    assert_eq!(called["input"][0]["role"], "system");
    assert_eq!(
        called["input"][1]["parts"],
        said("What is the capital of France?")
    );
    assert_eq!(called["output"][0]["parts"][0]["name"], "capital");
    assert_eq!(streamed["output"][0]["parts"], said("Paris."));
    assert_ne!(streamed["completionStartTime"], Value::Null);
    assert_eq!(embedding["input"][0]["parts"], said("Paris"));
}

#[tokio::test(flavor = "multi_thread")]
async fn opentelemetrys_own_of_openai_sends_content_in_log_records() {
    let xtrace = Xtrace::start().await;
    let mut client = python("instrumentations/openai_calls.py");
    client
        .arg("openai-v2")
        .env("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true");
    let trace = trace_of(&xtrace, &mut client).await;
    let [called, streamed, _] = check_openai(&trace, None);
    let asked = json!([{"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the capital of France?"}]);
    assert_eq!(called["input"], asked);
    assert_eq!(called["output"]["finish_reason"], "tool_calls");
    let function = &called["output"]["tool_calls"][0]["function"];
    assert_eq!(function["name"], "capital");
    assert_eq!(
        streamed["output"],
        json!({"role": "assistant", "content": "Paris.", "finish_reason": "stop"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pydantic_ai() {
    let xtrace = Xtrace::start().await;
    let trace = trace_of(
        &xtrace,
        &mut python("instrumentations/pydantic_ai_agent.py"),
    )
    .await;
    let agent = named(&trace, "geographer run");
    assert_eq!(agent["parentObservationId"], named(&trace, "handle")["id"]);
    // It sums up its children, which are counted already.
    assert_eq!(
        (&agent["type"], &agent["usageDetails"], &agent["output"]),
        (&json!("AGENT"), &json!({}), &json!("Paris."))
    );
    let [asks, tool, answers] = below(&trace, agent)[..] else {
        panic!("{trace:#}");
    };
    for chat in [asks, answers] {
        assert_eq!(
            (&chat["type"], &chat["model"]),
            (&json!("GENERATION"), &json!("gpt-4o-2024-08-06"))
        );
        check_usage(chat, Some(8));
        assert_eq!(
            chat["input"][0],
            json!({"role": "system", "content": "Be brief."})
        );
    }
    assert_eq!(asks["output"][0]["parts"][0]["name"], "capital");
    assert_eq!(answers["output"][0]["parts"][0]["content"], "Paris.");
    assert_eq!(
        (&tool["type"], &tool["name"]),
        (&json!("TOOL"), &json!("capital"))
    );
    assert_eq!(
        (&tool["input"], &tool["output"]),
        (&json!({"country": "France"}), &json!("Paris"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vercel_ai_sdk_exports_protobuf() {
    let xtrace = Xtrace::start().await;
    // Modules are found beside the script.
    let dir = program("vercel-ai/node_modules")
        .parent()
        .unwrap()
        .to_owned();
    std::fs::copy(script("vercel-ai/agent.mjs"), dir.join("agent.mjs")).unwrap();
    let trace = trace_of(&xtrace, Command::new("node").arg(dir.join("agent.mjs"))).await;
    assert_eq!(
        (&trace["userId"], &trace["sessionId"], &trace["tags"]),
        (&json!("ada"), &json!("chat-7"), &json!(["js"]))
    );
    let outer = below(&trace, named(&trace, "handle"));
    let names: Vec<&Value> = outer.iter().map(|one| &one["name"]).collect();
    assert_eq!(
        names,
        [
            "geographer:ai.generateText",
            "geographer:ai.streamText",
            "geographer:ai.embed"
        ]
    );
    for span in &outer {
        // What is within them is counted already.
        assert_eq!(
            (&span["type"], &span["usageDetails"]),
            (&json!("SPAN"), &json!({}))
        );
        assert_eq!(span["metadata"]["topic"], "maps");
    }
    assert_eq!(outer[0]["output"], "Paris.");
    let [asks, tool, answers] = below(&trace, outer[0])[..] else {
        panic!("{trace:#}");
    };
    let [streams] = below(&trace, outer[1])[..] else {
        panic!("{trace:#}");
    };
    for chat in [asks, answers, streams] {
        assert_eq!(
            (&chat["type"], &chat["model"]),
            (&json!("GENERATION"), &json!("gpt-4o-2024-08-06"))
        );
        check_usage(chat, Some(8));
        assert_eq!(
            chat["input"][0],
            json!({"role": "system", "content": "Be brief."})
        );
    }
    assert_eq!(asks["output"][0]["toolName"], "capital");
    assert_eq!(answers["output"], "Paris.");
    assert_ne!(streams["completionStartTime"], Value::Null);
    assert_eq!(
        (&tool["type"], &tool["name"]),
        (&json!("TOOL"), &json!("capital"))
    );
    assert_eq!(
        (&tool["input"], &tool["output"]),
        (&json!({"country": "France"}), &json!("Paris"))
    );
    let [embeds] = below(&trace, outer[2])[..] else {
        panic!("{trace:#}");
    };
    assert_eq!(
        (&embeds["type"], &embeds["totalTokens"]),
        (&json!("EMBEDDING"), &json!(4))
    );
}
