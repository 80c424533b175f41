//! Values in the binary format of `COPY … FROM STDIN (FORMAT binary)`.
//! Source: PostgreSQL documentation, "COPY", "Binary Format"; types as their `…_recv` functions read them.

use xtrace_model::{Micros, time};

/// Microseconds from the Unix epoch to Postgres' own, 2000-01-01.
const POSTGRES_EPOCH: Micros = 946_684_800_000_000;
const TEXT_OID: i32 = 25;

/// What a stream begins with: signature, no flags, no extension.
pub(super) fn header() -> Vec<u8> {
    let mut stream = Vec::with_capacity(64 << 10);
    stream.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
    stream.extend_from_slice(&[0; 8]);
    stream
}

/// What a stream ends with.
pub(super) fn put_trailer(stream: &mut Vec<u8>) {
    stream.extend_from_slice(&(-1_i16).to_be_bytes());
}

/// What a row begins with.
pub(super) fn put_row(stream: &mut Vec<u8>, columns: usize) {
    let columns = i16::try_from(columns).unwrap_or(i16::MAX);
    stream.extend_from_slice(&columns.to_be_bytes());
}

/// Text, or any other type's bytes.
pub(super) fn put(stream: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => stream.extend_from_slice(&(-1_i32).to_be_bytes()),
        Some(value) => {
            put_length(stream, value.len());
            stream.extend_from_slice(value);
        }
    }
}

pub(super) fn put_fixed<const N: usize>(stream: &mut Vec<u8>, value: Option<[u8; N]>) {
    put(stream, value.as_ref().map(<[u8; N]>::as_slice));
}

pub(super) fn put_time(stream: &mut Vec<u8>, value: Option<Micros>) {
    let within = |at: Micros| at.clamp(time::EARLIEST, time::LATEST);
    put_fixed(
        stream,
        value.map(|at| (within(at) - POSTGRES_EPOCH).to_be_bytes()),
    );
}

/// `jsonb` is a version byte and JSON text.
pub(super) fn put_jsonb(stream: &mut Vec<u8>, value: Option<&str>) {
    match value {
        None => put(stream, None),
        Some(text) => {
            put_length(stream, text.len() + 1);
            stream.push(1);
            stream.extend_from_slice(text.as_bytes());
        }
    }
}

/// `text[]`.
pub(super) fn put_texts(stream: &mut Vec<u8>, values: &[&str]) {
    let mut array = Vec::new();
    let dimensions = i32::from(!values.is_empty());
    for number in [dimensions, 0, TEXT_OID] {
        array.extend_from_slice(&number.to_be_bytes());
    }
    if !values.is_empty() {
        put_length(&mut array, values.len());
        array.extend_from_slice(&1_i32.to_be_bytes());
    }
    for value in values {
        put(&mut array, Some(value.as_bytes()));
    }
    put(stream, Some(&array));
}

/// A request is at most 1 GiB, so a field of it fits.
fn put_length(stream: &mut Vec<u8>, length: usize) {
    let length = i32::try_from(length).unwrap_or(i32::MAX);
    stream.extend_from_slice(&length.to_be_bytes());
}
