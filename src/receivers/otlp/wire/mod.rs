//! What an OTLP export says, whichever encoding it came in. Texts borrow from the body.

pub(super) mod metrics;

use std::borrow::Cow;

/// An `Export…ServiceRequest`: items by resource and scope. Those of all signals are alike.
#[derive(Debug, PartialEq)]
pub(super) struct Export<'a, T> {
    pub(super) resources: Vec<OfResource<'a, T>>,
}

/// `ResourceSpans`, `ResourceLogs`.
#[derive(Debug, PartialEq)]
pub(super) struct OfResource<'a, T> {
    pub(super) resource: Resource<'a>,
    pub(super) scopes: Vec<OfScope<'a, T>>,
    pub(super) schema_url: Cow<'a, str>,
}

/// `ScopeSpans`, `ScopeLogs`.
#[derive(Debug, PartialEq)]
pub(super) struct OfScope<'a, T> {
    pub(super) scope: Scope<'a>,
    pub(super) items: Vec<T>,
    pub(super) schema_url: Cow<'a, str>,
}

/// What a signal calls its parts in JSON.
pub(super) struct Names {
    pub(super) resources: &'static str,
    pub(super) scopes: &'static str,
    pub(super) items: &'static str,
}

/// What a signal consists of.
pub(super) trait Item {
    const NAMES: Names;
}

impl Item for Span<'_> {
    const NAMES: Names = Names {
        resources: "resourceSpans",
        scopes: "scopeSpans",
        items: "spans",
    };
}

impl Item for LogRecord<'_> {
    const NAMES: Names = Names {
        resources: "resourceLogs",
        scopes: "scopeLogs",
        items: "logRecords",
    };
}

impl<T> Default for Export<'_, T> {
    fn default() -> Self {
        Self {
            resources: Vec::new(),
        }
    }
}

impl<T> Default for OfResource<'_, T> {
    fn default() -> Self {
        Self {
            resource: Resource::default(),
            scopes: Vec::new(),
            schema_url: Cow::default(),
        }
    }
}

impl<T> Default for OfScope<'_, T> {
    fn default() -> Self {
        Self {
            scope: Scope::default(),
            items: Vec::new(),
            schema_url: Cow::default(),
        }
    }
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Resource<'a> {
    pub(super) attributes: Vec<KeyValue<'a>>,
    pub(super) dropped_attributes_count: u32,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Scope<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) version: Cow<'a, str>,
    pub(super) attributes: Vec<KeyValue<'a>>,
    pub(super) dropped_attributes_count: u32,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Span<'a> {
    pub(super) trace_id: WireId<16>,
    pub(super) span_id: WireId<8>,
    pub(super) trace_state: Cow<'a, str>,
    pub(super) parent_span_id: WireId<8>,
    pub(super) flags: u32,
    pub(super) name: Cow<'a, str>,
    pub(super) kind: i32,
    pub(super) start_time_unix_nano: u64,
    pub(super) end_time_unix_nano: u64,
    pub(super) attributes: Vec<KeyValue<'a>>,
    pub(super) dropped_attributes_count: u32,
    pub(super) events: Vec<Event<'a>>,
    pub(super) dropped_events_count: u32,
    pub(super) links: Vec<Link<'a>>,
    pub(super) dropped_links_count: u32,
    pub(super) status: Status<'a>,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct LogRecord<'a> {
    pub(super) time_unix_nano: u64,
    pub(super) observed_time_unix_nano: u64,
    pub(super) severity_number: i32,
    pub(super) severity_text: Cow<'a, str>,
    pub(super) body: AnyValue<'a>,
    pub(super) attributes: Vec<KeyValue<'a>>,
    pub(super) dropped_attributes_count: u32,
    pub(super) flags: u32,
    pub(super) trace_id: WireId<16>,
    pub(super) span_id: WireId<8>,
    pub(super) event_name: Cow<'a, str>,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Event<'a> {
    pub(super) time_unix_nano: u64,
    pub(super) name: Cow<'a, str>,
    pub(super) attributes: Vec<KeyValue<'a>>,
    pub(super) dropped_attributes_count: u32,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Link<'a> {
    pub(super) trace_id: WireId<16>,
    pub(super) span_id: WireId<8>,
    pub(super) trace_state: Cow<'a, str>,
    pub(super) attributes: Vec<KeyValue<'a>>,
    pub(super) dropped_attributes_count: u32,
    pub(super) flags: u32,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Status<'a> {
    pub(super) message: Cow<'a, str>,
    pub(super) code: i32,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct KeyValue<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) value: AnyValue<'a>,
}

