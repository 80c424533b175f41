//! Request bodies: read and inflated within one limit, whatever their headers claim, and all requests
//! together within one budget of memory.

mod budget;
mod encoding;

use std::error::Error;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::listener::TooSlow;
use crate::self_metrics;

pub use budget::{BodyLimits, Share};
pub use encoding::{Encoding, NAMES as ENCODINGS};

/// Why a body can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than allowed, on the wire or inflated.
    #[error("the body is larger than {limit_bytes} bytes, on the wire or decompressed")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// Too many bytes of other requests are being read; nothing was taken.
    #[error("too many large requests at once; send it again later")]
    Overloaded,
    /// A `Content-Encoding` that nobody here knows.
    #[error("unsupported encoding of the body; use one of {ENCODINGS}")]
    Encoding,
    /// The compressed stream is broken or ends early.
    #[error("the compressed body is malformed or truncated")]
    Corrupt,
    /// The client went away before the body was whole.
    #[error("the body could not be read to its end")]
    Broken,
    /// Inflating it failed for a fault of ours.
    #[error("the body could not be decompressed for a fault of this server")]
    Fault,
    /// The client did not send all of it in time.
    #[error("the body arrives too slowly; send it in smaller parts")]
    Slow,
}

impl BodyError {
    /// A short name, for counting.
    fn name(self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "body_too_large",
            Self::Overloaded => "bodies_too_many",
            Self::Encoding => "content_encoding",
            Self::Corrupt => "body_corrupt",
            Self::Broken => "body_broken_off",
            Self::Fault => "body_fault",
            Self::Slow => "body_slow",
        }
    }
}

/// What a byte of a body takes, decoded, mapped and written, as measured with spans of 2 kB.
const BYTES_EACH: usize = 5;
/// How much larger a compressed body is, at a guess, until it is known.
const INFLATED_GUESS: usize = 4;
/// What a request that doesn't say its length gets at first.
const UNANNOUNCED_BYTES: usize = 1 << 20;

/// A whole body, and what the request may take of the memory for all.
#[derive(Debug)]
pub struct ReadBody {
    /// The body, decompressed.
    pub bytes: Bytes,
    /// To be kept until the request is answered.
    pub share: Share,
}

/// What the headers alone tell of a body that can't be had.
pub fn check(headers: &HeaderMap, limits: &BodyLimits) -> Result<(), BodyError> {
    let outcome = content_encoding(headers).and_then(|_| announced_bytes(headers, limits));
    counted(outcome.map(drop))
}

/// Reads a body, and inflates it if it is compressed.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: &BodyLimits,
) -> Result<ReadBody, BodyError> {
    let outcome = async {
        let encoding = content_encoding(headers)?;
        let wire = read_wire(headers, body, limits, encoding != Encoding::Identity).await?;
        inflate(encoding, wire, limits).await
    };
    counted(outcome.await)
}

/// Reads a body as it is; `compressed` is for a guess at the memory that it will need.
pub async fn read_raw(
    headers: &HeaderMap,
    body: Body,
    limits: &BodyLimits,
    compressed: bool,
) -> Result<ReadBody, BodyError> {
    counted(read_wire(headers, body, limits, compressed).await)
}

/// Inflates what [`read_raw`] read, or a part of it.
pub async fn inflate_raw(
    encoding: Encoding,
    wire: ReadBody,
    limits: &BodyLimits,
) -> Result<ReadBody, BodyError> {
    counted(inflate(encoding, wire, limits).await)
}

fn counted<T>(outcome: Result<T, BodyError>) -> Result<T, BodyError> {
    if let Err(error) = &outcome {
        self_metrics::refused(error.name(), 1);
    }
    outcome
}

fn content_encoding(headers: &HeaderMap) -> Result<Encoding, BodyError> {
    encoding_of(headers.get(header::CONTENT_ENCODING))
}

/// The encoding that a header names; none without it.
pub fn encoding_of(header: Option<&HeaderValue>) -> Result<Encoding, BodyError> {
    let Some(value) = header else {
        return Ok(Encoding::Identity);
    };
    let name = value.to_str().map_err(|_| BodyError::Encoding)?;
    Encoding::parse(name).ok_or(BodyError::Encoding)
}

fn announced_bytes(headers: &HeaderMap, limits: &BodyLimits) -> Result<Option<usize>, BodyError> {
    let limit_bytes = limits.bytes_max;
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok());
    match announced.and_then(|text| text.parse::<usize>().ok()) {
        Some(bytes) if bytes > limit_bytes => Err(BodyError::TooLarge { limit_bytes }),
        announced => Ok(announced),
    }
}

