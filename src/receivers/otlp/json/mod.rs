//! OTLP in JSON, as forgiving as proto3's JSON mapping allows: null is absent, numbers may be
//! texts, unknown members are skipped, malformed ids spoil their span only. Enum names are refused.

mod metrics;

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::receivers::otlp::wire::{
    AnyValue, Caps, DecodeError, Event, Export, Item, KeyValue, Link, LogRecord, OfResource,
    OfScope, Resource, Scope, Span, Status, WireId,
};

/// Decodes an `Export…ServiceRequest`; blank text is an empty request.
pub(super) fn decode<'a, T: Decode<'a>>(
    text: &'a str,
    caps: Caps,
) -> Result<Export<'a, T>, DecodeError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Export::default());
    }
    if !text.starts_with('{') {
        return Err(DecodeError::Json("the body must be an object".to_owned()));
    }
    LEFT.set(caps);
    OVER_CAP.set(None);
    let decoded = serde_json::from_str::<Read<Export<'a, T>>>(text);
    decoded
        .map(|Read(request)| request)
        .map_err(|error| match OVER_CAP.get() {
            Some(what) => DecodeError::TooMany(what),
            None => DecodeError::Json(error.to_string()),
        })
}

/// An item of a signal.
#[expect(private_bounds, reason = "items are decoded from here alone")]
pub(super) trait Decode<'de>: Item + Member<'de> {}

impl<'de, T: Item + Member<'de>> Decode<'de> for T {}

// Decoding is one synchronous call, so what is left of the caps can lie beside the stack.
thread_local! {
    static LEFT: Cell<Caps> = Cell::new(Caps::default());
    static OVER_CAP: Cell<Option<&'static str>> = const { Cell::new(None) };
}

fn take<E: Error>(of: fn(&mut Caps) -> &mut u32, what: &'static str) -> Result<(), E> {
    let mut caps = LEFT.get();
    let left = of(&mut caps);
    let Some(rest) = left.checked_sub(1) else {
        OVER_CAP.set(Some(what));
        return Err(E::custom("too many"));
    };
    *left = rest;
    LEFT.set(caps);
    Ok(())
}

/// A type that a member of a message can have: absent and null leave the default.
trait Member<'de>: Sized {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// Deserialises a [`Member`].
struct Read<T>(T);

impl<'de, T: Member<'de>> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer).map(Self)
    }
}

/// A message: an object whose members are read by name.
trait Message<'de>: Default {
    /// Counts it against its cap.
    fn admit<E: Error>() -> Result<(), E> {
        Ok(())
    }
    /// Reads the value of `name`, or skips it.
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

struct MessageVisitor<T>(PhantomData<T>);

impl<'de, T: Message<'de>> Visitor<'de> for MessageVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_none<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        T::admit()?;
        let mut message = T::default();
        while let Some(Name(name)) = map.next_key()? {
            message.member(&name, &mut map)?;
        }
        Ok(message)
    }
}

/// A member's name, borrowed where the text allows.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor).map(Self)
    }
}

fn read<'de, T: Member<'de>, A: MapAccess<'de>>(map: &mut A) -> Result<T, A::Error> {
    map.next_value::<Read<T>>().map(|Read(value)| value)
}

fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// Implements [`Message`] and [`Member`] from a table of member names and fields.
macro_rules! message {
    ($type:ident $(, counts $cap:ident as $what:literal)? { $($name:literal => $field:ident),+ $(,)? }) => {
        impl<'de> Message<'de> for $type<'de> {
            $(fn admit<E: Error>() -> Result<(), E> {
                take(|caps| &mut caps.$cap, $what)
            })?
            fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
                match name {
                    $($name => self.$field = read(map)?,)+
                    _ => skip(map)?,
                }
                Ok(())
            }
        }

        impl<'de> Member<'de> for $type<'de> {
            fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_option(MessageVisitor(PhantomData))
            }
        }
    };
}

