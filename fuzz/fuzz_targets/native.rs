//! Any bytes are a native batch of traces or of points, or refused. The first byte chooses.
#![no_main]

use std::sync::OnceLock;

use xtrace_model::ProjectId;
use xtrace_store::{Options, Store};

/// A store that is never connected.
fn store() -> &'static Store {
    static STORE: OnceLock<(tokio::runtime::Runtime, Store)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        let store = Store::new(&Options::new("postgres://nobody@127.0.0.1:1/none")).unwrap();
        drop(_entered);
        (runtime, store)
    });
    store
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else {
        return;
    };
    let project = ProjectId::parse("p").unwrap();
    let batch = if choice % 2 == 0 {
        xtrace::receivers::native::batch_of_traces(body, &project)
    } else {
        xtrace::receivers::native::batch_of_metrics(body, &project, store())
    };
    if let Some(mut batch) = batch {
        batch.repair();
        assert!(batch.rows() <= 1 + 2 * 50_000 + 200_000, "more items than a request may have");
    }
});
