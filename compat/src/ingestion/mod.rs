//! `POST /ingestion`: batches of events, each answered on its own.
//!
//! - `event`: an event's envelope. `outcomes`: what became of each. `legacy`: requests of one event.
//!   `homes`: the traces of observations. `observation`, `trace`, `usage`: bodies as parts of
//!   documents; scores are those of [`crate::scores::create`].

mod event;
mod homes;
pub(crate) mod legacy;
mod observation;
mod outcomes;
mod trace;
mod usage;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::Extensions;
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use xtrace_model::caller::ScoreWriter;
use xtrace_model::capped::{self, Capped, TOO_MANY};
use xtrace_model::json::{VALUE_BYTES, values_in};
use xtrace_model::text::repair_json;
use xtrace_model::{AuthFailure, Authentication, Batch, ProjectId, Trace, time};
use xtrace_store::StoreError;

use crate::Compat;
use crate::auth::Sender;
use crate::body::{Issue, Object, aside};
use crate::error::CompatError;
use crate::scores::create::ScoreBody;
pub(crate) use event::When;
use event::{Event, EventKind};
use homes::Homes;
use observation::ObservationPart;
use outcomes::Outcomes;

/// A body of `POST /traces`: an event that happens now.
pub(crate) fn trace_of(body: Object<'_>, whole: &Value) -> Result<Trace, Issue> {
    let hash = xxhash_rust::xxh3::xxh3_64(whole.to_string().as_bytes());
    let when = When::now(time::from_utc(Utc::now()), hash);
    trace::parse_body(body, when, || uuid::Uuid::new_v4().to_string())
}

/// Events of a batch. SDKs send 15 to 100 at once.
const EVENTS_MAX: usize = 10_000;
/// Values of a batch that are held one by one: members of metadata and of usage, some hundred bytes each.
const VALUES_MAX: usize = 500_000;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, deserialize_with = "capped::required")]
    batch: Capped<&'a RawValue, EVENTS_MAX>,
}

/// Who may do what here: a public key alone may send scores.
struct Caller {
    project: ProjectId,
    sender: Sender,
}

/// `POST /ingestion`.
pub(crate) async fn receive(
    State(compat): State<Compat>,
    extensions: Extensions,
    body: Bytes,
) -> Response {
    match caller(&extensions) {
        Ok(caller) => match ingest(&compat, caller, body).await {
            Ok(outcomes) => outcomes.into_response(),
            Err(error) => error.into_response(),
        },
        Err(failure) => refused(failure),
    }
}