message!(Resource {
    "attributes" => attributes, "droppedAttributesCount" => dropped_attributes_count,
});
message!(Scope {
    "name" => name, "version" => version, "attributes" => attributes,
    "droppedAttributesCount" => dropped_attributes_count,
});
message!(Span, counts items as "spans" {
    "traceId" => trace_id, "spanId" => span_id, "traceState" => trace_state,
    "parentSpanId" => parent_span_id, "flags" => flags, "name" => name, "kind" => kind,
    "startTimeUnixNano" => start_time_unix_nano, "endTimeUnixNano" => end_time_unix_nano,
    "attributes" => attributes, "droppedAttributesCount" => dropped_attributes_count,
    "events" => events, "droppedEventsCount" => dropped_events_count,
    "links" => links, "droppedLinksCount" => dropped_links_count, "status" => status,
});
message!(LogRecord, counts items as "logRecords" {
    "timeUnixNano" => time_unix_nano, "observedTimeUnixNano" => observed_time_unix_nano,
    "severityNumber" => severity_number, "severityText" => severity_text, "body" => body,
    "attributes" => attributes, "droppedAttributesCount" => dropped_attributes_count,
    "flags" => flags, "traceId" => trace_id, "spanId" => span_id, "eventName" => event_name,
});
message!(Event, counts attributes as "attributes, events and links" {
    "timeUnixNano" => time_unix_nano, "name" => name, "attributes" => attributes,
    "droppedAttributesCount" => dropped_attributes_count,
});
message!(Link, counts attributes as "attributes, events and links" {
    "traceId" => trace_id, "spanId" => span_id, "traceState" => trace_state,
    "attributes" => attributes, "droppedAttributesCount" => dropped_attributes_count, "flags" => flags,
});
message!(Status { "message" => message, "code" => code });
message!(KeyValue, counts attributes as "attributes, events and links" {
    "key" => key, "value" => value,
});

impl<'de, T: Decode<'de>> Message<'de> for Export<'de, T> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name == T::NAMES.resources {
            self.resources = read(map)?;
            return Ok(());
        }
        skip(map)
    }
}

impl<'de, T: Decode<'de>> Message<'de> for OfResource<'de, T> {
    fn admit<E: Error>() -> Result<(), E> {
        take(|caps| &mut caps.resources, T::NAMES.resources)
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "resource" => self.resource = read(map)?,
            "schemaUrl" => self.schema_url = read(map)?,
            name if name == T::NAMES.scopes => self.scopes = read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de, T: Decode<'de>> Message<'de> for OfScope<'de, T> {
    fn admit<E: Error>() -> Result<(), E> {
        take(|caps| &mut caps.scopes, T::NAMES.scopes)
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "scope" => self.scope = read(map)?,
            "schemaUrl" => self.schema_url = read(map)?,
            name if name == T::NAMES.items => self.items = read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A message is a member where it appears; null is an empty one.
macro_rules! member {
    ($($type:ident),+) => {
        $(impl<'de, T: Decode<'de>> Member<'de> for $type<'de, T> {
            fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_option(MessageVisitor(PhantomData))
            }
        })+
    };
}

member!(Export, OfResource, OfScope);

/// `{"arrayValue": …}` and its siblings; of two members the last wins.
impl<'de> Message<'de> for AnyValue<'de> {
    fn admit<E: Error>() -> Result<(), E> {
        take(|caps| &mut caps.attributes, "attributes, events and links")
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let value =
            match name {
                "stringValue" => read::<Option<_>, _>(map)?.map(AnyValue::Text),
                "boolValue" => read::<Option<_>, _>(map)?.map(AnyValue::Bool),
                "intValue" => read::<Option<_>, _>(map)?.map(AnyValue::Int),
                "doubleValue" => read::<Option<_>, _>(map)?.map(AnyValue::Double),
                "arrayValue" => read::<Option<Values<AnyValue<'de>>>, _>(map)?
                    .map(|list| AnyValue::Array(list.0)),
                "kvlistValue" => {
                    read::<Option<Values<KeyValue<'de>>>, _>(map)?.map(|list| AnyValue::Map(list.0))
                }
                "bytesValue" => read::<Option<Base64>, _>(map)?
                    .map(|bytes| AnyValue::Bytes(Cow::Owned(bytes.0))),
                _ => return skip(map),
            };
        if let Some(value) = value {
            *self = value;
        }
        Ok(())
    }
}

impl<'de> Member<'de> for AnyValue<'de> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_option(MessageVisitor(PhantomData))
    }
}

/// `{"values": […]}`.
struct Values<T>(Vec<T>);

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Member<'de>> Message<'de> for Values<T> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "values" => self.0 = read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de, T: Member<'de>> Member<'de> for Values<T> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_option(MessageVisitor(PhantomData))
    }
}

impl<'de, T: Member<'de>> Member<'de> for Option<T> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Option::<Read<T>>::deserialize(deserializer)?;
        Ok(value.map(|Read(value)| value))
    }
}

/// A list; null is empty, null inside is an error for messages that are not values.
impl<'de, T: Member<'de>> Member<'de> for Vec<T> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Member<'de>> Visitor<'de> for List<T> {
            type Value = Vec<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array")
            }

            fn visit_none<E: Error>(self) -> Result<Vec<T>, E> {
                Ok(Vec::new())
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
                deserializer.deserialize_seq(self)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(Read(item)) = seq.next_element()? {
                    list.push(item);
                }
                Ok(list)
            }
        }
        deserializer.deserialize_option(List(PhantomData))
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

