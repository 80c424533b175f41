//! Readers of bytes that strangers choose, without a server around them, for the fuzzers.

use chrono::DateTime;
use xtrace_model::{Batch, ProjectId};
use xtrace_store::filter::{ObservationColumn, ScoreColumn, TraceColumn};

use crate::cursor::Cursor;
use crate::media::fuzz_link;
use crate::query::Query;
use crate::{filter, ingestion};

/// What the events of a batch become.
pub fn ingestion(body: &[u8], project: &ProjectId, scores_only: bool) -> Option<Batch> {
    ingestion::read_batch(body, project, scores_only)
}

/// Reads the parameters of a request: its filter for each kind of rows, and its cursor.
pub fn query(text: &str) {
    let query = Query::parse(text);
    // Whether they are refused is no matter here: they must be answered.
    let _ = filter::parse::<TraceColumn>(&query);
    let _ = filter::parse::<ObservationColumn>(&query);
    let _ = filter::parse::<ScoreColumn>(&query);
    if let Ok(Some(cursor)) = Cursor::versioned(&query) {
        let _ = (cursor.time("t"), cursor.text("id"));
    }
}

/// Reads a cursor.
pub fn cursor(text: &str) {
    if let Ok(cursor) = Cursor::parse(text) {
        let _ = (cursor.time("t"), cursor.text("id"));
    }
}

/// Reads the end of a media link: one that nobody signed, and one that holds the bytes and is signed.
/// Whether the first opened anything.
pub fn link(bytes: &[u8]) -> bool {
    fuzz_link(bytes, b"a key", DateTime::UNIX_EPOCH)
}
