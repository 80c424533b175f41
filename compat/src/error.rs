//! Errors in Langfuse's shapes: `{message, error}`; failed authentication has `message` alone.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use xtrace_model::AuthFailure;
use xtrace_store::{ANSWER_BYTES_MAX, StoreError};

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum CompatError {
    Auth(AuthFailure),
    /// A parameter is not as it must be; the issue is one of [`issue`].
    Invalid(Value),
    /// A batch is none.
    Envelope(String),
    /// The request makes no sense; the text says why.
    BadRequest(String),
    /// What is there already is in the way.
    Conflict(String),
    /// The caller may not do that; the text says why.
    Forbidden(String),
    /// No such thing in the caller's project.
    NotFound(String),
    NoSuchEndpoint,
    MethodNotAllowed,
    /// The handler panicked.
    Fault,
    /// The body holds more than is taken at once; the text says what and how much.
    BodyTooLarge(String),
    /// The answer would be too large.
    TooLarge(String),
    RateLimited {
        retry_after_s: u64,
        limit: u32,
        reset_at: String,
    },
    Store(StoreError),
}

impl From<StoreError> for CompatError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for CompatError {
    fn into_response(self) -> Response {
        let (status, body) = self.parts();
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        match &self {
            Self::Auth(_) if status == StatusCode::UNAUTHORIZED => {
                let realm = HeaderValue::from_static("Basic realm=\"xtrace\"");
                headers.insert(header::WWW_AUTHENTICATE, realm);
            }
            Self::RateLimited { retry_after_s, .. } => {
                headers.insert(header::RETRY_AFTER, (*retry_after_s).into());
            }
            Self::Store(
                StoreError::Overloaded { retry_after } | StoreError::Busy { retry_after },
            ) => {
                headers.insert(header::RETRY_AFTER, retry_after.as_secs().max(1).into());
            }
            _ if status == StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            Self::Store(error @ StoreError::Internal(_)) => {
                tracing::error!(cause = error.for_log(), "a query failed");
            }
            _ => {}
        }
        response
    }
}

impl CompatError {
    /// The answer with the name of its error, where a path adds one to refusals of credentials.
    pub(crate) fn into_named_response(self, error: &str) -> Response {
        let (status, mut body) = self.parts();
        body["error"] = error.into();
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let realm = HeaderValue::from_static("Basic realm=\"xtrace\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, realm);
        }
        response
    }

    fn parts(&self) -> (StatusCode, Value) {
        match self {
            Self::Auth(failure) => auth_parts(*failure),
            Self::Invalid(issue) => (
                StatusCode::BAD_REQUEST,
                json!({"message": "Invalid request data", "error": [issue]}),
            ),
            Self::Envelope(message) => (
                StatusCode::BAD_REQUEST,
                json!({"message": "Invalid request data", "errors": [message]}),
            ),
            Self::BadRequest(message) => {
                named(StatusCode::BAD_REQUEST, message, "InvalidRequestError")
            }
            Self::Conflict(message) => {
                named(StatusCode::CONFLICT, message, "LangfuseConflictError")
            }
            Self::Forbidden(message) => named(StatusCode::FORBIDDEN, message, "ForbiddenError"),
            Self::NotFound(message) => {
                named(StatusCode::NOT_FOUND, message, "LangfuseNotFoundError")
            }
            Self::NoSuchEndpoint => named(
                StatusCode::NOT_FOUND,
                "No such endpoint",
                "LangfuseNotFoundError",
            ),
            Self::MethodNotAllowed => named(
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
                "MethodNotAllowedError",
            ),
            Self::Fault => named(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Internal Server Error",
                "InternalServerError",
            ),
            Self::BodyTooLarge(message) => named(
                StatusCode::PAYLOAD_TOO_LARGE,
                message,
                "InvalidRequestError",
            ),
            Self::TooLarge(message) => named(
                StatusCode::UNPROCESSABLE_ENTITY,
                message,
                "PayloadTooLargeError",
            ),
            Self::RateLimited {
                retry_after_s,
                limit,
                reset_at,
            } => (
                StatusCode::TOO_MANY_REQUESTS,
                json!({"message": "Rate limit exceeded", "code": "rate_limited", "details": {
                    "retryAfterSeconds": retry_after_s, "limit": limit, "remaining": 0,
                    "resetAt": reset_at,
                }}),
            ),
            Self::Store(error) => store_parts(error),
        }
    }
}

