//! `GET /api/public/metrics/names` and `GET /api/public/metrics/query`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Extension, RawQuery, State};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use xtrace_model::Authentication;
use xtrace_store::metrics::series::{self, Selector};
use xtrace_store::metrics::{
    self, Aggregation, Answer, AnswerExemplar, AnswerSeries, Labels, MetricsQuery, derived,
};

use super::error::ApiError;
use super::parameters::{Parameters, bad};
use crate::gateway::Gateway;

/// The names of all metrics, sorted.
pub async fn names(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Authentication>,
) -> Result<Json<Value>, ApiError> {
    let caller = caller.map_err(ApiError::Auth)?;
    let (store, project) = (&gateway.store, &caller.project);
    let (mut names, derived) = tokio::try_join!(
        series::names(store, project),
        derived::names(store, project)
    )?;
    names.extend(derived);
    names.sort();
    names.dedup();
    Ok(Json(json!({"data": names})))
}

/// Points of a metric, bucketed and aggregated.
pub async fn query(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Authentication>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let caller = caller.map_err(ApiError::Auth)?;
    let parameters = Parameters::of(query.as_deref().unwrap_or_default());
    if parameters
        .text("project")
        .is_some_and(|project| project != caller.project.as_str())
    {
        return Err(ApiError::Forbidden("project"));
    }
    let query = parameters.to_query(Utc::now())?;
    let answer = metrics::query(&gateway.store, &caller.project, &query).await?;
    let traces = query.exemplars.then(|| traces_of(&query));
    Ok(respond(&answer, traces))
}

impl Parameters {
    fn to_query(&self, now: DateTime<Utc>) -> Result<MetricsQuery, ApiError> {
        let name = self.clean("name")?;
        let name = name.ok_or_else(|| bad("name", "is required"))?;
        let to = self.time("to")?.unwrap_or(now);
        let from = self.time("from")?.unwrap_or(to - TimeDelta::hours(1));
        if from > to {
            return Err(bad("from", "must not be after to"));
        }
        let aggregation = self.text("agg").unwrap_or("avg");
        let aggregation = Aggregation::NAMES
            .iter()
            .find(|(name, _)| *name == aggregation);
        let (_, aggregation) = aggregation.ok_or_else(|| {
            let names: Vec<&str> = Aggregation::NAMES.iter().map(|(name, _)| *name).collect();
            bad("agg", &format!("must be one of {}", names.join(", ")))
        })?;
        let step = self.text("step").unwrap_or("1m");
        Ok(MetricsQuery {
            selector: Selector {
                name,
                labels: self.labels()?,
                environment: self.text("environment").map(str::to_owned),
            },
            from,
            to,
            exemplars: self.flag("exemplars")?,
            step_s: parse_step(step).ok_or_else(|| {
                bad(
                    "step",
                    "must be a whole number from 1 and a unit: 30s, 1m, 5m, 1h, 1d",
                )
            })?,
            aggregation: *aggregation,
            group_by: self.group_by()?,
        })
    }

    fn group_by(&self) -> Result<Option<Vec<String>>, ApiError> {
        const KEYS_MAX: usize = 100;
        let Some(text) = self.text("group_by") else {
            return Ok(None);
        };
        let keys = text.split(',').map(str::trim).filter(|key| !key.is_empty());
        let keys: Vec<String> = keys.map(str::to_owned).collect();
        if keys.len() > KEYS_MAX {
            return Err(bad(
                "group_by",
                &format!("must name at most {KEYS_MAX} labels"),
            ));
        }
        Ok(Some(keys))
    }

    fn labels(&self) -> Result<BTreeMap<String, String>, ApiError> {
        let Some(text) = self.text("labels") else {
            return Ok(BTreeMap::new());
        };
        let malformed = || bad("labels", "must be a JSON object of strings");
        let members: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|_| malformed())?;
        let label = |(key, value): (String, Value)| match value {
            Value::String(text) if !text.contains('\0') && !key.contains('\0') => Ok((key, text)),
            Value::Number(_) | Value::Bool(_) => Ok((key, value.to_string())),
            _ => Err(malformed()),
        };
        members.into_iter().map(label).collect()
    }
}

