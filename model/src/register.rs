//! A register: one field of a document, with the stamp of the version that wrote it.
//!
//! Merging keeps the value with the greater stamp. That is commutative, associative and
//! idempotent, so a document made of registers is the same whatever order its parts arrive in,
//! however they are split over requests, and however often they are repeated.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::stamps::Stamps;

/// Orders the versions of one field. A field without a value has [`Stamp::NEVER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Stamp {
    /// How much the source counts: explicit values beat implicit ones (`RANK_*`).
    pub rank: u8,
    /// Event time; for "the earliest wins" its negation.
    pub time: i64,
    /// Tells sources of one time apart, such as the span's id; for "the earliest wins" inverted.
    pub source: u64,
    /// Tells versions of one source apart: the end time of a span.
    pub version: i64,
    /// Hash of the version's content: the last resort, so that the order is total.
    pub content: u64,
}

/// Written as `rank:time:source:version:content`, zeros at the end left out.
impl fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rank,
            time,
            source,
            version,
            content,
        } = *self;
        write!(formatter, "{rank}")?;
        if (time, source, version, content) != (0, 0, 0, 0) {
            write!(formatter, ":{time}")?;
        }
        if (source, version, content) != (0, 0, 0) {
            write!(formatter, ":{source:x}")?;
        }
        if (version, content) != (0, 0) {
            write!(formatter, ":{version}")?;
        }
        if content != 0 {
            write!(formatter, ":{content:x}")?;
        }
        Ok(())
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A stored stamp that is none.
#[derive(Debug, thiserror::Error)]
#[error("a stored stamp is malformed")]
pub struct StampError(#[from] std::num::ParseIntError);

impl TryFrom<String> for Stamp {
    type Error = StampError;

    fn try_from(text: String) -> Result<Self, StampError> {
        let mut pieces = text.split(':');
        let mut next = || pieces.next().unwrap_or("0");
        Ok(Self {
            rank: next().parse()?,
            time: next().parse()?,
            source: u64::from_str_radix(next(), 16)?,
            version: next().parse()?,
            content: u64::from_str_radix(next(), 16)?,
        })
    }
}

/// A value that stands in for one that nobody sent.
pub const RANK_STAND_IN: u8 = 1;
/// A value derived from any part, such as a span's resource or a time of arrival.
pub const RANK_DERIVED: u8 = 2;
/// A value read from a span that marks itself as an application root.
pub const RANK_APP_ROOT: u8 = 3;
/// A value read from a span whose parent is known to stay away.
pub const RANK_AS_ROOT: u8 = 4;
/// A value read from a span without a parent.
pub const RANK_TRUE_ROOT: u8 = 5;
/// A value that was sent for this very field.
pub const RANK_EXPLICIT: u8 = 6;

impl Stamp {
    /// Below every stamp: no value.
    pub const NEVER: Self = Self {
        rank: 0,
        time: i64::MIN,
        source: 0,
        version: 0,
        content: 0,
    };

    /// Of a value that stands in for one that nobody sent.
    pub const STAND_IN: Self = Self {
        rank: RANK_STAND_IN,
        time: 0,
        source: 0,
        version: 0,
        content: 0,
    };

    /// The later the time, the greater.
    pub fn latest(rank: u8, time: i64, source: u64) -> Self {
        Self {
            rank,
            time,
            source,
            version: 0,
            content: 0,
        }
    }

    /// The earlier the time, the greater.
    pub fn earliest(rank: u8, time: i64, source: u64) -> Self {
        Self {
            rank,
            time: time.saturating_neg(),
            source: !source,
            version: 0,
            content: 0,
        }
    }

    /// The same stamp, of one version of its source.
    #[must_use]
    pub fn of_version(self, version: i64, content: u64) -> Self {
        Self {
            version,
            content,
            ..self
        }
    }
}

/// One field: a value, or nothing, or the knowledge that the value was cleared.
#[derive(Debug, Clone, PartialEq)]
pub struct Register<T> {
    stamp: Stamp,
    value: Option<T>,
}

impl<T> Default for Register<T> {
    fn default() -> Self {
        Self {
            stamp: Stamp::NEVER,
            value: None,
        }
    }
}

impl<T> Register<T> {
    /// A value written at `stamp`.
    pub fn new(value: T, stamp: Stamp) -> Self {
        Self {
            stamp,
            value: Some(value),
        }
    }

    /// A value if there is one, else an empty register: absence never erases.
    pub fn of(value: Option<T>, stamp: Stamp) -> Self {
        value.map_or_else(Self::default, |value| Self::new(value, stamp))
    }

    /// The knowledge that a value was cleared.
    pub fn cleared(stamp: Stamp) -> Self {
        Self { stamp, value: None }
    }

    /// A register read back from storage, where its stamp is known as `field`.
    pub fn restore(value: Option<T>, stamps: &Stamps, field: &str) -> Self {
        let stamp = if value.is_some() {
            stamps.of(field)
        } else {
            stamps.of_missing(field)
        };
        Self { stamp, value }
    }

    /// Keeps the greater of the two versions.
    pub fn merge(&mut self, other: Self) {
        if other.stamp > self.stamp {
            *self = other;
        }
    }

    /// The value.
    pub fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// The value, to be brought into a form that can be stored.
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.value.as_mut()
    }

    /// The stamp of the version that wrote the value.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The value, owned.
    pub fn into_value(self) -> Option<T> {
        self.value
    }
}

impl<T: Copy> Register<T> {
    /// The value, copied.
    pub fn copied(&self) -> Option<T> {
        self.value
    }
}

impl Register<String> {
    /// The text, or none.
    pub fn text(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greater_stamp_wins_in_any_order() {
        let old = Register::new("old", Stamp::latest(RANK_EXPLICIT, 1, 0));
        let new = Register::new("new", Stamp::latest(RANK_EXPLICIT, 2, 0));
        let implicit = Register::new("implicit", Stamp::latest(RANK_TRUE_ROOT, 9, 0));
        for parts in [
            [&old, &new, &implicit],
            [&implicit, &new, &old],
            [&new, &old, &new],
        ] {
            let mut merged = Register::default();
            for part in parts {
                merged.merge(part.clone());
            }
            assert_eq!(merged, new);
        }
    }

    #[test]
    fn the_earliest_can_win_too() {
        let mut merged = Register::new("late", Stamp::earliest(RANK_EXPLICIT, 9, 1));
        merged.merge(Register::new("early", Stamp::earliest(RANK_EXPLICIT, 1, 2)));
        merged.merge(Register::new(
            "early, greater id",
            Stamp::earliest(RANK_EXPLICIT, 1, 3),
        ));
        assert_eq!(merged.get(), Some(&"early"));
    }

    #[test]
    fn a_stamp_is_restored_from_its_text() {
        let long = Stamp::earliest(RANK_TRUE_ROOT, 17, 0xabc).of_version(-9, 0xffff);
        for stamp in [
            Stamp::NEVER,
            Stamp::STAND_IN,
            long,
            Stamp::latest(RANK_EXPLICIT, 0, 16),
        ] {
            let text = stamp.to_string();
            assert_eq!(Stamp::try_from(text.clone()).unwrap(), stamp, "{text}");
        }
        assert_eq!(Stamp::STAND_IN.to_string(), "1");
    }

    #[test]
    fn absence_never_erases() {
        let mut merged = Register::new("kept", Stamp::latest(RANK_DERIVED, 1, 0));
        merged.merge(Register::of(None, Stamp::latest(RANK_EXPLICIT, 9, 0)));
        assert_eq!(merged.get(), Some(&"kept"));
    }
}
