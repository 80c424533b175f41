//! OTLP in protobuf: a reader over the body that borrows texts, repairs invalid UTF-8 text by
//! text, and stops at the caps while it decodes. A test compares it with prost's decoder.
//! Field numbers: opentelemetry-proto, `trace/v1`, `logs/v1`, `common/v1`, `resource/v1`.

mod metrics;

use std::borrow::Cow;

use crate::receivers::otlp::wire::{
    AnyValue, Caps, DecodeError, Event, Export, Item, KeyValue, Link, LogRecord, OfResource,
    OfScope, Resource, Scope, Span, Status, WireId, take,
};

/// Nested messages at most; prost's limit.
const DEPTH_MAX: u32 = 100;

/// Decodes an `Export…ServiceRequest`.
pub(super) fn decode<'a, T: Decode<'a>>(
    body: &'a [u8],
    caps: Caps,
) -> Result<Export<'a, T>, DecodeError> {
    let mut decoder = Decoder { caps };
    let mut request = Export::default();
    Reader::new(body).each_field(|number, field| {
        if number == 1 {
            take(&mut decoder.caps.resources, T::NAMES.resources)?;
            request
                .resources
                .push(decoder.of_resource(field.message()?)?);
        }
        Ok(())
    })?;
    Ok(request)
}

/// An item of a signal.
pub(super) trait Decode<'a>: Item + Sized {
    fn decode(decoder: &mut Decoder, reader: Reader<'a>) -> Result<Self, DecodeError>;
}

impl<'a> Decode<'a> for Span<'a> {
    fn decode(decoder: &mut Decoder, reader: Reader<'a>) -> Result<Self, DecodeError> {
        decoder.span(reader)
    }
}

impl<'a> Decode<'a> for LogRecord<'a> {
    fn decode(decoder: &mut Decoder, reader: Reader<'a>) -> Result<Self, DecodeError> {
        decoder.log_record(reader)
    }
}

pub(super) struct Decoder {
    caps: Caps,
}