fn named(status: StatusCode, message: &str, error: &str) -> (StatusCode, Value) {
    (status, json!({"message": message, "error": error}))
}

fn auth_parts(failure: AuthFailure) -> (StatusCode, Value) {
    const HOST: &str = "Confirm that you've configured the correct host.";
    let (status, message) = match failure {
        AuthFailure::Missing => (
            StatusCode::UNAUTHORIZED,
            "No authorization header".to_owned(),
        ),
        AuthFailure::Scheme => (
            StatusCode::UNAUTHORIZED,
            "Invalid authorization header".to_owned(),
        ),
        AuthFailure::Malformed => (
            StatusCode::UNAUTHORIZED,
            format!("Invalid authorization header. {HOST}"),
        ),
        AuthFailure::UnknownKeyPair => (
            StatusCode::UNAUTHORIZED,
            format!("Invalid credentials. {HOST}"),
        ),
        AuthFailure::UnknownToken => (
            StatusCode::UNAUTHORIZED,
            format!("Invalid public key. {HOST}"),
        ),
        AuthFailure::Insufficient => (
            StatusCode::FORBIDDEN,
            "Access denied - insufficient permissions for this endpoint".to_owned(),
        ),
        AuthFailure::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Service Unavailable".to_owned(),
        ),
    };
    (status, json!({"message": message}))
}

fn store_parts(error: &StoreError) -> (StatusCode, Value) {
    match error {
        StoreError::Overloaded { retry_after } | StoreError::Busy { retry_after } => (
            StatusCode::TOO_MANY_REQUESTS,
            json!({"message": "Rate limit exceeded", "code": "rate_limited",
                   "details": {"retryAfterSeconds": retry_after.as_secs().max(1)}}),
        ),
        StoreError::Unavailable(_) => named(
            StatusCode::SERVICE_UNAVAILABLE,
            "Service Unavailable",
            "ServiceUnavailableError",
        ),
        StoreError::TooLarge => named(
            StatusCode::UNPROCESSABLE_ENTITY,
            &format!(
                "The answer would have more than {} MB. Ask for less: a smaller limit, fields=core, a shorter time range, or the items one by one.",
                ANSWER_BYTES_MAX / 1_000_000
            ),
            "PayloadTooLargeError",
        ),
        StoreError::Timeout => named(
            StatusCode::UNPROCESSABLE_ENTITY,
            "The query took too long. Narrow the time range or add filters.",
            "Request timed out",
        ),
        StoreError::ProjectGone => named(
            StatusCode::NOT_FOUND,
            &error.to_string(),
            "LangfuseNotFoundError",
        ),
        StoreError::TooBroad(_) => named(
            StatusCode::UNPROCESSABLE_ENTITY,
            &error.to_string(),
            "UnprocessableEntityError",
        ),
        StoreError::Refused(_) => named(
            StatusCode::BAD_REQUEST,
            "A parameter holds a value that can't be compared.",
            "InvalidRequestError",
        ),
        StoreError::Internal(_) => named(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal Server Error",
            "An unknown error occurred",
        ),
    }
}

/// Descriptions of what is wrong with a parameter, as Langfuse's validator words them.
pub(crate) mod issue {
    use serde_json::{Value, json};

    /// The parameter is no number.
    pub(crate) fn not_a_number(path: &str) -> Value {
        json!({"expected": "number", "code": "invalid_type", "received": "NaN", "path": [path],
               "message": "Invalid input: expected number, received NaN"})
    }

