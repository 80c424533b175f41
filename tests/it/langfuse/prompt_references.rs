//! Prompts within prompts.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::prompts::{PATH, create, delete, get};
use crate::harness::Xtrace;

#[tokio::test(flavor = "multi_thread")]
async fn prompts_within_prompts_are_put_in() {
    let xtrace = Xtrace::start().await;
    let tag = |which: &str| format!("@@@langfusePrompt:name={which}@@@");
    create(
        &xtrace,
        json!({"name": "base", "prompt": "one \"1\"", "labels": ["production"]}),
    )
    .await;
    create(&xtrace, json!({"name": "base", "prompt": "two"})).await;
    let middle = format!(
        "<{}|{}>",
        tag("base|version=1"),
        tag("base|label=production")
    );
    create(&xtrace, json!({"name": "middle", "prompt": middle})).await;
    let top = json!([{"role": "system", "content": format!("{} {} @@@langfusePrompt:base@@@",
        tag("middle|label=latest"), tag("base|label=latest"))}]);
    let made = create(
        &xtrace,
        json!({"name": "top", "type": "chat", "prompt": top, "labels": ["production"]}),
    )
    .await;
    let (_, found) = get(&xtrace, "top").await;
    assert_eq!(
        found["prompt"][0]["content"],
        "<one \"1\"|one \"1\"> two @@@langfusePrompt:base@@@"
    );
    let graph = &found["resolutionGraph"];
    assert_eq!(
        graph["root"],
        json!({"name": "top", "version": 1, "id": made["id"]})
    );
    let of_top: Vec<(&Value, &Value)> = graph["dependencies"][made["id"].as_str().unwrap()]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["name"], &one["version"]))
        .collect();
    assert_eq!(
        of_top,
        [(&json!("middle"), &json!(1)), (&json!("base"), &json!(2))]
    );
    let (_, raw) = get(&xtrace, "top?resolve=false").await;
    assert_eq!(
        (&raw["prompt"], &raw["resolutionGraph"]),
        (&top, &Value::Null)
    );

    // What others need stays: a version always, a label as long as nobody else has it.
    let (status, body) = delete(&xtrace, "base?version=1").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let words = body["message"].as_str().unwrap();
    assert!(
        words.starts_with("Other prompts are depending on prompt versions"),
        "{words}"
    );
    assert!(words.contains("middle v1 depends on base v1"), "{words}");
    assert!(
        words.contains("middle v1 depends on base production"),
        "{words}"
    );
    assert_eq!(
        delete(&xtrace, "base?version=2").await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        get(&xtrace, "top").await.1["prompt"][0]["content"],
        "<one \"1\"|one \"1\"> one \"1\" @@@langfusePrompt:base@@@"
    );

    for (which, words) in [
        (
            "nope|version=1",
            "Prompt dependency not found: nope - version 1",
        ),
        (
            "base|label=nope",
            "Prompt dependency not found: base - label nope",
        ),
        (
            "top|label=latest",
            "Prompt dependency is not a text prompt: top",
        ),
        (
            "middle|version=1",
            "Circular dependency detected involving prompt 'middle' version 1",
        ),
    ] {
        let body = json!({"name": "middle", "prompt": tag(which)});
        let (status, answer) = xtrace.post(PATH, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{which}");
        assert!(
            answer["message"].as_str().unwrap().contains(words),
            "{answer}"
        );
        assert_eq!(answer["error"], "InvalidRequestError");
    }
    // What was deleted by force is missed when it is read.
    let mut sql = xtrace.sql().await;
    sqlx::query("delete from prompts where name = 'base'")
        .execute(&mut sql)
        .await
        .unwrap();
    let (status, body) = get(&xtrace, "top").await;
    assert_eq!(
        (status, &body["error"]),
        (StatusCode::CONFLICT, &json!("LangfuseConflictError"))
    );
    assert_eq!(get(&xtrace, "top?resolve=false").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_prompts_lie_within_each_other_at_most() {
    let xtrace = Xtrace::start().await;
    create(&xtrace, json!({"name": "p0", "prompt": "end"})).await;
    for level in 1..=5 {
        let text = format!("@@@langfusePrompt:name=p{}|version=1@@@", level - 1);
        let body = json!({"name": format!("p{level}"), "prompt": text});
        let (status, answer) = xtrace.post(PATH, &body).await;
        if level <= 4 {
            assert_eq!(status, StatusCode::CREATED, "{level}: {answer}");
        } else {
            assert_eq!(status, StatusCode::BAD_REQUEST, "{level}");
            assert_eq!(answer["message"], "Maximum nesting depth exceeded (5)");
        }
    }
}
