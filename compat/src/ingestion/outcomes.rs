//! What became of each event of a batch, in an answer whose size is bounded by the events and their ids.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use xtrace_model::text::cut_chars;

use super::event::{Event, ID_CHARS_MAX};
use crate::body::Issue;

/// Faults that are explained. The others are listed with their id and status alone: clients look every event up
/// by its id, and who reads a hundred explanations needs no more of them.
const WORDED_MAX: usize = 100;

/// What becomes of each event, in the order of Langfuse: creations by time, then updates by time.
#[derive(Default)]
pub(super) struct Outcomes {
    successes: Vec<(bool, i64, String)>,
    errors: Vec<Refusal>,
}

#[derive(Serialize)]
struct Refusal {
    id: String,
    status: u16,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Outcomes {
    pub(super) fn success(&mut self, event: &Event<'_>) {
        let id = event.id.clone();
        self.successes
            .push((event.kind.is_update(), event.time, id));
    }

    /// The event is no event, or its body breaks a rule.
    pub(super) fn invalid(&mut self, id: &str, issue: &Issue) {
        self.refuse(id, 400, "Invalid request data", || {
            Value::Array(vec![issue.clone()]).to_string()
        });
    }

    /// The database can't hold it.
    pub(super) fn unstorable(&mut self, id: &str) {
        self.refuse(id, 400, "Invalid request data", || {
            "the database can't hold a value of it".to_owned()
        });
    }

    /// A public key alone may not send it.
    pub(super) fn out_of_scope(&mut self, id: &str) {
        self.refuse(id, 401, "Authentication error", || {
            "Access Scope Denied".to_owned()
        });
    }

    fn refuse(
        &mut self,
        id: &str,
        status: u16,
        message: &'static str,
        words: impl FnOnce() -> String,
    ) {
        let error = (self.errors.len() < WORDED_MAX).then(words);
        self.errors.push(Refusal {
            id: cut_chars(id, ID_CHARS_MAX).to_owned(),
            status,
            message,
            error,
        });
    }
}

impl IntoResponse for Outcomes {
    fn into_response(mut self) -> Response {
        #[derive(Serialize)]
        struct Success {
            id: String,
            status: u16,
        }
        self.successes
            .sort_by_key(|(is_update, time, _)| (*is_update, *time));
        let successes = self.successes.into_iter();
        let successes: Vec<Success> = successes
            .map(|(.., id)| Success { id, status: 201 })
            .collect();
        let body = json!({"successes": successes, "errors": self.errors});
        (StatusCode::MULTI_STATUS, Json(body)).into_response()
    }
}
