//! Query parameters of native reads.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::error::ApiError;

/// Query parameters by name; of repeated ones the last counts.
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    pub(super) fn of(query: &str) -> Self {
        Self(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// A parameter that says something.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    /// A `+` that was sent unencoded arrives as a space.
    pub(super) fn time(&self, name: &str) -> Result<Option<DateTime<Utc>>, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let time = DateTime::parse_from_rfc3339(&text.replace(' ', "+")).map_err(|_| {
            bad(
                name,
                "must be an RFC 3339 time such as 2026-02-14T10:00:00Z",
            )
        })?;
        Ok(Some(time.with_timezone(&Utc)))
    }

    /// A whole number within bounds.
    pub(super) fn number(
        &self,
        name: &str,
        least: i64,
        most: i64,
    ) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number = text.parse().ok();
        let number = number.filter(|number| (least..=most).contains(number));
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(bad(
                name,
                &format!("must be a whole number from {least} to {most}"),
            )),
        }
    }

    /// `true` or `false`, which it is unless it is said.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad(name, "must be true or false")),
        }
    }

    /// Text that Postgres can compare with.
    pub(super) fn clean(&self, name: &str) -> Result<Option<String>, ApiError> {
        match self.text(name) {
            Some(text) if text.contains('\0') => Err(bad(name, "must not contain NUL characters")),
            text => Ok(text.map(str::to_owned)),
        }
    }
}

/// The answer to a parameter that is not as it must be.
pub(super) fn bad(parameter: &str, problem: &str) -> ApiError {
    ApiError::BadRequest(format!("{parameter} {problem}"))
}
