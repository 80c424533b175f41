//! Log records: events without a duration, of a trace or of none.

use crate::{Micros, ObservationId, TraceId};

/// A log record. It never changes: sent again, it is the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Of its content, so that a repeated one has the same.
    pub id: String,
    /// When it happened; else when it was observed; else when it was received.
    pub time: Micros,
    /// When it happened or was observed, in nanoseconds as it was sent; 0 if it was not.
    pub sent_unix_nano: u64,
    /// When a collector saw it.
    pub observed: Option<Micros>,
    /// 1 to 24 by rising severity (OpenTelemetry's numbers), 0 for unknown.
    pub severity: i32,
    /// The severity in the sender's words.
    pub severity_text: Option<String>,
    /// What kind of event it is, for records that are events.
    pub event_name: Option<String>,
    /// JSON text.
    pub body: Option<String>,
    /// The trace that it happened in.
    pub trace_id: Option<TraceId>,
    /// The span that it happened in.
    pub span_id: Option<ObservationId>,
    /// Whether it tells something of its span that an observation has a field for.
    pub has_content: bool,
    /// A JSON object as text.
    pub attributes: String,
    /// Whatever else was sent, a JSON object as text.
    pub rest: String,
}
