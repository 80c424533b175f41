//! Any bytes are a batch of Langfuse's events, or refused, and what they become can be stored. The first
//! byte chooses what the sender may send.
#![no_main]

use xtrace_model::ProjectId;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else {
        return;
    };
    let project = ProjectId::parse("p").unwrap();
    let Some(mut batch) = xtrace_compat::fuzzing::ingestion(body, &project, choice % 2 == 0) else {
        return;
    };
    batch.repair();
    for observation in &batch.observations {
        for text in [&observation.input, &observation.output, &observation.name] {
            assert!(!text.text().unwrap_or_default().contains('\0'), "Postgres holds no NUL");
        }
    }
});
