//! Rows in the binary format of `COPY … FROM STDIN (FORMAT binary)`.
//! Source: PostgreSQL documentation, "COPY", "Binary Format"; types as their `…_recv` functions read them.

use xtrace_model::Micros;

/// Microseconds from the Unix epoch to Postgres' own, 2000-01-01.
const POSTGRES_EPOCH: Micros = 946_684_800_000_000;
const TEXT_OID: i32 = 25;

/// A growing `COPY` stream.
pub(super) struct CopyBuffer {
    bytes: Vec<u8>,
}

impl CopyBuffer {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(64 << 10);
        bytes.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes }
    }

    /// Begins a row; exactly `columns` values must follow.
    pub(super) fn row(&mut self, columns: i16) -> &mut Self {
        self.bytes.extend_from_slice(&columns.to_be_bytes());
        self
    }

    /// The stream with its trailer.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&(-1_i16).to_be_bytes());
        self.bytes
    }

    fn field(&mut self, value: Option<&[u8]>) -> &mut Self {
        match value {
            None => self.bytes.extend_from_slice(&(-1_i32).to_be_bytes()),
            Some(value) => {
                self.length(value.len());
                self.bytes.extend_from_slice(value);
            }
        }
        self
    }

    fn length(&mut self, length: usize) {
        // A request is at most 2 GiB, so a field of it fits.
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
    }

    pub(super) fn text(&mut self, value: Option<&str>) -> &mut Self {
        self.field(value.map(str::as_bytes))
    }

    pub(super) fn time(&mut self, value: Option<Micros>) -> &mut Self {
        self.int8(value.map(|micros| micros.saturating_sub(POSTGRES_EPOCH)))
    }

    pub(super) fn int8(&mut self, value: Option<i64>) -> &mut Self {
        self.field(
            value
                .map(i64::to_be_bytes)
                .as_ref()
                .map(<[u8; 8]>::as_slice),
        )
    }

    pub(super) fn int4(&mut self, value: Option<i32>) -> &mut Self {
        self.field(
            value
                .map(i32::to_be_bytes)
                .as_ref()
                .map(<[u8; 4]>::as_slice),
        )
    }

    pub(super) fn float8(&mut self, value: Option<f64>) -> &mut Self {
        self.field(
            value
                .map(f64::to_be_bytes)
                .as_ref()
                .map(<[u8; 8]>::as_slice),
        )
    }

    pub(super) fn bool(&mut self, value: Option<bool>) -> &mut Self {
        self.field(
            value
                .map(|value| [u8::from(value)])
                .as_ref()
                .map(<[u8; 1]>::as_slice),
        )
    }

    /// `jsonb` is a version byte and JSON text.
    pub(super) fn jsonb(&mut self, value: Option<&str>) -> &mut Self {
        let Some(text) = value else {
            return self.field(None);
        };
        self.length(text.len() + 1);
        self.bytes.push(1);
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn text_array<'a>(
        &mut self,
        values: impl ExactSizeIterator<Item = &'a str>,
    ) -> &mut Self {
        let mut array = Vec::new();
        let count = i32::try_from(values.len()).unwrap_or(i32::MAX);
        array.extend_from_slice(&i32::from(count > 0).to_be_bytes());
        array.extend_from_slice(&0_i32.to_be_bytes());
        array.extend_from_slice(&TEXT_OID.to_be_bytes());
        if count > 0 {
            array.extend_from_slice(&count.to_be_bytes());
            array.extend_from_slice(&1_i32.to_be_bytes());
        }
        for value in values {
            array.extend_from_slice(&i32::try_from(value.len()).unwrap_or(i32::MAX).to_be_bytes());
            array.extend_from_slice(value.as_bytes());
        }
        self.field(Some(&array))
    }
}
