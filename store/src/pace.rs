//! Deletes of many rows, a few at a time: no writer waits for long, and half of the time belongs to others.

use std::time::{Duration, Instant};

use metrics::counter;

use crate::StoreError;
use crate::background::Pulse;

/// Rows that one statement deletes at most,
pub(crate) const ROWS_MAX: i64 = 500;
/// and at least, however large they are.
const ROWS_MIN: i64 = 10;
/// A statement that takes longer is followed by one of fewer rows,
const LONG: Duration = Duration::from_millis(200);
/// and one that takes less by one of more.
const SHORT: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(1);
/// How long one table, or one project's part of it, is worked on; the rest is for the next round, so
/// that others have their turn.
const BUDGET: Duration = Duration::from_mins(10);

/// How many rows go at once.
#[derive(Debug)]
pub(crate) struct Pace {
    rows: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rows: ROWS_MAX }
    }
}

impl Pace {
    /// Rows that the next statement may delete.
    pub(crate) fn rows(&self) -> i64 {
        self.rows
    }

    /// Rests after a statement for as long as it took. Rows may be of 16 MiB or of 100 bytes.
    pub(crate) async fn rest(&mut self, took: Duration) {
        self.adjust(took);
        tokio::time::sleep(took.min(REST_MAX)).await;
    }

    fn adjust(&mut self, took: Duration) {
        if took > LONG {
            self.rows = (self.rows / 2).max(ROWS_MIN);
        } else if took < SHORT {
            self.rows = (self.rows * 2).min(ROWS_MAX);
        }
    }
}

/// Repeats a delete of at most so many rows until it finds fewer. How many rows went; what was locked is left
/// for the next round.
pub(crate) async fn in_batches<D>(
    pulse: &Pulse,
    mut delete: impl FnMut(i64) -> D,
) -> Result<u64, StoreError>
where
    D: Future<Output = Result<u64, StoreError>>,
{
    let (began, mut pace, mut all) = (Instant::now(), Pace::default(), 0);
    while began.elapsed() < BUDGET {
        let (batch, rows) = (Instant::now(), pace.rows());
        let deleted = delete(rows).await?;
        pulse.alive();
        all += deleted;
        counter!("xtrace_dropped_total", "what" => "rows").increment(deleted);
        if deleted < rows.unsigned_abs() {
            break;
        }
        pace.rest(batch.elapsed()).await;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_rows_go_fewer_at_a_time() {
        let mut pace = Pace::default();
        let mut rows = Vec::new();
        for took in [300, 300, 100, 900, 900, 900, 900, 900, 900, 10, 10] {
            pace.adjust(Duration::from_millis(took));
            rows.push(pace.rows());
        }
        assert_eq!(rows, [250, 125, 125, 62, 31, 15, 10, 10, 10, 20, 40]);
        for _ in 0..10 {
            pace.adjust(Duration::ZERO);
        }
        assert_eq!(pace.rows(), ROWS_MAX);
    }
}
