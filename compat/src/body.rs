//! Bodies as Langfuse reads them: JSON, checked member by member, faults worded as its validator does.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde_json::{Map, Value, json};
use xtrace_model::text::{repair_json, without_nul};
use xtrace_model::{Micros, json as rules, time};

use crate::error::{CompatError, issue};

/// A body of JSON, of a size that can be held as values.
pub(crate) struct JsonBody(pub(crate) Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = CompatError;

    async fn from_request(request: Request, state: &S) -> Result<Self, CompatError> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|_| CompatError::BadRequest("The body could not be read".to_owned()))?;
        let length = bytes.len();
        aside(length, move || rules::parse(&repair_json(&bytes)))
            .await?
            .map(Self)
            .ok_or_else(|| CompatError::BadRequest("Invalid JSON body".to_owned()))
    }
}

/// Bodies above this are decoded away from the threads that serve requests.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Does work on so many bytes: at once if they are few, else where it holds up nobody.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CompatError> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(work());
    }
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.map_err(|_| CompatError::Fault)
}

/// Items of a list within a request at most, where no list says otherwise.
pub(crate) const ITEMS_MAX: usize = 1000;

/// The items of a list, if they are not too many.
pub(crate) fn few<'a>(items: &'a [Value], path: &[Value]) -> Result<&'a [Value], Issue> {
    if items.len() > ITEMS_MAX {
        return Err(issue::many(path, ITEMS_MAX));
    }
    Ok(items)
}

/// What is wrong with a member: an issue of [`issue`].
pub(crate) type Issue = Value;

/// An object whose members are read one by one.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a>(&'a Map<String, Value>);

impl<'a> Object<'a> {
    /// Takes a value that must be an object; `path` is where it stands.
    pub(crate) fn of(value: &'a Value, path: &str) -> Result<Self, Issue> {
        match value {
            Value::Object(members) => Ok(Self(members)),
            other => {
                let path: &[&str] = if path.is_empty() { &[] } else { &[path] };
                Err(issue::wrong_type(path, "object", other))
            }
        }
    }

    /// The body of a request.
    pub(crate) fn of_body(body: &'a Value) -> Result<Self, CompatError> {
        Self::of(body, "").map_err(CompatError::Invalid)
    }

    /// The member, if it is there; it may be null.
    pub(crate) fn sent(self, name: &str) -> Option<&'a Value> {
        self.0.get(name)
    }

    /// The member, if it is there and not null.
    pub(crate) fn get(self, name: &str) -> Option<&'a Value> {
        self.sent(name).filter(|value| !value.is_null())
    }

    /// Whether the member is there and null.
    pub(crate) fn is_null(self, name: &str) -> bool {
        self.sent(name).is_some_and(Value::is_null)
    }

    /// Refuses members of other names.
    pub(crate) fn only(self, names: &[&str]) -> Result<Self, Issue> {
        let unknown = self.0.keys().filter(|name| !names.contains(&name.as_str()));
        let unknown: Vec<&str> = unknown.map(String::as_str).collect();
        if unknown.is_empty() {
            return Ok(self);
        }
        Err(issue::unrecognized(&unknown))
    }

    /// A text; absent and null are none.
    pub(crate) fn text(self, name: &str) -> Result<Option<String>, Issue> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(without_nul(text).into_owned())),
            Some(other) => Err(issue::wrong_type(&[name], "string", other)),
        }
    }

    /// A text that must be there, of at least `chars_min` characters.
    pub(crate) fn required_text(self, name: &str, chars_min: usize) -> Result<String, Issue> {
        let Some(text) = self.text(name)? else {
            let found = self.sent(name).unwrap_or(&Value::Null);
            return Err(if self.sent(name).is_some() {
                issue::wrong_type(&[name], "string", found)
            } else {
                issue::missing(&[name], "string")
            });
        };
        if text.chars().count() < chars_min {
            return Err(issue::short(name, chars_min));
        }
        Ok(text)
    }

    /// A number; absent and null are none.
    pub(crate) fn number(self, name: &str) -> Result<Option<f64>, Issue> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match number.as_f64().filter(|n| n.is_finite()) {
                Some(number) => Ok(Some(number)),
                None => Err(issue::not_a_number(name)),
            },
            Some(other) => Err(issue::wrong_type(&[name], "number", other)),
        }
    }

    /// A whole number; absent and null are none.
    pub(crate) fn whole(self, name: &str) -> Result<Option<i64>, Issue> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match number.as_i64() {
                Some(number) => Ok(Some(number)),
                None => match number.as_f64() {
                    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole")]
                    Some(float) if float.fract() == 0.0 && float.abs() < 9e15 => {
                        Ok(Some(float as i64))
                    }
                    _ => Err(issue::not_whole(name)),
                },
            },
            Some(other) => Err(issue::wrong_type(&[name], "number", other)),
        }
    }

    /// A truth value; absent and null are none.
    pub(crate) fn truth(self, name: &str) -> Result<Option<bool>, Issue> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(*truth)),
            Some(other) => Err(issue::wrong_type(&[name], "boolean", other)),
        }
    }

    /// A time with an offset; absent and null are none.
    pub(crate) fn time(self, name: &str) -> Result<Option<Micros>, Issue> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => match time::parse_rfc3339(text) {
                Some(time) => Ok(Some(time)),
                None => Err(issue::not_a_time(name)),
            },
            Some(other) => Err(issue::wrong_type(&[name], "string", other)),
        }
    }

    /// One of some options; absent and null are none.
    pub(crate) fn option(
        self,
        name: &str,
        options: &[&'static str],
    ) -> Result<Option<&'static str>, Issue> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => value
                .as_str()
                .and_then(|text| options.iter().copied().find(|option| *option == text))
                .map(Some)
                .ok_or_else(|| issue::not_an_option(name, options)),
        }
    }

    /// A list; absent and null are none.
    pub(crate) fn list(self, name: &str) -> Result<Option<&'a [Value]>, Issue> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) => few(items, &[json!(name)]).map(Some),
            Some(other) => Err(issue::wrong_type(&[name], "array", other)),
        }
    }

    /// A list of texts; absent and null are none.
    pub(crate) fn texts(self, name: &str) -> Result<Option<Vec<String>>, Issue> {
        let text = |(index, item): (usize, &Value)| match item {
            Value::String(text) => Ok(without_nul(text).into_owned()),
            other => Err(issue::wrong_type_at(
                vec![json!(name), json!(index)],
                "string",
                other,
            )),
        };
        let items = self.list(name)?;
        let texts = items.map(|items| items.iter().enumerate().map(text).collect());
        texts.transpose()
    }

    /// An object; absent and null are none.
    pub(crate) fn object(self, name: &str) -> Result<Option<Object<'a>>, Issue> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => Self::of(value, name).map(Some),
        }
    }

    /// The members as they are.
    pub(crate) fn members(self) -> &'a Map<String, Value> {
        self.0
    }
}

/// Content as it is stored: a text as it is, any other value as JSON text; null and "" are none.
pub(crate) fn content(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(without_nul(text).into_owned()),
        other => Some(rules::storable(other.clone()).to_string()),
    }
}
