//! What can go wrong, by what the caller can do about it.

use std::time::Duration;

use reqwest::{Response, StatusCode};

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base URL is none.
    #[error("invalid base url: {0}")]
    InvalidBaseUrl(#[from] url::ParseError),
    /// The token holds characters that no header can.
    #[error("the token holds characters that a header can't")]
    InvalidToken,
    /// The server could not be reached, or answered something else than this API.
    #[error("http error: {0}")]
    Http(#[from] reqwest::Error),
    /// The server refused the request.
    #[error("the server answered {status}: {message}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// Why, in the server's words.
        message: String,
        /// The server's code, such as `UNAUTHORIZED` or `TOO_MANY_REQUESTS`.
        code: Option<String>,
        /// How long to wait before the request is worth repeating.
        retry_after: Option<Duration>,
    },
}

impl Error {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                matches!(status.as_u16(), 429 | 502 | 503 | 504)
            }
            Self::Http(error) => error.is_timeout() || error.is_connect(),
            _ => false,
        }
    }
}

#[derive(serde::Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: Option<String>,
}

/// The response, if it is a success.
pub(crate) async fn check(response: Response) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok());
    let retry_after = retry_after
        .and_then(|seconds| seconds.parse().ok())
        .map(Duration::from_secs);
    let text = response.text().await.unwrap_or_default();
    let refusal = serde_json::from_str(&text).unwrap_or(Refusal {
        message: text,
        code: None,
    });
    Err(Error::Refused {
        status,
        message: refusal.message,
        code: refusal.code,
        retry_after,
    })
}
