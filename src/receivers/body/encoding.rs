//! How bodies are compressed, and how they are inflated within a limit.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};

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
/// Members of a compressed body at most: each of them costs a decoder, and some are empty.
pub(super) const MEMBERS_MAX: usize = 1000;
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
                Inflated::of(wire, likely, limit_bytes, gzip_member)
            }
            Self::Deflate => match read_to_limit(ZlibDecoder::new(wire), 0, limit_bytes) {
                Err(BodyError::Corrupt) => read_to_limit(DeflateDecoder::new(wire), 0, limit_bytes),
                other => other,
            },
            Self::Zstd => Inflated::of(wire, 0, limit_bytes, zstd_frame),
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

fn gzip_member<'a>(wire: &'a [u8], inflated: &mut Inflated) -> Result<&'a [u8], BodyError> {
    let mut decoder = GzDecoder::new(wire);
    inflated.take(&mut decoder)?;
    Ok(decoder.into_inner())
}

fn zstd_frame<'a>(wire: &'a [u8], inflated: &mut Inflated) -> Result<&'a [u8], BodyError> {
    let corrupt = |_| BodyError::Corrupt;
    let decoder = zstd::Decoder::with_buffer(wire).map_err(corrupt)?;
    let mut decoder = decoder.single_frame();
    decoder
        .window_log_max(ZSTD_WINDOW_LOG_MAX)
        .map_err(corrupt)?;
    inflated.take(&mut decoder)?;
    Ok(decoder.finish())
}

fn read_to_limit(
    decoder: impl Read,
    likely_bytes: usize,
    limit_bytes: usize,
) -> Result<Bytes, BodyError> {
    let mut inflated = Inflated::new(likely_bytes, limit_bytes);
    inflated.take(decoder)?;
    Ok(inflated.bytes.into())
}

/// What was inflated so far, within a limit.
struct Inflated {
    bytes: Vec<u8>,
    limit_bytes: usize,
}

impl Inflated {
    fn new(likely_bytes: usize, limit_bytes: usize) -> Self {
        // A byte more, so that its end is found without growing.
        let bytes = Vec::with_capacity(likely_bytes.min(limit_bytes) + 1);
        Self { bytes, limit_bytes }
    }

    /// Members one after the other; each leaves what follows it.
    fn of(
        wire: &[u8],
        likely_bytes: usize,
        limit_bytes: usize,
        member: impl for<'a> Fn(&'a [u8], &mut Self) -> Result<&'a [u8], BodyError>,
    ) -> Result<Bytes, BodyError> {
        let mut inflated = Self::new(likely_bytes, limit_bytes);
        let mut rest = wire;
        for _ in 0..MEMBERS_MAX {
            rest = member(rest, &mut inflated)?;
            if rest.is_empty() {
                return Ok(inflated.bytes.into());
            }
        }
        Err(BodyError::Members)
    }

    fn take(&mut self, decoder: impl Read) -> Result<(), BodyError> {
        let left = self.limit_bytes - self.bytes.len();
        let mut capped = decoder.take(left as u64 + 1);
        capped
            .read_to_end(&mut self.bytes)
            .map_err(|_| BodyError::Corrupt)?;
        if self.bytes.len() > self.limit_bytes {
            return Err(BodyError::TooLarge {
                limit_bytes: self.limit_bytes,
            });
        }
        Ok(())
    }
}
