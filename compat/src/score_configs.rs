//! Score configurations: what scores of a name may say (langfuse-api 15.1).

use axum::Json;
use axum::extract::State;
use chrono::Utc;
use serde_json::{Value, json};
use xtrace_model::ProjectId;
use xtrace_store::Store;
use xtrace_store::score_configs::{self, Category, ScoreConfig};

use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::body::{Issue, JsonBody, Object, few};
use crate::error::{CompatError, issue};
use crate::query::{PathId, Query, iso, meta};

const NAME_CHARS_MAX: usize = 35;
const SHAPE: &str = "Category must be an array of objects with label value pairs, where labels and values are unique.";
const NO_CATEGORIES: &str = "Invalid input: categories are for CATEGORICAL alone";
const TYPES: [&str; 4] = ["NUMERIC", "CATEGORICAL", "BOOLEAN", "TEXT"];

/// `GET /score-configs`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    let page = query.page()?;
    let found = score_configs::list(&store, &project, page).await?;
    let meta = meta(page, found.total);
    let rows = found.rows.into_iter().map(|row| view(&project, &row));
    Ok(answer::page(rows, &meta))
}

/// `GET /score-configs/{id}`.
pub(crate) async fn find(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
) -> Result<Json<Value>, CompatError> {
    let config = stored(&store, &project, id).await?;
    Ok(Json(view(&project, &config)))
}

/// `POST /score-configs`.
pub(crate) async fn create(
    State(store): State<Store>,
    Project(project): Project,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let config = parse(Object::of_body(&body)?).map_err(CompatError::Invalid)?;
    score_configs::put(&store, &project, &config).await?;
    Ok(Json(view(&project, &config)))
}

/// `PATCH /score-configs/{id}`: what is not named stays.
pub(crate) async fn update(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    const NAMES: [&str; 6] = [
        "isArchived",
        "name",
        "minValue",
        "maxValue",
        "categories",
        "description",
    ];
    let body = Object::of_body(&body)?;
    if !NAMES.iter().any(|name| body.sent(name).is_some()) {
        let message =
            "Request body cannot be empty. At least one field must be provided for update.";
        return Err(CompatError::Invalid(issue::custom(&[], message)));
    }
    let mut config = stored(&store, &project, id).await?;
    if body.get("categories").is_some() && config.data_type != "CATEGORICAL" {
        return Err(CompatError::BadRequest(NO_CATEGORIES.to_owned()));
    }
    change(&mut config, body).map_err(CompatError::Invalid)?;
    check(&config).map_err(|issue| {
        CompatError::BadRequest(issue["message"].as_str().unwrap_or_default().to_owned())
    })?;
    config.updated_at = Utc::now();
    score_configs::put(&store, &project, &config).await?;
    Ok(Json(view(&project, &config)))
}

async fn stored(
    store: &Store,
    project: &ProjectId,
    id: String,
) -> Result<ScoreConfig, CompatError> {
    let found = score_configs::find(store, project, &[id]).await?.pop();
    found.ok_or_else(|| {
        CompatError::NotFound("Score config not found within authorized project".to_owned())
    })
}

fn parse(body: Object<'_>) -> Result<ScoreConfig, Issue> {
    let name = body.required_text("name", 1)?;
    check_name(&name)?;
    let data_type = body.option("dataType", &TYPES)?;
    let data_type = data_type.ok_or_else(|| issue::not_an_option("dataType", &TYPES))?;
    let now = Utc::now();
    let mut config = ScoreConfig {
        id: uuid::Uuid::new_v4().to_string(),
        name,
        description: body.text("description")?,
        data_type: data_type.to_owned(),
        min_value: body.number("minValue")?,
        max_value: body.number("maxValue")?,
        categories: categories(body)?,
        is_archived: false,
        created_at: now,
        updated_at: now,
    };
    check(&config)?;
    if data_type == "BOOLEAN" && config.categories.is_some() {
        return Err(category_fault(
            "Invalid input: the categories of BOOLEAN are fixed",
        ));
    }
    if data_type == "BOOLEAN" {
        let category = |label: &str, value| Category {
            label: label.to_owned(),
            value,
        };
        config.categories = Some(vec![category("True", 1.0), category("False", 0.0)]);
    }
    Ok(config)
}

