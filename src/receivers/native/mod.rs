//! The native formats: `POST /v1/l/batch` and `POST /v1/metrics/batch`.

mod metrics;
mod traces;

use std::borrow::Cow;

use axum::Json;
use axum::extract::Request;
use serde::Deserialize;
use serde_json::{Value, json};
use xtrace_model::Caller;
use xtrace_model::text::repair_json;
use xtrace_store::Committed;

use super::body::{self, BodyLimits, ReadBody};
use crate::api::error::ApiError;
use crate::auth;

pub use metrics::receive as receive_metrics;
pub use traces::receive as receive_traces;

/// The answer to everything that is stored.
fn stored() -> Json<Value> {
    Json(json!({"message": "Request Successful.", "data": null}))
}

/// Who calls, and the body; credentials are checked first.
async fn caller_and_body(
    request: Request,
    limits: &BodyLimits,
) -> Result<(Caller, ReadBody), ApiError> {
    let (parts, body) = request.into_parts();
    let caller = auth::caller(&parts.extensions).map_err(ApiError::Auth)?;
    Ok((caller, body::read(&parts.headers, body, limits).await?))
}

/// Decodes JSON, repaired where only its text is at fault. An error names the path of the member.
fn decode<T>(
    body: &[u8],
    decoded: impl FnOnce(T) -> Result<xtrace_model::Batch, ApiError>,
) -> Result<xtrace_model::Batch, ApiError>
where
    T: for<'de> Deserialize<'de>,
{
    let text = text_of(body)?;
    match serde_json::from_str(&text) {
        Ok(value) => decoded(value),
        Err(_) => Err(explain::<T>(&text)),
    }
}

/// The text of a body, which must be an object: structures would also be read from arrays, member by member.
fn text_of(body: &[u8]) -> Result<Cow<'_, str>, ApiError> {
    let text = repair_json(body);
    if text.trim_start().starts_with('[') {
        return Err(ApiError::BadRequest(
            "the body must be a JSON object".to_owned(),
        ));
    }
    Ok(text)
}

/// Decodes once more, slower, to find out where the fault is.
fn explain<'a, T: Deserialize<'a>>(text: &'a str) -> ApiError {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let outcome: Result<T, _> = serde_path_to_error::deserialize(&mut deserializer);
    let (path, fault) = match outcome {
        Err(error) => (error.path().to_string(), error.into_inner().to_string()),
        Ok(_) => (
            ".".to_owned(),
            "trailing characters after the JSON value".to_owned(),
        ),
    };
    if fault.contains(TOO_MANY) {
        return ApiError::TooLarge(format!("{path}: {fault}; send it in parts"));
    }
    match path.as_str() {
        "." => ApiError::BadRequest(fault),
        path => ApiError::BadRequest(format!("{path}: {fault}")),
    }
}

/// Marks the error of a list that is longer than its cap.
const TOO_MANY: &str = "too many items";

/// A list of at most `MAX` items: two bytes of JSON can become a structure of hundreds. Null is empty.
struct Capped<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> Default for Capped<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Capped<T, MAX> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const MAX: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> serde::de::Visitor<'de> for List<T, MAX> {
            type Value = Vec<T>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an array")
            }

            fn visit_none<E: serde::de::Error>(self) -> Result<Vec<T>, E> {
                Ok(Vec::new())
            }

            fn visit_some<D: serde::Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Vec<T>, D::Error> {
                deserializer.deserialize_seq(self)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX {
                        return Err(serde::de::Error::custom(format!(
                            "{TOO_MANY}, at most {MAX}"
                        )));
                    }
                    items.push(item);
                }
                Ok(items)
            }
        }
        deserializer
            .deserialize_option(List::<T, MAX>(std::marker::PhantomData))
            .map(Self)
    }
}

/// The native formats have no word for "all but these".
fn check_refused(committed: &Committed) -> Result<(), ApiError> {
    if committed.refused.is_empty() {
        return Ok(());
    }
    let ids = committed.refused.join(", ");
    let ids = xtrace_model::text::cut_chars(&ids, 500);
    Err(ApiError::BadRequest(format!(
        "the database can't hold {ids} as sent; everything else of the request is stored"
    )))
}
