//! Which credentials open which route: every scope against every route that the routers list.

use std::collections::BTreeMap;

use base64::Engine;
use chrono::Utc;
use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder, Response};
use xtrace_model::ProjectId;
use xtrace_model::caller::Scopes;
use xtrace_store::keys::{self, NewKey};

use crate::harness::{ADMIN_TOKEN, Keys, TOKEN, Xtrace};
use crate::routes::{Route, routes};

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Nothing.
    Open,
    /// A signed link.
    Link,
    /// A key with any scope.
    Key,
    /// The scope `read`.
    Read,
    /// The scope `write`.
    Write,
    /// The scope `write` or `scores`; a public key alone has the latter.
    Scores,
    /// The scope `admin`.
    Admin,
}

use Access::{Admin, Key, Link, Open, Read, Scores, Write};

const TABLE: [(Access, &[&str]); 7] = [
    (
        Open,
        &[
            "GET /healthz",
            "GET /readyz",
            "GET /api/public/health",
            "GET /api/public/ready",
        ],
    ),
    (
        Link,
        &[
            "GET /api/public/media/download/{token}",
            "PUT /api/public/media/upload/{token}",
        ],
    ),
    (
        Key,
        &[
            "GET /api/public/projects",
            "GET /api/internal/rate_limit_stats",
        ],
    ),
    (
        Read,
        &[
            "GET /api/public/annotation-queues",
            "GET /api/public/annotation-queues/{queue_id}",
            "GET /api/public/annotation-queues/{queue_id}/items",
            "GET /api/public/annotation-queues/{queue_id}/items/{item_id}",
            "GET /api/public/comments",
            "GET /api/public/comments/{comment_id}",
            "GET /api/public/dataset-items",
            "GET /api/public/dataset-items/{item_id}",
            "GET /api/public/dataset-run-items",
            "GET /api/public/datasets",
            "GET /api/public/datasets/{name}",
            "GET /api/public/datasets/{name}/runs",
            "GET /api/public/datasets/{name}/runs/{run}",
            "GET /api/public/experiment-items",
            "GET /api/public/experiments",
            "GET /api/public/logs",
            "GET /api/public/media/{media_id}",
            "GET /api/public/metrics",
            "GET /api/public/metrics/daily",
            "GET /api/public/metrics/names",
            "GET /api/public/metrics/query",
            "GET /api/public/models",
            "GET /api/public/models/{model_id}",
            "GET /api/public/observations",
            "GET /api/public/observations/{observation_id}",
            "GET /api/public/prompts",
            "GET /api/public/score-configs",
            "GET /api/public/score-configs/{config_id}",
            "GET /api/public/scores",
            "GET /api/public/scores/{score_id}",
            "GET /api/public/sessions",
            "GET /api/public/sessions/{session_id}",
            "GET /api/public/traces",
            "GET /api/public/traces/{trace_id}",
            "GET /api/public/v2/datasets",
            "GET /api/public/v2/datasets/{name}",
            "GET /api/public/v2/metrics",
            "GET /api/public/v2/observations",
            "GET /api/public/v2/prompts",
            "GET /api/public/v2/prompts/{name}",
            "GET /api/public/v2/scores",
            "GET /api/public/v2/scores/{score_id}",
            "GET /api/public/v3/scores",
        ],
    ),
    (
        Write,
        &[
            "DELETE /api/public/annotation-queues/{queue_id}/assignments",
            "DELETE /api/public/annotation-queues/{queue_id}/items/{item_id}",
            "DELETE /api/public/dataset-items/{item_id}",
            "DELETE /api/public/datasets/{name}/runs/{run}",
            "DELETE /api/public/models/{model_id}",
            "DELETE /api/public/scores/{score_id}",
            "DELETE /api/public/traces",
            "DELETE /api/public/traces/{trace_id}",
            "DELETE /api/public/v2/prompts/{name}",
            "PATCH /api/public/annotation-queues/{queue_id}/items/{item_id}",
            "PATCH /api/public/generations",
            "PATCH /api/public/media/{media_id}",
            "PATCH /api/public/score-configs/{config_id}",
            "PATCH /api/public/spans",
            "PATCH /api/public/v2/prompts/{name}/versions/{version}",
            "POST /api/public/annotation-queues",
            "POST /api/public/annotation-queues/{queue_id}/assignments",
            "POST /api/public/annotation-queues/{queue_id}/items",
            "POST /api/public/comments",
            "POST /api/public/dataset-items",
            "POST /api/public/dataset-run-items",
            "POST /api/public/datasets",
            "POST /api/public/events",
            "POST /api/public/generations",
            "POST /api/public/media",
            "POST /api/public/models",
            "POST /api/public/otel/v1/logs",
            "POST /api/public/otel/v1/metrics",
            "POST /api/public/otel/v1/traces",
            "POST /api/public/prompts",
            "POST /api/public/score-configs",
            "POST /api/public/spans",
            "POST /api/public/traces",
            "POST /api/public/v2/datasets",
            "POST /api/public/v2/prompts",
            "POST /opentelemetry.proto.collector.logs.v1.LogsService/Export",
            "POST /opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            "POST /opentelemetry.proto.collector.trace.v1.TraceService/Export",
            "POST /v1/l/batch",
            "POST /v1/logs",
            "POST /v1/metrics",
            "POST /v1/metrics/batch",
            "POST /v1/traces",
            "PUT /api/public/models/{model_id}",
        ],
    ),
    (
        Scores,
        &["POST /api/public/ingestion", "POST /api/public/scores"],
    ),
    (
        Admin,
        &[
            "DELETE /api/public/projects/{project_id}",
            "DELETE /api/public/projects/{project_id}/apiKeys/{key_id}",
            "GET /api/internal/erasures",
            "GET /api/public/organizations/apiKeys",
            "GET /api/public/organizations/projects",
            "GET /api/public/projects/{project_id}/apiKeys",
            "GET /metrics",
            "POST /api/public/projects",
            "POST /api/public/projects/{project_id}/apiKeys",
            "PUT /api/public/projects/{project_id}",
        ],
    ),
];

