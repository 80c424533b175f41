//! Ids and times of a span: which ids can be stored (rules V-1, V-2), which times stand in for
//! those that nobody sent (rule V-8).

use xtrace_model::{Micros, ObservationId, TraceId};

use crate::receivers::otlp::wire;

/// The ids of a span that can be stored.
pub(super) struct SpanIds {
    pub(super) trace: TraceId,
    pub(super) span: ObservationId,
    pub(super) parent: Option<String>,
    /// The span id's bits, to order spans that begin together.
    pub(super) order: u64,
}

impl SpanIds {
    /// Rules V-1 and V-2.
    pub(super) fn of(span: &wire::Span<'_>) -> Result<Self, &'static str> {
        use wire::WireId;
        let trace = match span.trace_id {
            WireId::Valid(_) => span.trace_id.to_hex(),
            WireId::Absent => return Err("traceId:absent"),
            WireId::Zero => return Err("traceId:all_zero"),
            WireId::Malformed => return Err("traceId:not_an_id (16 non-zero bytes)"),
        };
        let (id, order) = match span.span_id {
            WireId::Valid(bytes) => (span.span_id.to_hex(), u64::from_be_bytes(bytes)),
            WireId::Absent => return Err("spanId:absent"),
            WireId::Zero => return Err("spanId:all_zero"),
            WireId::Malformed => return Err("spanId:not_an_id (8 non-zero bytes)"),
        };
        let ids = trace.zip(id).and_then(|(trace, id)| {
            Some((TraceId::parse(trace).ok()?, ObservationId::parse(id).ok()?))
        });
        let (trace, span_id) = ids.ok_or("traceId:not_an_id (16 non-zero bytes)")?;
        Ok(Self {
            trace,
            span: span_id,
            parent: span.parent_span_id.to_hex(),
            order,
        })
    }
}

/// Times of a span in nanoseconds since the Unix epoch (rule V-8).
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) start: i64,
    pub(super) end: i64,
    /// Whether the span had any time of its own.
    pub(super) sent: bool,
}

impl Times {
    pub(super) fn of(span: &wire::Span<'_>, received: Micros) -> Self {
        let nanos = |nanos: u64| i64::try_from(nanos).unwrap_or(i64::MAX);
        let (start, end) = (
            nanos(span.start_time_unix_nano),
            nanos(span.end_time_unix_nano),
        );
        let (start, end, sent) = match (start, end) {
            (0, 0) => (
                received.saturating_mul(1000),
                received.saturating_mul(1000),
                false,
            ),
            (0, end) => (end, end, true),
            (start, end) => (start, end.max(start), true),
        };
        Self { start, end, sent }
    }

    /// Begin and end as far as they may order spans and their versions. A time of receipt must not:
    /// sent twice, a span would differ from itself.
    pub(super) fn ordering(self) -> (i64, i64) {
        if self.sent {
            (self.start, self.end)
        } else {
            (0, 0)
        }
    }
}