fn caller(extensions: &Extensions) -> Result<Caller, AuthFailure> {
    let found = extensions.get::<Authentication>().cloned();
    match found.unwrap_or(Err(AuthFailure::Missing)) {
        Ok(caller) => Ok(Caller {
            project: caller.project,
            sender: Sender::Known,
        }),
        Err(failure) => match extensions.get::<ScoreWriter>() {
            Some(ScoreWriter(project)) => Ok(Caller {
                project: project.clone(),
                sender: Sender::Public,
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

async fn ingest(compat: &Compat, caller: Caller, body: Bytes) -> Result<Outcomes, CompatError> {
    let (mut outcomes, parts) = aside(body.len(), move || read(caller, &body)).await??;
    let (batch, homes) = parts.into_batch(compat).await?;
    for id in compat.writer.submit(batch).await?.refused {
        outcomes.unstorable(&id);
    }
    homes.settle(compat).await?;
    Ok(outcomes)
}

/// Decodes a batch, event by event.
fn read(caller: Caller, body: &[u8]) -> Result<(Outcomes, Parts), CompatError> {
    let text = repair_json(body);
    let envelope: Envelope<'_> = serde_json::from_str(&text).map_err(|fault| no_batch(&fault))?;
    let mut outcomes = Outcomes::default();
    let mut parts = Parts::new(caller.project);
    parts.sender = caller.sender;
    for raw in envelope.batch.0 {
        if caller.sender == Sender::Public
            && let Some(id) = out_of_scope(raw)
        {
            outcomes.out_of_scope(&id);
            continue;
        }
        let value: Value = xtrace_model::json::parse(raw.get()).unwrap_or_default();
        match Event::parse(&value) {
            Err((id, issue)) => outcomes.invalid(&id, &issue),
            Ok(event) if event.kind == EventKind::Log => {}
            Ok(event) => match parts.take(&event) {
                Ok(()) => outcomes.success(&event),
                Err(issue) => outcomes.invalid(&event.id, &issue),
            },
        }
        if parts.values > VALUES_MAX {
            return Err(CompatError::BodyTooLarge(format!(
                "The metadata and usage of a batch may have {VALUES_MAX} values; send the batch in parts"
            )));
        }
    }
    Ok((outcomes, parts))
}

/// What the events of a batch become, without a database that knows the traces of observations and the
/// configurations of scores; for the fuzzers.
pub(crate) fn read_batch(body: &[u8], project: &ProjectId, scores_only: bool) -> Option<Batch> {
    let caller = Caller {
        project: project.clone(),
        sender: if scores_only {
            Sender::Public
        } else {
            Sender::Known
        },
    };
    let (_, parts) = read(caller, body).ok()?;
    let mut batch = parts.batch;
    for part in parts.observations {
        let _ = part.put("trace".to_owned(), &mut batch);
    }
    Some(batch)
}

fn no_batch(fault: &serde_json::Error) -> CompatError {
    if fault.to_string().contains(TOO_MANY) {
        return CompatError::BodyTooLarge(format!(
            "A batch may have {EVENTS_MAX} events; send it in parts"
        ));
    }
    CompatError::Envelope("Invalid input: expected an object with an array `batch`".to_owned())
}

/// The id of an event that a public key alone may not send. Only the event's head is decoded.
fn out_of_scope(raw: &RawValue) -> Option<String> {
    #[derive(Default, Deserialize)]
    struct Head {
        id: Option<String>,
        r#type: Option<String>,
    }
    let head: Head = serde_json::from_str(raw.get()).unwrap_or_default();
    match head.r#type.as_deref() {
        Some("score-create" | "sdk-log") => None,
        _ => Some(head.id.unwrap_or_else(|| "unknown".to_owned())),
    }
}

/// Events as parts of documents.
struct Parts {
    batch: Batch,
    scores: Vec<ScoreBody>,
    observations: Vec<ObservationPart>,
    /// Held one by one so far.
    values: usize,
    sender: Sender,
}

impl Parts {
    fn new(project: ProjectId) -> Self {
        Self {
            batch: Batch::new(project),
            scores: Vec::new(),
            observations: Vec::new(),
            values: 0,
            sender: Sender::Known,
        }
    }

    fn take(&mut self, event: &Event) -> Result<(), Issue> {
        let values = held_values(event.body);
        self.values += values;
        self.batch.bytes += values * VALUE_BYTES;
        match event.kind {
            EventKind::Trace => {
                let trace = trace::parse(event)?;
                self.batch.bytes += event.bytes + 2000;
                self.batch.traces.push(trace);
            }
            EventKind::Score => {
                let score = ScoreBody::parse(event.body, &event.when().said_by(self.sender))?;
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
            let checked =
                crate::scores::create::checked(&compat.store, &project, self.scores).await?;
            let (mut dropped, mut reason) = (0_usize, None);
            for score in checked {
                match score {
                    Ok(score) => self.batch.scores.push(score),
                    // Langfuse finds out later, and drops it then.
                    Err(fault) => {
                        dropped += 1;
                        reason.get_or_insert(fault);
                    }
                }
            }
            if let Some(reason) = reason {
                tracing::info!(dropped, %reason, "scores that break their configuration were dropped");
            }
        }
        Ok((self.batch, homes))
    }
}

/// Values of a body that are held one by one; input and output are held as text.
fn held_values(body: Object<'_>) -> usize {
    let members = body.members().iter();
    members
        .filter(|(name, _)| !matches!(name.as_str(), "input" | "output" | "modelParameters"))
        .map(|(_, value)| values_in(value))
        .sum()
}
