//! What a transaction has to write: what came, merged with what is stored, where that differs.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use xtrace_model::price::Priced;
use xtrace_model::{Micros, Observation, ProjectId, Trace, time};

use super::combine::{Group, TraceKey};
use super::document::Document;
use super::known::{self, Known, KnownObservation, KnownTrace};
use super::rollup::{Part, Rollup};
use crate::price_book::PriceBook;

/// The prices of every project that something is written to.
pub(super) type Books = HashMap<ProjectId, Arc<PriceBook>>;

/// A trace to be written, since it or something of it is new or differs.
pub(super) struct Change<'a> {
    pub(super) project: &'a ProjectId,
    pub(super) trace: Document<'a, Trace>,
    pub(super) created_at: DateTime<Utc>,
    /// Of the stored row that this replaces.
    pub(super) version: Option<String>,
    /// In order of their ids.
    pub(super) observations: Vec<ChangedObservation<'a>>,
    /// Over all observations of the trace, those that stay as they are included.
    pub(super) rollup: Rollup,
    /// Whether there may be observations that stay as they are.
    pub(super) has_others: bool,
    /// Whether the stored sums are of those that changes are added to.
    pub(super) has_sums: bool,
}

/// An observation to be written.
pub(super) struct ChangedObservation<'a> {
    pub(super) document: Document<'a, Observation>,
    pub(super) priced: Priced,
    pub(super) part: Part,
    pub(super) created_at: DateTime<Utc>,
    /// What the stored row that this replaces contributed.
    pub(super) outdated: Option<Part>,
}

impl Change<'_> {
    pub(super) fn key(&self) -> TraceKey<'_> {
        (self.project, &self.trace.id)
    }

    /// Whether the trace is not stored yet.
    pub(super) fn is_new(&self) -> bool {
        self.version.is_none()
    }

    /// When the trace begins.
    pub(super) fn begins(&self) -> Micros {
        self.trace
            .begins(self.rollup.first_start.map(time::from_utc))
    }
}

/// Merges what came with what is stored; nothing is left of what is stored already. Rollups of known
/// traces are not summed up yet.
pub(super) fn merge<'a>(
    groups: Vec<Group<'a>>,
    known: &mut Known,
    books: &Books,
    now: DateTime<Utc>,
) -> Vec<Change<'a>> {
    let built_in = PriceBook::default();
    groups
        .into_iter()
        .filter_map(|group| {
            let book = books.get(group.project).map_or(&built_in, |book| &**book);
            match known.get_mut(&known::name(group.key())) {
                Some(trace) => merge_known(group, trace, book, now),
                None => Some(new(group, book, now)),
            }
        })
        .collect()
}

fn new<'a>(group: Group<'a>, book: &PriceBook, now: DateTime<Utc>) -> Change<'a> {
    let observations = group.observations.into_iter();
    let observations: Vec<_> = observations
        .map(|document| ChangedObservation::new(document, book, now, None))
        .collect();
    Change {
        project: group.project,
        trace: group.trace,
        created_at: now,
        version: None,
        rollup: Rollup::of(observations.iter().map(|observation| &observation.part)),
        observations,
        has_others: false,
        has_sums: false,
    }
}

/// A stored trace as a change of its sums alone.
pub(super) fn unchanged<'a>(group: &Group<'a>, known: &KnownTrace) -> Change<'a> {
    replacement(group.project, known, known.document.clone(), Vec::new())
}

/// A change of a stored trace; its sums are not known yet.
fn replacement<'a>(
    project: &'a ProjectId,
    known: &KnownTrace,
    trace: Trace,
    observations: Vec<ChangedObservation<'a>>,
) -> Change<'a> {
    Change {
        project,
        trace: Document::owned(trace),
        created_at: known.created_at,
        version: known.version.clone(),
        observations,
        rollup: Rollup::default(),
        has_others: true,
        has_sums: known.has_sums,
    }
}

/// `None` if nothing changes.
fn merge_known<'a>(
    group: Group<'a>,
    known: &mut KnownTrace,
    book: &PriceBook,
    now: DateTime<Utc>,
) -> Option<Change<'a>> {
    let mut trace = known.document.clone();
    trace.merge(group.trace.into_owned());
    let observations: Vec<_> = group
        .observations
        .into_iter()
        .filter_map(
            |document| match known.observations.remove(document.id.as_str()) {
                Some(stored) => merge_observation(document, stored, book),
                None => Some(ChangedObservation::new(document, book, now, None)),
            },
        )
        .collect();
    let is_stored = known.version.is_some();
    if is_stored && observations.is_empty() && trace == known.document {
        return None;
    }
    Some(replacement(group.project, known, trace, observations))
}

fn merge_observation<'a>(
    document: Document<'a, Observation>,
    known: KnownObservation,
    book: &PriceBook,
) -> Option<ChangedObservation<'a>> {
    let mut merged = known.document.clone();
    merged.merge(document.into_owned());
    (merged != known.document).then(|| {
        ChangedObservation::new(
            Document::owned(merged),
            book,
            known.created_at,
            Some(known.part),
        )
    })
}

/// A stored observation, if its prices are others by now.
pub(super) fn priced_anew(
    known: KnownObservation,
    book: &PriceBook,
) -> Option<ChangedObservation<'static>> {
    let stored = known.priced?;
    let document = Document::owned(known.document);
    let anew = ChangedObservation::new(document, book, known.created_at, Some(known.part));
    (anew.priced != stored).then_some(anew)
}

impl<'a> ChangedObservation<'a> {
    fn new(
        document: Document<'a, Observation>,
        book: &PriceBook,
        created_at: DateTime<Utc>,
        outdated: Option<Part>,
    ) -> Self {
        let priced = book.price(&document);
        Self {
            part: Part::of(&document, &priced),
            priced,
            document,
            created_at,
            outdated,
        }
    }
}
