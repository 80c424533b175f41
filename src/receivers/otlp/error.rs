//! Why exporters are refused, with the numbers that say it over HTTP and over gRPC.

use std::time::Duration;

use axum::http::StatusCode;
use xtrace_model::AuthFailure;
use xtrace_store::StoreError;

use super::wire::DecodeError;
use crate::receivers::body::BodyError;

/// Why a request is refused as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum OtlpError {
    #[error("{}", auth_message(*.0))]
    Auth(AuthFailure),
    #[error("no such endpoint; OTLP exporters post to /v1/traces and /v1/logs")]
    NoSuchEndpoint,
    #[error("a gRPC request is one message behind a prefix of five bytes")]
    GrpcFrame,
    #[error("this endpoint takes POST only")]
    Method,
    #[error("Content-Type must be application/x-protobuf or application/json")]
    ContentType,
    #[error("this request met a fault of the server, which is logged; nothing of it was taken")]
    Fault,
    #[error("{0}")]
    IngestionVersion(String),
    /// Refused before a handler was asked.
    #[error("{1}")]
    Outside(StatusCode, String),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn auth_message(failure: AuthFailure) -> &'static str {
    match failure {
        AuthFailure::Missing => "no authorization header; send Basic public:secret or Bearer token",
        AuthFailure::Scheme | AuthFailure::Malformed => "the authorization header is malformed",
        AuthFailure::UnknownKeyPair | AuthFailure::UnknownToken => "unknown credentials",
        AuthFailure::Insufficient => {
            "this credential may not do that: a public key alone writes scores, and keys have scopes"
        }
        AuthFailure::Unavailable => "the database is unavailable; try again",
    }
}

/// The number of a status. Source: gRPC, "HTTP to gRPC Status Code Mapping", with more of its causes.
fn code_of(status: StatusCode) -> u8 {
    match status {
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => 12,
        StatusCode::REQUEST_TIMEOUT => 4,
        StatusCode::TOO_MANY_REQUESTS => 8,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        status if status.is_client_error() => 3,
        _ => 13,
    }
}

impl OtlpError {
    /// HTTP status and the number of the gRPC status.
    pub(super) fn status(&self) -> (StatusCode, u8) {
        match self {
            Self::Auth(AuthFailure::Insufficient) => (StatusCode::FORBIDDEN, 7),
            Self::Auth(AuthFailure::Unavailable) => (StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::Auth(_) => (StatusCode::UNAUTHORIZED, 16),
            Self::NoSuchEndpoint => (StatusCode::NOT_FOUND, 12),
            Self::Store(StoreError::ProjectGone) => (StatusCode::NOT_FOUND, 5),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, 12),
            Self::ContentType | Self::Body(BodyError::Encoding) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, 3)
            }
            Self::Body(BodyError::TooLarge { .. }) | Self::Decode(DecodeError::TooMany(_)) => {
                (StatusCode::PAYLOAD_TOO_LARGE, 3)
            }
            Self::Body(BodyError::Overloaded) => (StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::Body(BodyError::Slow) => (StatusCode::REQUEST_TIMEOUT, 4),
            Self::Fault | Self::Body(BodyError::Fault) => (StatusCode::INTERNAL_SERVER_ERROR, 13),
            Self::Body(BodyError::TooMuch(_)) => (StatusCode::TOO_MANY_REQUESTS, 8),
            Self::Body(BodyError::Corrupt | BodyError::Members | BodyError::Broken)
            | Self::Decode(DecodeError::Protobuf(_) | DecodeError::Json(_))
            | Self::IngestionVersion(_)
            | Self::GrpcFrame
            | Self::Store(StoreError::Refused(_)) => (StatusCode::BAD_REQUEST, 3),
            Self::Store(StoreError::Overloaded { .. } | StoreError::Busy { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, 8)
            }
            Self::Store(
                StoreError::Unavailable(_)
                | StoreError::Timeout
                | StoreError::TooLarge
                | StoreError::TooBroad(_),
            ) => (StatusCode::SERVICE_UNAVAILABLE, 14),
            // Clients drop what gets a 500; rows that were not committed must come again.
            Self::Store(StoreError::Internal(_)) => (StatusCode::SERVICE_UNAVAILABLE, 13),
            Self::Outside(status, _) => (*status, code_of(*status)),
        }
    }

    /// The number of the status over gRPC. Source: OTLP specification, "OTLP/gRPC Response".
    pub(super) fn grpc_code(&self) -> u8 {
        const RESOURCE_EXHAUSTED: u8 = 8;
        const UNIMPLEMENTED: u8 = 12;
        const UNAVAILABLE: u8 = 14;
        match self.status() {
            (StatusCode::PAYLOAD_TOO_LARGE, _) => RESOURCE_EXHAUSTED,
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, _) => UNIMPLEMENTED,
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _) => UNAVAILABLE,
            (_, code) => code,
        }
    }

    /// Seconds after which the same request may succeed; none if it never will.
    pub(super) fn retry_after(&self) -> Option<u64> {
        let hint = match self {
            Self::Store(
                StoreError::Overloaded { retry_after } | StoreError::Busy { retry_after },
            ) => Some(*retry_after),
            Self::Body(BodyError::TooMuch(refusal)) => Some(refusal.wait()),
            _ => None::<Duration>,
        };
        crate::retry::after(self.status().0, hint)
    }
}