fn change(config: &mut ScoreConfig, body: Object<'_>) -> Result<(), Issue> {
    if let Some(archived) = body.truth("isArchived")? {
        config.is_archived = archived;
    }
    if let Some(name) = body.text("name")? {
        if name.is_empty() {
            return Err(issue::short("name", 1));
        }
        check_name(&name)?;
        config.name = name;
    }
    if let Some(description) = body.text("description")? {
        config.description = Some(description);
    }
    config.min_value = body.number("minValue")?.or(config.min_value);
    config.max_value = body.number("maxValue")?.or(config.max_value);
    config.categories = categories(body)?.or(config.categories.take());
    Ok(())
}

fn check_name(name: &str) -> Result<(), Issue> {
    let known = |char: char| char.is_alphanumeric() || "_ .()-".contains(char);
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(issue::long("name", NAME_CHARS_MAX));
    }
    if name.chars().all(known) {
        return Ok(());
    }
    let message = "Name may only contain letters, digits, underscores, spaces, periods, parentheses and hyphens";
    Err(issue::custom(&[json!("name")], message))
}

fn category_fault(message: &str) -> Issue {
    issue::custom(&[json!("categories")], message)
}

/// The labels that were sent, each with its value.
fn categories(body: Object<'_>) -> Result<Option<Vec<Category>>, Issue> {
    let sent = match body.get("categories") {
        None => return Ok(None),
        Some(Value::Array(items)) => Some(few(items, &[json!("categories")])?),
        Some(_) => None,
    };
    let parsed = sent.and_then(|items| {
        let category = |item: &Value| {
            let label = item["label"].as_str().filter(|label| !label.is_empty())?;
            Some(Category {
                label: label.to_owned(),
                value: item["value"].as_f64().filter(|value| value.is_finite())?,
            })
        };
        items.iter().map(category).collect::<Option<Vec<_>>>()
    });
    parsed.map(Some).ok_or_else(|| category_fault(SHAPE))
}

/// What a configuration of a type must hold.
fn check(config: &ScoreConfig) -> Result<(), Issue> {
    if let (Some(min), Some(max)) = (config.min_value, config.max_value)
        && min >= max
    {
        return Err(issue::of_whole(
            "Maximum value must be greater than Minimum value",
        ));
    }
    let categories = config.categories.as_deref().unwrap_or_default();
    match config.data_type.as_str() {
        "CATEGORICAL" if categories.is_empty() => {
            return Err(category_fault(SHAPE));
        }
        "CATEGORICAL" | "BOOLEAN" => {}
        _ if config.categories.is_some() => {
            return Err(category_fault(NO_CATEGORIES));
        }
        _ => {}
    }
    for (index, category) in categories.iter().enumerate() {
        let before = &categories[..index];
        if before.iter().any(|other| other.label == category.label) {
            return Err(category_fault(&format!(
                "Duplicate category label: {}, category labels must be unique",
                category.label
            )));
        }
        #[expect(clippy::float_cmp, reason = "values as they were sent")]
        if before.iter().any(|other| other.value == category.value) {
            return Err(category_fault(&format!(
                "Duplicate category value: {}, category values must be unique",
                category.value
            )));
        }
    }
    Ok(())
}

fn view(project: &ProjectId, config: &ScoreConfig) -> Value {
    json!({
        "id": config.id,
        "projectId": project.as_str(),
        "name": config.name,
        "description": config.description,
        "dataType": config.data_type,
        "minValue": config.min_value,
        "maxValue": config.max_value,
        "categories": config.categories,
        "isArchived": config.is_archived,
        "createdAt": iso(config.created_at),
        "updatedAt": iso(config.updated_at),
    })
}
