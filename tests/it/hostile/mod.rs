//! No key, and no caller without one, stops another project: one project attacks while another's
//! requests are timed. One file per area.

mod analytics; // questions about many rows
mod answers; // bytes of answers, connections for reads
pub(crate) mod arena; // the attacked server, and the neighbour whose requests are timed
mod compat;
mod retention; // tables that are held, and clocks that are wrong

mod bodies; // what is announced and never comes, and who may not come in
mod edge; // what reaches a port without a key
mod lists; // items of lists within requests
mod metrics; // wide histograms, and questions that reach very much
mod sums; // sums that overflow, fail or are many
mod traces; // one trace without end
mod writer; // the write queue

use std::time::Duration;

use serde_json::json;

use arena::{Arena, repeated, succeed};
use reqwest::Method;

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_notices_nothing_of_ordinary_load() {
    let arena = Arena::start().await;
    let load = async {
        for number in 0..200 {
            let observations: Vec<_> = (0..50)
                .map(|n| json!({"id": format!("o-{number}-{n}"), "traceId": format!("t-{number}"), "input": "i"}))
                .collect();
            let body = json!({"observations": observations});
            let request = arena.attack(Method::POST, "/v1/l/batch").json(&body);
            succeed(request).await;
        }
        let item = r#"{"id":"same","traceId":"same"},"#;
        let body = repeated(
            "{\"observations\":[",
            item,
            1000,
            &format!("{}]}}", item.trim_end_matches(',')),
        );
        let request = arena.attack(Method::POST, "/v1/l/batch").body(body);
        let request = request.header("content-type", "application/json");
        succeed(request.header("content-encoding", "gzip")).await;
    };
    let ((), report) = arena.watch(load).await;
    report.assert_undisturbed();
    arena.assert_sums_are_right(&report).await;
    assert!(report.calm_write_p99 < Duration::from_secs(2));
}