impl Decoder {
    fn of_resource<'a, T: Decode<'a>>(
        &mut self,
        reader: Reader<'a>,
    ) -> Result<OfResource<'a, T>, DecodeError> {
        let mut of_resource = OfResource::default();
        reader.each_field(|number, field| {
            match number {
                1 => self.resource(field.message()?, &mut of_resource.resource)?,
                2 => {
                    take(&mut self.caps.scopes, T::NAMES.scopes)?;
                    of_resource.scopes.push(self.of_scope(field.message()?)?);
                }
                3 => of_resource.schema_url = field.text()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(of_resource)
    }

    /// A message that appears twice merges, so it is decoded into what is there.
    fn resource<'a>(
        &mut self,
        reader: Reader<'a>,
        resource: &mut Resource<'a>,
    ) -> Result<(), DecodeError> {
        reader.each_field(|number, field| {
            match number {
                1 => resource.attributes.push(self.key_value(field.message()?)?),
                2 => resource.dropped_attributes_count = field.uint32()?,
                _ => {}
            }
            Ok(())
        })
    }

    fn of_scope<'a, T: Decode<'a>>(
        &mut self,
        reader: Reader<'a>,
    ) -> Result<OfScope<'a, T>, DecodeError> {
        let mut of_scope = OfScope::default();
        reader.each_field(|number, field| {
            match number {
                1 => self.scope(field.message()?, &mut of_scope.scope)?,
                2 => {
                    take(&mut self.caps.items, T::NAMES.items)?;
                    of_scope.items.push(T::decode(self, field.message()?)?);
                }
                3 => of_scope.schema_url = field.text()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(of_scope)
    }

    fn scope<'a>(&mut self, reader: Reader<'a>, scope: &mut Scope<'a>) -> Result<(), DecodeError> {
        reader.each_field(|number, field| {
            match number {
                1 => scope.name = field.text()?,
                2 => scope.version = field.text()?,
                3 => scope.attributes.push(self.key_value(field.message()?)?),
                4 => scope.dropped_attributes_count = field.uint32()?,
                _ => {}
            }
            Ok(())
        })
    }

    fn span<'a>(&mut self, reader: Reader<'a>) -> Result<Span<'a>, DecodeError> {
        let mut span = Span::default();
        reader.each_field(|number, field| {
            match number {
                1 => span.trace_id = WireId::from_bytes(field.bytes()?),
                2 => span.span_id = WireId::from_bytes(field.bytes()?),
                3 => span.trace_state = field.text()?,
                4 => span.parent_span_id = WireId::from_bytes(field.bytes()?),
                5 => span.name = field.text()?,
                6 => span.kind = field.int32()?,
                7 => span.start_time_unix_nano = field.fixed64()?,
                8 => span.end_time_unix_nano = field.fixed64()?,
                9 => span.attributes.push(self.key_value(field.message()?)?),
                10 => span.dropped_attributes_count = field.uint32()?,
                11 => span.events.push(self.event(field.message()?)?),
                12 => span.dropped_events_count = field.uint32()?,
                13 => span.links.push(self.link(field.message()?)?),
                14 => span.dropped_links_count = field.uint32()?,
                15 => status(field.message()?, &mut span.status)?,
                16 => span.flags = field.fixed32()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(span)
    }

    fn log_record<'a>(&mut self, reader: Reader<'a>) -> Result<LogRecord<'a>, DecodeError> {
        let mut record = LogRecord::default();
        reader.each_field(|number, field| {
            match number {
                1 => record.time_unix_nano = field.fixed64()?,
                2 => record.severity_number = field.int32()?,
                3 => record.severity_text = field.text()?,
                5 => self.any_value(field.message()?, &mut record.body)?,
                6 => record.attributes.push(self.key_value(field.message()?)?),
                7 => record.dropped_attributes_count = field.uint32()?,
                8 => record.flags = field.fixed32()?,
                9 => record.trace_id = WireId::from_bytes(field.bytes()?),
                10 => record.span_id = WireId::from_bytes(field.bytes()?),
                11 => record.observed_time_unix_nano = field.fixed64()?,
                12 => record.event_name = field.text()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(record)
    }

    fn event<'a>(&mut self, reader: Reader<'a>) -> Result<Event<'a>, DecodeError> {
        take(&mut self.caps.attributes, "attributes, events and links")?;
        let mut event = Event::default();
        reader.each_field(|number, field| {
            match number {
                1 => event.time_unix_nano = field.fixed64()?,
                2 => event.name = field.text()?,
                3 => event.attributes.push(self.key_value(field.message()?)?),
                4 => event.dropped_attributes_count = field.uint32()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(event)
    }

    fn link<'a>(&mut self, reader: Reader<'a>) -> Result<Link<'a>, DecodeError> {
        take(&mut self.caps.attributes, "attributes, events and links")?;
        let mut link = Link::default();
        reader.each_field(|number, field| {
            match number {
                1 => link.trace_id = WireId::from_bytes(field.bytes()?),
                2 => link.span_id = WireId::from_bytes(field.bytes()?),
                3 => link.trace_state = field.text()?,
                4 => link.attributes.push(self.key_value(field.message()?)?),
                5 => link.dropped_attributes_count = field.uint32()?,
                6 => link.flags = field.fixed32()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(link)
    }

    fn key_value<'a>(&mut self, reader: Reader<'a>) -> Result<KeyValue<'a>, DecodeError> {
        take(&mut self.caps.attributes, "attributes, events and links")?;
        let mut pair = KeyValue::default();
        reader.each_field(|number, field| {
            match number {
                1 => pair.key = field.text()?,
                2 => self.any_value(field.message()?, &mut pair.value)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(pair)
    }

    fn any_value<'a>(
        &mut self,
        reader: Reader<'a>,
        value: &mut AnyValue<'a>,
    ) -> Result<(), DecodeError> {
        reader.each_field(|number, field| {
            match number {
                1 => *value = AnyValue::Text(field.text()?),
                2 => *value = AnyValue::Bool(field.varint()? != 0),
                3 => *value = AnyValue::Int(field.varint()?.cast_signed()),
                4 => *value = AnyValue::Double(f64::from_bits(field.fixed64()?)),
                5 => {
                    let mut items = match std::mem::take(value) {
                        AnyValue::Array(items) => items,
                        _ => Vec::new(),
                    };
                    self.array(field.message()?, &mut items)?;
                    *value = AnyValue::Array(items);
                }
                6 => {
                    let mut members = match std::mem::take(value) {
                        AnyValue::Map(members) => members,
                        _ => Vec::new(),
                    };
                    self.map(field.message()?, &mut members)?;
                    *value = AnyValue::Map(members);
                }
                7 => *value = AnyValue::Bytes(Cow::Borrowed(field.bytes()?)),
                _ => {}
            }
            Ok(())
        })
    }

    fn array<'a>(
        &mut self,
        reader: Reader<'a>,
        items: &mut Vec<AnyValue<'a>>,
    ) -> Result<(), DecodeError> {
        reader.each_field(|number, field| {
            if number == 1 {
                take(&mut self.caps.attributes, "attributes, events and links")?;
                let mut item = AnyValue::Null;
                self.any_value(field.message()?, &mut item)?;
                items.push(item);
            }
            Ok(())
        })
    }

    fn map<'a>(
        &mut self,
        reader: Reader<'a>,
        members: &mut Vec<KeyValue<'a>>,
    ) -> Result<(), DecodeError> {
        reader.each_field(|number, field| {
            if number == 1 {
                members.push(self.key_value(field.message()?)?);
            }
            Ok(())
        })
    }
}

fn status<'a>(reader: Reader<'a>, status: &mut Status<'a>) -> Result<(), DecodeError> {
    reader.each_field(|number, field| {
        match number {
            2 => status.message = field.text()?,
            3 => status.code = field.int32()?,
            _ => {}
        }
        Ok(())
    })
}

/// The bytes of one message.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    depth: u32,
}

/// One field's value, by wire type.
enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8], u32),
    /// A group: a form of nesting that no OTLP field uses, skipped.
    Group,
}

