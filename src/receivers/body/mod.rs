//! Request bodies: read and inflated within one limit, whatever their headers claim, and all requests
//! together within one budget of memory, which they hold from their first byte to their commit.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::self_metrics;

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
    #[error("unsupported Content-Encoding; use identity, gzip or deflate")]
    Encoding,
    /// The compressed stream is broken or ends early.
    #[error("the compressed body is malformed or truncated")]
    Corrupt,
    /// The client went away before the body was whole.
    #[error("the body could not be read to its end")]
    Broken,
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
        }
    }
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

/// Bounds of request bodies; clones share the budget.
#[derive(Debug, Clone)]
pub struct BodyLimits {
    /// Bytes of one body, on the wire and decompressed alike.
    pub bytes_max: usize,
    /// What is left of the memory for all requests, in units of [`UNIT_BYTES`].
    budget: Arc<Semaphore>,
}

/// Memory of all requests, from their first byte to their commit.
const BUDGET_BYTES: usize = 96 << 20;
const UNIT_BYTES: usize = 1 << 10;
const BUDGET_UNITS: usize = BUDGET_BYTES / UNIT_BYTES;
/// What a byte of a body takes, decoded, mapped and written, as measured with spans of 2 kB.
const BYTES_EACH: usize = 5;
/// How much larger a compressed body is, at a guess, until it is known.
const INFLATED_GUESS: usize = 4;
/// How long a request waits for its share; exporters have a queue of a few batches only.
const BUDGET_WAIT: Duration = Duration::from_secs(2);
/// What a request that doesn't say its length gets at first.
const UNANNOUNCED_BYTES: usize = 1 << 20;

impl BodyLimits {
    /// Bodies of at most so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            budget: Arc::new(Semaphore::new(BUDGET_UNITS)),
        }
    }

    /// Takes a share of the budget; it is given back when the share is dropped.
    async fn share(&self, bytes: usize) -> Result<Share, BodyError> {
        let mut share = Share {
            taken: None,
            budget: Arc::clone(&self.budget),
        };
        share.grow_to(bytes).await?;
        Ok(share)
    }
}

/// A share of the memory for requests.
#[derive(Debug)]
pub struct Share {
    taken: Option<OwnedSemaphorePermit>,
    budget: Arc<Semaphore>,
}

impl Share {
    /// Waits until the share is so large. One that would be larger than the budget takes all of it.
    pub async fn grow_to(&mut self, bytes: usize) -> Result<(), BodyError> {
        let wanted = bytes.div_ceil(UNIT_BYTES).min(BUDGET_UNITS);
        let has = self
            .taken
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted <= has {
            return Ok(());
        }
        let units = u32::try_from(wanted - has).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.budget).acquire_many_owned(units);
        let more = tokio::time::timeout(BUDGET_WAIT, more).await;
        let more = more
            .ok()
            .and_then(Result::ok)
            .ok_or(BodyError::Overloaded)?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// A whole body, and what the request may take of the memory for all.
#[derive(Debug)]
pub struct ReadBody {
    /// The body, decompressed.
    pub bytes: Bytes,
    /// To be kept until the request is answered.
    pub share: Share,
}

/// Reads a body, and inflates it if it is compressed.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: &BodyLimits,
) -> Result<ReadBody, BodyError> {
    let outcome = read_uncounted(headers, body, limits).await;
    if let Err(error) = &outcome {
        self_metrics::refused(error.name(), 1);
    }
    outcome
}

async fn read_uncounted(
    headers: &HeaderMap,
    body: Body,
    limits: &BodyLimits,
) -> Result<ReadBody, BodyError> {
    let encoding = encoding(headers)?;
    let limit_bytes = limits.bytes_max;
    let too_large = BodyError::TooLarge { limit_bytes };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > limit_bytes) {
        return Err(too_large);
    }
    let guess = if encoding == Encoding::Identity {
        1
    } else {
        INFLATED_GUESS
    };
    let expected = announced.unwrap_or(UNANNOUNCED_BYTES) * guess;
    let mut share = limits.share(expected.min(limit_bytes) * BYTES_EACH).await?;
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
    let inflated = match encoding {
        Encoding::Identity => wire.len(),
        Encoding::Gzip => announced_by_gzip(&wire),
        Encoding::Deflate => wire.len().saturating_mul(8),
    };
    share
        .grow_to(inflated.min(limit_bytes) * BYTES_EACH)
        .await?;
    let bytes = match encoding {
        Encoding::Identity => wire,
        _ if wire.is_empty() => wire,
        // Inflating megabytes would hold up every other request on this thread.
        compressed => tokio::task::spawn_blocking(move || inflate(compressed, &wire, limit_bytes))
            .await
            .map_err(|_| BodyError::Corrupt)??,
    };
    Ok(ReadBody { bytes, share })
}

/// The length that gzip's last four bytes claim: a hint, good enough for a budget.
fn announced_by_gzip(wire: &[u8]) -> usize {
    let claimed = wire
        .last_chunk::<4>()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes));
    usize::try_from(claimed)
        .unwrap_or(usize::MAX)
        .max(wire.len())
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
