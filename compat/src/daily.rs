//! `GET /metrics/daily`: usage and cost by UTC day.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use xtrace_store::Store;
use xtrace_store::daily::{self, DailyQuery, Day, ModelUsage};
use xtrace_store::filter::{Condition, TraceColumn};

use crate::auth::Project;
use crate::error::CompatError;
use crate::query::{Query, meta};
use crate::traces::trace_conditions;

/// `GET /metrics/daily`.
pub(crate) async fn list(
    State(store): State<Store>,
    Project(project): Project,
    query: Query,
) -> Result<Json<Value>, CompatError> {
    let page = query.page()?;
    let mut conditions = trace_conditions(&query)?;
    // Beyond Langfuse's parameters, the earlier native client sends version and release.
    let equal = [
        ("traceName", TraceColumn::Name),
        ("version", TraceColumn::Version),
        ("release", TraceColumn::Release),
    ];
    for (name, column) in equal {
        conditions.extend(query.text(name).map(|text| Condition::equals(column, text)));
    }
    let wanted = DailyQuery {
        conditions,
        environments: query.list("environment"),
        page,
    };
    let (days, models) = daily::list(&store, &project, &wanted).await?;
    let data: Vec<Value> = days.rows.iter().map(|day| row(day, &models)).collect();
    Ok(Json(json!({"data": data, "meta": meta(page, days.total)})))
}

fn row(day: &Day, models: &[ModelUsage]) -> Value {
    let of_day = models.iter().filter(|usage| usage.date == day.date);
    let usage: Vec<Value> = of_day
        .map(|usage| {
            json!({
                "model": usage.model, "inputUsage": usage.input, "outputUsage": usage.output,
                "totalUsage": usage.total, "countObservations": usage.observations,
                "countTraces": usage.traces, "totalCost": usage.total_cost,
            })
        })
        .collect();
    json!({
        "date": day.date.to_string(), "countTraces": day.traces,
        "countObservations": day.observations, "totalCost": day.total_cost, "usage": usage,
    })
}