const WRONG_TYPE: DecodeError = DecodeError::Protobuf("a field has another type than it must have");
const TRUNCATED: DecodeError = DecodeError::Protobuf("the message ends early");

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, depth: 0 }
    }

    fn each_field(
        mut self,
        mut visit: impl FnMut(u32, Field<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        while !self.bytes.is_empty() {
            let (number, wire_type) = self.key()?;
            let field = self.field(number, wire_type)?;
            visit(number, field)?;
        }
        Ok(())
    }

    fn key(&mut self) -> Result<(u32, u64), DecodeError> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).unwrap_or(0);
        if number == 0 || number >= 1 << 29 {
            return Err(DecodeError::Protobuf("a field number is out of range"));
        }
        Ok((number, key & 7))
    }

    fn field(&mut self, number: u32, wire_type: u64) -> Result<Field<'a>, DecodeError> {
        match wire_type {
            0 => Ok(Field::Varint(self.varint()?)),
            1 => Ok(Field::Fixed64(u64::from_le_bytes(self.array()?))),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| TRUNCATED)?;
                Ok(Field::Bytes(self.take(length)?, self.depth))
            }
            3 => {
                self.skip_group(number)?;
                Ok(Field::Group)
            }
            5 => Ok(Field::Fixed32(u32::from_le_bytes(self.array()?))),
            _ => Err(DecodeError::Protobuf("a wire type is unknown")),
        }
    }

    /// Skips to the end of a group, over groups within it, without recursion.
    fn skip_group(&mut self, number: u32) -> Result<(), DecodeError> {
        let mut open = vec![number];
        while let Some(innermost) = open.last().copied() {
            let (number, wire_type) = self.key()?;
            match wire_type {
                3 if open.len() >= DEPTH_MAX as usize => {
                    return Err(DecodeError::Protobuf("messages are nested too deep"));
                }
                3 => open.push(number),
                4 if number == innermost => {
                    open.pop();
                }
                4 => return Err(DecodeError::Protobuf("a group ends that did not begin")),
                _ => {
                    self.field(number, wire_type)?;
                }
            }
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for (index, byte) in self.bytes.iter().enumerate().take(10) {
            if index == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.bytes = &self.bytes[index + 1..];
                return Ok(value);
            }
        }
        Err(DecodeError::Protobuf("a varint is malformed or truncated"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(TRUNCATED)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| TRUNCATED)
    }
}

impl<'a> Field<'a> {
    fn message(&self) -> Result<Reader<'a>, DecodeError> {
        let Self::Bytes(bytes, depth) = self else {
            return Err(WRONG_TYPE);
        };
        if *depth >= DEPTH_MAX {
            return Err(DecodeError::Protobuf("messages are nested too deep"));
        }
        Ok(Reader {
            bytes,
            depth: depth + 1,
        })
    }

    fn bytes(&self) -> Result<&'a [u8], DecodeError> {
        let Self::Bytes(bytes, _) = self else {
            return Err(WRONG_TYPE);
        };
        Ok(bytes)
    }

    /// Bytes that are no UTF-8 cost themselves, not the request.
    fn text(&self) -> Result<Cow<'a, str>, DecodeError> {
        let bytes = self.bytes()?;
        // Nearly all text is sound, and checking is faster than looking for what to repair.
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Ok(Cow::Borrowed(text));
        }
        ::metrics::counter!("xtrace_repaired_total", "what" => "utf8").increment(1);
        Ok(String::from_utf8_lossy(bytes))
    }

    fn varint(&self) -> Result<u64, DecodeError> {
        let Self::Varint(value) = self else {
            return Err(WRONG_TYPE);
        };
        Ok(*value)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "protobuf: the low bits are the value"
    )]
    fn uint32(&self) -> Result<u32, DecodeError> {
        Ok(self.varint()? as u32)
    }

    fn int32(&self) -> Result<i32, DecodeError> {
        Ok(self.uint32()?.cast_signed())
    }

    fn fixed64(&self) -> Result<u64, DecodeError> {
        let Self::Fixed64(value) = self else {
            return Err(WRONG_TYPE);
        };
        Ok(*value)
    }

    fn fixed32(&self) -> Result<u32, DecodeError> {
        let Self::Fixed32(value) = self else {
            return Err(WRONG_TYPE);
        };
        Ok(*value)
    }
}