/// Seconds of `<n>s`, `<n>m`, `<n>h` or `<n>d`; at most a century.
fn parse_step(text: &str) -> Option<i64> {
    const SECONDS_MAX: i64 = 100 * 366 * 86_400;
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = plain
        .then(|| number.parse::<i64>().ok())??
        .checked_mul(unit)?;
    (1..=SECONDS_MAX).contains(&seconds).then_some(seconds)
}

/// What is answered. Fifty thousand values are written without a tree of them being made first.
#[derive(Serialize)]
struct Body<'a> {
    data: Vec<BodySeries<'a>>,
    meta: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    exemplars: Option<Vec<Value>>,
}

#[derive(Serialize)]
struct BodySeries<'a> {
    labels: &'a Labels,
    values: Vec<BodyValue<'a>>,
}

#[derive(Serialize)]
struct BodyValue<'a> {
    timestamp: &'a str,
    value: f64,
}

/// The list of all traces of the range, newest first.
fn traces_of(query: &MetricsQuery) -> String {
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let mut parameters = form_urlencoded::Serializer::new(String::new());
    parameters.append_pair("fromTimestamp", &time(query.from));
    parameters.append_pair("toTimestamp", &time(query.to));
    if let Some(environment) = &query.selector.environment {
        parameters.append_pair("environment", environment);
    }
    format!("/api/public/traces?{}", parameters.finish())
}

/// `traces` is given if exemplars were asked for.
fn respond(answer: &Answer, traces: Option<String>) -> Response {
    let all = answer.series.iter().flat_map(|series| &series.values);
    // Series mostly have the same buckets.
    let mut times: BTreeMap<DateTime<Utc>, String> = BTreeMap::new();
    for (at, _) in all {
        times.entry(*at).or_insert_with(|| at.to_rfc3339());
    }
    let value = |(at, value): &(DateTime<Utc>, f64)| BodyValue {
        timestamp: times.get(at).map_or("", String::as_str),
        value: *value,
    };
    let series = |series: &'_ AnswerSeries| series.values.iter().map(value).collect();
    let data: Vec<BodySeries<'_>> = answer
        .series
        .iter()
        .map(|one| BodySeries {
            labels: &one.labels,
            values: series(one),
        })
        .collect();
    let mut meta = json!({"series_count": data.len(), "truncated": answer.truncated});
    if let Some(latest) = answer.series.iter().map(|series| series.latest).max() {
        meta["latest_ts"] = latest.to_rfc3339().into();
    }
    let exemplars = traces.map(|traces| {
        meta["traces"] = traces.into();
        answer.exemplars.iter().map(exemplar).collect()
    });
    Json(Body {
        data,
        meta,
        exemplars,
    })
    .into_response()
}

/// A measurement, with the path of the trace that it was made in.
fn exemplar(one: &AnswerExemplar) -> Value {
    let data: Value = serde_json::from_str(&one.data).unwrap_or_default();
    let trace = data["traceId"].as_str();
    let value = &data["value"];
    json!({
        "labels": one.labels,
        "timestamp": one.time.to_rfc3339(),
        "value": value.get("asDouble").or_else(|| value.get("asInt")),
        "traceId": trace,
        "spanId": data["spanId"],
        "attributes": data["attributes"],
        "trace": trace.map(|id| format!("/api/public/traces/{id}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_whole_numbers_with_a_unit() {
        let check =
            |text: &str, seconds: Option<i64>| assert_eq!(parse_step(text), seconds, "{text}");
        check("1m", Some(60));
        check("30s", Some(30));
        check("2d", Some(172_800));
        for text in [
            "",
            "m",
            "0s",
            "-1m",
            "1.5h",
            "1w",
            "99999999999999999999d",
            "1é",
        ] {
            check(text, None);
        }
    }
}
