//! Prompts: versions, labels, names with slashes.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{event, ingest, trace};
use crate::harness::{PUBLIC_KEY, Xtrace, answer};

pub(super) const PATH: &str = "/api/public/v2/prompts";

pub(super) async fn create(xtrace: &Xtrace, body: Value) -> Value {
    let (status, created) = xtrace.post(PATH, &body).await;
    assert_eq!(status, StatusCode::CREATED, "{body}: {created}");
    created
}

pub(super) async fn get(xtrace: &Xtrace, name_and_query: &str) -> (StatusCode, Value) {
    xtrace.get(&format!("{PATH}/{name_and_query}")).await
}

pub(super) async fn delete(xtrace: &Xtrace, name_and_query: &str) -> (StatusCode, Value) {
    answer(xtrace.request(Method::DELETE, &format!("{PATH}/{name_and_query}"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_count_up_and_labels_move() {
    let xtrace = Xtrace::start().await;
    let first = create(
        &xtrace,
        json!({"name": "greet", "prompt": "Hello {{name}}", "labels": ["production", "production"],
            "tags": ["t"], "version": 9, "projectId": "other", "createdBy": "me", "commitMessage": "why"}),
    )
    .await;
    assert_eq!(
        (
            &first["version"],
            &first["labels"],
            &first["type"],
            &first["config"],
            &first["createdBy"]
        ),
        (
            &json!(1),
            &json!(["production", "latest"]),
            &json!("text"),
            &json!({}),
            &json!("API")
        )
    );
    assert_eq!(
        (&first["projectId"], &first["commitMessage"]),
        (&json!("default"), &json!("why"))
    );
    let second = create(
        &xtrace,
        json!({"name": "greet", "prompt": "Hi {{name}}", "config": {"model": "m"}, "labels": ["staging"]}),
    )
    .await;
    assert_eq!(
        (&second["version"], &second["labels"], &second["tags"]),
        (&json!(2), &json!(["staging", "latest"]), &json!(["t"]))
    );

    let (_, production) = get(&xtrace, "greet").await;
    assert_eq!(
        (
            &production["version"],
            &production["labels"],
            &production["isActive"]
        ),
        (&json!(1), &json!(["production"]), &json!(true))
    );
    assert_eq!(production["resolutionGraph"], Value::Null);
    let (_, latest) = get(&xtrace, "greet?label=latest").await;
    assert_eq!(
        (&latest["version"], &latest["isActive"]),
        (&json!(2), &json!(false))
    );
    let (_, by_version) = get(&xtrace, "greet?version=1").await;
    assert_eq!(by_version["prompt"], "Hello {{name}}");

    let patch = |version: &str, labels: Value| {
        let path = format!("{PATH}/greet/versions/{version}");
        answer(
            xtrace
                .request(Method::PATCH, &path)
                .json(&json!({ "newLabels": labels })),
        )
    };
    let (status, patched) = patch("2", json!(["production"])).await;
    assert_eq!(
        (status, &patched["labels"]),
        (StatusCode::OK, &json!(["production", "staging", "latest"]))
    );
    assert_eq!(get(&xtrace, "greet?version=1").await.1["labels"], json!([]));
    assert_eq!(
        patch("2", json!(["latest"])).await.0,
        StatusCode::BAD_REQUEST
    );
    let (status, body) = patch("9", json!(["x"])).await;
    assert_eq!(
        (status, &body["message"]),
        (
            StatusCode::NOT_FOUND,
            &json!("Prompt 'greet' version 9 not found in project")
        )
    );

    // Without tags they stay, with an empty list they go, on all versions.
    create(&xtrace, json!({"name": "greet", "prompt": "x", "tags": []})).await;
    assert_eq!(get(&xtrace, "greet?version=1").await.1["tags"], json!([]));

    // The newest that remains is the latest.
    assert_eq!(
        delete(&xtrace, "greet?version=3").await.0,
        StatusCode::NO_CONTENT
    );
    let (_, second) = get(&xtrace, "greet?version=2").await;
    assert_eq!(second["labels"], json!(["production", "staging", "latest"]));
    assert_eq!(
        delete(&xtrace, "greet?label=nope").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(delete(&xtrace, "greet").await.0, StatusCode::NO_CONTENT);
    assert_eq!(delete(&xtrace, "greet").await.0, StatusCode::NOT_FOUND);
    let (status, body) = get(&xtrace, "greet").await;
    assert_eq!(
        (status, &body["message"], &body["error"]),
        (
            StatusCode::NOT_FOUND,
            &json!("Prompt not found: 'greet' with label 'production'"),
            &json!("LangfuseNotFoundError")
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_label_of_production_is_the_default() {
    let xtrace = Xtrace::start().await;
    create(&xtrace, json!({"name": "n", "prompt": "x"})).await;
    assert_eq!(get(&xtrace, "n").await.0, StatusCode::NOT_FOUND);
    let (status, body) = get(&xtrace, "n?version=3").await;
    assert_eq!(
        (status, &body["message"]),
        (
            StatusCode::NOT_FOUND,
            &json!("Prompt not found: 'n' with version 3")
        )
    );
    for path in [
        "n?version=1&label=a",
        "n?version=0",
        "n?version=x",
        "n?version=1.5",
        "n?resolve=maybe",
    ] {
        assert_eq!(
            get(&xtrace, path).await.0,
            StatusCode::BAD_REQUEST,
            "{path}"
        );
    }
    assert_eq!(
        delete(&xtrace, "n?version=1&label=a").await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        get(&xtrace, "n?version=99999999999").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_may_have_folders_and_arrive_encoded_twice() {
    let xtrace = Xtrace::start().await;
    for name in ["folder/a b", "a%2Fb", "ünï [x].v_1"] {
        create(
            &xtrace,
            json!({"name": name, "prompt": name, "labels": ["production"]}),
        )
        .await;
    }
    for (path, prompt) in [
        ("folder%2Fa%20b", "folder/a b"),
        ("folder%252Fa%2520b", "folder/a b"),
        ("a%252Fb", "a%2Fb"),
        ("%C3%BCn%C3%AF%20%5Bx%5D.v_1", "ünï [x].v_1"),
    ] {
        let (status, body) = get(&xtrace, path).await;
        assert_eq!(
            (status, &body["prompt"]),
            (StatusCode::OK, &json!(prompt)),
            "{path}"
        );
    }
    assert_eq!(
        delete(&xtrace, "folder%252Fa%2520b").await.0,
        StatusCode::NO_CONTENT
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_a_prompt_is_refused_with_reasons() {
    let xtrace = Xtrace::start().await;
    create(&xtrace, json!({"name": "text", "prompt": "x"})).await;
    let message = |content: &str| json!({"role": "user", "content": content});
    let cases = [
        (
            json!({"name": "/a", "prompt": "x"}),
            "Name cannot start with a slash",
        ),
        (
            json!({"name": "a/", "prompt": "x"}),
            "Name cannot end with a slash",
        ),
        (
            json!({"name": "a//b", "prompt": "x"}),
            "Name cannot contain consecutive slashes",
        ),
        (
            json!({"name": "a|b", "prompt": "x"}),
            "Prompt name cannot contain '|' character",
        ),
        (
            json!({"name": "new", "prompt": "x"}),
            "Prompt name cannot be 'new'",
        ),
        (json!({"name": " ", "prompt": "x"}), "Text cannot be empty"),
        (
            json!({"name": "<b>a</b>", "prompt": "x"}),
            "Text cannot contain HTML tags",
        ),
        (
            json!({"name": "n".repeat(256), "prompt": "x"}),
            "<=255 characters",
        ),
        (json!({"prompt": "x"}), "received undefined"),
        (json!({"name": 7, "prompt": "x"}), "received number"),
        (json!({"name": "a"}), "received undefined"),
        (
            json!({"name": "a", "prompt": [message("x")]}),
            "expected string, received array",
        ),
        (
            json!({"name": "a", "type": "chat", "prompt": "x"}),
            "expected array, received string",
        ),
        (
            json!({"name": "a", "type": "chat", "prompt": [{"role": "user"}]}),
            "expected string",
        ),
        (
            json!({"name": "a", "type": "chat", "prompt": [{"type": "placeholder"}]}),
            "expected string",
        ),
        (
            json!({"name": "a", "type": "song", "prompt": "x"}),
            "Invalid option",
        ),
        (
            json!({"name": "a", "prompt": "x", "labels": ["Über"]}),
            "Label must be",
        ),
        (
            json!({"name": "a", "prompt": "x", "labels": ["l".repeat(37)]}),
            "Label must be",
        ),
        (
            json!({"name": "a", "prompt": "x", "labels": [7]}),
            "received number",
        ),
        (
            json!({"name": "a", "prompt": "x", "commitMessage": "c".repeat(501)}),
            "<=500 characters",
        ),
        (
            json!({"name": "text", "type": "chat", "prompt": [message("x")]}),
            "Previous versions have different prompt type",
        ),
        (
            json!({"name": "a", "type": "chat", "prompt":
            [message("{{ x }} {{y}}"), {"type": "placeholder", "name": "x"}]}),
            "the following are not: x",
        ),
        (json!([]), "expected object"),
    ];
    for (body, words) in cases {
        let (status, answer) = xtrace.post(PATH, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
        assert!(answer.to_string().contains(words), "{body}: {answer}");
    }
    // A placeholder may be a variable of an earlier version.
    let chat = json!({"name": "chat", "type": "chat", "prompt": [message("{{x}}")]});
    create(&xtrace, chat).await;
    let chat = json!({"name": "chat", "type": "chat", "labels": ["production"],
        "prompt": [message("{{y}}"), {"type": "placeholder", "name": "x"}], "config": null});
    let created = create(&xtrace, chat.clone()).await;
    assert_eq!(
        (&created["prompt"], &created["config"]),
        (&chat["prompt"], &json!({}))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_shows_names_with_the_versions_that_were_meant() {
    let xtrace = Xtrace::start().await;
    for number in 0..12 {
        create(
            &xtrace,
            json!({"name": format!("p{number:02}"), "prompt": "x", "tags": ["all"]}),
        )
        .await;
    }
    create(
        &xtrace,
        json!({"name": "p00", "prompt": "y", "labels": ["production"], "config": {"a": {"b": 1}}}),
    )
    .await;
    let (_, body) = xtrace.get(PATH).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 10);
    assert_eq!(
        body["meta"],
        json!({"page": 1, "limit": 10, "totalItems": 12, "totalPages": 2})
    );
    assert_eq!(body["pagination"], body["meta"]);
    let first = &body["data"][0];
    assert_eq!(
        (
            &first["name"],
            &first["versions"],
            &first["labels"],
            &first["lastConfig"],
            &first["tags"]
        ),
        (
            &json!("p00"),
            &json!([1, 2]),
            &json!(["latest", "production"]),
            &json!({"a": {"b": 1}}),
            &json!(["all"])
        )
    );
    let count = async |query: &str| {
        let (status, body) = xtrace.get(&format!("{PATH}?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{query}: {body}");
        body["meta"]["totalItems"].as_i64().unwrap()
    };
    assert_eq!(count("label=production").await, 1);
    assert_eq!(count("tag=all&limit=100").await, 12);
    assert_eq!(count("name=p01").await, 1);
    assert_eq!(count("version=2").await, 1);
    assert_eq!(count("toUpdatedAt=2026-01-01T00:00:00Z").await, 0);
    let filtered = |filter: Value| {
        let text: String = form_urlencoded::byte_serialize(filter.to_string().as_bytes()).collect();
        format!("filter={text}&name=ignored")
    };
    for (filter, found) in [
        (
            json!([{"type": "string", "column": "name", "operator": "starts with", "value": "p0"}]),
            10,
        ),
        (
            json!([{"type": "string", "column": "name", "operator": "is not empty", "value": ""}]),
            12,
        ),
        (
            json!([{"type": "stringObject", "column": "config", "operator": "is set", "value": "", "key": "a"}]),
            1,
        ),
        (
            json!([{"type": "arrayOptions", "column": "labels", "operator": "any of", "value": ["production"]}]),
            1,
        ),
        (
            json!([{"type": "number", "column": "version", "operator": ">=", "value": 2}]),
            1,
        ),
        (json!([]), 12),
    ] {
        assert_eq!(count(&filtered(filter.clone())).await, found, "{filter}");
    }
    for query in ["page=", "page=0", "limit=101"] {
        assert_eq!(
            xtrace.get(&format!("{PATH}?{query}")).await.0,
            StatusCode::BAD_REQUEST,
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_among_prompts_know_wildcards_and_no_case() {
    let xtrace = Xtrace::start().await;
    for (name, config) in [
        ("Movie/Critic", json!({"model": "GPT-4o"})),
        ("movie-summary", json!({"model": "claude"})),
        ("100%\\", json!({})),
    ] {
        create(
            &xtrace,
            json!({"name": name, "prompt": "x", "config": config}),
        )
        .await;
    }
    let names = async |kind: &str, column: &str, operator: &str, value: &str| {
        let filter = json!([{"type": kind, "column": column, "key": "model", "operator": operator, "value": value}]);
        let filter = filter.to_string();
        let filter: String = form_urlencoded::byte_serialize(filter.as_bytes()).collect();
        let (status, body) = xtrace.get(&format!("{PATH}?filter={filter}")).await;
        assert_eq!(status, StatusCode::OK, "{value}: {body}");
        let rows = body["data"].as_array().unwrap().iter();
        let mut names: Vec<String> = rows
            .map(|row| row["name"].as_str().unwrap().into())
            .collect();
        names.sort();
        names.join(" ")
    };
    for (operator, value, found) in [
        ("starts with", "MOVIE", "Movie/Critic movie-summary"),
        ("ends with", "critic", "Movie/Critic"),
        ("contains", "vie_c", "Movie/Critic"),
        ("contains", "m%y", "movie-summary"),
        ("does not contain", "movie", "100%\\"),
        // A pattern that ends with what others take for an escape character.
        ("ends with", "\\", "100%\\"),
        ("=", "movie/critic", ""),
        ("=", "Movie/Critic", "Movie/Critic"),
    ] {
        let is = names("string", "name", operator, value).await;
        assert_eq!(is, found, "{operator} {value}");
    }
    for (operator, value, found) in [
        ("contains", "gpt", "Movie/Critic"),
        ("does not contain", "GPT", "movie-summary"),
        ("=", "gpt-4o", ""),
    ] {
        let is = names("stringObject", "config", operator, value).await;
        assert_eq!(is, found, "config: {operator} {value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paths_of_old_still_serve() {
    let xtrace = Xtrace::start().await;
    let path = "/api/public/prompts";
    let (status, created) = xtrace
        .post(
            path,
            &json!({"name": "old", "prompt": "x", "isActive": true}),
        )
        .await;
    assert_eq!(
        (status, &created["isActive"]),
        (StatusCode::CREATED, &json!(true))
    );
    assert_eq!(created["labels"], json!(["production", "latest"]));
    xtrace
        .post(
            path,
            &json!({"name": "old", "prompt": "y", "isActive": false}),
        )
        .await;
    let (_, found) = xtrace.get(&format!("{path}?name=old")).await;
    assert_eq!(
        (&found["prompt"], &found["isActive"]),
        (&json!("x"), &json!(true))
    );
    let (_, found) = xtrace.get(&format!("{path}?name=old&version=2")).await;
    assert_eq!(
        (&found["prompt"], &found["isActive"]),
        (&json!("y"), &json!(false))
    );
    let (status, body) = xtrace.get(&format!("{path}?name=none")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        body,
        json!({"error": "LangfuseNotFoundError", "message": "Prompt not found"})
    );
    assert_eq!(xtrace.get(path).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        xtrace
            .post(path, &json!({"name": "old", "prompt": "x"}))
            .await
            .0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_lead_to_their_prompt() {
    let xtrace = Xtrace::start().await;
    let made = create(&xtrace, json!({"name": "linked", "prompt": "x"})).await;
    let body = |id: &str, version: i32| json!({"id": id, "traceId": "t", "promptName": "linked", "promptVersion": version});
    ingest(
        &xtrace,
        json!([
            event("1", 1, "generation-create", body("a", 1)),
            event("2", 2, "generation-create", body("b", 7))
        ]),
    )
    .await;
    let trace = trace(&xtrace, "t").await;
    let observations = trace["observations"].as_array().unwrap();
    assert_eq!(
        (
            &observations[0]["promptId"],
            &observations[0]["promptVersion"]
        ),
        (&made["id"], &json!(1))
    );
    // A version that is not there is shown as it was sent.
    assert_eq!(
        (
            &observations[1]["promptId"],
            &observations[1]["promptVersion"]
        ),
        (&Value::Null, &json!(7))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_belong_to_their_project() {
    let xtrace = Xtrace::start().await;
    create(
        &xtrace,
        json!({"name": "mine", "prompt": "secret", "labels": ["production"]}),
    )
    .await;
    let other = xtrace.project("other").await;
    let as_other = |method: Method, path: &str| xtrace.request_as(&other, method, path);
    let name = format!("{PATH}/mine");
    assert_eq!(
        answer(as_other(Method::GET, &name)).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        answer(as_other(Method::DELETE, &name)).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        answer(as_other(Method::GET, PATH)).await.1["data"],
        json!([])
    );
    let version = format!("{name}/versions/1");
    let patch = as_other(Method::PATCH, &version).json(&json!({"newLabels": ["x"]}));
    assert_eq!(answer(patch).await.0, StatusCode::NOT_FOUND);
    let reference = json!({"name": "theirs", "prompt": "@@@langfusePrompt:name=mine|version=1@@@"});
    let (status, body) = answer(as_other(Method::POST, PATH).json(&reference)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert!(!body.to_string().contains("secret"));
    assert_eq!(get(&xtrace, "mine").await.0, StatusCode::OK);
    // A public key alone opens none of it, in the words of these paths.
    let bare = xtrace
        .http
        .get(format!("{}{name}", xtrace.url))
        .bearer_auth(PUBLIC_KEY);
    let (status, body) = answer(bare).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        body["message"],
        "Access denied - need to use basic auth with secret key to GET prompts"
    );
    let (status, body) = answer(xtrace.http.get(format!("{}{name}", xtrace.url))).await;
    assert_eq!(
        (status, &body["error"]),
        (StatusCode::UNAUTHORIZED, &json!("UnauthorizedError"))
    );
}
