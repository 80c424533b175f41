//! `GET /observations` and `GET /observations/{id}`, and observations within a trace.

pub(crate) mod v2;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use xtrace_model::observation::{Kind, Level, Sent};
use xtrace_model::{ProjectId, TraceId};
use xtrace_store::Store;
use xtrace_store::filter::{Condition, ObservationColumn, Order, Test};
use xtrace_store::observations::{self, ObservationView};
use xtrace_store::price_book::PriceBook;

use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::error::CompatError;
use crate::query::{PathId, Query, iso, meta};
use crate::{filter, payload};

/// An observation in its v1 shape.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Observation {
    id: String,
    trace_id: String,
    project_id: String,
    environment: String,
    parent_observation_id: Option<String>,
    r#type: String,
    name: Option<String>,
    level: String,
    status_message: Option<String>,
    version: Option<String>,
    start_time: String,
    end_time: Option<String>,
    completion_start_time: Option<String>,
    created_at: String,
    updated_at: String,
    input: Box<RawValue>,
    output: Box<RawValue>,
    metadata: Map<String, Value>,
    model: Option<String>,
    model_id: Option<String>,
    model_parameters: Box<RawValue>,
    prompt_id: Option<String>,
    prompt_name: Option<String>,
    prompt_version: Option<i32>,
    usage_details: BTreeMap<String, i64>,
    cost_details: BTreeMap<String, f64>,
    usage: Usage,
    unit: String,
    prompt_tokens: i64,
    completion_tokens: i64,
    total_tokens: i64,
    usage_pricing_tier_id: Option<String>,
    usage_pricing_tier_name: Option<String>,
    input_price: Option<f64>,
    output_price: Option<f64>,
    total_price: Option<f64>,
    calculated_input_cost: Option<f64>,
    calculated_output_cost: Option<f64>,
    calculated_total_cost: f64,
    latency: Option<f64>,
    time_to_first_token: Option<f64>,
}

#[derive(Serialize)]
struct Usage {
    unit: String,
    input: i64,
    output: i64,
    total: i64,
}

/// Where prices come from.
#[derive(Clone, Copy)]
pub(crate) struct Prices<'a> {
    pub(crate) book: &'a PriceBook,
    /// What stands for a price that nobody knows: zero within a trace, else none.
    pub(crate) unknown: Option<f64>,
}

impl Observation {
    pub(crate) fn new(project: &ProjectId, view: ObservationView, prices: Prices<'_>) -> Self {
        let sent: Sent = view
            .sent
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let model_id = sent.model_id.clone().or(view.model_id.clone());
        let price = Price::of(&sent, model_id.as_deref(), prices);
        let unit = sent.unit.clone().unwrap_or_else(|| "TOKENS".to_owned());
        let (prompt_tokens, completion_tokens) = (
            view.input_usage.unwrap_or(0),
            view.output_usage.unwrap_or(0),
        );
        let total_tokens = view.total_usage.unwrap_or(0);
        Self {
            metadata: metadata(&view),
            latency: sent.latency.or(seconds(view.start_time, view.end_time)),
            time_to_first_token: sent
                .time_to_first_token
                .or(seconds(view.start_time, view.completion_start_time)),
            id: view.id,
            trace_id: view.trace_id,
            project_id: project.to_string(),
            environment: view.environment,
            parent_observation_id: view.parent_id,
            r#type: view.r#type,
            name: view.name,
            level: view.level,
            status_message: view.status_message,
            version: view.version,
            start_time: iso(view.start_time),
            end_time: view.end_time.map(iso),
            completion_start_time: view.completion_start_time.map(iso),
            created_at: iso(view.created_at),
            updated_at: iso(view.updated_at),
            input: payload::value(view.input.as_deref()),
            output: payload::value(view.output.as_deref()),
            model: view.model,
            model_id,
            model_parameters: payload::value(view.model_parameters.as_deref()),
            prompt_id: view.prompt_id.or(sent.prompt_id),
            prompt_name: view.prompt_name,
            prompt_version: view.prompt_version,
            usage_details: view.usage_details.map(|usage| usage.0).unwrap_or_default(),
            cost_details: view.cost_details.map(|costs| costs.0).unwrap_or_default(),
            usage: Usage {
                unit: unit.clone(),
                input: prompt_tokens,
                output: completion_tokens,
                total: total_tokens,
            },
            unit,
            prompt_tokens,
            completion_tokens,
            total_tokens,
            usage_pricing_tier_id: view.tier_id,
            usage_pricing_tier_name: view.tier_name,
            input_price: price.input,
            output_price: price.output,
            total_price: price.total,
            calculated_input_cost: view.input_cost,
            calculated_output_cost: view.output_cost,
            calculated_total_cost: view.total_cost.unwrap_or(0.0),
        }
    }
}

/// USD per unit.
struct Price {
    input: Option<f64>,
    output: Option<f64>,
    total: Option<f64>,
}

