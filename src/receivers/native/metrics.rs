//! `POST /v1/metrics/batch`: metric points; all or none, but for those of series that are too many.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use axum::Json;
use axum::extract::{Request, State};
use chrono::{DateTime, Utc};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use xtrace_model::metric::{Kind, PointValue, Series, SeriesHasher, SeriesId, Temporality};
use xtrace_model::{Batch, MetricPoint, environment};
use xtrace_store::metrics::{self, KnownSeries};

use super::Capped;
use crate::api::error::ApiError;
use crate::gateway::Gateway;
use crate::receivers::aside::aside;
use crate::receivers::body::ReadBody;
use crate::self_metrics;

const POINTS_MAX: usize = 200_000;
const NAME_CHARS_MAX: usize = 255;
const LABELS_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 1024;

/// The request.
#[derive(serde::Deserialize)]
struct MetricsBatch<'a> {
    #[serde(borrow)]
    metrics: Option<Capped<Point<'a>, POINTS_MAX>>,
}

#[derive(serde::Deserialize)]
struct Point<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    labels: Option<Labels<'a>>,
    value: f64,
    timestamp: DateTime<Utc>,
}

/// Labels as texts, sorted by key; numbers and booleans as they are written. Of one key the last counts.
#[derive(Default)]
struct Labels<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// Text that is not copied unless it must be.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Labels<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelsVisitor;
        impl<'de> Visitor<'de> for LabelsVisitor {
            type Value = Labels<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels<'de>, A::Error> {
                let mut labels: Vec<(Cow<'de, str>, Cow<'de, str>)> = Vec::new();
                while let Some((Text(key), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    let text = label_text(value.get()).map_err(A::Error::custom)?;
                    if key.len().max(text.len()) > LABEL_BYTES_MAX {
                        let fault = format!("a label holds at most {LABEL_BYTES_MAX} bytes");
                        return Err(A::Error::custom(fault));
                    }
                    match labels.binary_search_by(|(known, _)| known.cmp(&key)) {
                        Ok(place) => labels[place].1 = text,
                        Err(place) => labels.insert(place, (key, text)),
                    }
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

fn label_text(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    match raw.as_bytes().first() {
        Some(b'"') => {
            let text: Text<'_> = serde_json::from_str(raw).map_err(|_| "a label must be text")?;
            Ok(text.0)
        }
        Some(b'-' | b'0'..=b'9' | b't' | b'f') => Ok(Cow::Borrowed(raw)),
        _ => Err("a label must be a text, a number or a boolean"),
    }
}

/// Takes points: stores them, then answers.
pub async fn receive(
    State(gateway): State<Gateway>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let (caller, body) = super::caller_and_body(request, &gateway.body_limits).await?;
    let key = gateway.store.series_key().await?;
    let length = body.bytes.len();
    let ReadBody { bytes, mut share } = body;
    let store = gateway.store.clone();
    let decode = move || {
        let known = store.known_series(key, &caller.project);
        decode(&bytes, &known)
    };
    let mut batch = aside(length, decode).await.ok_or(ApiError::Fault)??;
    share.grow_to(batch.bytes).await?;
    let refused = metrics::admit(&gateway.store, &mut batch, gateway.series_limits).await?;
    let rejected: usize = refused.values().sum();
    let reason = refused.keys().next().map(|name| {
        format!(
            "series limit: {rejected} points are of new series, and metric \"{name}\" or the project has too many \
             already; use fewer different labels"
        )
    });
    let Some(reason) = reason else {
        super::check_refused(&gateway.writer.submit(batch).await?)?;
        return Ok(super::stored());
    };
    self_metrics::refused("series limit", rejected);
    if batch.points.is_empty() {
        return Err(ApiError::BadRequest(format!("{reason}. Nothing was taken")));
    }
    super::check_refused(&gateway.writer.submit(batch).await?)?;
    Ok(super::stored_but(rejected, &reason))
}

pub(super) fn decode(body: &[u8], known: &KnownSeries) -> Result<Batch, ApiError> {
    let text = super::text_of(body)?;
    let request: MetricsBatch<'_> =
        serde_json::from_str(&text).map_err(|_| super::explain::<MetricsBatch<'_>>(&text))?;
    // A request without the list is some other format, whose points would be lost.
    let points = request
        .metrics
        .ok_or_else(|| ApiError::BadRequest("metrics must be a list of points".to_owned()))?;
    let mut batch = known.batch();
    let mut described: HashSet<SeriesId> = HashSet::new();
    let hasher = known.hasher("native");
    for (index, point) in points.0.into_iter().enumerate() {
        check(&point).map_err(|(field, fault)| {
            ApiError::BadRequest(format!("metrics[{index}].{field} {fault}"))
        })?;
        let series = id_of(hasher.clone(), &point);
        batch.bytes += size_of::<MetricPoint>() + 16;
        batch.points.push(MetricPoint {
            series,
            time: point.timestamp.timestamp_nanos_opt().unwrap_or_default(),
            start: 0,
            flags: 0,
            value: PointValue::Double(point.value),
        });
        if !known.contains(series) && described.insert(series) {
            let series = describe(series, point);
            let labels = series.labels.iter();
            batch.bytes += 500
                + labels
                    .map(|(key, value)| key.len() + value.len() + 100)
                    .sum::<usize>();
            batch.series.push(series);
        }
    }
    Ok(batch)
}

/// The field at fault and what it must be.
fn check(point: &Point<'_>) -> Result<(), (&'static str, String)> {
    if point.name.is_empty() || point.name.chars().count() > NAME_CHARS_MAX {
        return Err((
            "name",
            format!("must have 1 to {NAME_CHARS_MAX} characters"),
        ));
    }
    if !point.value.is_finite() {
        return Err(("value", "must be a finite number".to_owned()));
    }
    if point.timestamp.timestamp_nanos_opt().is_none() {
        let fault = "must lie between the years 1678 and 2262";
        return Err(("timestamp", fault.to_owned()));
    }
    Ok(())
}

/// `hasher` knows dialect and project.
fn id_of(mut hasher: SeriesHasher, point: &Point<'_>) -> SeriesId {
    hasher.text(&point.name);
    hasher.text(environment::DEFAULT);
    for (key, value) in point.labels.iter().flat_map(|labels| &labels.0) {
        hasher.text(key);
        hasher.text(value);
    }
    hasher.id()
}

fn describe(id: SeriesId, point: Point<'_>) -> Series {
    let labels = point.labels.unwrap_or_default().0.into_iter();
    Series {
        id,
        name: point.name.into_owned(),
        kind: Kind::Native,
        temporality: Temporality::None,
        is_monotonic: false,
        unit: String::new(),
        description: String::new(),
        environment: environment::DEFAULT.to_owned(),
        labels: labels
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect(),
        resource: BTreeMap::new(),
        details: String::new(),
    }
}
