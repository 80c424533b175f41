//! Answers that may be long, made piece by piece.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::Value;
use xtrace_model::Pieces;

/// An object with lists, of which no row is held once it is text.
pub(crate) struct Answer(Pieces);

impl Answer {
    /// Begins with the members of `head`, which must be an object.
    pub(crate) fn of(head: &impl Serialize) -> Self {
        Self(Pieces::of(head))
    }

    pub(crate) fn list<T: Serialize>(self, name: &str, rows: impl IntoIterator<Item = T>) -> Self {
        Self(self.0.list(name, rows))
    }
}

/// A page: rows under `data`, and `meta`.
pub(crate) fn page<T: Serialize>(rows: impl IntoIterator<Item = T>, meta: &Value) -> Answer {
    Answer(Pieces::new().list("data", rows).member("meta", meta))
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let (pieces, bytes) = self.0.finish();
        let pieces = pieces
            .into_iter()
            .map(|piece| Ok::<_, Infallible>(Bytes::from(piece)));
        let mut response = Body::from_stream(stream::iter(pieces)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, bytes.into());
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        response
    }
}