/// `AnyValue`; `Null` when no member of the oneof is set.
#[derive(Debug, Default, PartialEq)]
pub(super) enum AnyValue<'a> {
    #[default]
    Null,
    Text(Cow<'a, str>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(Vec<AnyValue<'a>>),
    Map(Vec<KeyValue<'a>>),
    Bytes(Cow<'a, [u8]>),
}

/// An id as it was sent. Malformed ids are remembered, not refused: only their span is rejected.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireId<const N: usize> {
    /// Nothing, or no bytes.
    #[default]
    Absent,
    /// All bytes are zero, which OTLP calls invalid.
    Zero,
    /// Neither bytes of the right number nor hex digits of the right number.
    Malformed,
    Valid([u8; N]),
}

impl<const N: usize> WireId<N> {
    /// An id from its bytes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::Absent;
        }
        match <[u8; N]>::try_from(bytes) {
            Ok(id) if id == [0; N] => Self::Zero,
            Ok(id) => Self::Valid(id),
            Err(_) => Self::Malformed,
        }
    }

    /// An id from hex digits of either case.
    pub(super) fn from_hex(text: &str) -> Self {
        if text.is_empty() {
            return Self::Absent;
        }
        let digits = text.as_bytes();
        if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Self::Malformed;
        }
        let mut id = [0; N];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).unwrap_or("0");
            *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
        }
        Self::from_bytes(&id)
    }

    /// The id as lower-case hex digits, if it is one.
    pub(super) fn to_hex(self) -> Option<String> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let Self::Valid(id) = self else { return None };
        let mut hex = String::with_capacity(2 * N);
        for byte in id {
            for digit in [byte >> 4, byte & 15] {
                hex.push(char::from(DIGITS[usize::from(digit)]));
            }
        }
        Some(hex)
    }
}

/// Bounds on the number of things in one request: two bytes of protobuf can become a structure of
/// hundreds, so a limit on bytes is not enough.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    pub(super) resources: u32,
    pub(super) scopes: u32,
    /// Spans, log records or metrics.
    pub(super) items: u32,
    /// Data points of metrics.
    pub(super) points: u32,
    /// Attributes, events, links, exemplars and buckets.
    pub(super) attributes: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            resources: 10_000,
            scopes: 10_000,
            items: 100_000,
            points: 200_000,
            attributes: 1_000_000,
        }
    }
}

/// Takes one from what is left of a cap.
pub(super) fn take(left: &mut u32, what: &'static str) -> Result<(), DecodeError> {
    *left = left.checked_sub(1).ok_or(DecodeError::TooMany(what))?;
    Ok(())
}

/// Why a request can't be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("malformed protobuf: {0}")]
    Protobuf(&'static str),
    #[error("malformed JSON: {0}")]
    Json(String),
    #[error("the request has too many {0}; send it in parts")]
    TooMany(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_exact_or_rejected() {
        let check = |text: &str, expected: WireId<2>| assert_eq!(WireId::from_hex(text), expected);
        check("aB01", WireId::Valid([0xab, 1]));
        check("", WireId::Absent);
        check("0000", WireId::Zero);
        check("ab", WireId::Malformed);
        check("0xab", WireId::Malformed);
        check("qrs=", WireId::Malformed);
        assert_eq!(WireId::Valid([0xab, 1]).to_hex().as_deref(), Some("ab01"));
    }
}
