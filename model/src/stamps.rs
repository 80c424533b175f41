//! The stamps of a document's registers, written down once where they agree.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::register::Stamp;

/// Field name to stamp; fields not listed have the `common` one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamps(Stamp, BTreeMap<Cow<'static, str>, Stamp>);

impl Default for Stamps {
    fn default() -> Self {
        Self(Stamp::NEVER, BTreeMap::new())
    }
}

impl Stamps {
    /// Collects fields, their stamps and whether they have a value. Fields never written are left
    /// out; cleared ones are always listed, or their missing value would read as never written.
    pub fn collect<const N: usize>(fields: [(&'static str, Stamp, bool); N]) -> Self {
        let written = || fields.iter().filter(|(_, stamp, _)| *stamp != Stamp::NEVER);
        let uses = |stamp: Stamp| written().filter(|(_, other, _)| *other == stamp).count();
        let (mut common, mut most) = (Stamp::NEVER, 0);
        for (_, stamp, _) in written() {
            // Nearly all fields of a document have one stamp, so few are counted.
            let count = if *stamp == common { 0 } else { uses(*stamp) };
            if count > most || (count == most && *stamp > common) {
                (common, most) = (*stamp, count);
            }
        }
        let others = written()
            .filter(|(_, stamp, has_value)| *stamp != common || !has_value)
            .map(|(field, stamp, _)| (Cow::Borrowed(*field), *stamp))
            .collect();
        Self(common, others)
    }

    /// The stamp of a field that has a value.
    pub fn of(&self, field: &str) -> Stamp {
        self.1.get(field).copied().unwrap_or(self.0)
    }

    /// The stamp of a field without a value: it was cleared, or never written.
    pub fn of_missing(&self, field: &str) -> Stamp {
        self.1.get(field).copied().unwrap_or(Stamp::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::RANK_EXPLICIT;

    #[test]
    fn fields_of_one_version_share_one_stamp() {
        let (a, b) = (
            Stamp::latest(RANK_EXPLICIT, 1, 0),
            Stamp::latest(RANK_EXPLICIT, 2, 0),
        );
        let fields = [
            ("x", a, true),
            ("y", a, true),
            ("z", b, true),
            ("cleared", a, false),
        ];
        let stamps = Stamps::collect(fields);
        let text = serde_json::to_string(&stamps).unwrap();
        let stamps: Stamps = serde_json::from_str(&text).unwrap();
        assert_eq!((stamps.of("x"), stamps.of("y"), stamps.of("z")), (a, a, b));
        assert_eq!(stamps.of_missing("cleared"), a);
        assert_eq!(stamps.of_missing("unknown"), Stamp::NEVER);
        assert!(!text.contains("\"x\""));
    }
}
