//! Columns of rows as a stream in the binary format of `COPY … FROM STDIN (FORMAT binary)`.
//! Source: PostgreSQL documentation, "COPY", "Binary Format"; types as their `…_recv` functions read them.

use xtrace_model::{Micros, time};

use super::insert::Column;

/// Microseconds from the Unix epoch to Postgres' own, 2000-01-01.
const POSTGRES_EPOCH: Micros = 946_684_800_000_000;
const TEXT_OID: i32 = 25;

/// All rows, with header and trailer.
pub(super) fn stream(columns: &[Column], rows: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 << 10);
    bytes.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
    bytes.extend_from_slice(&[0; 8]);
    for row in 0..rows {
        bytes.extend_from_slice(
            &i16::try_from(columns.len())
                .unwrap_or(i16::MAX)
                .to_be_bytes(),
        );
        for column in columns {
            put_value(&mut bytes, column, row);
        }
    }
    bytes.extend_from_slice(&(-1_i16).to_be_bytes());
    bytes
}

fn put_value(bytes: &mut Vec<u8>, column: &Column, row: usize) {
    match column {
        Column::Text(values) => put(bytes, values[row].as_deref().map(str::as_bytes)),
        Column::Jsonb(values) => put_jsonb(bytes, values[row].as_deref()),
        Column::TextArray(values) => put(bytes, Some(&text_array(&values[row]))),
        Column::Time(values) => put_fixed(
            bytes,
            values[row].map(|at| (time::from_utc(at) - POSTGRES_EPOCH).to_be_bytes()),
        ),
        Column::Int8(values) => put_fixed(bytes, values[row].map(i64::to_be_bytes)),
        Column::Int4(values) => put_fixed(bytes, values[row].map(i32::to_be_bytes)),
        Column::Float8(values) => put_fixed(bytes, values[row].map(f64::to_be_bytes)),
        Column::Bool(values) => put_fixed(bytes, values[row].map(|truth| [u8::from(truth)])),
    }
}

fn put_fixed<const N: usize>(bytes: &mut Vec<u8>, value: Option<[u8; N]>) {
    put(bytes, value.as_ref().map(<[u8; N]>::as_slice));
}

fn put(bytes: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => bytes.extend_from_slice(&(-1_i32).to_be_bytes()),
        Some(value) => {
            put_length(bytes, value.len());
            bytes.extend_from_slice(value);
        }
    }
}

/// `jsonb` is a version byte and JSON text.
fn put_jsonb(bytes: &mut Vec<u8>, value: Option<&str>) {
    match value {
        None => put(bytes, None),
        Some(text) => {
            put_length(bytes, text.len() + 1);
            bytes.push(1);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
}

/// A request is at most 1 GiB, so a field of it fits.
fn put_length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes());
}

fn text_array(values: &[String]) -> Vec<u8> {
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
    array
}
