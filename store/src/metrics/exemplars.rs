//! Exemplars: which measurements a point counted, and the traces that they were made in.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use xtrace_model::ProjectId;
use xtrace_model::metric::{Exemplar, PointValue, SeriesId};

use crate::{Store, StoreError};

/// Exemplars of an answer at most; the newest are chosen.
const ROWS_MAX: i64 = 100;

/// All of it but its series: times in nanoseconds, a value that says what it is.
pub(super) fn to_json(exemplar: &Exemplar) -> String {
    let value = match &exemplar.value {
        PointValue::Int(number) => json!({"asInt": number.to_string()}),
        PointValue::Double(number) if number.is_finite() => json!({"asDouble": number}),
        // Infinity and what is not a number have no number in JSON.
        PointValue::Double(number) => json!({"asDouble": number.to_string()}),
        PointValue::Nothing | PointValue::Distribution(_) => Value::Null,
    };
    let attributes = RawValue::from_string(exemplar.attributes.clone()).ok();
    let members = serde_json::to_value(attributes).unwrap_or_default();
    json!({
        "pointTimeUnixNano": exemplar.point_time.to_string(),
        "timeUnixNano": exemplar.time.to_string(),
        "value": value,
        "traceId": exemplar.trace_id,
        "spanId": exemplar.span_id,
        "attributes": members,
    })
    .to_string()
}

/// An exemplar of a series.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Linked {
    /// The series.
    pub series_id: SeriesId,
    /// When its point was measured.
    pub ts: DateTime<Utc>,
    /// The rest as JSON: `timeUnixNano`, `value`, `traceId`, `spanId`, `attributes`.
    pub data: String,
}

/// The newest exemplars of these series.
pub async fn of(
    store: &Store,
    project: &ProjectId,
    series: &[SeriesId],
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Vec<Linked>, StoreError> {
    let found = sqlx::query_as(
        "select series_id, ts, data from metric_exemplars
          where project_id = $1 and series_id = any($2) and ts between $3 and $4
          order by ts desc, series_id, id limit $5",
    )
    .bind(project.as_str())
    .bind(series)
    .bind(from)
    .bind(to)
    .bind(ROWS_MAX)
    .fetch_all(store.read())
    .await?;
    Ok(found)
}
