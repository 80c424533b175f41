//! Every function of the store that adds rows of a project, of one that is being deleted.

use std::collections::BTreeMap;

use chrono::Utc;
use sqlx::{Connection, PgConnection};
use xtrace_model::caller::Scopes;
use xtrace_model::{Batch, ProjectId, Trace, TraceId};
use xtrace_store::{
    Store, StoreError, Writer, WriterLimits, annotation_queues, comments, configured_keys,
    dataset_runs, datasets, erasure, keys, media, models, projects, prompts, score_configs,
};

use super::{id, rows, store_with};

/// And of one that was never made.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_writes_for_a_project_is_refused_from_the_answer_on() {
    let (url, store) = store_with("gone").await;
    assert!(erasure::ask(&store, &id("gone"), Utc::now()).await.unwrap());
    projects::ensure(&store, &id("open"), Utc::now())
        .await
        .unwrap();
    for project in ["gone", "never-made"] {
        for (what, outcome) in writes(&store, &id(project)).await {
            assert!(
                matches!(outcome, Err(StoreError::ProjectGone)),
                "{what} of {project}: {outcome:?}"
            );
        }
        let mut sql = PgConnection::connect(&url).await.unwrap();
        assert_eq!(rows(&mut sql, project).await, BTreeMap::new());
    }
    // The same calls are taken for another project: it is the project that they were refused for.
    for (what, outcome) in writes(&store, &id("open")).await {
        outcome.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
}

type Outcome = Result<(), StoreError>;

type Outcomes = Vec<(&'static str, Outcome)>;

async fn writes(store: &Store, project: &ProjectId) -> Outcomes {
    let mut batch = Batch::new(project.clone());
    batch.traces.push(Trace::new(TraceId::parse("t").unwrap()));
    let (writer, _) = Writer::start(store.clone(), WriterLimits::default());
    let mut all = vec![("a batch", writer.submit(batch).await.map(drop))];
    all.extend(annotation(store, project).await);
    all.extend(data(store, project).await);
    all.extend(files(store, project).await);
    all.extend(prompts_and_models(store, project).await);
    all.extend(key_pairs(store, project).await);
    all
}

fn text() -> String {
    "x".to_owned()
}

async fn annotation(store: &Store, project: &ProjectId) -> Outcomes {
    let now = Utc::now();
    let comment = comments::Comment {
        id: text(),
        object_type: text(),
        object_id: text(),
        content: text(),
        created_at: now,
        updated_at: now,
    };
    let queue = annotation_queues::Queue {
        id: text(),
        name: text(),
        description: None,
        score_config_ids: Vec::new(),
        created_at: now,
        updated_at: now,
    };
    let item = annotation_queues::Item {
        id: text(),
        queue_id: text(),
        object_type: text(),
        object_id: text(),
        status: text(),
        completed_at: None,
        created_at: now,
        updated_at: now,
    };
    let config = score_configs::ScoreConfig {
        id: text(),
        name: text(),
        description: None,
        data_type: text(),
        min_value: None,
        max_value: None,
        categories: None,
        is_archived: false,
        created_at: now,
        updated_at: now,
    };
    let queued = annotation_queues::add(store, project, &queue).await;
    vec![
        ("a comment", comments::add(store, project, &comment).await),
        ("a queue", queued.map(drop)),
        (
            "an item of a queue",
            annotation_queues::put_item(store, project, &item).await,
        ),
        (
            "a configuration of scores",
            score_configs::put(store, project, &config).await,
        ),
    ]
}

async fn data(store: &Store, project: &ProjectId) -> Outcomes {
    let now = Utc::now();
    let dataset = datasets::Dataset {
        id: text(),
        name: text(),
        description: None,
        metadata: None,
        input_schema: None,
        expected_output_schema: None,
        created_at: now,
        updated_at: now,
    };
    let item = datasets::Item {
        id: text(),
        dataset_id: text(),
        status: text(),
        input: None,
        expected_output: None,
        metadata: None,
        source_trace_id: None,
        source_observation_id: None,
        created_at: now,
        valid_from: now,
    };
    let run = dataset_runs::Run {
        id: text(),
        dataset_id: text(),
        name: text(),
        description: None,
        metadata: None,
        created_at: now,
        updated_at: now,
    };
    let run_item = dataset_runs::RunItem {
        id: text(),
        run_id: text(),
        item_id: text(),
        trace_id: text(),
        observation_id: None,
        created_at: now,
        updated_at: now,
    };
    let put = datasets::put(store, project, &dataset).await;
    vec![
        ("a dataset", put.map(drop)),
        (
            "an item of a dataset",
            datasets::put_item(store, project, &item).await,
        ),
        (
            "a run",
            dataset_runs::add_item(store, project, &run, &run_item).await,
        ),
    ]
}

async fn files(store: &Store, project: &ProjectId) -> Outcomes {
    let now = Utc::now();
    let file = media::Media {
        id: text(),
        sha256: Vec::new(),
        content_type: text(),
        content_length: 1,
        upload_id: None,
        uploaded_at: None,
        upload_http_status: None,
        upload_http_error: None,
    };
    let link = media::Link {
        owner: media::Owner::Trace(text()),
        field: text(),
    };
    let upload = media::Upload {
        project: project.clone(),
        id: text(),
    };
    vec![
        (
            "a file",
            media::announce(store, project, &file, &link, now).await,
        ),
        (
            "a piece of a file",
            media::add_chunk(store, &upload, 0, b"x", now).await,
        ),
    ]
}

async fn prompts_and_models(store: &Store, project: &ProjectId) -> Outcomes {
    let now = Utc::now();
    let model = models::ProjectModel {
        id: text(),
        model_name: text(),
        match_pattern: text(),
        start_date: None,
        unit: text(),
        tokenizer_id: None,
        tokenizer_config: None,
        pricing_tiers: "[]".to_owned(),
        created_at: now,
    };
    let prompt = prompts::NewPrompt {
        id: text(),
        name: text(),
        r#type: "text",
        prompt: text(),
        config: text(),
        labels: Vec::new(),
        tags: None,
        commit_message: None,
    };
    let put = models::put(store, project, &model, now).await;
    let created = prompts::create(store, project, prompt, now).await;
    vec![("a model", put.map(drop)), ("a prompt", created.map(drop))]
}

async fn key_pairs(store: &Store, project: &ProjectId) -> Outcomes {
    let now = Utc::now();
    let name = |kind: &str| format!("pk-{kind}-{project}");
    let key = keys::NewKey {
        public_key: name("add"),
        secret_key: text(),
        name: None,
        scopes: Scopes::of_keys(),
        expires_at: None,
    };
    let (put, configured) = (name("put"), name("configured"));
    let added = keys::add(store, project, &key, now).await;
    let pair = (configured.as_str(), "x");
    let configured = configured_keys::configure(store, project, pair, now).await;
    vec![
        ("a key", added.map(drop)),
        (
            "a key of its name",
            keys::put(store, project, &put, "x", now).await,
        ),
        ("a configured key", configured.map(drop)),
    ]
}
