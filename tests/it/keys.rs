//! Projects and keys: made, listed, revoked, each with its scopes, effective at once.

#![expect(clippy::too_many_lines, reason = "a test is one story")]

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Keys, PUBLIC_KEY, SECRET_KEY, TOKEN, Xtrace, answer, new_database};
use crate::process::{output, xtrace as program};

async fn project(xtrace: &Xtrace, name: &str) -> String {
    let body = json!({"name": name, "retention": 0, "metadata": {"team": "a"}});
    let request = xtrace.administer(Method::POST, "/api/public/projects");
    let (status, made) = answer(request.json(&body)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    made["id"].as_str().unwrap().to_owned()
}

async fn key(xtrace: &Xtrace, project: &str, body: Value) -> (String, Keys) {
    let path = format!("/api/public/projects/{project}/apiKeys");
    let (status, made) = answer(xtrace.administer(Method::POST, &path).json(&body)).await;
    assert_eq!(status, StatusCode::CREATED, "{body}: {made}");
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let keys = Keys {
        public: text("publicKey"),
        secret: text("secretKey"),
    };
    (text("id"), keys)
}

async fn status(
    xtrace: &Xtrace,
    keys: &Keys,
    method: Method,
    path: &str,
    body: Value,
) -> StatusCode {
    answer(xtrace.request_as(keys, method, path).json(&body))
        .await
        .0
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_and_keys_are_made_and_ended_at_once() {
    let xtrace = Xtrace::start().await;
    let id = project(&xtrace, "first project").await;
    let (key_id, keys) = key(&xtrace, &id, json!({"note": "ci"})).await;
    let (_, own) = answer(xtrace.request_as(&keys, Method::GET, "/api/public/projects")).await;
    assert_eq!(
        (
            &own["data"][0]["id"],
            &own["data"][0]["name"],
            &own["data"][0]["metadata"]
        ),
        (&json!(id), &json!("first project"), &json!({"team": "a"}))
    );
    let path = format!("/api/public/projects/{id}/apiKeys");
    let (_, list) = answer(xtrace.administer(Method::GET, &path)).await;
    let listed = &list["apiKeys"][0];
    assert_eq!(
        (&listed["id"], &listed["note"]),
        (&json!(key_id), &json!("ci"))
    );
    assert!(listed.get("secretKey").is_none() && !list.to_string().contains(&keys.secret));
    let shown = listed["displaySecretKey"].as_str().unwrap();
    assert!(
        keys.secret.ends_with(shown.rsplit('.').next().unwrap()),
        "{shown}"
    );

    let trace = json!({"id": "t", "name": "n"});
    assert_eq!(
        status(&xtrace, &keys, Method::POST, "/api/public/traces", trace).await,
        StatusCode::OK
    );
    let revoke = format!("{path}/{key_id}");
    let (gone, body) = answer(xtrace.administer(Method::DELETE, &revoke)).await;
    assert_eq!((gone, body), (StatusCode::OK, json!({"success": true})));
    // At once, though it was used a moment ago.
    let read = status(&xtrace, &keys, Method::GET, "/api/public/traces", json!({})).await;
    assert_eq!(read, StatusCode::UNAUTHORIZED);
    let (gone, body) = answer(xtrace.administer(Method::DELETE, &revoke)).await;
    assert_eq!(
        (gone, &body["message"]),
        (StatusCode::NOT_FOUND, &json!("API key not found"))
    );

    let own = json!({"publicKey": "pk-lf-own", "secretKey": "sk-lf-0123456789-0123456789-0123456789", "expiresAt": "2020-01-01T00:00:00Z"});
    let (_, expired) = key(&xtrace, &id, own.clone()).await;
    let read = status(
        &xtrace,
        &expired,
        Method::GET,
        "/api/public/traces",
        json!({}),
    )
    .await;
    assert_eq!(read, StatusCode::UNAUTHORIZED, "it has ended");
    for (body, expected, words) in [
        (own, StatusCode::CONFLICT, "already exists"),
        (
            json!({"publicKey": "pk-lf-x"}),
            StatusCode::BAD_REQUEST,
            "Both publicKey and secretKey must be provided together",
        ),
        (
            json!({"publicKey": "x", "secretKey": "sk-lf-x"}),
            StatusCode::BAD_REQUEST,
            "publicKey must start with",
        ),
        (
            json!({"publicKey": "pk-lf-x", "secretKey": "sk-lf-twenty-five-letters"}),
            StatusCode::BAD_REQUEST,
            "32 characters or more",
        ),
        (
            json!({"publicKey": "pk-lf-a:b", "secretKey": "sk-lf-x"}),
            StatusCode::BAD_REQUEST,
            "without colons",
        ),
        (
            json!({"scopes": ["fly"]}),
            StatusCode::BAD_REQUEST,
            "scopes must be",
        ),
        (
            json!({"name": "a", "note": "b"}),
            StatusCode::BAD_REQUEST,
            "not both",
        ),
    ] {
        let (found, answer) = answer(xtrace.administer(Method::POST, &path).json(&body)).await;
        assert_eq!(found, expected, "{body}: {answer}");
        assert!(
            answer["message"].as_str().unwrap().contains(words),
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_do_what_their_scopes_say() {
    let xtrace = Xtrace::start().await;
    let id = project(&xtrace, "scoped").await;
    let (_, reader) = key(&xtrace, &id, json!({"scopes": ["read"]})).await;
    let (_, writer) = key(&xtrace, &id, json!({"scopes": ["write"]})).await;
    let (_, scorer) = key(&xtrace, &id, json!({"scopes": ["scores"]})).await;
    let (_, admin) = key(&xtrace, &id, json!({"scopes": ["admin"]})).await;
    let score = json!({"traceId": "t", "name": "n", "value": 1});
    let export = json!({"resourceSpans": []});
    let (ok, no) = (StatusCode::OK, StatusCode::FORBIDDEN);
    for (path, method, body, expected) in [
        (
            "/api/public/traces",
            Method::GET,
            json!({}),
            [ok, no, no, no],
        ),
        (
            "/api/public/metrics/names",
            Method::GET,
            json!({}),
            [ok, no, no, no],
        ),
        (
            "/api/public/traces",
            Method::POST,
            json!({"id": "t"}),
            [no, ok, no, no],
        ),
        ("/v1/traces", Method::POST, export, [no, ok, no, no]),
        (
            "/api/public/traces/none",
            Method::DELETE,
            json!({}),
            [no, ok, no, no],
        ),
        ("/api/public/scores", Method::POST, score, [no, ok, ok, no]),
        (
            "/api/public/organizations/projects",
            Method::GET,
            json!({}),
            [no, no, no, ok],
        ),
        // SDKs check every key with it.
        (
            "/api/public/projects",
            Method::GET,
            json!({}),
            [ok, ok, ok, ok],
        ),
    ] {
        for (keys, expected) in [&reader, &writer, &scorer, &admin]
            .into_iter()
            .zip(expected)
        {
            let found = status(&xtrace, keys, method.clone(), path, body.clone()).await;
            assert_eq!(found, expected, "{method} {path} with {}", keys.public);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_administrators_see_other_projects() {
    let xtrace = Xtrace::start().await;
    let id = project(&xtrace, "theirs").await;
    let ours = Keys {
        public: PUBLIC_KEY.to_owned(),
        secret: SECRET_KEY.to_owned(),
    };
    let keys_path = format!("/api/public/projects/{id}/apiKeys");
    let project_path = format!("/api/public/projects/{id}");
    for (method, path) in [
        (Method::GET, "/api/public/organizations/projects"),
        (Method::GET, "/api/public/organizations/apiKeys"),
        (Method::POST, "/api/public/projects"),
        (Method::PUT, &project_path),
        (Method::DELETE, &project_path),
        (Method::GET, &keys_path),
        (Method::POST, &keys_path),
        (Method::DELETE, &format!("{keys_path}/x")),
    ] {
        // Neither a key nor the token that every exporter holds.
        let requests = [
            xtrace.request_as(&ours, method.clone(), path),
            xtrace.request(method.clone(), path),
        ];
        for request in requests {
            let (found, body) = answer(request.json(&json!({"name": "name"}))).await;
            assert_eq!(found, StatusCode::FORBIDDEN, "{method} {path}");
            let message = body["message"].as_str().unwrap();
            assert!(message.contains("send XTRACE_ADMIN_TOKEN"), "{body}");
        }
    }
    let (_, all) =
        answer(xtrace.administer(Method::GET, "/api/public/organizations/projects")).await;
    let names: Vec<&Value> = all["projects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["default", "theirs"]);

    let put = |body: Value| answer(xtrace.administer(Method::PUT, &project_path).json(&body));
    let (found, changed) = put(json!({"name": "renamed", "metadata": "{\"a\": 1}"})).await;
    assert_eq!(
        (found, &changed["metadata"]),
        (StatusCode::OK, &json!({"a": 1}))
    );
    for (body, words) in [
        (json!({"name": "ab"}), "Invalid project name"),
        (json!({}), "Invalid project name"),
        (
            json!({"name": "name", "retention": 2}),
            "Invalid retention value",
        ),
        (
            json!({"name": "name", "metadata": null}),
            "valid JSON object",
        ),
        (
            json!({"name": "name", "metadata": "[1]"}),
            "valid JSON object",
        ),
    ] {
        let (found, answer) = put(body.clone()).await;
        assert_eq!(found, StatusCode::BAD_REQUEST, "{body}");
        assert!(
            answer["message"].as_str().unwrap().contains(words),
            "{answer}"
        );
    }
    assert_eq!(
        put(json!({"name": "default"})).await.0,
        StatusCode::CONFLICT
    );
    let none = "/api/public/projects/none/apiKeys";
    let (found, _) = answer(xtrace.administer(Method::GET, none)).await;
    assert_eq!(found, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_goes_with_all_that_is_its() {
    let xtrace = Xtrace::start().await;
    let id = project(&xtrace, "short-lived").await;
    let (_, keys) = key(&xtrace, &id, json!({})).await;
    let batch = json!({"batch": [
        {"id": "e1", "timestamp": "2026-01-15T10:00:00Z", "type": "trace-create", "body": {"id": "t", "sessionId": "s"}},
        {"id": "e2", "timestamp": "2026-01-15T10:00:00Z", "type": "span-create", "body": {"id": "o", "traceId": "t"}},
        {"id": "e3", "timestamp": "2026-01-15T10:00:00Z", "type": "score-create", "body": {"traceId": "t", "name": "n", "value": 1}}]});
    let sent = status(&xtrace, &keys, Method::POST, "/api/public/ingestion", batch).await;
    assert_eq!(sent, StatusCode::MULTI_STATUS);
    let point =
        json!({"metrics": [{"name": "m", "value": 1, "timestamp": "2026-01-15T10:00:00Z"}]});
    status(&xtrace, &keys, Method::POST, "/v1/metrics/batch", point).await;
    status(
        &xtrace,
        &keys,
        Method::POST,
        "/api/public/v2/prompts",
        json!({"name": "p", "prompt": "x"}),
    )
    .await;
    let (found, body) =
        answer(xtrace.administer(Method::DELETE, "/api/public/projects/default")).await;
    assert_eq!(found, StatusCode::BAD_REQUEST, "{body}");
    let (found, body) =
        answer(xtrace.administer(Method::DELETE, &format!("/api/public/projects/{id}"))).await;
    assert_eq!(found, StatusCode::ACCEPTED);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains("being processed asynchronously")
    );
    let read = status(&xtrace, &keys, Method::GET, "/api/public/traces", json!({})).await;
    assert_eq!(read, StatusCode::UNAUTHORIZED);
    // Nothing is left in any table that has owners.
    let mut sql = xtrace.sql().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid
          where a.attname = 'project_id' and c.relkind in ('r', 'p') and not c.relispartition",
    )
    .fetch_all(&mut sql)
    .await
    .unwrap();
    assert!(tables.len() > 20, "{tables:?}");
    let began = std::time::Instant::now();
    for table in &tables {
        let count = format!("select count(*) from {table} where project_id = $1");
        while sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(count.clone()))
            .bind(&id)
            .fetch_one(&mut sql)
            .await
            .unwrap()
            > 0
        {
            assert!(began.elapsed().as_secs() < 30, "{table} keeps rows");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// The pair of the configuration, changed, revoked, rotated; and one that is another project's.
#[tokio::test(flavor = "multi_thread")]
async fn configured_pairs_end_when_they_are_replaced_or_revoked() {
    let database = new_database().await;
    let pair = |name: &str| Keys {
        public: format!("pk-lf-{name}"),
        secret: format!("sk-lf-{name}-0123456789-0123456789-0123456789"),
    };
    let start = async |keys: &Keys| {
        let flags = [
            "--xtrace-public-key",
            &keys.public,
            "--xtrace-secret-key",
            &keys.secret,
        ];
        Xtrace::start_on(&database, &flags).await
    };
    let reads = async |xtrace: &Xtrace, keys: &Keys| {
        status(xtrace, keys, Method::GET, "/api/public/projects", json!({})).await
    };
    let run = async |arguments: &[&str]| {
        output(
            program()
                .args(arguments)
                .args(["--database-url", &database]),
        )
        .await
    };
    let (first, second) = (pair("first"), pair("second"));
    let xtrace = start(&first).await;
    let made = xtrace.project("default").await;
    xtrace.server.stop().await.unwrap();
    let xtrace = start(&second).await;
    assert_eq!(reads(&xtrace, &first).await, StatusCode::UNAUTHORIZED);
    assert_eq!(reads(&xtrace, &second).await, StatusCode::OK);
    assert_eq!(
        reads(&xtrace, &made).await,
        StatusCode::OK,
        "keys that were made stay"
    );

    // Another pair takes its place; the old one does not come back with a restart.
    let (code, said, complained) = run(&["keys", "rotate", &second.public]).await;
    assert_eq!(code, Some(0), "{complained}");
    let value = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().strip_prefix('=').unwrap().to_owned()
    };
    let rotated = Keys {
        public: value("LANGFUSE_PUBLIC_KEY"),
        secret: value("LANGFUSE_SECRET_KEY"),
    };
    xtrace.server.stop().await.unwrap();
    let xtrace = start(&second).await;
    assert_eq!(reads(&xtrace, &second).await, StatusCode::UNAUTHORIZED);
    assert_eq!(reads(&xtrace, &rotated).await, StatusCode::OK);
    xtrace.server.stop().await.unwrap();
    let xtrace = start(&rotated).await;
    assert_eq!(run(&["keys", "revoke", &rotated.public]).await.0, Some(0));
    xtrace.server.stop().await.unwrap();
    let xtrace = start(&rotated).await;
    assert_eq!(reads(&xtrace, &rotated).await, StatusCode::UNAUTHORIZED);

    // Another project's key is not taken from it.
    let theirs = xtrace.project("theirs").await;
    let line = [
        "serve",
        "--bind-addr",
        "127.0.0.1:0",
        "--api-bearer-token",
        TOKEN,
    ];
    let mut command = program();
    command.args(line).args(["--database-url", &database]);
    command.args([
        "--xtrace-public-key",
        &theirs.public,
        "--xtrace-secret-key",
        &second.secret,
    ]);
    let (code, _, said) = output(&mut command).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("opens another project than default"),
        "{said}"
    );
    assert_eq!(reads(&xtrace, &theirs).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_looks_after_keys_and_prices() {
    let database = new_database().await;
    let run = async |arguments: &[&str]| {
        output(
            program()
                .args(arguments)
                .args(["--database-url", &database]),
        )
        .await
    };
    let (code, said, complained) = run(&[
        "keys",
        "create",
        "--project",
        "cli",
        "--name",
        "ci job",
        "--scopes",
        "read,write",
    ])
    .await;
    assert_eq!(code, Some(0), "{complained}");
    let value = |name: &str| {
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.strip_prefix('=').unwrap().to_owned()
    };
    let keys = Keys {
        public: value("LANGFUSE_PUBLIC_KEY"),
        secret: value("LANGFUSE_SECRET_KEY"),
    };
    let xtrace = Xtrace::start_on(&database, &[]).await;
    let body = json!({"id": "o", "traceId": "t", "model": "gpt-4o", "usageDetails": {"input": 10}});
    let batch = json!({"batch": [{"id": "e", "timestamp": "2026-01-15T10:00:00Z", "type": "generation-create", "body": body}]});
    let sent = status(&xtrace, &keys, Method::POST, "/api/public/ingestion", batch).await;
    assert_eq!(sent, StatusCode::MULTI_STATUS);
    let own = json!({"modelName": "mine", "matchPattern": "^gpt-4o$", "inputPrice": 1});
    assert_eq!(
        status(&xtrace, &keys, Method::POST, "/api/public/models", own).await,
        StatusCode::OK
    );
    let (code, said, complained) = run(&[
        "reprice",
        "--project",
        "cli",
        "--from",
        "2026-01-01T00:00:00Z",
    ])
    .await;
    assert_eq!(
        (code, said.trim()),
        (Some(0), "cli: 1 observations have other costs now"),
        "{complained}"
    );
    let (_, observation) =
        answer(xtrace.request_as(&keys, Method::GET, "/api/public/observations/o")).await;
    assert_eq!(observation["calculatedTotalCost"], 10.0);

    let (code, said, _) = run(&["keys", "list", "--project", "cli"]).await;
    assert_eq!(code, Some(0));
    assert!(
        said.contains(&keys.public) && said.contains("read,write") && said.contains("ci job"),
        "{said}"
    );
    assert!(!said.contains(&keys.secret));
    // Names are anybody's words.
    let name = "a\u{1b}[2J\tname\u{202e}";
    assert_eq!(
        run(&["keys", "create", "--project", "cli", "--name", name])
            .await
            .0,
        Some(0)
    );
    let (_, said, _) = run(&["keys", "list", "--project", "cli"]).await;
    let escaped = said.contains(r"a\u{1b}[2J\tname\u{202e}");
    assert!(escaped && !said.contains('\u{1b}'), "{said}");
    assert_eq!(run(&["keys", "revoke", &keys.public]).await.0, Some(0));
    let (code, _, complained) = run(&["keys", "revoke", &keys.public]).await;
    assert_eq!(code, Some(1));
    assert!(complained.contains("xtrace keys list"), "{complained}");
    // Another process knows within a second.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let read = status(&xtrace, &keys, Method::GET, "/api/public/traces", json!({})).await;
    assert_eq!(read, StatusCode::UNAUTHORIZED);
}
