//! Any bytes inflate within the limit, or are refused. The first byte chooses the encoding.
#![no_main]

use xtrace::receivers::body::Encoding;

const LIMIT_BYTES: usize = 1 << 20;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, wire)) = bytes.split_first() else {
        return;
    };
    let encoding = [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd][usize::from(*choice) % 3];
    if let Ok(inflated) = encoding.inflate(wire, LIMIT_BYTES) {
        assert!(inflated.len() <= LIMIT_BYTES);
    }
});
