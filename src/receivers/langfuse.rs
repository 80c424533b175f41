//! Bodies for the Langfuse facade: read within the limits of all, and handed on whole.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use xtrace_model::caller::ScoreWriter;

use super::body::{self, Account, BodyError};
use crate::auth;
use crate::gateway::Gateway;

/// Middleware: reads the body of a request that has one, decompresses it, and holds its share of the
/// memory until the answer. Callers without credentials are refused by the handler, unread.
pub async fn read_body(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let is_read = !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    let (mut parts, body) = request.into_parts();
    let account = match auth::caller(&parts.extensions) {
        Ok(caller) => Some(Account::Project(caller.project)),
        Err(_) => {
            let writer = parts.extensions.get::<ScoreWriter>();
            writer.map(|writer| Account::PublicKey(writer.0.clone()))
        }
    };
    let Some(account) = account.filter(|_| is_read) else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let quota = gateway.body_limits.of(account);
    let read = match body::read(&parts.headers, body, &quota).await {
        Ok(read) => read,
        Err(error) => return refuse(error),
    };
    parts.headers.remove(header::CONTENT_ENCODING);
    let body::ReadBody { bytes, share } = read;
    let answer = next
        .run(Request::from_parts(parts, Body::from(bytes)))
        .await;
    drop(share);
    answer
}

fn refuse(error: BodyError) -> Response {
    let status = match error {
        BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        BodyError::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        BodyError::TooMuch(refusal) => {
            return xtrace_compat::rate_limited(
                refusal.seconds(),
                refusal.limit,
                &refusal.reset_at(),
            );
        }
        BodyError::Corrupt | BodyError::Members | BodyError::Broken => StatusCode::BAD_REQUEST,
        BodyError::Fault => StatusCode::INTERNAL_SERVER_ERROR,
        BodyError::Slow => StatusCode::REQUEST_TIMEOUT,
    };
    let mut response = xtrace_compat::refused(status, &error.to_string());
    if let Some(seconds) = crate::retry::after(status, None) {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
