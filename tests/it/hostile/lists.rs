//! No list within a request is longer than any list needs to be: parameters, filters, bodies.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{ADMIN_TOKEN, TOKEN, Xtrace};

/// Items of a list at most.
const ITEMS_MAX: usize = 1000;
const RANGE: &str = "fromStartTime=2026-01-01T00:00:00Z&";

/// Parameters that name several values: repeated, or with commas.
const PARAMETERS: [(&str, &str); 17] = [
    ("traces", "tags"),
    ("traces", "environment"),
    ("observations", "environment"),
    ("v2/observations", "expandMetadata"),
    ("v2/observations", "fields"),
    ("scores", "scoreIds"),
    ("scores", "environment"),
    ("v2/scores", "traceTags"),
    ("v2/scores", "observationId"),
    ("v2/scores", "fields"),
    ("v3/scores", "id"),
    ("v3/scores", "value"),
    ("sessions", "environment"),
    ("experiments", "id"),
    ("experiment-items", "experimentId"),
    ("metrics/daily", "tags"),
    ("metrics/daily", "environment"),
];

/// Lists with a filter, each with a column of text.
const FILTERED: [(&str, &str); 7] = [
    ("traces", "name"),
    ("observations", "name"),
    ("v2/observations", "name"),
    ("scores", "name"),
    ("v2/prompts", "name"),
    ("experiments", "name"),
    ("experiment-items", "experimentName"),
];

/// Members of bodies that are lists.
const BODIES: [(&str, &str, &str, &str); 12] = [
    ("DELETE", "traces", "traceIds", r#"{"traceIds": "a"}"#),
    ("POST", "traces", "tags", r#"{"id": "t", "tags": "a"}"#),
    (
        "POST",
        "v2/prompts",
        "labels",
        r#"{"name": "p", "type": "text", "prompt": "p", "labels": "a"}"#,
    ),
    (
        "POST",
        "v2/prompts",
        "tags",
        r#"{"name": "p", "type": "text", "prompt": "p", "tags": "a"}"#,
    ),
    (
        "POST",
        "prompts",
        "tags",
        r#"{"name": "p", "isActive": true, "prompt": "p", "tags": "a"}"#,
    ),
    (
        "PATCH",
        "v2/prompts/p/versions/1",
        "newLabels",
        r#"{"newLabels": "a"}"#,
    ),
    (
        "POST",
        "annotation-queues",
        "scoreConfigIds",
        r#"{"name": "q", "scoreConfigIds": "a"}"#,
    ),
    (
        "POST",
        "score-configs",
        "categories",
        r#"{"name": "c", "dataType": "CATEGORICAL", "categories": {"label": "a", "value": 1}}"#,
    ),
    (
        "POST",
        "models",
        "pricingTiers",
        r#"{"modelName": "m", "matchPattern": "m", "unit": "TOKENS", "pricingTiers": {}}"#,
    ),
    (
        "POST",
        "models",
        "conditions",
        r#"{"modelName": "m", "matchPattern": "m", "unit": "TOKENS", "pricingTiers": [
            {"name": "n", "isDefault": true, "priority": 0, "prices": {"input": 1}, "conditions": {}}]}"#,
    ),
    (
        "POST",
        "models",
        "values",
        r#"{"modelName": "m", "matchPattern": "m", "unit": "TOKENS", "pricingTiers": [
            {"name": "n", "priority": 1, "prices": {"input": 1}, "conditions": [
            {"source": "metadata", "key": "k", "operator": "in", "values": "a"}]}]}"#,
    ),
    (
        "POST",
        "projects/default/apiKeys",
        "scopes",
        r#"{"scopes": "read"}"#,
    ),
];

