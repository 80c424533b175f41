//! Any bytes are a request in JSON, or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    xtrace::receivers::otlp::decodes(bytes, true);
    xtrace::receivers::otlp::decodes_as_logs(bytes, true);
    xtrace::receivers::otlp::decodes_as_metrics(bytes, true);
});
