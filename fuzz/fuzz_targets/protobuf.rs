//! Any bytes are a request in protobuf, or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    xtrace::receivers::otlp::decodes(bytes, false);
    xtrace::receivers::otlp::decodes_as_logs(bytes, false);
    xtrace::receivers::otlp::decodes_as_metrics(bytes, false);
});
