//! Any bytes are the one message of a gRPC request, which is decoded, or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((false, message)) = xtrace::receivers::otlp::message_of(bytes) {
        assert_eq!(message.len() + 5, bytes.len());
        xtrace::receivers::otlp::decodes(&message, false);
    }
});