impl Price {
    /// What was sent, else the default tier of the model's definition.
    fn of(sent: &Sent, model_id: Option<&str>, prices: Prices<'_>) -> Self {
        let tier = model_id.and_then(|id| prices.book.model(id)?.default_tier());
        let listed = |kind: &str| tier.and_then(|tier| tier.prices.get(kind).copied());
        let fallback = prices.unknown;
        Self {
            input: sent.input_price.or_else(|| listed("input")).or(fallback),
            output: sent.output_price.or_else(|| listed("output")).or(fallback),
            total: sent.total_price.or_else(|| listed("total")).or(fallback),
        }
    }
}

fn seconds(start: DateTime<Utc>, end: Option<DateTime<Utc>>) -> Option<f64> {
    let micros = (end? - start).num_microseconds()?;
    Some(micros as f64 / 1e6)
}

/// The sender's metadata, and under reserved keys what OpenTelemetry sent: `attributes` (as text,
/// and not for Langfuse's own SDKs), `resourceAttributes`, `scope`, and `otel` for the rest.
fn metadata(view: &ObservationView) -> Map<String, Value> {
    let mut metadata = payload::metadata(view.metadata.as_deref(), view.metadata_decoded);
    let otel = view
        .otel
        .as_deref()
        .and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    let Some(mut otel) = otel else {
        return metadata;
    };
    let scope = otel.shift_remove("scope").unwrap_or_default();
    let of_langfuse = scope["name"]
        .as_str()
        .is_some_and(|name| name.starts_with("langfuse-sdk"));
    if let (Some(Value::Object(attributes)), false) = (otel.shift_remove("attributes"), of_langfuse)
    {
        metadata.insert("attributes".to_owned(), stringified(attributes));
    }
    metadata.insert(
        "resourceAttributes".to_owned(),
        otel.shift_remove("resource").unwrap_or_default(),
    );
    metadata.insert("scope".to_owned(), scope);
    if let Some(tools) = &view.tool_definitions {
        otel.insert(
            "toolDefinitions".to_owned(),
            json!(payload::value(Some(tools))),
        );
    }
    metadata.insert("otel".to_owned(), Value::Object(otel));
    metadata
}

fn stringified(attributes: Map<String, Value>) -> Value {
    let text = |value: Value| match value {
        Value::String(text) => Value::String(text),
        other => Value::String(other.to_string()),
    };
    Value::Object(
        attributes
            .into_iter()
            .map(|(key, value)| (key, text(value)))
            .collect(),
    )
}

/// `GET /observations`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    let page = query.page()?;
    let conditions = filter::with_simple(filter::parse(&query)?, simple_conditions(&query)?);
    let found = observations::list(&store, &project, &conditions, page).await?;
    let book = store.price_book(&project).await?;
    let prices = Prices {
        book: &book,
        unknown: None,
    };
    let meta = meta(page, found.total);
    let rows = found.rows.into_iter();
    let rows = rows.map(|view| Observation::new(&project, view, prices));
    Ok(answer::page(rows, &meta))
}

fn simple_conditions(query: &Query) -> Result<Vec<Condition<ObservationColumn>>, CompatError> {
    let kinds = Kind::NAMES.map(|(_, name)| name);
    let levels = Level::NAMES.map(|(_, name)| name);
    let equal = [
        (query.option("type", &kinds)?, ObservationColumn::Type),
        (query.option("level", &levels)?, ObservationColumn::Level),
        (query.text("name"), ObservationColumn::Name),
        (query.text("userId"), ObservationColumn::UserId),
        (query.text("version"), ObservationColumn::Version),
        (
            query.text("parentObservationId"),
            ObservationColumn::ParentObservationId,
        ),
    ];
    let mut conditions: Vec<Condition<ObservationColumn>> = equal
        .into_iter()
        .filter_map(|(text, column)| Some(Condition::equals(column, text?)))
        .collect();
    if let Some(trace) = query.text("traceId") {
        let other = TraceId::parse(trace)
            .ok()
            .and_then(|id| id.other_spelling());
        let ids = std::iter::once(trace.to_owned()).chain(other.map(TraceId::into_string));
        conditions.push(Condition::new(
            ObservationColumn::TraceId,
            Test::OneOf(ids.collect(), false),
        ));
    }
    let environments = query.list("environment");
    if !environments.is_empty() {
        let test = Test::OneOf(environments, false);
        conditions.push(Condition::new(ObservationColumn::Environment, test));
    }
    for (name, order) in [
        ("fromStartTime", Order::AtLeast),
        ("toStartTime", Order::Less),
    ] {
        let time = query.time(name)?;
        let test =
            time.map(|time| Condition::new(ObservationColumn::StartTime, Test::Time(order, time)));
        conditions.extend(test);
    }
    Ok(conditions)
}

/// `GET /observations/{id}`.
pub(crate) async fn find(
    State(store): State<Store>,
    Project(project): Project,
    PathId(id): PathId,
) -> Result<Response, CompatError> {
    let missing =
        || CompatError::NotFound("Observation not found within authorized project".to_owned());
    let id = xtrace_model::ObservationId::parse(id).map_err(|_| missing())?;
    let view = observations::find(&store, &project, id.as_str())
        .await?
        .ok_or_else(missing)?;
    let book = store.price_book(&project).await?;
    let prices = Prices {
        book: &book,
        unknown: None,
    };
    Ok(Json(Observation::new(&project, view, prices)).into_response())
}
