//! One project's sums never stop another's.

use reqwest::Method;
use serde_json::{Value, json};

use super::arena::{Arena, succeed};
use crate::sums::settle;

/// Sums beyond all numbers, a usage that is none, and a backfill of thousands of hours.
#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_is_summed_up_though_others_cannot_be() {
    let arena = Arena::start().await;
    let attack = async {
        for number in 0..20 {
            let observations: Vec<Value> = (0..200)
                .map(|n| {
                    let id = format!("{number}-{n}");
                    let start = format!("20{:02}-{:02}-{:02}T{:02}:00:00Z", 10 + number % 15, 1 + n % 12, 1 + n % 28, n % 24);
                    json!({"id": id, "traceId": id, "type": "GENERATION", "startTime": start, "model": format!("m{n}"),
                        "usageDetails": {"input": 9_000_000_000_000_000_000_u64}, "costDetails": {"total": 1e308}})
                })
                .collect();
            let body = json!({"observations": observations});
            succeed(arena.attack(Method::POST, "/v1/l/batch").json(&body)).await;
        }
        let bad = "update traces set usage = '[{\"date\": \"never\"}]' where project_id = 'attacker' and id like '%-7'";
        sqlx::query(bad)
            .execute(&mut arena.sql().await)
            .await
            .unwrap();
    };
    let ((), report) = arena.watch(attack).await;
    report.assert_undisturbed();
    arena.assert_sums_are_right(&report).await;
    settle(&mut arena.sql().await, "attacker").await;
}
