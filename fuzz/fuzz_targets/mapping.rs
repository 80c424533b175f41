//! Whatever was decoded is mapped, and what comes out can be stored. The first byte chooses JSON or
//! protobuf.
#![no_main]

use xtrace_model::ProjectId;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else {
        return;
    };
    let project = ProjectId::parse("p").unwrap();
    for batch in [
        xtrace::receivers::otlp::batch_of(body, choice % 2 == 0, &project),
        xtrace::receivers::otlp::batch_of_logs(body, choice % 2 == 0, &project),
    ]
    .into_iter()
    .flatten()
    {
        let texts = batch.observations.iter().flat_map(|one| [&one.input, &one.output, &one.otel]);
        for text in texts.filter_map(|text| text.text()) {
            assert!(!text.contains('\0'), "Postgres holds no NUL");
        }
    }
});