impl<'de> Member<'de> for Cow<'de, str> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_option(TextVisitor)
    }
}

impl<'de> Member<'de> for bool {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<Self>::deserialize(deserializer)?.unwrap_or_default())
    }
}

/// A number as JSON may write it, kept as text until its type is known.
enum Number<'de> {
    Null,
    Text(Cow<'de, str>),
    /// Old JavaScript senders split 64 bits in two halves.
    Halves {
        low: i64,
        high: i64,
    },
}

impl<'de> Number<'de> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&serde_json::value::RawValue>::deserialize(deserializer)?.get();
        match raw.as_bytes().first() {
            Some(b'n') => Ok(Self::Null),
            Some(b'"') => serde_json::from_str(raw)
                .map(|text| Self::Text(Cow::Owned(text)))
                .map_err(Error::custom),
            Some(b'{') => {
                #[derive(serde::Deserialize)]
                struct Halves {
                    low: i64,
                    high: i64,
                }
                let halves: Halves = serde_json::from_str(raw).map_err(Error::custom)?;
                Ok(Self::Halves {
                    low: halves.low,
                    high: halves.high,
                })
            }
            Some(b'-' | b'0'..=b'9') => Ok(Self::Text(Cow::Borrowed(raw))),
            _ => Err(Error::custom("invalid type: expected a number")),
        }
    }

    /// The whole number, also written as `5.0` or `1e3`.
    fn whole<E: Error>(&self) -> Result<i128, E> {
        match self {
            Self::Null => Ok(0),
            Self::Halves { low, high } => {
                Ok((i128::from(*high) << 32) + i128::from(*low & 0xffff_ffff))
            }
            Self::Text(text) => {
                if let Ok(number) = text.parse() {
                    return Ok(number);
                }
                let number: f64 = text
                    .parse()
                    .map_err(|_| E::custom("expected a whole number"))?;
                if number.fract() != 0.0 || number.abs() > 1.9e19 {
                    return Err(E::custom("expected a whole number"));
                }
                #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^65")]
                Ok(number as i128)
            }
        }
    }
}

macro_rules! whole_number {
    ($($type:ty),+) => {
        $(impl<'de> Member<'de> for $type {
            fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number = Number::read(deserializer)?.whole()?;
                Self::try_from(number).map_err(|_| Error::custom("a number is out of range"))
            }
        })+
    };
}

whole_number!(i32, u32, i64, u64);

impl<'de> Member<'de> for f64 {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Number::read(deserializer)?;
        let Number::Text(text) = number else {
            return number.whole().map(|whole: i128| whole as Self);
        };
        match text.as_ref() {
            "NaN" => Ok(Self::NAN),
            "Infinity" => Ok(Self::INFINITY),
            "-Infinity" => Ok(Self::NEG_INFINITY),
            text if text.bytes().any(|byte| byte.is_ascii_digit()) => {
                text.parse().map_err(|_| Error::custom("expected a number"))
            }
            _ => Err(Error::custom("expected a number")),
        }
    }
}

struct Base64(Vec<u8>);

impl<'de> Member<'de> for Base64 {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EITHER_PADDING: GeneralPurposeConfig =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, EITHER_PADDING);
        let text = deserializer
            .deserialize_option(TextVisitor)?
            .replace('-', "+")
            .replace('_', "/");
        STANDARD
            .decode(text)
            .map(Self)
            .map_err(|_| Error::custom("expected base64"))
    }
}

/// Hex digits, an array of bytes, or `{"type":"Buffer","data":[…]}`.
impl<'de, const N: usize> Member<'de> for WireId<N> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Buffer {
            data: Vec<u8>,
        }
        let raw = <&serde_json::value::RawValue>::deserialize(deserializer)?.get();
        let bytes = match raw.as_bytes().first() {
            Some(b'n') => return Ok(Self::Absent),
            Some(b'"') => {
                let text: Cow<'_, str> = serde_json::from_str(raw).map_err(Error::custom)?;
                return Ok(Self::from_hex(&text));
            }
            Some(b'[') => serde_json::from_str::<Vec<u8>>(raw).ok(),
            Some(b'{') => serde_json::from_str::<Buffer>(raw)
                .ok()
                .map(|buffer| buffer.data),
            _ => None,
        };
        Ok(bytes.map_or(Self::Malformed, |bytes| Self::from_bytes(&bytes)))
    }
}
