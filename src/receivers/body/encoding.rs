//! How bodies are compressed, and how they are inflated within a limit.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::BodyError;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952, of one or more members.
    Gzip,
    /// RFC 1950; some senders leave its header out.
    Deflate,
    /// RFC 8878.
    Zstd,
}

/// What a sender may choose from.
pub const NAMES: &str = "identity, gzip, deflate, zstd";

/// The window that RFC 8878 asks decoders to support, 8 MiB: it is held in memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// No deflated byte stands for more.
const DEFLATE_RATIO_MAX: usize = 1032;

impl Encoding {
    /// The encoding of that name; there is none for a list of names.
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// How long the inflated body will be, as far as it tells: good enough for a budget.
    pub(super) fn inflated_guess(self, wire: &[u8]) -> usize {
        match self {
            Self::Identity => wire.len(),
            Self::Gzip => length_of_gzip(wire),
            Self::Deflate | Self::Zstd => wire.len().saturating_mul(8),
        }
    }

    /// Inflates a body of at most `limit_bytes`.
    pub fn inflate(self, wire: &[u8], limit_bytes: usize) -> Result<Bytes, BodyError> {
        match self {
            Self::Identity => Ok(Bytes::copy_from_slice(wire)),
            Self::Gzip => {
                let likely = length_of_gzip(wire).min(wire.len().saturating_mul(DEFLATE_RATIO_MAX));
                read_to_limit(MultiGzDecoder::new(wire), likely, limit_bytes)
            }
            Self::Deflate => match read_to_limit(ZlibDecoder::new(wire), 0, limit_bytes) {
                Err(BodyError::Corrupt) => read_to_limit(DeflateDecoder::new(wire), 0, limit_bytes),
                other => other,
            },
            Self::Zstd => {
                let corrupt = |_| BodyError::Corrupt;
                let mut decoder = zstd::Decoder::with_buffer(wire).map_err(corrupt)?;
                decoder
                    .window_log_max(ZSTD_WINDOW_LOG_MAX)
                    .map_err(corrupt)?;
                read_to_limit(decoder, 0, limit_bytes)
            }
        }
    }
}

/// The length that gzip's last four bytes claim: a hint.
fn length_of_gzip(wire: &[u8]) -> usize {
    let claimed = wire
        .last_chunk::<4>()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes));
    usize::try_from(claimed)
        .unwrap_or(usize::MAX)
        .max(wire.len())
}

fn read_to_limit(
    decoder: impl Read,
    likely_bytes: usize,
    limit_bytes: usize,
) -> Result<Bytes, BodyError> {
    // A byte more, so that its end is found without growing.
    let mut inflated = Vec::with_capacity(likely_bytes.min(limit_bytes) + 1);
    let mut capped = decoder.take(limit_bytes as u64 + 1);
    capped
        .read_to_end(&mut inflated)
        .map_err(|_| BodyError::Corrupt)?;
    if inflated.len() > limit_bytes {
        return Err(BodyError::TooLarge { limit_bytes });
    }
    Ok(inflated.into())
}
