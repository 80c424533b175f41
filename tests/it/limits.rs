//! Rate limits, request ids and the other rules that hold on every path.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{PUBLIC_KEY, SECRET_KEY, Xtrace, answer};

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_limited_by_credential_and_writes_are_not() {
    let flags = ["--rate-limit-qps", "1", "--rate-limit-burst", "2"];
    let xtrace = Xtrace::start_with(&flags).await;
    let other = xtrace.project("other").await;
    for _ in 0..2 {
        assert_eq!(
            xtrace.get("/api/public/metrics/names").await.0,
            StatusCode::OK
        );
    }
    let native = xtrace
        .request(Method::GET, "/api/public/metrics/names")
        .send()
        .await
        .unwrap();
    assert_eq!(native.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = native.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(seconds >= 1);
    let body: serde_json::Value = native.json().await.unwrap();
    assert_eq!(
        (&body["message"], &body["code"]),
        (&json!("Too Many Requests"), &json!("TOO_MANY_REQUESTS"))
    );
    assert_eq!(body["meta"]["rate_limit"]["remaining"], 0);
    assert!(body["meta"]["rate_limit"]["reset_at"].is_string());

    let (status, body) = xtrace.get("/api/public/traces").await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        (&body["code"], &body["details"]["limit"]),
        (&json!("rate_limited"), &json!(2))
    );
    assert_eq!(
        answer(xtrace.request_as(&other, Method::GET, "/api/public/traces"))
            .await
            .0,
        StatusCode::OK
    );
    assert_eq!(xtrace.get("/api/public/projects").await.0, StatusCode::OK);
    for _ in 0..10 {
        assert_eq!(
            xtrace.post("/v1/l/batch", &json!({})).await.0,
            StatusCode::OK
        );
    }
    // `HEAD` runs the same handler, and what xtrace says of itself is read too.
    let path = "/api/internal/rate_limit_stats";
    let head = (Method::HEAD, "/api/public/traces");
    for (method, path) in [head, (Method::GET, "/metrics"), (Method::GET, path)] {
        let (status, _) = answer(xtrace.request(method.clone(), path)).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{method} {path}");
    }
    let (_, stats) = answer(xtrace.administer(Method::GET, path)).await;
    let all = stats["data"].as_object().unwrap();
    let refused: u64 = all
        .values()
        .map(|counts| counts["refused"].as_u64().unwrap())
        .sum();
    assert_eq!((all.len(), refused), (3, 5), "{stats}");
    for credential in ["test-token", "pk-lf", "sk-lf", "other"] {
        assert!(!stats.to_string().contains(credential), "{stats}");
    }
    // A key sees its own counts.
    let (_, own) = answer(xtrace.request_as(&other, Method::GET, path)).await;
    let own = own["data"].as_object().unwrap();
    let counts: Vec<_> = own.values().collect();
    assert_eq!(counts, [&json!({"allowed": 2, "refused": 0})]);
    assert!(own.keys().all(|label| all.contains_key(label)), "{own:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_have_ids() {
    let xtrace = Xtrace::start().await;
    let id_of = async |sent: Option<&str>| {
        let mut request = xtrace.request(Method::GET, "/healthz");
        if let Some(id) = sent {
            request = request.header("x-request-id", id);
        }
        let response = request.send().await.unwrap();
        response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(id_of(Some("order-17")).await, "order-17");
    let long = "x".repeat(129);
    for odd in [None, Some("with space"), Some(long.as_str())] {
        let id = id_of(odd).await;
        assert!(Some(id.as_str()) != odd && id.len() == 36, "{id}");
    }
}

/// Behind a trusted proxy guesses are held against the client that makes them, and nobody else gets to say who
/// that is.
#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_held_against_their_client() {
    let start = async |trusted: &'static str| {
        let flags = ["--auth-failures-per-second", "1"];
        Xtrace::start_with(&[flags[0], flags[1], "--trusted-proxies", trusted]).await
    };
    let ask = async |xtrace: &Xtrace, client: &str, (public, secret): (&str, &str)| {
        let request = xtrace
            .http
            .get(format!("{}/api/public/projects", xtrace.url));
        let request = request.header("x-forwarded-for", format!("127.0.0.1, {client}"));
        let (status, _) = answer(request.basic_auth(public, Some(secret))).await;
        status.as_u16()
    };
    let until_refused = async |xtrace: &Xtrace, client: &dyn Fn(usize) -> String| {
        for number in 0..1000 {
            let guess = (format!("pk-{number}"), "guess");
            match ask(xtrace, &client(number), (&guess.0, guess.1)).await {
                429 => return,
                status => assert_eq!(status, 401),
            }
        }
        panic!("guesses go on");
    };
    let xtrace = start("127.0.0.0/8").await;
    until_refused(&xtrace, &|_| "203.0.113.1".to_owned()).await;
    assert_eq!(ask(&xtrace, "203.0.113.2", ("pk-x", "guess")).await, 401);
    let right = (PUBLIC_KEY, SECRET_KEY);
    assert_eq!(ask(&xtrace, "203.0.113.3", right).await, 200);
    // Without trust in the proxy each request may claim another address, and none counts.
    let xtrace = start("off").await;
    until_refused(&xtrace, &|number| format!("203.0.113.{number}")).await;
}
