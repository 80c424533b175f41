//! `POST /v1/metrics/batch`: metric points, all or none.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use xtrace_model::metric::Series;
use xtrace_model::{Batch, MetricPoint, ProjectId, environment, time};

use super::Capped;
use crate::api::error::ApiError;
use crate::gateway::Gateway;

const POINTS_MAX: usize = 200_000;
const NAME_CHARS_MAX: usize = 255;
const LABELS_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 1024;

/// The request.
#[derive(Deserialize)]
struct MetricsBatch {
    metrics: Option<Capped<Point, POINTS_MAX>>,
}

#[derive(Deserialize)]
struct Point {
    name: String,
    labels: Option<BTreeMap<String, Value>>,
    value: f64,
    timestamp: DateTime<Utc>,
}

/// Takes points: stores them, then answers.
pub async fn receive(
    State(gateway): State<Gateway>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let (caller, body) = super::caller_and_body(request, gateway.limits.body_bytes_max).await?;
    let batch = super::decode(&body, |batch| into_batch(batch, caller.project))?;
    gateway.writer.submit(batch).await?;
    Ok(super::stored())
}

fn into_batch(request: MetricsBatch, project: ProjectId) -> Result<Batch, ApiError> {
    let mut batch = Batch::new(project);
    // A request without the list is some other format, whose points would be lost.
    let points = request
        .metrics
        .ok_or_else(|| ApiError::BadRequest("metrics must be a list of points".to_owned()))?;
    for (index, point) in points.0.into_iter().enumerate() {
        let point = into_point(point).map_err(|(field, fault)| {
            ApiError::BadRequest(format!("metrics[{index}].{field} {fault}"))
        })?;
        let labels = point.series.labels.iter();
        batch.bytes += 150
            + labels
                .map(|(key, value)| key.len() + value.len() + 64)
                .sum::<usize>();
        batch.points.push(point);
    }
    Ok(batch)
}

/// A point, or the field at fault and what it must be.
fn into_point(point: Point) -> Result<MetricPoint, (&'static str, String)> {
    if point.name.is_empty() || point.name.chars().count() > NAME_CHARS_MAX {
        return Err((
            "name",
            format!("must have 1 to {NAME_CHARS_MAX} characters"),
        ));
    }
    if !point.value.is_finite() {
        return Err(("value", "must be a finite number".to_owned()));
    }
    let labels = point.labels.unwrap_or_default();
    if labels.len() > LABELS_MAX {
        return Err(("labels", format!("must have at most {LABELS_MAX} members")));
    }
    let labels = labels.into_iter().map(|(key, value)| {
        let text = match value {
            Value::String(text) => text,
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => {
                return Err((
                    "labels",
                    format!("must hold texts, numbers or booleans; \"{key}\" does not"),
                ));
            }
        };
        if text.len() > LABEL_BYTES_MAX || key.len() > LABEL_BYTES_MAX {
            return Err((
                "labels",
                format!("must hold at most {LABEL_BYTES_MAX} bytes each"),
            ));
        }
        Ok((key, text))
    });
    Ok(MetricPoint {
        series: Series {
            name: point.name,
            environment: environment::DEFAULT.to_owned(),
            labels: labels.collect::<Result<_, _>>()?,
        },
        time: time::from_utc(point.timestamp),
        value: point.value,
    })
}