async fn read_wire(
    headers: &HeaderMap,
    body: Body,
    limits: &BodyLimits,
    compressed: bool,
) -> Result<ReadBody, BodyError> {
    let limit_bytes = limits.bytes_max;
    let guess = if compressed { INFLATED_GUESS } else { 1 };
    let expected = announced_bytes(headers, limits)?
        .unwrap_or(UNANNOUNCED_BYTES)
        .saturating_mul(guess)
        .min(limit_bytes);
    let mut share = limits.share(expected * BYTES_EACH).await?;
    let collected = Limited::new(body, limit_bytes).collect().await;
    let collected = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            BodyError::TooLarge { limit_bytes }
        } else {
            broken(error.as_ref())
        }
    })?;
    let bytes = collected.to_bytes();
    share.grow_to(bytes.len() * BYTES_EACH).await?;
    Ok(ReadBody { bytes, share })
}

/// Whether the listener gave the body up, or its sender.
fn broken(error: &(dyn Error + 'static)) -> BodyError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            return BodyError::Slow;
        }
        cause = error.source();
    }
    BodyError::Broken
}

async fn inflate(
    encoding: Encoding,
    wire: ReadBody,
    limits: &BodyLimits,
) -> Result<ReadBody, BodyError> {
    let ReadBody {
        bytes: wire,
        mut share,
    } = wire;
    if encoding == Encoding::Identity || wire.is_empty() {
        return Ok(ReadBody { bytes: wire, share });
    }
    let limit_bytes = limits.bytes_max;
    let guess = encoding.inflated_guess(&wire).min(limit_bytes);
    share.grow_to(guess * BYTES_EACH).await?;
    let bytes = match inflate_aside(encoding, wire.clone(), guess).await {
        // Larger than it seemed: again, now with the memory that the largest body may take.
        Err(BodyError::TooLarge { .. }) if guess < limit_bytes => {
            share.grow_to(limit_bytes * BYTES_EACH).await?;
            inflate_aside(encoding, wire, limit_bytes).await?
        }
        other => other?,
    };
    Ok(ReadBody { bytes, share })
}

/// Inflating megabytes would hold up every other request on this thread.
async fn inflate_aside(
    encoding: Encoding,
    wire: Bytes,
    limit_bytes: usize,
) -> Result<Bytes, BodyError> {
    tokio::task::spawn_blocking(move || encoding.inflate(&wire, limit_bytes))
        .await
        .unwrap_or(Err(BodyError::Fault))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use std::io::Write;

    async fn check(encoding: &'static str, body: Vec<u8>, expected: Result<&[u8], BodyError>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
        let read = read(&headers, Body::from(body), &BodyLimits::new(100)).await;
        let read = read.map(|body| body.bytes);
        assert_eq!(read.as_deref(), expected.as_deref(), "{encoding}");
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn bodies_are_inflated_within_the_limit() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(b"zlib").unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(b"raw").unwrap();
        check("", b"plain".to_vec(), Ok(b"plain")).await;
        check("GZIP", gzip(b"zip"), Ok(b"zip")).await;
        check(
            "x-gzip",
            [gzip(b"two "), gzip(b"members")].concat(),
            Ok(b"two members"),
        )
        .await;
        check("deflate", zlib.finish().unwrap(), Ok(b"zlib")).await;
        check("deflate", raw.finish().unwrap(), Ok(b"raw")).await;
        let zstd = |text: &[u8]| zstd::encode_all(text, 3).unwrap();
        check(
            "zstd",
            [zstd(b"two "), zstd(b"frames")].concat(),
            Ok(b"two frames"),
        )
        .await;
        check(
            "zstd",
            zstd(b"truncated")[..12].to_vec(),
            Err(BodyError::Corrupt),
        )
        .await;
        check("zstd", b"no zstd".to_vec(), Err(BodyError::Corrupt)).await;
        check("gzip", Vec::new(), Ok(b"")).await;
        check("zstd", Vec::new(), Ok(b"")).await;
        let too_large = BodyError::TooLarge { limit_bytes: 100 };
        check("gzip", gzip(&[0; 101]), Err(too_large)).await;
        check("zstd", zstd(&[0; 101]), Err(too_large)).await;
        check("identity", vec![0; 101], Err(too_large)).await;
        check(
            "gzip",
            gzip(b"truncated")[..15].to_vec(),
            Err(BodyError::Corrupt),
        )
        .await;
        check("gzip", b"no gzip".to_vec(), Err(BodyError::Corrupt)).await;
        check("br", b"x".to_vec(), Err(BodyError::Encoding)).await;
        check("gzip, gzip", b"x".to_vec(), Err(BodyError::Encoding)).await;
    }
}
