//! How long observations of a trace took: microseconds, and how many took as long.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::usage;

/// More different values are rounded.
const VALUES_MAX: usize = 1000;

/// Written as an object of counts by microseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Durations(BTreeMap<i64, i64>);

impl Durations {
    pub(super) fn add(&mut self, micros: i64) {
        *self.0.entry(micros).or_default() += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Durations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.len() <= VALUES_MAX {
            return self.0.serialize(serializer);
        }
        let mut rounded = BTreeMap::new();
        for (micros, count) in &self.0 {
            *rounded.entry(usage::latency::rounded(*micros)).or_insert(0) += count;
        }
        rounded.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_durations_are_exact_and_many_wrong_by_a_hair() {
        let mut durations = Durations::default();
        (0..1000).for_each(|at| durations.add(at * 977));
        durations.add(977);
        let written = serde_json::to_value(&durations).unwrap();
        assert_eq!(written["977"], 2);
        assert_eq!(written.as_object().unwrap().len(), 1000);
        (0..9000).for_each(|at| durations.add(at * 1_000_003));
        let written = serde_json::to_value(&durations).unwrap();
        assert!(written.as_object().unwrap().len() < 3000);
        let counts = written.as_object().unwrap().values();
        assert_eq!(
            counts.map(|count| count.as_i64().unwrap()).sum::<i64>(),
            10_001
        );
        for micros in [-5, 0, 255, 256, 257, 1023, 1024, 9_999_999, i64::MAX] {
            let wrong = (usage::latency::rounded(micros) - micros).abs() as f64;
            assert!(wrong <= (micros.abs() as f64) / 256.0, "{micros}");
        }
    }
}
