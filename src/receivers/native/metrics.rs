//! `POST /v1/metrics/batch`: metric points, all or none.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use chrono::{DateTime, Utc};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
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
#[derive(serde::Deserialize)]
struct MetricsBatch {
    metrics: Option<Capped<Point, POINTS_MAX>>,
}

#[derive(serde::Deserialize)]
struct Point {
    name: String,
    labels: Option<Labels>,
    value: f64,
    timestamp: DateTime<Utc>,
}

/// Labels as texts; numbers and booleans as they are written.
#[derive(Default)]
struct Labels(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelsVisitor;
        impl<'de> Visitor<'de> for LabelsVisitor {
            type Value = Labels;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    let text = label_text(value.get()).map_err(A::Error::custom)?;
                    if key.len().max(text.len()) > LABEL_BYTES_MAX {
                        let fault = format!("a label holds at most {LABEL_BYTES_MAX} bytes");
                        return Err(A::Error::custom(fault));
                    }
                    labels.insert(key, text);
                    if labels.len() > LABELS_MAX {
                        return Err(A::Error::custom(format!("at most {LABELS_MAX} labels")));
                    }
                }
                Ok(Labels(labels))
            }
        }
        deserializer.deserialize_map(LabelsVisitor)
    }
}

fn label_text(raw: &str) -> Result<String, &'static str> {
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map_err(|_| "a label must be text"),
        Some(b'-' | b'0'..=b'9' | b't' | b'f') => Ok(raw.to_owned()),
        _ => Err("a label must be a text, a number or a boolean"),
    }
}

/// Takes points: stores them, then answers.
pub async fn receive(
    State(gateway): State<Gateway>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let (caller, body) = super::caller_and_body(request, &gateway.body_limits).await?;
    let batch = super::decode(&body.bytes, |batch| into_batch(batch, caller.project))?;
    let mut share = body.share;
    drop(body.bytes);
    share.grow_to(batch.bytes).await?;
    super::check_refused(&gateway.writer.submit(batch).await?)?;
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
    Ok(MetricPoint {
        series: Series {
            name: point.name,
            environment: environment::DEFAULT.to_owned(),
            labels: point.labels.unwrap_or_default().0,
        },
        time: time::from_utc(point.timestamp),
        value: point.value,
    })
}
