//! Costs as whole numbers of 10^-15 USD: sums of them are the same in any order, and what was added can be taken
//! away again. A float64 of up to 9 USD keeps every digit that it is printed with.

use std::iter::Sum;
use std::ops::{AddAssign, SubAssign};
use std::str::FromStr;

use serde_json::Number;

const PLACES: usize = 15;
const UNITS: i128 = 1_000_000_000_000_000;

/// A cost, or a sum of costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Exact(i128);

impl Exact {
    pub(super) fn of(cost: f64) -> Self {
        // Costs are at most 10^12 each: no number of observations overflows.
        #[expect(clippy::cast_possible_truncation, reason = "far from any bound")]
        Self(cost.trunc() as i128 * UNITS + (cost.fract() * UNITS as f64).round() as i128)
    }

    pub(super) fn to_f64(self) -> f64 {
        self.0 as f64 / UNITS as f64
    }

    /// In digits, as JSON has numbers.
    pub(super) fn to_number(self) -> Number {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, rest) = (self.0.abs() / UNITS, self.0.abs() % UNITS);
        let text = format!("{sign}{whole}.{rest:0PLACES$}");
        Number::from_str(text.trim_end_matches('0').trim_end_matches('.'))
            .expect("digits are a number")
    }

    /// Of digits as Postgres prints a `numeric`; what it has beyond our places is left out.
    pub(super) fn parse(number: &Number) -> Option<Self> {
        let text = number.as_str();
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        let (whole, rest) = digits.split_once('.').unwrap_or((digits, ""));
        let rest: String = rest
            .chars()
            .chain("0".repeat(PLACES).chars())
            .take(PLACES)
            .collect();
        let whole: i128 = whole.parse().ok()?;
        let rest: i128 = rest.parse().ok()?;
        Some(Self(sign * (whole.checked_mul(UNITS)? + rest)))
    }
}

impl AddAssign for Exact {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl SubAssign for Exact {
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

impl Sum for Exact {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        Self(costs.map(|cost| cost.0).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_kept() {
        for (cost, text) in [
            (0.0, "0"),
            (0.1, "0.1"),
            (0.000_123, "0.000123"),
            (2.5e-9, "0.0000000025"),
            (8.123_456_789_012, "8.123456789012"),
            (1e12, "1000000000000"),
        ] {
            let exact = Exact::of(cost);
            assert_eq!(exact.to_number().as_str(), text);
            assert_eq!(Exact::parse(&exact.to_number()), Some(exact));
            assert_eq!(exact.to_f64().to_bits(), cost.to_bits());
        }
        let mut sum = Exact::of(0.1);
        sum += Exact::of(0.2);
        assert_eq!(sum.to_f64().to_bits(), 0.3_f64.to_bits());
        sum -= Exact::of(0.5);
        assert_eq!(sum.to_number().as_str(), "-0.2");
        assert_eq!(Exact::parse(&sum.to_number()), Some(sum));
        let long = Number::from_str("0.1234567890123456789").unwrap();
        assert_eq!(Exact::parse(&long), Some(Exact(123_456_789_012_345)));
    }
}
