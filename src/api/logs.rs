//! `GET /api/public/logs`.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::stream;
use serde_json::{Value, json};
use xtrace_model::{Authentication, Pieces, TraceId, time};
use xtrace_store::logs::{self, LIMIT_MAX, LogQuery, LogView};

use super::error::ApiError;
use super::parameters::{Parameters, bad};
use crate::gateway::Gateway;

const LIMIT_DEFAULT: i64 = 100;

/// OpenTelemetry's ranges of severity, by the least number of each. Source: OTLP logs data model.
const SEVERITIES: [(&str, i32); 6] = [
    ("TRACE", 1),
    ("DEBUG", 5),
    ("INFO", 9),
    ("WARN", 13),
    ("ERROR", 17),
    ("FATAL", 21),
];

/// Log records, newest first.
pub async fn list(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Authentication>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let caller = caller.map_err(ApiError::Auth)?;
    let query = to_query(&Parameters::of(query.as_deref().unwrap_or_default()))?;
    let found = logs::list(&gateway.store, &caller.project, &query).await?;
    let cursor = found.last().map(cursor_after);
    let records = found.rows.into_iter().map(|record| show(&record));
    let meta = json!({"limit": query.limit, "cursor": cursor});
    let answer = Pieces::new().list("data", records).member("meta", &meta);
    Ok(respond(answer))
}

/// An answer whose records were text as soon as they were read.
fn respond(answer: Pieces) -> Response {
    let (pieces, bytes) = answer.finish();
    let pieces = pieces
        .into_iter()
        .map(|piece| Ok::<_, Infallible>(Bytes::from(piece)));
    let body = Body::from_stream(stream::iter(pieces));
    let json = HeaderValue::from_static("application/json");
    let headers = [
        (header::CONTENT_TYPE, json),
        (header::CONTENT_LENGTH, bytes.into()),
    ];
    (headers, body).into_response()
}

fn to_query(parameters: &Parameters) -> Result<LogQuery, ApiError> {
    let trace_id = parameters.text("traceId").map(TraceId::parse).transpose();
    let query = LogQuery {
        trace_id: trace_id.map_err(|error| bad("traceId", &error.to_string()))?,
        span_id: parameters.clean("spanId")?,
        from: parameters.time("fromTimestamp")?,
        to: parameters.time("toTimestamp")?,
        severity_min: parameters.text("severity").map(severity).transpose()?,
        event_name: parameters.clean("eventName")?,
        text: parameters.clean("text")?,
        before: parameters.text("cursor").map(position).transpose()?,
        limit: parameters
            .number("limit", 1, LIMIT_MAX)?
            .unwrap_or(LIMIT_DEFAULT),
    };
    if query.from.zip(query.to).is_some_and(|(from, to)| from > to) {
        return Err(bad("fromTimestamp", "must not be after toTimestamp"));
    }
    Ok(query)
}

/// A severity by its number or its name.
fn severity(text: &str) -> Result<i32, ApiError> {
    let named = SEVERITIES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    let numbered = text.parse().ok().filter(|number| (0..=24).contains(number));
    let number = named.map(|(_, number)| *number).or(numbered);
    number.ok_or_else(|| {
        bad(
            "severity",
            "must be TRACE, DEBUG, INFO, WARN, ERROR, FATAL or a number from 0 to 24",
        )
    })
}

/// Where the next page begins: after the time and id of the last record.
fn cursor_after(record: &LogView) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{}:{}", time::from_utc(record.ts), record.id))
}

fn position(cursor: &str) -> Result<(DateTime<Utc>, String), ApiError> {
    let read = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (micros, id) = text.split_once(':')?;
        let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then_some((time::to_utc(micros.parse().ok()?), id.to_owned()))
    };
    read().ok_or_else(|| bad("cursor", "must be one that an answer gave"))
}

fn show(record: &LogView) -> Value {
    let at = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Micros, true);
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let mut rest = json(&record.rest);
    let mut take = |name: &str| rest.get_mut(name).map(Value::take).unwrap_or_default();
    let mut shown = json!({
        "id": record.id,
        "timestamp": at(record.ts),
        "observedTimestamp": record.observed_at.map(at),
        "severityNumber": record.severity,
        "severityText": record.severity_text,
        "eventName": record.event_name,
        "body": record.body.as_deref().map(json),
        "traceId": record.trace_id,
        "spanId": record.span_id,
        "attributes": json(&record.attributes),
        "resourceAttributes": take("resource"),
    });
    for name in [
        "scope",
        "timeUnixNano",
        "observedTimeUnixNano",
        "flags",
        "droppedAttributesCount",
        "resourceSchemaUrl",
        "scopeSchemaUrl",
    ] {
        shown[name] = take(name);
    }
    shown
}
