//! Models and their prices: a project's own before the built-in ones, and what is stored priced anew.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use xtrace_model::ProjectId;

use super::{event, ingest, trace};
use crate::harness::{Xtrace, answer};

const PATH: &str = "/api/public/models";

async fn create(xtrace: &Xtrace, body: Value) -> Value {
    let (status, model) = xtrace.post(PATH, &body).await;
    assert_eq!(status, StatusCode::OK, "{body}: {model}");
    model
}

async fn generate(xtrace: &Xtrace, id: &str, model: &str, parameters: Value) {
    let body = json!({"id": id, "traceId": "t", "model": model, "modelParameters": parameters,
        "startTime": "2026-01-15T10:00:00Z", "usageDetails": {"input": 1000, "output": 10}});
    ingest(xtrace, json!([event(id, 1, "generation-create", body)])).await;
}

async fn costs(xtrace: &Xtrace, id: &str) -> (f64, Value) {
    let (_, observation) = xtrace.get(&format!("/api/public/observations/{id}")).await;
    let total = observation["calculatedTotalCost"].as_f64().unwrap();
    (total, observation["modelId"].clone())
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[tokio::test(flavor = "multi_thread")]
async fn flat_prices_are_one_tier() {
    let xtrace = Xtrace::start().await;
    let body = json!({"modelName": "mine", "matchPattern": "(?i)^(mine)$", "unit": "TOKENS",
        "inputPrice": 0.001, "outputPrice": 0.002, "startDate": "2023-12-01"});
    let model = create(&xtrace, body.clone()).await;
    let id = model["id"].as_str().unwrap();
    assert_eq!(
        model["pricingTiers"],
        json!([{"id": format!("{id}_tier_default"), "name": "Standard", "isDefault": true, "priority": 0,
            "conditions": [], "prices": {"input": 0.001, "output": 0.002}}])
    );
    assert_eq!(
        (
            &model["inputPrice"],
            &model["totalPrice"],
            &model["prices"],
            &model["isLangfuseManaged"]
        ),
        (
            &json!(0.001),
            &Value::Null,
            &json!({"input": {"price": 0.001}, "output": {"price": 0.002}}),
            &json!(false)
        )
    );
    assert_eq!(model["startDate"], "2023-12-01T00:00:00.000Z");
    assert_eq!(xtrace.get(&format!("{PATH}/{id}")).await.1, model);
    let (status, again) = xtrace.post(PATH, &body).await;
    assert_eq!(
        (status, &again["message"]),
        (
            StatusCode::BAD_REQUEST,
            &json!("Model name 'mine' already exists in project")
        )
    );
    // All of them, page by page, in order of their names.
    let mut names = Vec::new();
    for page in 1.. {
        let (_, list) = xtrace.get(&format!("{PATH}?page={page}&limit=100")).await;
        let rows = list["data"].as_array().unwrap().clone();
        assert_eq!(list["meta"]["totalItems"], 168);
        names.extend(
            rows.iter()
                .map(|row| row["modelName"].as_str().unwrap().to_owned()),
        );
        if rows.is_empty() {
            break;
        }
    }
    assert_eq!(names.len(), 168);
    assert!(names.is_sorted());
    let (_, built_in) = xtrace
        .get(&format!("{PATH}/b9854a5c92dc496b997d99d21"))
        .await;
    assert_eq!(
        (
            &built_in["modelName"],
            &built_in["isLangfuseManaged"],
            built_in["inputPrice"].as_f64()
        ),
        (&json!("gpt-4o-2024-05-13"), &json!(true), Some(0.000_005))
    );

    let delete = |id: &str| answer(xtrace.request(Method::DELETE, &format!("{PATH}/{id}")));
    let (status, body) = delete("b9854a5c92dc496b997d99d21").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains("You cannot delete built-in models"),
        "{body}"
    );
    let other = xtrace.project("other").await;
    let path = format!("{PATH}/{id}");
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(
            answer(xtrace.request_as(&other, method, &path)).await.0,
            StatusCode::NOT_FOUND
        );
    }
    assert_eq!(
        delete(id).await,
        (
            StatusCode::OK,
            json!({"message": "Model successfully deleted"})
        )
    );
    let (status, body) = xtrace.get(&path).await;
    assert_eq!(
        (status, &body["message"]),
        (
            StatusCode::NOT_FOUND,
            &json!("No model with this id found.")
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn own_models_go_before_built_in_ones() {
    let xtrace = Xtrace::start().await;
    generate(&xtrace, "before", "gpt-4o", json!({})).await;
    let price = |name: &str, input: f64, start: Value| json!({"modelName": name, "matchPattern": "(?i)^(gpt-4o)$", "inputPrice": input, "outputPrice": 0, "startDate": start});
    create(&xtrace, price("gpt-4o", 1.0, Value::Null)).await;
    let later = create(&xtrace, price("gpt-4o later", 2.0, json!("2025-01-01"))).await;
    generate(&xtrace, "own", "GPT-4o", json!({})).await;
    // The latest start goes first.
    assert_eq!(costs(&xtrace, "own").await, (2000.0, later["id"].clone()));
    let (_, observation) = xtrace.get("/api/public/observations/own").await;
    assert_eq!(observation["inputPrice"], 2.0);
    let other = xtrace.project("other").await;
    let body = json!({"batch": [event("e", 1, "generation-create", json!({"id": "theirs", "traceId": "t2",
        "model": "gpt-4o", "usageDetails": {"input": 1000}}))]});
    answer(
        xtrace
            .request_as(&other, Method::POST, "/api/public/ingestion")
            .json(&body),
    )
    .await;
    let request = xtrace.request_as(&other, Method::GET, "/api/public/observations/theirs");
    let (_, theirs) = answer(request).await;
    assert!(
        near(theirs["calculatedTotalCost"].as_f64().unwrap(), 0.0025),
        "{theirs}"
    );

    // What was stored before keeps its price until it is priced anew.
    let (built_in, _) = costs(&xtrace, "before").await;
    assert!(near(built_in, 0.0026), "{built_in}");
    let project = ProjectId::parse("default").unwrap();
    let range = |from: &str, to: &str| {
        let time = |text: &str| text.parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        (time(from), time(to))
    };
    let reprice = async |from: &str, to: &str| {
        xtrace_store::writer::reprice(&xtrace.store, &project, range(from, to))
            .await
            .unwrap()
    };
    assert_eq!(
        reprice("2026-01-16T00:00:00Z", "2026-02-01T00:00:00Z").await,
        0
    );
    assert_eq!(
        reprice("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z").await,
        1
    );
    assert_eq!(
        costs(&xtrace, "before").await,
        (2000.0, later["id"].clone())
    );
    assert_eq!(trace(&xtrace, "t").await["totalCost"], 4000.0);
    let (_, daily) = xtrace.get("/api/public/metrics/daily").await;
    assert_eq!(daily["data"][0]["totalCost"], 4000.0);
    assert_eq!(
        reprice("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z").await,
        0
    );

    let path = format!("{PATH}/{}", later["id"].as_str().unwrap());
    let put =
        xtrace
            .request(Method::PUT, &path)
            .json(&price("gpt-4o later", 3.0, json!("2025-01-01")));
    let (status, replaced) = answer(put).await;
    assert_eq!(
        (status, &replaced["createdAt"]),
        (StatusCode::OK, &later["createdAt"])
    );
    generate(&xtrace, "replaced", "gpt-4o", json!({})).await;
    assert!(near(costs(&xtrace, "replaced").await.0, 3000.0));
    answer(xtrace.request(Method::DELETE, &path)).await;
    generate(&xtrace, "deleted", "gpt-4o", json!({})).await;
    assert!(near(costs(&xtrace, "deleted").await.0, 1000.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn tiers_hold_under_their_conditions() {
    let xtrace = Xtrace::start().await;
    let tier = |name: &str, priority: u32, conditions: Value, input: f64| {
        json!({"name": name, "isDefault": priority == 0, "priority": priority, "conditions": conditions,
            "prices": {"input": input, "output": 0}})
    };
    let tiers = json!([
        tier("Standard", 0, json!([]), 1.0),
        tier(
            "Large",
            1,
            json!([{"usageDetailPattern": "^input", "operator": "gt", "value": 5000}]),
            2.0
        ),
        tier(
            "Fast",
            2,
            json!([{"source": "model_parameters", "key": "tier", "operator": "in", "values": ["fast"]}]),
            3.0
        ),
    ]);
    let body = json!({"modelName": "m", "matchPattern": "^m$", "pricingTiers": tiers});
    let model = create(&xtrace, body).await;
    assert_eq!(
        model["pricingTiers"][1]["conditions"][0]["caseSensitive"],
        false
    );
    assert_eq!(model["unit"], "TOKENS");
    generate(&xtrace, "standard", "m", json!({})).await;
    generate(&xtrace, "fast", "m", json!({"tier": "fast"})).await;
    let (_, fast) = xtrace.get("/api/public/observations/fast").await;
    assert_eq!(
        (
            &fast["usagePricingTierName"],
            fast["calculatedTotalCost"].as_f64()
        ),
        (&json!("Fast"), Some(3000.0))
    );
    assert!(near(costs(&xtrace, "standard").await.0, 1000.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_can_not_be_are_refused() {
    let xtrace = Xtrace::start().await;
    let tier = |more: Value| {
        let mut tier = json!({"name": "t", "isDefault": true, "priority": 0, "conditions": [], "prices": {"input": 1}});
        tier.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        tier
    };
    let other = |more: Value| {
        let mut other = tier(json!({"name": "o", "isDefault": false, "priority": 1,
            "conditions": [{"usageDetailPattern": "input", "operator": "gt", "value": 1}]}));
        other
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        other
    };
    let with =
        |tiers: Value| json!({"modelName": "m", "matchPattern": "^m$", "pricingTiers": tiers});
    let condition = |condition: Value| {
        with(json!([
            tier(json!({})),
            other(json!({"conditions": [condition]}))
        ]))
    };
    for (body, words) in [
        (
            json!({"modelName": "m", "matchPattern": "^m$"}),
            "Must provide either flat prices",
        ),
        (
            json!({"modelName": "m", "matchPattern": "^m$", "inputPrice": 1, "pricingTiers": [tier(json!({}))]}),
            "Must provide either flat prices",
        ),
        (
            json!({"modelName": "m", "matchPattern": "^m$", "inputPrice": 1, "totalPrice": 1}),
            "totalPrice",
        ),
        (
            json!({"modelName": "m", "matchPattern": "(m", "inputPrice": 1}),
            "matchPattern is not a valid regex pattern (Postgres)",
        ),
        (json!({"modelName": "m", "inputPrice": 1}), "matchPattern"),
        (
            json!({"modelName": "m", "matchPattern": "m", "inputPrice": 1, "unit": "PAGES"}),
            "Invalid option",
        ),
        (
            json!({"modelName": "m", "matchPattern": "m", "inputPrice": -1}),
            "Too small",
        ),
        (
            with(json!([])),
            "Exactly one pricing tier must have isDefault: true",
        ),
        (
            with(json!([
                tier(json!({})),
                tier(json!({"name": "u", "priority": 1}))
            ])),
            "Only one pricing tier can have isDefault: true, found 2",
        ),
        (with(json!([tier(json!({"priority": 1}))])), "priority: 0"),
        (
            with(json!([tier(
                json!({"conditions": [{"usageDetailPattern": "i", "operator": "gt", "value": 1}]})
            )])),
            "empty conditions array",
        ),
        (
            with(json!([tier(json!({})), other(json!({"conditions": []}))])),
            "must have at least one condition",
        ),
        (
            with(json!([
                tier(json!({})),
                other(json!({})),
                other(json!({"name": "p"}))
            ])),
            "priorities must be unique within a model",
        ),
        (
            with(json!([tier(json!({})), other(json!({"name": " t "}))])),
            "names must be unique",
        ),
        (
            with(json!([tier(json!({"prices": {}}))])),
            "at least one price",
        ),
        (
            with(json!([
                tier(json!({"prices": {"output": 1, "input": 1}})),
                other(json!({}))
            ])),
            "Expected: [input, output], Got: [input]",
        ),
        (
            condition(json!({"usageDetailPattern": "(", "operator": "gt", "value": 1})),
            "regex",
        ),
        (
            condition(json!({"usageDetailPattern": "x".repeat(201), "operator": "gt", "value": 1})),
            "regex",
        ),
        (
            condition(json!({"usageDetailPattern": "x", "operator": "about", "value": 1})),
            "Invalid option",
        ),
        (
            condition(json!({"source": "metadata", "key": "k", "operator": "in", "values": [""]})),
            "non-empty values",
        ),
        (condition(json!({"time": "night"})), "Unrecognized key"),
    ] {
        let (status, answer) = xtrace.post(PATH, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
        assert!(answer.to_string().contains(words), "{body}: {answer}");
    }
}
