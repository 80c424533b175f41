//! Request bodies: read and inflated within one limit, whatever their headers claim, and all requests
//! together within one budget of memory.

mod budget;
mod encoding;
mod rates;

use std::error::Error;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::limits::Refusal;
use crate::listener::TooSlow;
use crate::self_metrics;

pub use budget::{Account, BodyLimits, Held, Quota, Share};
use encoding::MEMBERS_MAX;
pub use encoding::{Encoding, NAMES as ENCODINGS};
pub use rates::WriteRates;

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
    /// The caller writes more than it may; nothing was taken.
    #[error("more is written than this credential may write; send it again later")]
    TooMuch(Refusal),
    /// A `Content-Encoding` that nobody here knows.
    #[error("unsupported encoding of the body; use one of {ENCODINGS}")]
    Encoding,
    /// The compressed stream is made of too many parts.
    #[error("the compressed body has more than {MEMBERS_MAX} members; compress it as one")]
    Members,
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
            Self::TooMuch(_) => "bodies_too_much",
            Self::Encoding => "content_encoding",
            Self::Members => "body_members",
            Self::Corrupt => "body_corrupt",
            Self::Broken => "body_broken_off",
            Self::Fault => "body_fault",
            Self::Slow => "body_slow",
        }
    }
}

/// What a byte of a body takes, decoded, mapped and written, as measured with spans of 2 kB.
const BYTES_EACH: usize = 5;

/// A whole body, and what the request may take of the memory for all.
#[derive(Debug)]
pub struct ReadBody {
    /// The body, decompressed.
    pub bytes: Bytes,
    /// To be kept until the request is answered.
    pub share: Share,
}

/// What the headers alone tell of a body that can't be had.
pub fn check(headers: &HeaderMap, quota: &Quota) -> Result<(), BodyError> {
    let outcome = content_encoding(headers).and_then(|_| announced_bytes(headers, quota));
    counted(outcome.map(drop))
}

/// Reads a body, and inflates it if it is compressed.
pub async fn read(headers: &HeaderMap, body: Body, quota: &Quota) -> Result<ReadBody, BodyError> {
    let outcome = async {
        let encoding = content_encoding(headers)?;
        let wire = read_wire(headers, body, quota).await?;
        inflate(encoding, wire, quota).await
    };
    counted(outcome.await)
}

/// A body as it is on the wire, and the memory that it takes.
#[derive(Debug)]
pub struct RawBody {
    /// Some or all of the body.
    pub bytes: Bytes,
    held: Held,
}

/// Reads a body as it is.
pub async fn read_raw(
    headers: &HeaderMap,
    body: Body,
    quota: &Quota,
) -> Result<RawBody, BodyError> {
    counted(read_wire(headers, body, quota).await)
}

/// Inflates what [`read_raw`] read, or a part of it.
pub async fn inflate_raw(
    encoding: Encoding,
    wire: RawBody,
    quota: &Quota,
) -> Result<ReadBody, BodyError> {
    counted(inflate(encoding, wire, quota).await)
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

fn announced_bytes(headers: &HeaderMap, quota: &Quota) -> Result<(), BodyError> {
    let limit_bytes = quota.bytes_max;
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok());
    match announced.and_then(|text| text.parse::<usize>().ok()) {
        Some(bytes) if bytes > limit_bytes => Err(BodyError::TooLarge { limit_bytes }),
        _ => Ok(()),
    }
}

/// Takes memory for what has arrived: what is announced may never come.
async fn read_wire(
    headers: &HeaderMap,
    mut body: Body,
    quota: &Quota,
) -> Result<RawBody, BodyError> {
    let limit_bytes = quota.bytes_max;
    announced_bytes(headers, quota)?;
    quota.admit()?;
    let mut held = quota.reading();
    let mut whole = Pieces::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if whole.len() + piece.len() > limit_bytes {
            return Err(BodyError::TooLarge { limit_bytes });
        }
        held.grow_to(whole.bytes_with(piece.len())).await?;
        whole.add(piece);
    }
    let bytes = whole.into_bytes();
    Ok(RawBody { bytes, held })
}

/// Pieces of a body in one place: each of them would keep alive what it was read into, however small it is.
#[derive(Default)]
enum Pieces {
    #[default]
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Pieces {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(piece) => piece.len(),
            Self::Many(all) => all.len(),
        }
    }

    /// Memory that is taken once there are so many bytes more.
    fn bytes_with(&self, more: usize) -> usize {
        let needed = self.len() + more;
        match self {
            Self::None => needed,
            Self::One(_) => needed * 2,
            Self::Many(all) if needed > all.capacity() => needed.max(all.capacity() * 2),
            Self::Many(all) => all.capacity(),
        }
    }

    fn add(&mut self, piece: Bytes) {
        match self {
            Self::None => *self = Self::One(piece),
            Self::One(first) => {
                let mut all = BytesMut::with_capacity((first.len() + piece.len()) * 2);
                all.extend_from_slice(first);
                all.extend_from_slice(&piece);
                *self = Self::Many(all);
            }
            Self::Many(all) => all.extend_from_slice(&piece),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::One(piece) => piece,
            Self::Many(all) => all.freeze(),
        }
    }
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

/// Takes memory for what becomes of a body, then gives back what reading it took.
async fn inflate(encoding: Encoding, wire: RawBody, quota: &Quota) -> Result<ReadBody, BodyError> {
    let RawBody { bytes: wire, held } = wire;
    let mut share = quota.share();
    if encoding == Encoding::Identity || wire.is_empty() {
        share.grow_to(wire.len() * BYTES_EACH).await?;
        quota.charge(wire.len());
        return Ok(ReadBody { bytes: wire, share });
    }
    let limit_bytes = quota.bytes_max;
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
    drop(held);
    quota.charge(bytes.len());
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
        let account = Account::Project(xtrace_model::ProjectId::parse("p").unwrap());
        let quota = BodyLimits::new(100, WriteRates::default()).of(account);
        let read = read(&headers, Body::from(body), &quota).await;
        let read = read.map(|body| body.bytes);
        assert_eq!(read.as_deref(), expected.as_deref(), "{encoding}");
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn bodies_of_very_many_members_are_refused() {
        let zstd = |text: &[u8]| zstd::encode_all(text, 3).unwrap();
        let skippable = b"\x50\x2a\x4d\x18\0\0\0\0";
        for (encoding, member) in [
            ("gzip", gzip(b"")),
            ("zstd", zstd(b"")),
            ("zstd", skippable.to_vec()),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
            let account = Account::Project(xtrace_model::ProjectId::parse("p").unwrap());
            let quota = BodyLimits::new(1 << 20, WriteRates::default()).of(account);
            let all = member.repeat(MEMBERS_MAX + 1);
            let read = read(&headers, Body::from(all), &quota).await;
            assert_eq!(read.unwrap_err(), BodyError::Members, "{encoding}");
        }
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
