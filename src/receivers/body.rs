//! Request bodies: read and inflated within one limit, whatever their headers claim.

use std::io::Read;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// Why a body can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than allowed, on the wire or inflated.
    #[error("the body is larger than {limit_bytes} bytes, on the wire or decompressed")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// A `Content-Encoding` that nobody here knows.
    #[error("unsupported Content-Encoding; use identity, gzip or deflate")]
    Encoding,
    /// The compressed stream is broken or ends early.
    #[error("the compressed body is malformed or truncated")]
    Corrupt,
    /// The client went away before the body was whole.
    #[error("the body could not be read to its end")]
    Broken,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, BodyError> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(Encoding::Identity);
    };
    let value = value
        .to_str()
        .map_err(|_| BodyError::Encoding)?
        .trim()
        .to_ascii_lowercase();
    match value.as_str() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        "deflate" => Ok(Encoding::Deflate),
        _ => Err(BodyError::Encoding),
    }
}

/// Reads a body of at most `limit_bytes`, before and after decompression.
pub async fn read(headers: &HeaderMap, body: Body, limit_bytes: usize) -> Result<Bytes, BodyError> {
    let encoding = encoding(headers)?;
    let too_large = BodyError::TooLarge { limit_bytes };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    if announced
        .and_then(|text| text.parse::<u64>().ok())
        .is_some_and(|n| n > limit_bytes as u64)
    {
        return Err(too_large);
    }
    let collected = Limited::new(body, limit_bytes)
        .collect()
        .await
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                too_large
            } else {
                BodyError::Broken
            }
        })?;
    let wire = collected.to_bytes();
    match encoding {
        Encoding::Identity => Ok(wire),
        _ if wire.is_empty() => Ok(wire),
        // Inflating megabytes would hold up every other request on this thread.
        compressed => tokio::task::spawn_blocking(move || inflate(compressed, &wire, limit_bytes))
            .await
            .map_err(|_| BodyError::Corrupt)?,
    }
}

fn inflate(encoding: Encoding, wire: &[u8], limit_bytes: usize) -> Result<Bytes, BodyError> {
    match encoding {
        Encoding::Identity => Ok(Bytes::copy_from_slice(wire)),
        Encoding::Gzip => read_to_limit(MultiGzDecoder::new(wire), limit_bytes),
        // "deflate" means zlib's format; some senders leave zlib's header out.
        Encoding::Deflate => match read_to_limit(ZlibDecoder::new(wire), limit_bytes) {
            Err(BodyError::Corrupt) => read_to_limit(DeflateDecoder::new(wire), limit_bytes),
            other => other,
        },
    }
}

fn read_to_limit(decoder: impl Read, limit_bytes: usize) -> Result<Bytes, BodyError> {
    let mut inflated = Vec::new();
    let mut capped = decoder.take(limit_bytes as u64 + 1);
    capped
        .read_to_end(&mut inflated)
        .map_err(|_| BodyError::Corrupt)?;
    if inflated.len() > limit_bytes {
        return Err(BodyError::TooLarge { limit_bytes });
    }
    Ok(inflated.into())
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
        let read = read(&headers, Body::from(body), 100).await;
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
        check("gzip", Vec::new(), Ok(b"")).await;
        let too_large = BodyError::TooLarge { limit_bytes: 100 };
        check("gzip", gzip(&[0; 101]), Err(too_large)).await;
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
