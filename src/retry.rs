//! How long refused clients are asked to wait.

use std::time::Duration;

use axum::http::StatusCode;

/// Exporters give up after some ten seconds in all, so a longer wait would lose their batch.
const SECONDS_MAX: u64 = 5;
const SECONDS_DEFAULT: u64 = 2;

/// The value of `Retry-After` for a status that asks to come again; none for other ones.
pub fn after(status: StatusCode, hint: Option<Duration>) -> Option<u64> {
    let retryable = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let seconds = hint.map_or(SECONDS_DEFAULT, |wait| wait.as_secs());
    retryable.then_some(seconds.clamp(1, SECONDS_MAX))
}
