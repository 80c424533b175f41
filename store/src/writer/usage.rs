//! What observations of a trace used, by day, environment and model: the column `usage` of `traces`.
//!
//! It is written whole with every change of the trace, so that it must stay small however many observations
//! there are. Of a large trace durations are rounded, the more the more entries there are, and an entry too
//! many makes all models (then all environments, then all days of a year) one. Both only ever go one way
//! while changes are added.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{Datelike, NaiveDate};
use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::durations::Durations;
use super::exact::Exact;
use super::rollup::Part;

/// Entries of a large trace, and bytes of their names: one more and they are told apart by less.
const ENTRIES_MAX: usize = 1000;
const NAMES_BYTES_MAX: usize = 64 << 10;
/// Entries whose durations are as precise as those of a day are; twice as many have one bit less.
const ENTRIES_PRECISE_MAX: usize = 16;
/// 1/128 of a power of two, as `latency_daily` has it.
const BITS_MAX: u32 = 7;
/// Names models and environments that are too many to tell apart.
pub(super) const MANY: &str = "(many)";

/// What usage is told apart by: the day (UTC) that observations start on, environment, model.
type Key = (NaiveDate, String, Option<String>);

/// Usage of a trace.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Usage {
    entries: BTreeMap<Key, Entry>,
    pub(super) precision: Precision,
}

/// How exact usage is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Precision {
    /// How much is left out of keys: 1 for models, 2 for environments too, 3 for days of the year too.
    left_out: u8,
    /// Of durations; none if they are exact.
    bits: Option<u32>,
}

/// What observations of one key used.
#[derive(Debug, Clone, Default, PartialEq)]
struct Entry {
    observations: i64,
    input: i128,
    output: i128,
    total: i128,
    cost: f64,
    exact_cost: Exact,
    latency: Durations,
    first_token: Durations,
}

/// An entry of the column.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    date: NaiveDate,
    environment: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Cow<'a, str>>,
    observations: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    input: i128,
    #[serde(default, skip_serializing_if = "is_zero")]
    output: i128,
    #[serde(default, skip_serializing_if = "is_zero")]
    total: i128,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cost: Option<Number>,
    #[serde(default, skip_serializing_if = "is_empty")]
    latency: Cow<'a, Durations>,
    #[serde(default, skip_serializing_if = "is_empty")]
    first_token: Cow<'a, Durations>,
}

fn is_zero(units: &i128) -> bool {
    *units == 0
}

fn is_empty(durations: &Durations) -> bool {
    durations.is_empty()
}

impl Usage {
    /// Adds what an observation used.
    pub(super) fn add(&mut self, part: &Part) {
        let entry = self.change(part, 1);
        entry.cost += part.total_cost.unwrap_or(0.0);
        entry.exact_cost += Exact::of(part.total_cost.unwrap_or(0.0));
    }

    /// Takes away what an observation used that was added before.
    pub(super) fn take(&mut self, part: &Part) {
        let entry = self.change(part, -1);
        entry.exact_cost -= Exact::of(part.total_cost.unwrap_or(0.0));
        if entry.observations == 0 {
            self.entries.remove(&self.precision.key_of(part));
        }
    }

    /// Adds what an observation used, but for its cost, or takes it away.
    fn change(&mut self, part: &Part, count: i64) -> &mut Entry {
        let precision = self.precision;
        let entry = self.entries.entry(precision.key_of(part)).or_default();
        entry.observations += count;
        for (sum, units) in [
            (&mut entry.input, part.input_usage),
            (&mut entry.output, part.output_usage),
            (&mut entry.total, part.total_usage),
        ] {
            *sum += i128::from(units.unwrap_or(0)) * i128::from(count);
        }
        for (durations, end) in [
            (&mut entry.latency, part.end_time),
            (&mut entry.first_token, part.completion_start_time),
        ] {
            if let Some(micros) = end.and_then(|end| (end - part.start_time).num_microseconds()) {
                durations.add(precision.rounded(micros), count);
            }
        }
        entry
    }

