//! A model server that speaks OpenAI's API: a client that offers tools is told to call the first one,
//! and answered once it did. Whoever asks gets `"Paris."`, 20 tokens in (8 of them cached) and 5 out.

use axum::Json;
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Starts a server that lives as long as the test; its base URL.
pub(crate) async fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/embeddings", post(embeddings));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

async fn chat(Json(request): Json<Value>) -> Response {
    let tool = request["tools"][0]["function"]["name"].as_str();
    let messages = request["messages"].as_array().unwrap();
    let called = messages.iter().any(|message| message["role"] == "tool");
    let (message, reason) = match tool.filter(|_| !called) {
        Some(name) => {
            let function = json!({"name": name, "arguments": "{\"country\":\"France\"}"});
            let call = json!({"id": "call_1", "type": "function", "function": function});
            let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
            (message, "tool_calls")
        }
        None => (json!({"role": "assistant", "content": "Paris."}), "stop"),
    };
    if request["stream"] == true {
        return stream(&request, &message, reason);
    }
    Json(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_768_471_200, "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": null}],
        "usage": usage(),
    }))
    .into_response()
}

fn usage() -> Value {
    json!({"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 0}})
}

fn stream(request: &Value, message: &Value, reason: &str) -> Response {
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_768_471_200,
            "model": "gpt-4o-2024-08-06", "choices": choices, "usage": usage});
        format!("data: {chunk}\n\n")
    };
    let delta = |delta: &Value, reason: Value| json!([{"index": 0, "delta": delta, "finish_reason": reason}]);
    let mut body = chunk(delta(message, Value::Null), Value::Null);
    body += &chunk(delta(&json!({}), json!(reason)), Value::Null);
    if request["stream_options"]["include_usage"] == true {
        body += &chunk(json!([]), usage());
    }
    body += "data: [DONE]\n\n";
    ([("content-type", "text/event-stream")], body).into_response()
}

async fn embeddings(Json(request): Json<Value>) -> Json<Value> {
    let embedding = match request["encoding_format"].as_str() {
        // Four zeros of 32 bits each.
        Some("base64") => json!("AAAAAAAAAAAAAAAAAAAAAA=="),
        _ => json!([0.0, 0.0, 0.0, 0.0]),
    };
    Json(json!({"object": "list", "model": request["model"],
        "data": [{"object": "embedding", "index": 0, "embedding": embedding}],
        "usage": {"prompt_tokens": 4, "total_tokens": 4}}))
}