    /// The parameter is no whole number.
    pub(crate) fn not_whole(path: &str) -> Value {
        json!({"expected": "int", "format": "safeint", "code": "invalid_type", "path": [path],
               "message": "Invalid input: expected int, received number"})
    }

    /// The number is below its minimum.
    pub(crate) fn too_small(path: &str, minimum: i64) -> Value {
        json!({"origin": "number", "code": "too_small", "minimum": minimum, "inclusive": true,
               "path": [path], "message": format!("Too small: expected number to be >={minimum}")})
    }

    /// The number is above its maximum.
    pub(crate) fn too_big(path: &str, maximum: i64) -> Value {
        json!({"origin": "number", "code": "too_big", "maximum": maximum, "inclusive": true,
               "path": [path], "message": format!("Too big: expected number to be <={maximum}")})
    }

    /// The text is no time with an offset.
    pub(crate) fn not_a_time(path: &str) -> Value {
        json!({"code": "invalid_format", "format": "datetime", "path": [path],
               "message": "Invalid ISO datetime"})
    }

    /// The text is none of the options.
    pub(crate) fn not_an_option(path: &str, options: &[&str]) -> Value {
        let quoted: Vec<String> = options
            .iter()
            .map(|option| format!("\"{option}\""))
            .collect();
        let message = format!("Invalid option: expected one of {}", quoted.join("|"));
        json!({"code": "invalid_value", "values": options, "path": [path], "message": message})
    }

    /// The value is of another type.
    pub(crate) fn wrong_type(path: &[&str], expected: &str, found: &Value) -> Value {
        let path = path.iter().map(|part| Value::from(*part)).collect();
        wrong_type_at(path, expected, found)
    }

    /// The same, where the path has numbers.
    pub(crate) fn wrong_type_at(path: Vec<Value>, expected: &str, found: &Value) -> Value {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        json!({"expected": expected, "code": "invalid_type", "path": path,
               "message": format!("Invalid input: expected {expected}, received {found}")})
    }

    /// The value is not there.
    pub(crate) fn missing(path: &[&str], expected: &str) -> Value {
        json!({"expected": expected, "code": "invalid_type", "path": path,
               "message": format!("Invalid input: expected {expected}, received undefined")})
    }

    /// The text has too few characters.
    pub(crate) fn short(path: &str, minimum: usize) -> Value {
        let message = format!("Too small: expected string to have >={minimum} characters");
        json!({"origin": "string", "code": "too_small", "minimum": minimum, "inclusive": true,
               "path": [path], "message": message})
    }

    /// The text has too many characters.
    pub(crate) fn long(path: &str, maximum: usize) -> Value {
        let message = format!("Too big: expected string to have <={maximum} characters");
        json!({"origin": "string", "code": "too_big", "maximum": maximum, "inclusive": true,
               "path": [path], "message": message})
    }

    /// The list has too many items.
    pub(crate) fn many(path: &[Value], maximum: usize) -> Value {
        let message = format!("Too big: expected array to have <={maximum} items");
        json!({"origin": "array", "code": "too_big", "maximum": maximum, "inclusive": true,
               "path": path, "message": message})
    }

    /// Names that nobody knows.
    pub(crate) fn unrecognized(names: &[&str]) -> Value {
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let keys = if names.len() == 1 { "key" } else { "keys" };
        let message = format!("Unrecognized {keys}: {}", quoted.join(", "));
        json!({"code": "unrecognized_keys", "keys": names, "path": [], "message": message})
    }

    /// A fault of the whole body.
    pub(crate) fn of_whole(message: &str) -> Value {
        json!({"code": "custom", "message": message, "path": []})
    }

    /// Any other fault.
    pub(crate) fn custom(path: &[Value], message: &str) -> Value {
        json!({"code": "custom", "path": path, "message": message})
    }
}
