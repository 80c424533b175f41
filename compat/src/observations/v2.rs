//! `GET /v2/observations`: by cursor, in field groups, input and output as text (langfuse-api 8.4).

use axum::extract::State;
use serde_json::{Map, Value, json};
use xtrace_model::ProjectId;
use xtrace_store::filter::{Condition, ObservationColumn, Test, TextTest};
use xtrace_store::observations::{self, ListedObservation, ObservationView, Slice};
use xtrace_store::{PriceBook, Store};

use super::{metadata, seconds, simple_conditions};
use crate::answer::{self, Answer};
use crate::auth::Project;
use crate::cursor::{self, Cursor};
use crate::error::CompatError;
use crate::query::{Query, iso};
use crate::{filter, payload};

const LIMIT_DEFAULT: i64 = 50;
const LIMIT_MAX: i64 = 1000;
/// Longer values of metadata are cut unless they are asked for.
const METADATA_CHARS_MAX: usize = 200;

/// Which groups are wanted; `core` always is.
struct Groups(Vec<String>);

impl Groups {
    /// A comma list; unknown names are dropped. Without the parameter `core` and `basic`.
    fn parse(query: &Query) -> Self {
        match query.text("fields").filter(|text| !text.is_empty()) {
            None => Self(vec!["basic".to_owned()]),
            Some(_) => Self(query.list("fields")),
        }
    }

    fn has(&self, group: &str) -> bool {
        self.0.iter().any(|wanted| wanted == group)
    }
}

/// `GET /v2/observations`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Answer, CompatError> {
    if query.text("parseIoAsJson") == Some("true") {
        return Err(CompatError::BadRequest(
            "parseIoAsJson=true is not supported: input and output are texts; parse them yourself"
                .to_owned(),
        ));
    }
    let groups = Groups::parse(&query);
    let limit = limit(&query)?;
    let conditions = conditions(&query)?;
    let after = match query.text("cursor").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            let cursor = Cursor::parse(text)?;
            Some((
                cursor.time("lastStartTimeTo")?,
                cursor.text("lastTraceId")?,
                cursor.text("lastId")?,
            ))
        }
    };
    let with_io = groups.has("io");
    let slice = Slice {
        after,
        limit,
        with_io,
    };
    let found = observations::list_after(&store, &project, &conditions, &slice).await?;
    let mut meta = json!({});
    if let Some(last) = found.last() {
        let last = &last.observation;
        let start = cursor::time(last.start_time);
        let position =
            json!({"lastStartTimeTo": start, "lastTraceId": last.trace_id, "lastId": last.id});
        meta["cursor"] = cursor::encode_standard(&position).into();
    }
    let expand = with_io || !query.list("expandMetadata").is_empty();
    let book = store.price_book(&project).await?;
    let rows = found.rows.into_iter();
    let rows = rows.map(|row| element((&project, &book), &row, &groups, expand));
    Ok(answer::page(rows, &meta))
}

/// Here none are a page too.
fn limit(query: &Query) -> Result<i64, CompatError> {
    if query.text("limit") == Some("0") {
        return Ok(0);
    }
    query.whole_up_to("limit", LIMIT_DEFAULT, LIMIT_MAX)
}

fn conditions(query: &Query) -> Result<Vec<Condition<ObservationColumn>>, CompatError> {
    let mut simple = simple_conditions(query)?;
    if query.text("parentObservationId") == Some("") {
        simple.retain(|condition| condition.column != ObservationColumn::ParentObservationId);
        let column = ObservationColumn::ParentObservationId;
        simple.push(Condition::new(column, Test::IsNull(false)));
    }
    let session = query.text("sessionId");
    let session = session.map(|id| Condition::equals(ObservationColumn::SessionId, id));
    simple.extend(session);
    if let Some(root) = query.option("isRootObservation", &["true", "false"])? {
        let test = Test::Bool(root == "true");
        simple.push(Condition::new(ObservationColumn::IsRoot, test));
    }
    let advanced = filter::parse_matching(query)?;
    check_io(&advanced)?;
    Ok(filter::with_simple(advanced, simple))
}

/// What looks into input and output must say what it looks for.
fn check_io(conditions: &[Condition<ObservationColumn>]) -> Result<(), CompatError> {
    let of_io: Vec<&Condition<ObservationColumn>> = conditions
        .iter()
        .filter(|condition| {
            matches!(
                condition.column,
                ObservationColumn::Input | ObservationColumn::Output
            )
        })
        .collect();
    if of_io.is_empty() {
        return Ok(());
    }
    let bad = |message: &str| Err(CompatError::BadRequest(message.to_owned()));
    if of_io.iter().any(|one| !matches!(one.test, Test::Text(..))) {
        return bad("Input/output filters only support filter type `string`.");
    }
    let precise = of_io.iter().any(|one| {
        matches!(
            one.test,
            Test::Text(TextTest::Equals | TextTest::MatchesAnyCase, _)
        )
    });
    if precise {
        return Ok(());
    }
    bad("Input/output filters require at least one `matches` or `=` operator.")
}

