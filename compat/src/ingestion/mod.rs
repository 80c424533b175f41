//! `POST /ingestion`: batches of events, each answered on its own.
//!
//! - `event`: an event's envelope. `legacy`: requests of one event. `homes`: the traces of
//!   observations. `observation`, `trace`, `usage`: bodies as parts of documents; scores
//!   are those of [`crate::scores::create`].

mod event;
mod homes;
pub(crate) mod legacy;
mod observation;
mod trace;
mod usage;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Extensions, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use xtrace_model::caller::ScoreWriter;
use xtrace_model::text::repair_json;
use xtrace_model::{AuthFailure, Authentication, Batch, ProjectId, Trace, time};
use xtrace_store::StoreError;

use crate::Compat;
use crate::body::{Issue, Object};
use crate::error::CompatError;
use crate::scores::create::ScoreBody;
pub(crate) use event::When;
use event::{Event, EventKind};
use homes::Homes;
use observation::ObservationPart;

/// A body of `POST /traces`: an event that happens now.
pub(crate) fn trace_of(body: Object<'_>, whole: &Value) -> Result<Trace, Issue> {
    let hash = xxhash_rust::xxh3::xxh3_64(whole.to_string().as_bytes());
    let when = When::now(time::from_utc(Utc::now()), hash);
    trace::parse_body(body, when, || uuid::Uuid::new_v4().to_string())
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    batch: Vec<&'a RawValue>,
}

/// Who may do what here: a public key alone may send scores.
struct Sender {
    project: ProjectId,
    scores_only: bool,
}

/// `POST /ingestion`.
pub(crate) async fn receive(
    State(compat): State<Compat>,
    extensions: Extensions,
    body: Bytes,
) -> Response {
    match sender(&extensions) {
        Ok(sender) => match ingest(&compat, sender, &body).await {
            Ok(outcomes) => outcomes.into_response(),
            Err(error) => error.into_response(),
        },
        Err(failure) => refused(failure),
    }
}

fn sender(extensions: &Extensions) -> Result<Sender, AuthFailure> {
    let found = extensions.get::<Authentication>().cloned();
    match found.unwrap_or(Err(AuthFailure::Missing)) {
        Ok(caller) => Ok(Sender {
            project: caller.project,
            scores_only: false,
        }),
        Err(failure) => match extensions.get::<ScoreWriter>() {
            Some(ScoreWriter(project)) => Ok(Sender {
                project: project.clone(),
                scores_only: true,
            }),
            None => Err(failure),
        },
    }
}

/// This path names the kind of its refusals of credentials.
fn refused(failure: AuthFailure) -> Response {
    let error = CompatError::Auth(failure);
    if failure == AuthFailure::Unavailable {
        return error.into_response();
    }
    error.into_named_response("UnauthorizedError")
}

/// What becomes of each event, in the order of Langfuse: creations by time, then updates by time.
#[derive(Default)]
struct Outcomes {
    successes: Vec<(bool, i64, Value)>,
    errors: Vec<Value>,
}

impl Outcomes {
    fn success(&mut self, event: &Event) {
        let row = json!({"id": event.id, "status": 201});
        self.successes
            .push((event.kind.is_update(), event.time, row));
    }

    fn error(&mut self, id: &str, status: u16, message: &str, error: &str) {
        self.errors
            .push(json!({"id": id, "status": status, "message": message, "error": error}));
    }

    fn invalid(&mut self, id: &str, issue: &Issue) {
        let text = Value::Array(vec![issue.clone()]).to_string();
        self.error(id, 400, "Invalid request data", &text);
    }
}

impl IntoResponse for Outcomes {
    fn into_response(mut self) -> Response {
        self.successes
            .sort_by_key(|(is_update, time, _)| (*is_update, *time));
        let successes: Vec<Value> = self.successes.into_iter().map(|(.., row)| row).collect();
        let body = json!({"successes": successes, "errors": self.errors});
        (StatusCode::MULTI_STATUS, Json(body)).into_response()
    }
}

async fn ingest(compat: &Compat, sender: Sender, body: &[u8]) -> Result<Outcomes, CompatError> {
    let text = repair_json(body);
    let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(&text) else {
        return Err(CompatError::Envelope(
            "Invalid input: expected an object with an array `batch`".to_owned(),
        ));
    };
    let mut outcomes = Outcomes::default();
    let mut parts = Parts::new(sender.project);
    for raw in envelope.batch {
        let value: Value = xtrace_model::json::parse(raw.get()).unwrap_or_default();
        match Event::parse(&value) {
            Err((id, issue)) => outcomes.invalid(&id, &issue),
            Ok(event) if event.kind == EventKind::Log => {}
            Ok(event) if sender.scores_only && event.kind != EventKind::Score => {
                outcomes.error(
                    &event.id,
                    401,
                    "Authentication error",
                    "Access Scope Denied",
                );
            }
            Ok(event) => match parts.take(&event) {
                Ok(()) => outcomes.success(&event),
                Err(issue) => outcomes.invalid(&event.id, &issue),
            },
        }
    }
    let (batch, homes) = parts.into_batch(compat).await?;
    for id in compat.writer.submit(batch).await?.refused {
        outcomes.error(
            &id,
            400,
            "Invalid request data",
            "the database can't hold a value of it",
        );
    }
    homes.settle(compat).await?;
    Ok(outcomes)
}

/// Events as parts of documents.
struct Parts {
    batch: Batch,
    scores: Vec<ScoreBody>,
    observations: Vec<ObservationPart>,
}

impl Parts {
    fn new(project: ProjectId) -> Self {
        Self {
            batch: Batch::new(project),
            scores: Vec::new(),
            observations: Vec::new(),
        }
    }

    fn take(&mut self, event: &Event) -> Result<(), Issue> {
        match event.kind {
            EventKind::Trace => {
                let trace = trace::parse(event)?;
                self.batch.bytes += event.bytes + 2000;
                self.batch.traces.push(trace);
            }
            EventKind::Score => {
                let score = ScoreBody::parse(event.body, &event.when())?;
                self.batch.bytes += event.bytes + 1000;
                self.scores.push(score);
            }
            EventKind::Observation { .. } => {
                let part = ObservationPart::parse(event)?;
                self.batch.bytes += event.bytes + 3000;
                self.observations.push(part);
            }
            EventKind::Log => {}
        }
        Ok(())
    }

    /// Finds the traces of observations, and which scores keep to their configurations.
    async fn into_batch(mut self, compat: &Compat) -> Result<(Batch, Homes), StoreError> {
        let homes = Homes::of(compat, &self.batch.project, &self.observations).await?;
        for part in self.observations {
            let trace = homes.trace_of(&part);
            // Its ids were checked when it was parsed.
            let _ = part.put(trace, &mut self.batch);
        }
        if !self.scores.is_empty() {
            let project = self.batch.project.clone();
            for score in
                crate::scores::create::checked(&compat.store, &project, self.scores).await?
            {
                match score {
                    Ok(score) => self.batch.scores.push(score),
                    // Langfuse finds out later, and drops it then.
                    Err(fault) => {
                        tracing::info!(%fault, "a score that breaks its configuration was dropped");
                    }
                }
            }
        }
        Ok((self.batch, homes))
    }
}
