//! Errors of the native API: `{"message", "code", "data": null}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use xtrace_model::AuthFailure;
use xtrace_store::StoreError;

use crate::limits::Refusal;
use crate::receivers::body::BodyError;

/// Why a native request is refused.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The caller is unknown, or may not do this.
    #[error("{}", auth_message(*.0))]
    Auth(AuthFailure),
    /// The request names another project.
    #[error("{0} belongs to another project than these credentials")]
    Forbidden(&'static str),
    /// The request is malformed; the text says where.
    #[error("{0}")]
    BadRequest(String),
    /// Nothing is here.
    #[error("no such endpoint: {0}")]
    NotFound(String),
    /// The path takes other methods.
    #[error("this endpoint does not take that method")]
    MethodNotAllowed,
    /// The request has too many items.
    #[error("{0}")]
    TooLarge(String),
    /// The body can't be had.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The handler panicked.
    #[error("this request met a fault of the server, which is logged")]
    Fault,
    /// Refused before a handler was asked; the text says why.
    #[error("{1}")]
    Outside(StatusCode, String),
    /// Too many reads.
    #[error("Too Many Requests")]
    TooManyRequests(Refusal),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn auth_message(failure: AuthFailure) -> &'static str {
    match failure {
        AuthFailure::Missing => "authorization is required: Bearer token or Basic public:secret",
        AuthFailure::Scheme | AuthFailure::Malformed => "the authorization header is malformed",
        AuthFailure::UnknownKeyPair | AuthFailure::UnknownToken => "unknown credentials",
        AuthFailure::Insufficient => {
            "this credential may not do that: a public key alone writes scores, and keys have scopes"
        }
        AuthFailure::Unavailable => "the database is unavailable",
    }
}

fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
        StatusCode::FORBIDDEN => "FORBIDDEN",
        StatusCode::NOT_FOUND => "NOT_FOUND",
        StatusCode::METHOD_NOT_ALLOWED => "METHOD_NOT_ALLOWED",
        StatusCode::REQUEST_TIMEOUT => "TIMEOUT",
        StatusCode::PAYLOAD_TOO_LARGE => "PAYLOAD_TOO_LARGE",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "UNSUPPORTED_MEDIA_TYPE",
        StatusCode::TOO_MANY_REQUESTS => "TOO_MANY_REQUESTS",
        StatusCode::SERVICE_UNAVAILABLE => "SERVICE_UNAVAILABLE",
        status if status.is_client_error() => "BAD_REQUEST",
        _ => "INTERNAL_ERROR",
    }
}

impl ApiError {
    fn status(&self) -> (StatusCode, &'static str) {
        const UNAVAILABLE: (StatusCode, &str) =
            (StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE");
        match self {
            Self::Auth(AuthFailure::Insufficient) | Self::Forbidden(_) => {
                (StatusCode::FORBIDDEN, "FORBIDDEN")
            }
            Self::Auth(AuthFailure::Unavailable) => UNAVAILABLE,
            Self::Auth(_) => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::BadRequest(_)
            | Self::Body(BodyError::Corrupt | BodyError::Members | BodyError::Broken) => {
                (StatusCode::BAD_REQUEST, "BAD_REQUEST")
            }
            Self::Body(BodyError::Overloaded) => UNAVAILABLE,
            Self::Body(BodyError::Slow) => (StatusCode::REQUEST_TIMEOUT, "TIMEOUT"),
            Self::Fault | Self::Body(BodyError::Fault) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR")
            }
            Self::Body(BodyError::Encoding) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE")
            }
            Self::Body(BodyError::TooLarge { .. }) | Self::TooLarge(_) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE")
            }
            Self::Outside(status, _) => (*status, code_of(*status)),
            Self::NotFound(_) | Self::Store(StoreError::ProjectGone) => {
                (StatusCode::NOT_FOUND, "NOT_FOUND")
            }
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
            Self::TooManyRequests(_)
            | Self::Body(BodyError::TooMuch(_))
            | Self::Store(StoreError::Overloaded { .. } | StoreError::Busy { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS")
            }
            Self::Store(StoreError::Unavailable(_)) => UNAVAILABLE,
            Self::Store(StoreError::TooLarge) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "ANSWER_TOO_LARGE")
            }
            Self::Store(StoreError::Timeout) => (StatusCode::GATEWAY_TIMEOUT, "TIMEOUT"),
            Self::Store(StoreError::TooBroad(_)) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "QUESTION_TOO_LARGE")
            }
            Self::Store(StoreError::Refused(_)) => (StatusCode::BAD_REQUEST, "BAD_REQUEST"),
            Self::Store(StoreError::Internal(_)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR")
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.status();
        if let Self::Store(error @ StoreError::Internal(_)) = &self {
            tracing::error!(cause = error.for_log(), "a query failed");
        }
        let mut body = json!({"message": self.to_string(), "code": code, "data": null});
        let mut hint = None;
        match &self {
            Self::TooManyRequests(refusal) | Self::Body(BodyError::TooMuch(refusal)) => {
                body["meta"] =
                    json!({"rate_limit": {"remaining": 0, "reset_at": refusal.reset_at()}});
                hint = Some(std::time::Duration::from_secs(refusal.seconds()));
            }
            Self::Store(
                StoreError::Overloaded { retry_after } | StoreError::Busy { retry_after },
            ) => hint = Some(*retry_after),
            _ => {}
        }
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = crate::retry::after(status, hint) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"xtrace\""),
            );
        }
        response
    }
}