/// What a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Unauthenticated,
    Forbidden,
    /// Anything else: the handler was reached.
    Passed,
}

/// Who asks.
enum Asker {
    Nobody,
    /// An `Authorization` header that opens nothing.
    Wrong(&'static str, HeaderValue),
    /// The native token.
    Token,
    /// The token of administrators.
    AdminToken,
    /// A public key as a token.
    BareKey(Keys),
    Scoped(Scopes, Keys),
}

impl Asker {
    fn expected(&self, access: Access) -> Outcome {
        let scopes = match self {
            _ if access == Open || access == Link => return Outcome::Passed,
            Self::Nobody | Self::Wrong(..) => return Outcome::Unauthenticated,
            Self::Token => &Scopes::of_keys(),
            Self::AdminToken => &Scopes::of_admins(),
            Self::BareKey(_) if access == Scores => return Outcome::Passed,
            Self::BareKey(_) => return Outcome::Forbidden,
            Self::Scoped(scopes, _) => scopes,
        };
        let passes = match access {
            Open | Link | Key => true,
            Read => scopes.read,
            Write => scopes.write,
            Scores => scopes.write || scopes.scores,
            Admin => scopes.admin,
        };
        if passes {
            Outcome::Passed
        } else {
            Outcome::Forbidden
        }
    }

    fn sign(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Nobody => request,
            Self::Wrong(_, header) => request.header("authorization", header),
            Self::Token => request.bearer_auth(TOKEN),
            Self::AdminToken => request.bearer_auth(ADMIN_TOKEN),
            Self::BareKey(keys) => request.bearer_auth(&keys.public),
            Self::Scoped(_, keys) => request.basic_auth(&keys.public, Some(&keys.secret)),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Nobody => "nobody".to_owned(),
            Self::Wrong(what, _) => (*what).to_owned(),
            Self::Token => "the token".to_owned(),
            Self::AdminToken => "the token of administrators".to_owned(),
            Self::BareKey(_) => "a public key alone".to_owned(),
            Self::Scoped(scopes, _) => scopes.names().join(", "),
        }
    }
}

fn outcome(response: &Response) -> Outcome {
    let grpc = response.headers().get("grpc-status");
    let grpc = grpc.map(|value| value.to_str().unwrap());
    match (response.status().as_u16(), grpc) {
        (401, _) | (_, Some("16")) => Outcome::Unauthenticated,
        (403, _) | (_, Some("7")) => Outcome::Forbidden,
        _ => Outcome::Passed,
    }
}

