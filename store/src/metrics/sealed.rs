//! What rows of points carry beside their bytes: the version of their format, and a checksum.

/// The version that this program writes, and the last one that it reads. A program leaves rows of a later
/// version alone.
pub(super) const FORMAT: i16 = 0;

/// Bytes of a block or a chunk, as they are stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Sealed {
    pub(super) format: i16,
    /// None was written by programs before this one.
    pub(super) checksum: Option<i64>,
    pub(super) data: Vec<u8>,
}

/// Why bytes are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A later program wrote them.
    Newer,
    /// They are not what was written.
    Damaged,
}

/// The checksum of bytes.
pub(super) fn checksum(data: &[u8]) -> i64 {
    xxhash_rust::xxh3::xxh3_64(data).cast_signed()
}

impl Sealed {
    /// The bytes, if they are as they were written.
    pub(super) fn open(&self) -> Result<&[u8], Fault> {
        if self.format > FORMAT {
            return Err(Fault::Newer);
        }
        match self.checksum {
            Some(written) if written != checksum(&self.data) => Err(Fault::Damaged),
            _ => Ok(&self.data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_and_a_later_version_are_noticed() {
        let sealed = Sealed {
            format: FORMAT,
            checksum: Some(checksum(b"points")),
            data: b"points".to_vec(),
        };
        assert_eq!(sealed.open(), Ok(b"points".as_slice()));
        let mut flipped = sealed.clone();
        flipped.data[3] ^= 1;
        assert_eq!(flipped.open(), Err(Fault::Damaged));
        // An earlier program wrote no checksum.
        flipped.checksum = None;
        assert_eq!(flipped.open(), Ok(flipped.data.as_slice()));
        let later = Sealed {
            format: FORMAT + 1,
            ..sealed
        };
        assert_eq!(later.open(), Err(Fault::Newer));
    }
}
