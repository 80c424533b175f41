//! The stamps of a document's registers, written down once where they agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::register::Stamp;

/// Field name to stamp; fields not listed have the `common` one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    from = "(Stamp, BTreeMap<String, Stamp>)",
    into = "(Stamp, BTreeMap<String, Stamp>)"
)]
pub struct Stamps {
    common: Stamp,
    others: BTreeMap<String, Stamp>,
}

impl From<(Stamp, BTreeMap<String, Stamp>)> for Stamps {
    fn from((common, others): (Stamp, BTreeMap<String, Stamp>)) -> Self {
        Self { common, others }
    }
}

impl From<Stamps> for (Stamp, BTreeMap<String, Stamp>) {
    fn from(stamps: Stamps) -> Self {
        (stamps.common, stamps.others)
    }
}

impl Default for Stamps {
    fn default() -> Self {
        Self {
            common: Stamp::NEVER,
            others: BTreeMap::new(),
        }
    }
}

impl Stamps {
    /// Collects fields, their stamps and whether they have a value. Fields never written are left
    /// out; cleared ones are always listed, or their missing value would read as never written.
    pub fn collect<const N: usize>(fields: [(&'static str, Stamp, bool); N]) -> Self {
        let written = || fields.iter().filter(|(_, stamp, _)| *stamp != Stamp::NEVER);
        let mut uses: BTreeMap<Stamp, usize> = BTreeMap::new();
        for (_, stamp, _) in written() {
            *uses.entry(*stamp).or_default() += 1;
        }
        let common = uses
            .into_iter()
            .max_by_key(|(_, uses)| *uses)
            .map_or(Stamp::NEVER, |(s, _)| s);
        let others = written()
            .filter(|(_, stamp, has_value)| *stamp != common || !has_value)
            .map(|(field, stamp, _)| ((*field).to_owned(), *stamp))
            .collect();
        Self { common, others }
    }

    /// The stamp of a field that has a value.
    pub fn of(&self, field: &str) -> Stamp {
        self.others.get(field).copied().unwrap_or(self.common)
    }

    /// The stamp of a field without a value: it was cleared, or never written.
    pub fn of_missing(&self, field: &str) -> Stamp {
        self.others.get(field).copied().unwrap_or(Stamp::NEVER)
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
