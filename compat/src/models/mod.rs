//! Models: what generations cost (langfuse-api 15.2). Those of a project go before the built-in ones.
//!
//! - `body`: what makes a model. `tiers`: prices under conditions.

mod body;
mod tiers;

use std::sync::OnceLock;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use xtrace_model::{ProjectId, json as rules};
use xtrace_store::models::{self, MODELS_MAX, ProjectModel, PutFault};
use xtrace_store::{Store, built_in_models};

use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::body::{JsonBody, Object};
use crate::error::CompatError;
use crate::payload;
use crate::query::{PathId, Query, iso, meta};

/// `GET /models`: a project's own and the built-in ones, by name.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    let page = query.page()?;
    let own = models::all(&store, &project).await?;
    let mut all: Vec<Listed> = own.into_iter().map(Listed::Own).collect();
    all.extend(built_in().iter().map(Listed::BuiltIn));
    all.sort_by_cached_key(Listed::key);
    let total = i64::try_from(all.len()).unwrap_or(i64::MAX);
    let at = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
    let rows = all.into_iter().skip(at(page.offset())).take(at(page.limit));
    Ok(answer::page(rows.map(Listed::view), &meta(page, total)))
}

/// A model of either kind, before it is shown.
enum Listed {
    Own(ProjectModel),
    BuiltIn(&'static Value),
}

impl Listed {
    /// What the list is in order of: name, unit, the latest start first.
    fn key(&self) -> (String, String, std::cmp::Reverse<Option<DateTime<Utc>>>) {
        let (name, unit, start) = match self {
            Self::Own(model) => (
                model.model_name.clone(),
                model.unit.clone(),
                model.start_date,
            ),
            Self::BuiltIn(view) => (text(view, "modelName"), text(view, "unit"), None),
        };
        (name, unit, std::cmp::Reverse(start))
    }

    fn view(self) -> Value {
        match self {
            Self::Own(model) => of_project(&model),
            Self::BuiltIn(view) => view.clone(),
        }
    }
}

/// `GET /models/{id}`.
pub(crate) async fn find(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
) -> Result<Json<Value>, CompatError> {
    if let Some(own) = models::find(&store, &project, &id).await? {
        return Ok(Json(of_project(&own)));
    }
    let found = built_in().iter().find(|view| view["id"] == *id);
    let missing = || CompatError::NotFound("No model with this id found.".to_owned());
    found.cloned().map(Json).ok_or_else(missing)
}

/// `POST /models`.
pub(crate) async fn create(
    State(store): State<Store>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let id = uuid::Uuid::new_v4().to_string();
    let model = body::parse(Object::of_body(&body)?, id, Utc::now())?;
    put(&store, &project, &model).await
}

/// `PUT /models/{id}`: a model of the project's own, whole.
pub(crate) async fn replace(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let known = models::find(&store, &project, &id)
        .await?
        .ok_or_else(not_own)?;
    let model = body::parse(Object::of_body(&body)?, id, known.created_at)?;
    put(&store, &project, &model).await
}

async fn put(
    store: &Store,
    project: &ProjectId,
    model: &ProjectModel,
) -> Result<Json<Value>, CompatError> {
    match models::put(store, project, model, Utc::now()).await? {
        Ok(()) => Ok(Json(of_project(model))),
        Err(fault) => Err(CompatError::BadRequest(match fault {
            PutFault::NameTaken => format!(
                "Model name '{}' already exists in project",
                model.model_name
            ),
            PutFault::TooMany => {
                format!("A project has at most {MODELS_MAX} models; delete some that are not used")
            }
            PutFault::TooLarge => {
                "The match patterns of all models of the project are too large together; \
                simplify them, or delete models that are not used"
                    .to_owned()
            }
        })),
    }
}

/// `DELETE /models/{id}`.
pub(crate) async fn delete(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
) -> Result<Json<Value>, CompatError> {
    if models::delete(&store, &project, &id).await? {
        return Ok(Json(json!({"message": "Model successfully deleted"})));
    }
    Err(not_own())
}

fn not_own() -> CompatError {
    CompatError::NotFound(
        "No model with this id found. Note: You cannot delete built-in models, override them with a model with the same name."
            .to_owned(),
    )
}

fn text(view: &Value, name: &str) -> String {
    view[name].as_str().unwrap_or_default().to_owned()
}

fn of_project(model: &ProjectModel) -> Value {
    let mut view = json!({
        "id": model.id,
        "modelName": model.model_name,
        "matchPattern": model.match_pattern,
        "startDate": model.start_date.map(iso),
        "unit": model.unit,
        "tokenizerId": model.tokenizer_id,
        "tokenizerConfig": model.tokenizer_config.as_deref().map(payload::stored),
        "isLangfuseManaged": false,
        "createdAt": iso(model.created_at),
    });
    add_prices(
        &mut view,
        rules::parse(&model.pricing_tiers).unwrap_or_default(),
    );
    view
}

/// The built-in models as they are shown.
fn built_in() -> &'static [Value] {
    static MODELS: OnceLock<Vec<Value>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let list: Vec<Map<String, Value>> =
            serde_json::from_str(built_in_models()).expect("the list is read by a test");
        let view = |model: Map<String, Value>| {
            let of = |name: &str| model.get(name).cloned().unwrap_or_default();
            let mut view = json!({
                "id": of("id"),
                "modelName": of("modelName"),
                "matchPattern": of("matchPattern"),
                "startDate": null,
                "unit": "TOKENS",
                "tokenizerId": of("tokenizerId"),
                "tokenizerConfig": of("tokenizerConfig"),
                "isLangfuseManaged": true,
                "createdAt": of("createdAt"),
            });
            add_prices(&mut view, of("pricingTiers"));
            view
        };
        list.into_iter().map(view).collect()
    })
}

/// Tiers, and the prices of the default one in the ways of old.
fn add_prices(view: &mut Value, tiers: Value) {
    let default = tiers
        .as_array()
        .and_then(|tiers| tiers.iter().find(|tier| tier["isDefault"] == true));
    let prices = default.map_or_else(|| json!({}), |tier| tier["prices"].clone());
    for (name, kind) in [
        ("inputPrice", "input"),
        ("outputPrice", "output"),
        ("totalPrice", "total"),
    ] {
        view[name] = prices[kind].clone();
    }
    let members = prices.as_object().cloned().unwrap_or_default();
    let by_kind = members
        .into_iter()
        .map(|(kind, price)| (kind, json!({ "price": price })));
    view["prices"] = Value::Object(by_kind.collect());
    view["pricingTiers"] = tiers;
}