/// The body with its list of that name made of so many of what stands for it.
fn lengthened(body: &mut Value, name: &str) {
    match body {
        Value::Object(members) => {
            for (member, value) in members {
                if member == name {
                    *value = Value::Array(vec![value.clone(); ITEMS_MAX + 1]);
                } else {
                    lengthened(value, name);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| lengthened(item, name)),
        _ => {}
    }
}

fn encoded(value: &Value) -> String {
    form_urlencoded::byte_serialize(value.to_string().as_bytes()).collect()
}

async fn refused(xtrace: &Xtrace, method: &str, path: &str, body: Option<&Value>, name: &str) {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = xtrace
        .http
        .request(method.clone(), format!("{}/api/public/{path}", xtrace.url));
    request = if path.starts_with("projects/") {
        request.bearer_auth(ADMIN_TOKEN)
    } else {
        request.bearer_auth(TOKEN)
    };
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    let path = &path[..path.len().min(60)];
    assert_eq!(status, 400, "{method} {path} {name}: {text}");
    assert!(text.contains(name), "{method} {path} {name}: {text}");
    let says_how_many = text.contains("Too big") || text.contains("at most");
    assert!(says_how_many, "{method} {path} {name}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_name_so_many_values_at_most() {
    let xtrace = Xtrace::start().await;
    for (path, name) in PARAMETERS {
        let repeated = format!(
            "{path}?{RANGE}{}",
            format!("{name}=a&").repeat(ITEMS_MAX + 1)
        );
        refused(&xtrace, "GET", &repeated, None, name).await;
        let commas = format!("{path}?{RANGE}{name}=a{}", ",a".repeat(ITEMS_MAX));
        refused(&xtrace, "GET", &commas, None, name).await;
    }
    let other = (0..=ITEMS_MAX).fold(String::new(), |all, n| all + &format!("a{n}&"));
    refused(
        &xtrace,
        "GET",
        &format!("traces?{other}"),
        None,
        "query parameters",
    )
    .await;
    let labels = "metrics/query?name=m&group_by=".to_owned() + &"a,".repeat(101);
    refused(&xtrace, "GET", &labels, None, "group_by").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_questions_have_so_many_parts_at_most() {
    let xtrace = Xtrace::start().await;
    for (path, column) in FILTERED {
        let condition = |values: usize| json!({"type": "stringOptions", "column": column, "operator": "any of", "value": vec!["a"; values]});
        let many = encoded(&Value::Array(vec![condition(1); 101]));
        refused(
            &xtrace,
            "GET",
            &format!("{path}?{RANGE}filter={many}"),
            None,
            "filter",
        )
        .await;
        let long = encoded(&json!([condition(ITEMS_MAX + 1)]));
        refused(
            &xtrace,
            "GET",
            &format!("{path}?{RANGE}filter={long}"),
            None,
            "value",
        )
        .await;
    }
    for (path, member) in [
        ("metrics", "dimensions"),
        ("metrics", "metrics"),
        ("v2/metrics", "orderBy"),
        ("v2/metrics", "filters"),
    ] {
        let mut query = json!({"view": "observations", "filters": [], "dimensions": [],
            "metrics": [{"measure": "count", "aggregation": "count"}],
            "fromTimestamp": "2026-01-01T00:00:00Z", "toTimestamp": "2026-01-02T00:00:00Z"});
        query[member] = Value::Array(vec![json!({"field": "name"}); 101]);
        let path = format!("{path}?query={}", encoded(&query));
        refused(&xtrace, "GET", &path, None, member).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_bodies_have_so_many_items_at_most() {
    let xtrace = Xtrace::start().await;
    for (method, path, name, body) in BODIES {
        let mut body: Value = serde_json::from_str(body).unwrap();
        lengthened(&mut body, name);
        refused(&xtrace, method, path, Some(&body), name).await;
    }
    let prices = (0..=ITEMS_MAX).map(|n| (format!("k{n}"), json!(1)));
    let prices: serde_json::Map<String, Value> = prices.collect();
    let model = json!({"modelName": "m", "matchPattern": "m", "unit": "TOKENS", "pricingTiers": [
        {"name": "n", "isDefault": true, "priority": 0, "prices": prices}]});
    refused(&xtrace, "POST", "models", Some(&model), "prices").await;
    let (status, _) = xtrace
        .post("/api/public/v2/datasets", &json!({"name": "d"}))
        .await;
    assert_eq!(status, 200);
    let media = "@@@langfuseMedia:type=a|id=b|source=c@@@";
    let item = json!({"datasetName": "d", "input": media.repeat(101)});
    refused(&xtrace, "POST", "dataset-items", Some(&item), "media").await;
}