    /// Brings the usage of a large trace within its bounds.
    pub(super) fn bound(&mut self) {
        while self.is_too_many() && self.precision.left_out < 3 {
            self.precision.left_out += 1;
            for (key, entry) in std::mem::take(&mut self.entries) {
                let key = self.precision.key(key);
                self.entries.entry(key).or_default().add_all(entry);
            }
        }
        let times = self.entries.len().div_ceil(ENTRIES_PRECISE_MAX).max(1);
        let bits = BITS_MAX
            .saturating_sub(times.next_power_of_two().ilog2())
            .max(1);
        if self.precision.bits.is_none_or(|coarser| bits < coarser) {
            self.precision.bits = Some(bits);
            for entry in self.entries.values_mut() {
                entry.latency = std::mem::take(&mut entry.latency).rounded(bits);
                entry.first_token = std::mem::take(&mut entry.first_token).rounded(bits);
            }
        }
    }

    fn is_too_many(&self) -> bool {
        let name_bytes = |(_, environment, model): &Key| {
            environment.len() + model.as_ref().map_or(0, String::len)
        };
        self.entries.len() > ENTRIES_MAX
            || self.entries.keys().map(name_bytes).sum::<usize>() > NAMES_BYTES_MAX
    }

    /// The sum of all costs.
    pub(super) fn exact_cost(&self) -> Exact {
        self.entries.values().map(|entry| entry.exact_cost).sum()
    }

    /// The sums of all tokens: input, output, total.
    pub(super) fn tokens(&self) -> [i128; 3] {
        let sum = |units: fn(&Entry) -> i128| self.entries.values().map(units).sum();
        [
            sum(|entry| entry.input),
            sum(|entry| entry.output),
            sum(|entry| entry.total),
        ]
    }

    /// The column, as JSON text.
    pub(super) fn to_text(&self) -> String {
        let is_exact = self.precision.bits.is_some();
        let written = |((date, environment, model), entry): (&Key, &Entry)| {
            let cost = if is_exact {
                Some(entry.exact_cost.to_number())
            } else {
                Number::from_f64(entry.cost)
            };
            serde_json::to_string(&Written {
                date: *date,
                environment: environment.into(),
                model: model.as_ref().map(Cow::from),
                observations: entry.observations,
                input: entry.input,
                output: entry.output,
                total: entry.total,
                cost: cost.filter(|cost| cost.as_f64() != Some(0.0)),
                latency: Cow::Borrowed(&entry.latency),
                first_token: Cow::Borrowed(&entry.first_token),
            })
            .expect("numbers and texts serialise")
        };
        let entries: Vec<String> = self.entries.iter().map(written).collect();
        format!("[{}]", entries.join(","))
    }

    /// Of a large trace, as it was written; none if it can't be read.
    pub(super) fn parse(text: &str, precision: Precision) -> Option<Self> {
        let mut usage = Self {
            precision,
            ..Self::default()
        };
        for entry in serde_json::from_str::<Vec<Written<'_>>>(text).ok()? {
            let key = (
                entry.date,
                entry.environment.into_owned(),
                entry.model.map(Cow::into_owned),
            );
            let read = Entry {
                observations: entry.observations,
                input: entry.input,
                output: entry.output,
                total: entry.total,
                cost: 0.0,
                exact_cost: entry
                    .cost
                    .map_or(Some(Exact::default()), |cost| Exact::parse(&cost))?,
                latency: entry.latency.into_owned(),
                first_token: entry.first_token.into_owned(),
            };
            usage.entries.insert(key, read);
        }
        Some(usage)
    }
}

impl Precision {
    fn key_of(self, part: &Part) -> Key {
        let (environment, model) = (part.environment.clone(), part.model.clone());
        self.key((part.start_time.date_naive(), environment, model))
    }

    fn key(self, (date, environment, model): Key) -> Key {
        let many = || MANY.to_owned();
        let model = if self.left_out > 0 {
            model.map(|_| many())
        } else {
            model
        };
        let environment = if self.left_out > 1 {
            many()
        } else {
            environment
        };
        let first = NaiveDate::from_yo_opt(date.year(), 1).unwrap_or(date);
        (
            if self.left_out > 2 { first } else { date },
            environment,
            model,
        )
    }

    fn rounded(self, micros: i64) -> i64 {
        let rounded = |bits| crate::usage::latency::rounded_to(micros, bits);
        self.bits.map_or(micros, rounded)
    }
}

impl Entry {
    fn add_all(&mut self, other: Self) {
        self.observations += other.observations;
        self.input += other.input;
        self.output += other.output;
        self.total += other.total;
        self.exact_cost += other.exact_cost;
        self.latency.add_all(other.latency);
        self.first_token.add_all(other.first_token);
    }
}
