//! What reaches a port without a key or with a bare public one: methods, paths, forms and their answers.

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{PUBLIC_KEY, SECRET_KEY, Xtrace, answer};
use crate::routes::routes;

#[tokio::test(flavor = "multi_thread")]
async fn made_up_methods_make_one_series() {
    let xtrace = Xtrace::start().await;
    for number in 0..300 {
        let method = format!("ODD{number:04}{}", "X".repeat(2000));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = xtrace.request(method, "/healthz");
        request.send().await.unwrap();
    }
    let (_, text) = xtrace.text("/metrics").await;
    assert!(!text.contains("ODD0000X"), "a made-up method is a label");
    assert!(text.contains("method=\"other\""), "{text}");
}

/// What the body of a refusal looks like.
#[derive(Debug, PartialEq, Eq)]
enum Shape {
    Otlp,
    Langfuse,
    Native,
}

fn shape(body: &Value) -> Option<Shape> {
    let message = body["message"].is_string();
    if message && body["code"].is_u64() {
        Some(Shape::Otlp)
    } else if message
        && body["code"].is_string()
        && body["data"].is_null()
        && body.get("data").is_some()
    {
        Some(Shape::Native)
    } else if message {
        Some(Shape::Langfuse)
    } else {
        None
    }
}

fn expected(path: &str) -> Shape {
    let native = [
        "/v1/l/batch",
        "/v1/metrics/batch",
        "/api/public/logs",
        "/api/public/metrics/names",
        "/api/public/metrics/query",
        "/metrics",
        "/healthz",
        "/readyz",
        "/api/internal/erasures",
        "/api/internal/rate_limit_stats",
    ];
    if native.contains(&path) {
        Shape::Native
    } else if path.starts_with("/v1/")
        || path.contains("/otel/")
        || path.starts_with("/opentelemetry")
    {
        Shape::Otlp
    } else {
        Shape::Langfuse
    }
}

/// Every path of the routers refuses a method that it does not take in its own words.
#[tokio::test(flavor = "multi_thread")]
async fn every_path_refuses_in_its_own_dialect() {
    let xtrace = Xtrace::start().await;
    for route in routes() {
        let path = route.example();
        let odd = Method::from_bytes(b"PROPFIND").unwrap();
        let (status, body) = answer(xtrace.request(odd, &path)).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path} {body}");
        assert_eq!(shape(&body), Some(expected(&route.path)), "{path} {body}");
    }
    let (status, body) = xtrace.get("/api/public/datasets/%ff/runs/%ff").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(shape(&body), Some(Shape::Langfuse), "{body}");
}

async fn headers_of(request: reqwest::RequestBuilder) -> (StatusCode, HeaderMap) {
    let response = request.send().await.unwrap();
    (response.status(), response.headers().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_neither_guessed_at_nor_kept() {
    let xtrace = Xtrace::start().await;
    for path in [
        "/healthz",
        "/api/public/traces",
        "/no/such/path",
        "/api/public/projects",
    ] {
        let (_, headers) = headers_of(xtrace.request(Method::GET, path)).await;
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["cache-control"], "no-store", "{path}");
    }
    let path = format!("{}/api/public/traces", xtrace.url);
    let (status, headers) = headers_of(xtrace.http.get(&path)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(headers.contains_key("www-authenticate"));
    let navigation = xtrace.http.get(&path).header("sec-fetch-mode", "navigate");
    let (status, headers) = headers_of(navigation).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(!headers.contains_key("www-authenticate"));
}

/// A form of another site whose browser keeps our password can be sent without a preflight.
#[tokio::test(flavor = "multi_thread")]
async fn forms_of_other_sites_change_nothing() {
    let xtrace = Xtrace::start().await;
    let prompt =
        json!({"name": "greeting", "type": "text", "labels": ["production"], "prompt": "x"});
    let send = |path: &str, content_type: &str, headers: &[(&'static str, &str)]| {
        let request = xtrace.http.post(format!("{}{path}", xtrace.url));
        let mut request = request
            .basic_auth(PUBLIC_KEY, Some(SECRET_KEY))
            .header("content-type", content_type)
            .body(prompt.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request)
    };
    let foreign: [&[(&'static str, &str)]; 4] = [
        &[
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://evil.example"),
        ],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
    ];
    let writes = routes().into_iter().filter(|route| route.method == "POST");
    let paths: Vec<String> = writes.map(|route| route.example()).collect();
    assert!(paths.len() > 25, "{paths:?}");
    for headers in foreign {
        for path in &paths {
            let (status, body) = send(path, "text/plain", headers).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path} {headers:?} {body}");
        }
    }
    let path = "/api/public/v2/prompts";
    let form = "application/x-www-form-urlencoded";
    let (status, _) = send(path, form, &[]).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(
        xtrace.get("/api/public/v2/prompts").await.1["meta"]["totalItems"],
        0
    );
    // A script that set the header itself was asked about by its browser before.
    let (status, body) = send(path, "application/json", foreign[0]).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
}