fn table() -> BTreeMap<&'static str, Access> {
    let entries = TABLE
        .iter()
        .flat_map(|(access, names)| names.iter().map(|name| (*name, *access)));
    entries.collect()
}

async fn key(xtrace: &Xtrace, scopes: &[&str]) -> Keys {
    let (public, secret) = keys::fresh_pair();
    let new = NewKey {
        public_key: public.clone(),
        secret_key: secret.clone(),
        name: None,
        scopes: Scopes::parse(scopes).unwrap(),
        expires_at: None,
    };
    let project = ProjectId::parse("default").unwrap();
    keys::add(&xtrace.store, &project, &new, Utc::now())
        .await
        .unwrap()
        .unwrap();
    Keys { public, secret }
}

/// Headers that resemble those which open a route.
fn wrong_headers(keys: &Keys) -> Vec<Asker> {
    let basic = |public: &str, secret: &str| {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{public}:{secret}"));
        format!("Basic {pair}")
    };
    let (public, secret) = (keys.public.as_str(), keys.secret.as_str());
    let headers = [
        ("a wrong token", "Bearer wrong".to_owned()),
        ("a secret key as a token", format!("Bearer {secret}")),
        ("a wrong secret", basic(public, "wrong")),
        ("an empty secret", basic(public, "")),
        ("an unknown public key", basic("wrong", secret)),
        ("the halves of a pair swapped", basic(secret, public)),
        ("a token without its scheme", TOKEN.to_owned()),
        ("a pair that is no base64", "Basic \u{e9}".to_owned()),
    ];
    let wrong = headers.into_iter().map(|(what, header)| {
        Asker::Wrong(what, HeaderValue::from_bytes(header.as_bytes()).unwrap())
    });
    wrong.collect()
}

async fn ask(xtrace: &Xtrace, asker: &Asker, route: &Route) -> Response {
    let url = format!("{}{}", xtrace.url, route.example());
    let request = xtrace
        .http
        .request(route.method.parse::<Method>().unwrap(), url);
    let content_type = if route.path.starts_with("/opentelemetry.") {
        "application/grpc"
    } else {
        "application/json"
    };
    let request = request.header("content-type", content_type).body("{}");
    asker.sign(request).send().await.unwrap()
}

#[test]
fn every_route_says_what_it_asks_for() {
    let table = table();
    let listed: Vec<String> = routes().iter().map(Route::name).collect();
    let missing: Vec<_> = listed
        .iter()
        .filter(|name| !table.contains_key(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in the table: {missing:#?}");
    let stale: Vec<_> = table
        .keys()
        .filter(|name| !listed.iter().any(|listed| listed == *name))
        .collect();
    assert!(stale.is_empty(), "no longer routes: {stale:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scope_opens_its_routes_and_no_others() {
    let xtrace = Xtrace::start().await;
    let mut askers = vec![Asker::Nobody, Asker::Token, Asker::AdminToken];
    for scopes in [
        &["read"][..],
        &["write"],
        &["scores"],
        &["admin"],
        &["read", "write", "scores"],
    ] {
        let keys = key(&xtrace, scopes).await;
        askers.push(Asker::Scoped(Scopes::parse(scopes).unwrap(), keys));
    }
    let full = key(&xtrace, &["read", "write", "scores", "admin"]).await;
    askers.extend(wrong_headers(&full));
    askers.push(Asker::BareKey(full));
    let table = table();
    let mut wrong = Vec::new();
    for route in routes() {
        let access = table[route.name().as_str()];
        for asker in &askers {
            let response = ask(&xtrace, asker, &route).await;
            let (found, expected) = (outcome(&response), asker.expected(access));
            // A link refuses in words of its own.
            let is_link = access == Link && !response.status().is_success();
            let has_challenge = response.headers().contains_key("www-authenticate");
            let is_challenged = response.status() != 401 || has_challenge;
            if (found != expected || !is_challenged) && !is_link {
                wrong.push(format!(
                    "{} as {}: {found:?}, expected {expected:?}",
                    route.name(),
                    asker.name()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
