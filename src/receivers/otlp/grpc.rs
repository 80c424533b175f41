//! One message in, one out, in gRPC's frames. Source: gRPC over HTTP/2.
//!
//! Written out here, since a message is read like any other body: within the budget of memory, which
//! a library that buffers it first can't know.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};

use super::error::OtlpError;
use super::protobuf_out;
use crate::receivers::body::{self, BodyError, Encoding, Quota, ReadBody};

const MEDIA_TYPE: &str = "application/grpc";
const STATUS: &str = "grpc-status";
const ENCODING: &str = "grpc-encoding";
/// Whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Whether a request is one of gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok());
    let kind = media_type.and_then(|text| text.strip_prefix(MEDIA_TYPE));
    kind.is_some_and(|kind| matches!(kind.trim(), "" | "+proto") || kind.starts_with(';'))
}

/// How the message is compressed, if its prefix says that it is.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, BodyError> {
    body::encoding_of(headers.get(ENCODING))
}

/// Reads the message of a request.
pub(super) async fn read(parts: &Parts, body: Body, quota: &Quota) -> Result<ReadBody, OtlpError> {
    let encoding = encoding(&parts.headers)?;
    let mut frame = body::read_raw(&parts.headers, body, quota).await?;
    let (is_compressed, message) = message(frame.bytes).ok_or(OtlpError::GrpcFrame)?;
    frame.bytes = message;
    let encoding = if is_compressed {
        encoding
    } else {
        Encoding::Identity
    };
    Ok(body::inflate_raw(encoding, frame, quota).await?)
}

/// The one message of a body, and whether it is compressed.
pub(super) fn message(mut frame: Bytes) -> Option<(bool, Bytes)> {
    if frame.len() < PREFIX_BYTES {
        return None;
    }
    let is_compressed = match frame.get_u8() {
        0 => false,
        1 => true,
        _ => return None,
    };
    let length = usize::try_from(frame.get_u32()).ok()?;
    (frame.len() == length).then_some((is_compressed, frame))
}

/// A message and the status OK.
pub(super) fn accepted(message: &[u8]) -> Response {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    let body = Full::<Bytes>::from(frame).with_trailers(std::future::ready(Some(Ok(trailers))));
    let headers = [(header::CONTENT_TYPE, MEDIA_TYPE)];
    (StatusCode::OK, headers, Body::new(body)).into_response()
}

/// A status without a message, all in the headers.
pub(super) fn refused(error: &OtlpError) -> Response {
    let message = error.to_string();
    let code = error.grpc_code();
    let mut details = protobuf_out::status(code, &message);
    if let Some(seconds) = error.retry_after() {
        protobuf_out::put_retry_info(&mut details, seconds);
    }
    let headers = [
        (header::CONTENT_TYPE.as_str(), MEDIA_TYPE.to_owned()),
        (STATUS, code.to_string()),
        ("grpc-message", percent_encoded(&message)),
        ("grpc-status-details-bin", STANDARD_NO_PAD.encode(details)),
        ("grpc-accept-encoding", body::ENCODINGS.replace(' ', "")),
    ];
    (StatusCode::OK, headers).into_response()
}

/// What gRPC allows in `grpc-message`: printable ASCII but `%`.
fn percent_encoded(message: &str) -> String {
    let encode = |byte: u8| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    message.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_whole_message() {
        let check = |frame: &'static [u8], expected: Option<(bool, &'static [u8])>| {
            let expected = expected.map(|(flag, bytes)| (flag, Bytes::from_static(bytes)));
            assert_eq!(message(Bytes::from_static(frame)), expected, "{frame:?}");
        };
        check(b"\0\0\0\0\x02ab", Some((false, b"ab")));
        check(b"\x01\0\0\0\0", Some((true, b"")));
        check(b"", None);
        check(b"\0\0\0\0", None);
        check(b"\x02\0\0\0\0", None);
        check(b"\0\0\0\0\x03ab", None);
        check(b"\0\0\0\0\x01ab", None);
        check(b"\0\xff\xff\xff\xffab", None);
    }

    #[test]
    fn messages_are_encoded_as_headers_need() {
        assert_eq!(
            percent_encoded("50 % of \"ü\"\n"),
            "50 %25 of \"%C3%BC\"%0A"
        );
    }
}
