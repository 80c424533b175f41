//! `GET /v2/prompts`: names, each with the versions that were meant.

use axum::extract::State;
use serde_json::{Value, json};
use xtrace_store::Store;
use xtrace_store::filter::{Condition, Order, PromptColumn, Test, TextTest};
use xtrace_store::prompts::{self, PromptSummary};

use super::PromptProject;
use crate::answer::Answer;
use crate::error::{CompatError, issue};
use crate::query::{Query, iso, meta};
use crate::{filter, payload};

const LIMIT_DEFAULT: i64 = 10;

/// `GET /v2/prompts`.
pub(crate) async fn list(
    State(store): State<Store>,
    PromptProject(project): PromptProject,
    query: Query,
) -> Result<Answer, CompatError> {
    if query.text("page") == Some("") {
        return Err(CompatError::Invalid(issue::too_small("page", 1)));
    }
    let page = query.page_of(LIMIT_DEFAULT)?;
    let conditions = match query.text("filter").filter(|text| !text.is_empty()) {
        Some(_) => {
            let conditions = filter::parse_with_presence(&query)?;
            conditions.into_iter().map(as_search).collect()
        }
        None => conditions(&query)?,
    };
    let found = prompts::list(&store, &project, &conditions, page).await?;
    let meta = meta(page, found.total);
    let rows = found.rows.into_iter().map(|row| element(&row));
    Ok(Answer::of(&json!({"meta": meta, "pagination": meta})).list("data", rows))
}

/// In this one filter text is searched for whatever its case, and its `%` and `_` are wildcards.
fn as_search(mut condition: Condition<PromptColumn>) -> Condition<PromptColumn> {
    if let Test::Text(how, text) = &condition.test {
        let (how, pattern) = match how {
            TextTest::Contains => (TextTest::Like, format!("%{text}%")),
            TextTest::Lacks => (TextTest::Unlike, format!("%{text}%")),
            TextTest::StartsWith => (TextTest::Like, format!("{text}%")),
            TextTest::EndsWith => (TextTest::Like, format!("%{text}")),
            _ => return condition,
        };
        condition.test = Test::Text(how, pattern);
    }
    condition
}

fn conditions(query: &Query) -> Result<Vec<Condition<PromptColumn>>, CompatError> {
    let mut conditions = Vec::new();
    let name = query.text("name").filter(|text| !text.is_empty());
    conditions.extend(name.map(|name| Condition::equals(PromptColumn::Name, name)));
    if let Some(version) = query.whole("version")? {
        let test = Test::Number(Order::Equal, version as f64);
        conditions.push(Condition::new(PromptColumn::Version, test));
    }
    for (parameter, column) in [("label", PromptColumn::Labels), ("tag", PromptColumn::Tags)] {
        if let Some(text) = query.text(parameter).filter(|text| !text.is_empty()) {
            let test = Test::ContainsAll(vec![text.to_owned()]);
            conditions.push(Condition::new(column, test));
        }
    }
    let range = [
        ("fromUpdatedAt", Order::AtLeast),
        ("toUpdatedAt", Order::Less),
    ];
    for (parameter, order) in range {
        let time = query.time(parameter)?;
        let condition = |time| Condition::new(PromptColumn::UpdatedAt, Test::Time(order, time));
        conditions.extend(time.map(condition));
    }
    Ok(conditions)
}

fn element(summary: &PromptSummary) -> Value {
    let mut labels: Vec<&String> = summary.labels.0.iter().flatten().collect();
    labels.sort();
    labels.dedup();
    json!({
        "name": summary.name,
        "type": summary.r#type,
        "versions": summary.versions,
        "labels": labels,
        "tags": summary.tags.0,
        "lastUpdatedAt": iso(summary.updated_at),
        "lastConfig": payload::stored(&summary.config),
    })
}
