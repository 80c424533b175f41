//! Sums of changed traces: computed from all observations of a small trace, and from the stored sums and what
//! changed of a large one, so that no change costs more for how large its trace is.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::PgConnection;

use super::changes::Change;
use super::flush::Setback;
use super::known::{self, Known};
use super::places::{self, Keys};
use super::rollup::{PART_COLUMNS, Part, Rollup, SMALL_MAX};
use super::sums;
use crate::StoreError;

/// Sums up the traces that may have observations that stay as they are.
pub(super) async fn roll_up(
    connection: &mut PgConnection,
    known: &Known,
    changes: &mut [Change<'_>],
    now: DateTime<Utc>,
) -> Result<(), Setback> {
    add_to_sums(connection, changes, now).await?;
    let sums = sum_up(connection, known, changes).await?;
    let rest = changes
        .iter_mut()
        .filter(|change| is_to_be_summed_up(change));
    rest.zip(sums).for_each(|(change, sum)| change.rollup = sum);
    Ok(())
}

fn is_to_be_summed_up(change: &Change<'_>) -> bool {
    change.has_others && !change.has_sums
}

/// Adds what changed to the stored sums of large traces. Those whose sums can't be used have none from then on.
async fn add_to_sums(
    connection: &mut PgConnection,
    changes: &mut [Change<'_>],
    now: DateTime<Utc>,
) -> Result<(), Setback> {
    let large = changes.iter().filter(|change| change.has_sums);
    let keys: Vec<_> = large.map(Change::key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let stored = sums::read(connection, &keys).await?;
    let mut stored: HashMap<_, _> = stored.into_iter().collect();
    for change in changes.iter_mut().filter(|change| change.has_sums) {
        let Some(sums) = stored.remove(&known::name(change.key())) else {
            change.has_sums = false;
            continue;
        };
        if change.version.as_ref() != Some(&sums.version) {
            return Err(Setback::Conflict(None));
        }
        let mut rollup = sums.rollup;
        for observation in &change.observations {
            match &observation.outdated {
                Some(outdated) => rollup.replace(outdated, &observation.part, now),
                None => rollup.add(&observation.part),
            }
        }
        rollup.settle();
        change.rollup = rollup;
    }
    Ok(())
}

/// The sums of all observations of each of the other traces, in their order.
async fn sum_up(
    connection: &mut PgConnection,
    known: &Known,
    changes: &[Change<'_>],
) -> Result<Vec<Rollup>, StoreError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        project_id: String,
        trace_id: String,
        #[sqlx(flatten)]
        part: Part,
    }
    let mut keys = Keys::default();
    let mut summing = HashMap::new();
    let all = || changes.iter().filter(|change| is_to_be_summed_up(change));
    for change in all() {
        let name = known::name(change.key());
        if let Some(trace) = known.get(&name) {
            keys.push(change.key(), "", &trace.ranges);
        }
        summing.insert(name, Summing::of(change));
    }
    if !keys.is_empty() {
        let from = places::UNNEST_KEYS;
        let sql = format!("select o.project_id, o.trace_id, {PART_COLUMNS} from {from}");
        // One by one: a large trace is not held in memory.
        let mut rows = keys.bind::<Row>(&sql).fetch(connection);
        while let Some(row) = rows.try_next().await? {
            if let Some(trace) = summing.get_mut(&(row.project_id, row.trace_id)) {
                trace.add_stored(row.part);
            }
        }
    }
    let sum = |change| {
        summing
            .remove(&known::name(Change::key(change)))
            .unwrap_or_default()
    };
    Ok(all().map(sum).map(Summing::finish).collect())
}

/// A trace whose observations are being read.
#[derive(Default)]
struct Summing<'a> {
    /// Parts that replace stored ones, or are new, by id.
    changed: HashMap<&'a str, &'a Part>,
    /// By id: all so far of a small trace.
    few: BTreeMap<String, Part>,
    /// The sums so far of a large one.
    many: Option<Rollup>,
}

impl<'a> Summing<'a> {
    fn of(change: &'a Change<'_>) -> Self {
        let parts = change
            .observations
            .iter()
            .map(|observation| &observation.part);
        Self {
            changed: parts.map(|part| (part.id.as_str(), part)).collect(),
            ..Self::default()
        }
    }

    fn add_stored(&mut self, part: Part) {
        if !self.changed.contains_key(part.id.as_str()) {
            self.add(part);
        }
    }

    fn add(&mut self, part: Part) {
        if let Some(sums) = &mut self.many {
            sums.add(&part);
            if sums.observations() % SMALL_MAX == 0 {
                sums.settle();
            }
            return;
        }
        self.few.insert(part.id.clone(), part);
        if self.few.len() > usize::try_from(SMALL_MAX).unwrap_or_default() {
            let few = std::mem::take(&mut self.few);
            self.many = Some(Rollup::of(few.values()));
        }
    }

    fn finish(mut self) -> Rollup {
        for part in std::mem::take(&mut self.changed).into_values() {
            self.add(part.clone());
        }
        match self.many {
            Some(mut sums) => {
                sums.settle();
                sums
            }
            None => Rollup::of(self.few.values()),
        }
    }
}
