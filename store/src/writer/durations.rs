//! How long observations of a trace took: microseconds, and how many took as long.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::usage::latency;

/// Written as an object of counts by microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Durations(BTreeMap<i64, i64>);

impl Durations {
    /// Adds a number of observations that took as long, or takes them away.
    pub(super) fn add(&mut self, micros: i64, count: i64) {
        let there = self.0.entry(micros).or_default();
        *there += count;
        if *there == 0 {
            self.0.remove(&micros);
        }
    }

    pub(super) fn add_all(&mut self, others: Self) {
        for (micros, count) in others.0 {
            self.add(micros, count);
        }
    }

    /// With values of so many bits.
    pub(super) fn rounded(self, bits: u32) -> Self {
        let mut rounded = Self::default();
        for (micros, count) in self.0 {
            rounded.add(latency::rounded_to(micros, bits), count);
        }
        rounded
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_in_steps_is_rounding_at_once() {
        let mut durations = Durations::default();
        (0..9000).for_each(|at| durations.add(at * 1_000_003 - 4000, 1));
        let at_once = durations.clone().rounded(3);
        assert!(durations.0.len() == 9000 && at_once.0.len() < 200);
        assert_eq!(at_once.0.values().sum::<i64>(), 9000);
        let in_steps = (3..=7).rev().fold(durations, Durations::rounded);
        assert_eq!(in_steps, at_once);
        let written = serde_json::to_string(&at_once).unwrap();
        let read: Durations = serde_json::from_str(&written).unwrap();
        assert_eq!(read, at_once);
    }

    #[test]
    fn what_is_rounded_is_wrong_by_its_bits() {
        for micros in [
            -1_000_000,
            -5,
            0,
            255,
            256,
            257,
            1023,
            1024,
            9_999_999,
            i64::MAX,
        ] {
            for (bits, part) in [(7, 256.0), (3, 16.0), (1, 4.0)] {
                let rounded = latency::rounded_to(micros, bits);
                let wrong = (i128::from(rounded) - i128::from(micros)).unsigned_abs() as f64;
                assert!(
                    wrong <= micros.unsigned_abs() as f64 / part,
                    "{micros} {bits}"
                );
                assert_eq!(latency::rounded_to(rounded, bits), rounded);
            }
        }
    }
}
