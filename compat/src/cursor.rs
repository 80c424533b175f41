//! Cursors: where the next page begins, opaque to clients.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};

use crate::error::CompatError;
use crate::query::Query;

/// A cursor that was sent, decoded.
pub(crate) struct Cursor(Map<String, Value>);

/// The text of a cursor.
pub(crate) fn encode(position: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(position.to_string())
}

/// The same in the standard alphabet.
pub(crate) fn encode_standard(position: &Value) -> String {
    BASE64_STANDARD.encode(position.to_string())
}

/// A time as cursors hold it: to the microsecond, as it is stored.
pub(crate) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn malformed() -> CompatError {
    CompatError::BadRequest("Invalid cursor format".to_owned())
}

impl Cursor {
    /// Reads a cursor of either alphabet, padded or not.
    pub(crate) fn parse(text: &str) -> Result<Self, CompatError> {
        let plain = text
            .trim_end_matches('=')
            .replace('+', "-")
            .replace('/', "_");
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(plain)
            .map_err(|_| malformed())?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            _ => Err(malformed()),
        }
    }

    /// Reads the parameter `cursor`, whose version must be the one that is written.
    pub(crate) fn versioned(query: &Query) -> Result<Option<Self>, CompatError> {
        let Some(text) = query.text("cursor") else {
            return Ok(None);
        };
        let cursor = Self::parse(text)?;
        match cursor.0.get("v").and_then(Value::as_i64) {
            Some(1) => Ok(Some(cursor)),
            _ => Err(malformed()),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<String, CompatError> {
        let text = self.0.get(name).and_then(Value::as_str);
        text.map(str::to_owned).ok_or_else(malformed)
    }

    pub(crate) fn time(&self, name: &str) -> Result<DateTime<Utc>, CompatError> {
        let text = self.text(name)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(|_| malformed())?;
        Ok(time.with_timezone(&Utc))
    }
}