fn element(
    (project, book): (&ProjectId, &PriceBook),
    row: &ListedObservation,
    groups: &Groups,
    expand: bool,
) -> Value {
    let view = &row.observation;
    let with_times = groups.has("metrics") || groups.has("time");
    let to_first_token = seconds(view.start_time, view.completion_start_time);
    let mut element = json!({
        "id": view.id,
        "traceId": view.trace_id,
        "startTime": iso(view.start_time),
        "endTime": view.end_time.map(iso),
        "projectId": project.as_str(),
        "parentObservationId": view.parent_id,
        "type": view.r#type,
        "latency": seconds(view.start_time, view.end_time),
        "timeToFirstToken": to_first_token.filter(|_| with_times),
    });
    let mut add = |members: Value| {
        if let (Value::Object(element), Value::Object(members)) = (&mut element, members) {
            element.extend(members);
        }
    };
    add(enrichment(view, book, groups.has("model")));
    if groups.has("basic") {
        add(basic(row));
    }
    if groups.has("time") {
        add(json!({
            "completionStartTime": view.completion_start_time.map(iso),
            "createdAt": iso(view.created_at),
            "updatedAt": iso(view.updated_at),
        }));
    }
    if groups.has("io") {
        add(json!({"input": view.input, "output": view.output}));
    }
    if groups.has("metadata") {
        add(json!({"metadata": shown(metadata(view), expand)}));
    }
    if groups.has("model") {
        add(json!({
            "model": view.model,
            "providedModelName": view.model,
            "internalModelId": view.model_id,
            "modelParameters": payload::value(view.model_parameters.as_deref()),
        }));
    }
    if groups.has("usage") {
        add(usage(view));
    }
    if groups.has("prompt") {
        add(json!({
            "promptId": view.prompt_id,
            "promptName": view.prompt_name,
            "promptVersion": view.prompt_version,
        }));
    }
    if groups.has("trace_context") {
        add(json!({
            "tags": row.trace_tags,
            "release": row.trace_release,
            "traceName": row.trace_name,
        }));
    }
    element
}

fn basic(row: &ListedObservation) -> Value {
    let view = &row.observation;
    json!({
        "name": view.name,
        "level": view.level,
        "statusMessage": view.status_message,
        "version": view.version,
        "environment": view.environment,
        "bookmarked": row.trace_bookmarked,
        "public": row.trace_public,
        "userId": row.trace_user_id,
        "sessionId": row.trace_session_id,
        "isRootObservation": view.parent_id.is_none() || row.is_app_root,
    })
}

fn usage(view: &ObservationView) -> Value {
    json!({
        "usageDetails": view.usage_details.as_ref().map(|usage| &usage.0).cloned().unwrap_or_default(),
        "costDetails": view.cost_details.as_ref().map(|costs| &costs.0).cloned().unwrap_or_default(),
        "totalCost": view.total_cost.unwrap_or(0.0),
        "usagePricingTierName": view.tier_name,
        "inputUsage": view.input_usage.unwrap_or(0),
        "outputUsage": view.output_usage.unwrap_or(0),
        "totalUsage": view.total_usage.unwrap_or(0),
        "inputCost": view.input_cost,
        "outputCost": view.output_cost,
    })
}

/// The model's definition and its prices, as decimal text; null unless the group is wanted.
fn enrichment(view: &ObservationView, book: &PriceBook, wanted: bool) -> Value {
    let id = view.model_id.as_deref().filter(|_| wanted);
    let tier = id.and_then(|id| book.model(id)?.default_tier());
    let price = |kind: &str| {
        let price = tier.and_then(|tier| tier.prices.get(kind).copied());
        price.map(|price| price.to_string())
    };
    json!({
        "modelId": id,
        "inputPrice": price("input"),
        "outputPrice": price("output"),
        "totalPrice": price("total"),
    })
}

/// Values of metadata, cut unless they were asked for whole.
fn shown(members: Map<String, Value>, expand: bool) -> Value {
    if expand {
        return Value::Object(members);
    }
    let cut = |value: Value| {
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Array(_) | Value::Object(_) => value.to_string(),
            _ => return value,
        };
        if text.chars().count() <= METADATA_CHARS_MAX {
            return value;
        }
        Value::String(xtrace_model::text::cut_chars(&text, METADATA_CHARS_MAX).to_owned())
    };
    let members = members.into_iter().map(|(key, value)| (key, cut(value)));
    Value::Object(members.collect())
}
