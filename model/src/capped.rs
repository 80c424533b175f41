//! Lists of strangers, counted while they are decoded: two bytes of JSON can become a structure of hundreds.

use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Marks the error of a list that is longer than its cap.
pub const TOO_MANY: &str = "too many items";

/// A list of at most `MAX` items. Null is empty.
pub struct Capped<T, const MAX: usize>(pub Vec<T>);

impl<T, const MAX: usize> Default for Capped<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Capped<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_option(List::<T, MAX>(PhantomData))
            .map(Self)
    }
}

/// Reads a list that must be there: null is refused.
pub fn required<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Capped<T, MAX>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer
        .deserialize_seq(List::<T, MAX>(PhantomData))
        .map(Capped)
}

struct List<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_none<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == MAX {
                return Err(Error::custom(format!("{TOO_MANY}, at most {MAX}")));
            }
            items.push(item);
        }
        Ok(items)
    }
}
