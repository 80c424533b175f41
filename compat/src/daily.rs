//! `GET /metrics/daily`: usage and cost by UTC day.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use xtrace_model::time;
use xtrace_store::Store;
use xtrace_store::daily::{self, DailyQuery, Day};
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
    let mut conditions = trace_conditions(&query);
    // Beyond Langfuse's parameters, the earlier native client sends version and release.
    let equal = [
        ("traceName", TraceColumn::Name),
        ("version", TraceColumn::Version),
        ("release", TraceColumn::Release),
    ];
    for (name, column) in equal {
        conditions.extend(query.text(name).map(|text| Condition::equals(column, text)));
    }
    let time = |name: &str| Ok::<_, CompatError>(query.time(name)?.map(time::to_utc));
    let wanted = DailyQuery {
        from: time("fromTimestamp")?,
        to: time("toTimestamp")?,
        conditions,
        environments: query.list("environment"),
        page,
    };
    let days = daily::list(&store, &project, &wanted).await?;
    let data: Vec<Value> = days.rows.iter().map(row).collect();
    Ok(Json(json!({"data": data, "meta": meta(page, days.total)})))
}

fn row(day: &Day) -> Value {
    let usage = day.models.iter().map(|usage| {
        json!({
            "model": usage.model, "inputUsage": usage.input, "outputUsage": usage.output,
            "totalUsage": usage.total, "countObservations": usage.observations,
            "countTraces": usage.traces, "totalCost": usage.total_cost,
        })
    });
    let usage: Vec<Value> = usage.collect();
    json!({
        "date": day.date.to_string(), "countTraces": day.traces,
        "countObservations": day.observations, "totalCost": day.total_cost, "usage": usage,
    })
}
