//! Any text is the parameters of a request, with filters and a cursor, or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    xtrace_compat::fuzzing::query(&text);
    xtrace_compat::fuzzing::cursor(&text);
});
