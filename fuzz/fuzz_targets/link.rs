//! No bytes open media unless we signed them, and any bytes that we signed are a grant or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    assert!(!xtrace_compat::fuzzing::link(bytes), "a link that nobody signed opens");
});
