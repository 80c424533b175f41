//! Query parameters as Langfuse reads them.

use std::borrow::Cow;
use std::collections::HashMap;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use chrono::{DateTime, SecondsFormat, Utc};
use percent_encoding::percent_decode_str;
use xtrace_model::{Micros, time};
use xtrace_store::Page;

use crate::body::ITEMS_MAX;
use crate::error::{CompatError, issue};
use crate::filter;

/// The parameters of a request, in order, decoded.
pub(crate) struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = CompatError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, CompatError> {
        let query = Self::parse(parts.uri.query().unwrap_or_default());
        query.check_counts()?;
        Ok(query)
    }
}

/// Parameters of a request at most.
const PARAMETERS_MAX: usize = 1000;
/// Parameters that are JSON, whose commas separate no values.
const JSON_PARAMETERS: [&str; 2] = ["filter", "query"];

/// The id at the end of a path, decoded.
pub(crate) struct PathId(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = CompatError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CompatError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(CompatError::BadRequest(
                "The path is no valid UTF-8".to_owned(),
            )),
        }
    }
}

/// A name at the end of a path. Some clients encode it twice, so it has two readings.
pub(crate) struct Name(String);

impl Name {
    /// As the path has it.
    pub(crate) fn decoded(&self) -> &str {
        &self.0
    }

    /// A name in a parameter.
    pub(crate) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// What it may stand for, the plain one first.
    pub(crate) fn readings(&self) -> Vec<String> {
        let mut readings = vec![self.0.clone()];
        let again = percent_decode_str(&self.0).decode_utf8();
        let again = again.ok().filter(|again| *again != self.0);
        readings.extend(again.map(Cow::into_owned));
        readings
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = CompatError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CompatError> {
        let PathId(name) = PathId::from_request_parts(parts, state).await?;
        Ok(Self(name))
    }
}

/// A name within a path, and the id at its end.
pub(crate) struct PathPair(pub(crate) Name, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathPair {
    type Rejection = CompatError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CompatError> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((name, id))) => Ok(Self(Name(name), id)),
            Err(_) => Err(CompatError::BadRequest(
                "The path is no valid UTF-8".to_owned(),
            )),
        }
    }
}

/// Two names within a path.
pub(crate) struct PathNames(pub(crate) Name, pub(crate) Name);

impl<S: Send + Sync> FromRequestParts<S> for PathNames {
    type Rejection = CompatError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CompatError> {
        let PathPair(first, second) = PathPair::from_request_parts(parts, state).await?;
        Ok(Self(first, Name(second)))
    }
}

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        Self(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// Refuses more parameters, or more values of one name, than any question needs.
    fn check_counts(&self) -> Result<(), CompatError> {
        let mut values: HashMap<&str, usize> = HashMap::new();
        for (name, value) in &self.0 {
            let count = values.entry(name).or_default();
            *count += 1;
            if !JSON_PARAMETERS.contains(&name.as_str()) {
                *count += value.matches(',').count();
            }
            if *count > ITEMS_MAX {
                return Err(CompatError::Invalid(issue::many(
                    &[name.as_str().into()],
                    ITEMS_MAX,
                )));
            }
        }
        if self.0.len() > PARAMETERS_MAX {
            return Err(CompatError::BadRequest(format!(
                "A request has at most {PARAMETERS_MAX} query parameters"
            )));
        }
        Ok(())
    }

    /// The parameter's text, also when it is empty: that filters for the empty text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Several values: repeated parameters, or one with commas.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let values = self
            .0
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value);
        let pieces = values.flat_map(|value| value.split(',')).map(str::trim);
        pieces
            .filter(|piece| !piece.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// A time with an offset.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Micros>, CompatError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        // A `+` that was sent unencoded arrives as a space.
        match time::parse_rfc3339(&text.replace(' ', "+")) {
            Some(time) => Ok(Some(time)),
            None => Err(CompatError::Invalid(issue::not_a_time(name))),
        }
    }

    /// One of some options.
    pub(crate) fn option(&self, name: &str, options: &[&str]) -> Result<Option<&str>, CompatError> {
        match self.text(name) {
            Some(text) if !options.contains(&text) => {
                Err(CompatError::Invalid(issue::not_an_option(name, options)))
            }
            found => Ok(found),
        }
    }

    /// `page` from 1, `limit` from 1 to 100, 50 without; empty ones count as absent.
    pub(crate) fn page(&self) -> Result<Page, CompatError> {
        self.page_of(50)
    }

    /// The same with another limit.
    pub(crate) fn page_of(&self, limit_default: i64) -> Result<Page, CompatError> {
        const LIMIT_MAX: i64 = 100;
        let number = self.whole("page")?.unwrap_or(1);
        let limit = self.whole("limit")?.unwrap_or(limit_default);
        if limit > LIMIT_MAX {
            return Err(CompatError::Invalid(issue::too_big("limit", LIMIT_MAX)));
        }
        Ok(Page { number, limit })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Refuses parameters of other names.
    pub(crate) fn only(&self, names: &[&str]) -> Result<(), CompatError> {
        let unknown = self.names().filter(|name| !names.contains(name));
        let unknown: Vec<&str> = unknown.collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(CompatError::Invalid(issue::unrecognized(&unknown)))
    }

    /// A whole number from 1 to a maximum; an empty one counts as absent.
    pub(crate) fn whole_up_to(
        &self,
        name: &str,
        default: i64,
        maximum: i64,
    ) -> Result<i64, CompatError> {
        match self.whole(name)?.unwrap_or(default) {
            number if number > maximum => Err(CompatError::Invalid(issue::too_big(name, maximum))),
            number => Ok(number),
        }
    }

    /// A time that may be a day, or lack its offset; an empty one counts as absent.
    pub(crate) fn lenient_time(&self, name: &str) -> Result<Option<Micros>, CompatError> {
        match self.text(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => filter::lenient_time(&text.replace(' ', "+"))
                .map(Some)
                .ok_or_else(|| CompatError::Invalid(issue::not_a_time(name))),
        }
    }

    /// A whole number from 1; an empty one counts as absent.
    pub(crate) fn whole(&self, name: &str) -> Result<Option<i64>, CompatError> {
        let Some(text) = self.text(name).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let invalid = |issue| Err(CompatError::Invalid(issue));
        match text.parse::<i64>() {
            Ok(number) if number < 1 => invalid(issue::too_small(name, 1)),
            Ok(number) => Ok(Some(number)),
            Err(_) if text.parse::<f64>().is_ok() => invalid(issue::not_whole(name)),
            Err(_) => invalid(issue::not_a_number(name)),
        }
    }
}

/// `meta` of a page.
pub(crate) fn meta(page: Page, total: i64) -> serde_json::Value {
    let pages = (total + page.limit - 1) / page.limit;
    serde_json::json!({
        "page": page.number, "limit": page.limit, "totalItems": total, "totalPages": pages,
    })
}

/// A time as JavaScript prints it: milliseconds, `Z`.
pub(crate) fn iso(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
