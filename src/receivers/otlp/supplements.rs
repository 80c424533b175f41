//! Adds what log records tell of their span to its observation, whichever came first.
//!
//! Records are committed with a note of their span, then added: at once if the observation is there,
//! else after the request that brings it, for which the traces of notes are remembered here. Whatever
//! that misses (a process that was killed, another process on the same database) is found by a round
//! every minute. Adding again changes nothing, so no step has to be exact.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use xtrace_model::observation::Level;
use xtrace_model::{Batch, ObservationId, ProjectId, TraceId, json, time};
use xtrace_store::background::Pulse;
use xtrace_store::pending::{self, Awaited, Note, SpanRecord};
use xtrace_store::{Store, StoreError, Writer};

use super::mapping::{self, CONTENT_EVENTS, StoredRecord, StoredSpan};

/// Traces that are remembered at most; others wait for the next round.
const REMEMBERED_MAX: usize = 100_000;
const ROUND: Duration = Duration::from_mins(1);
/// Notes that one statement looks at, most of which may wait for spans that never come,
const NOTES_OF_LOOK: i64 = 5_000;
/// and looks of one round: a million notes are looked at every two minutes.
const LOOKS_OF_ROUND: usize = 100;
/// Traces of which records are added at a time.
const TRACES_OF_BATCH: usize = 200;
/// How long records wait for their span.
const PATIENCE: chrono::TimeDelta = chrono::TimeDelta::hours(24);

/// Traces that records wait for; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Supplements {
    /// By trace: how often records came.
    waiting: Arc<Mutex<HashMap<(ProjectId, TraceId), u64>>>,
}

/// What a request that was committed has to do with records that wait.
pub(super) struct Concern {
    records_of: Vec<TraceId>,
    spans_of: Vec<TraceId>,
}

impl Concern {
    /// To be asked before the batch is given away.
    pub(super) fn of(batch: &Batch) -> Self {
        let with_content = batch.logs.iter().filter(|record| record.has_content);
        let mut records_of: Vec<TraceId> = with_content
            .filter_map(|record| record.trace_id.clone())
            .collect();
        records_of.sort_unstable();
        records_of.dedup();
        Self {
            records_of,
            spans_of: batch.traces.iter().map(|trace| trace.id.clone()).collect(),
        }
    }
}

impl Supplements {
    /// To be called when a request is committed and before it is answered.
    pub(super) async fn after(
        &self,
        store: &Store,
        writer: &Writer,
        project: &ProjectId,
        concern: Concern,
    ) {
        let traces = self.traces(project, concern);
        if traces.is_empty() {
            return;
        }
        if let Err(error) = self.add(store, writer, project, traces).await {
            // They are committed and noted: the next round adds them.
            tracing::warn!(%error, cause = error.for_log(), "log records are added to their observations later");
        }
    }

    /// Remembers the traces of records; returns those, and those of spans that records waited for.
    fn traces(&self, project: &ProjectId, concern: Concern) -> Vec<TraceId> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for trace in &concern.records_of {
            let key = (project.clone(), trace.clone());
            if waiting.len() < REMEMBERED_MAX || waiting.contains_key(&key) {
                *waiting.entry(key).or_default() += 1;
            }
        }
        let mut traces = concern.records_of;
        if !waiting.is_empty() {
            let awaited = |trace: &TraceId| waiting.contains_key(&(project.clone(), trace.clone()));
            traces.extend(concern.spans_of.into_iter().filter(awaited));
        }
        traces
    }

    fn count(&self, key: &(ProjectId, TraceId)) -> Option<u64> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get(key).copied()
    }

    /// Forgets a trace unless more records came since it had this count.
    fn forget(&self, key: &(ProjectId, TraceId), count: Option<u64>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.get(key).copied() == count {
            waiting.remove(key);
        }
    }

    async fn add(
        &self,
        store: &Store,
        writer: &Writer,
        project: &ProjectId,
        traces: Vec<TraceId>,
    ) -> Result<(), StoreError> {
        let keys: Vec<_> = traces
            .into_iter()
            .map(|trace| (project.clone(), trace))
            .collect();
        let counts: Vec<_> = keys.iter().map(|key| self.count(key)).collect();
        let ids: Vec<String> = keys
            .iter()
            .map(|(_, trace)| trace.as_str().to_owned())
            .collect();
        add(store, writer, project, &ids).await?;
        let waiting = pending::still_waiting(store, project, &ids).await?;
        for (key, count) in keys.iter().zip(counts) {
            if !waiting.iter().any(|id| id == key.1.as_str()) {
                self.forget(key, count);
            }
        }
        Ok(())
    }
}

/// Adds all records that wait for observations of these traces which are there.
async fn add(
    store: &Store,
    writer: &Writer,
    project: &ProjectId,
    traces: &[String],
) -> Result<(), StoreError> {
    let awaited = pending::awaited(store, project, traces).await?;
    if awaited.is_empty() {
        return Ok(());
    }
    let records = pending::records(store, project, &awaited, &CONTENT_EVENTS).await?;
    let mut by_span: BTreeMap<(String, String), Vec<StoredRecord>> = BTreeMap::new();
    for record in records {
        let key = (record.trace_id.clone(), record.span_id.clone());
        by_span
            .entry(key)
            .or_default()
            .extend(stored_record(record));
    }
    let mut batch = Batch::new(project.clone());
    for span in &awaited {
        let key = (span.trace_id.clone(), span.id.clone());
        let records = by_span.remove(&key).unwrap_or_default();
        if let Some(span) = stored_span(span) {
            let (observation, trace) = mapping::supplement(&span, records);
            let sides = [&observation.input, &observation.output];
            batch.bytes += 3000
                + sides
                    .iter()
                    .filter_map(|side| side.text())
                    .map(str::len)
                    .sum::<usize>();
            batch.observations.push(observation);
            batch.traces.extend(trace);
        }
    }
    writer.submit(batch).await?;
    pending::added(store, project, &awaited).await
}

fn stored_span(span: &Awaited) -> Option<StoredSpan> {
    Some(StoredSpan {
        trace_id: TraceId::parse(span.trace_id.clone()).ok()?,
        id: ObservationId::parse(span.id.clone()).ok()?,
        start: time::from_utc(span.start_time),
        has_parent: span.parent_id.is_some(),
        root_rank: span.root_rank,
        level: Level::parse(&span.level).unwrap_or(Level::Default),
        otel: span
            .otel
            .as_deref()
            .and_then(json::parse)
            .unwrap_or_default(),
    })
}

fn stored_record(record: SpanRecord) -> Option<StoredRecord> {
    let rest = json::parse(&record.rest)?;
    let nanos = |member: &str| {
        let text = rest.get(member).and_then(Value::as_str);
        text.and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    };
    let attributes = match json::parse(&record.attributes) {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    };
    Some(StoredRecord {
        time_unix_nano: nanos("timeUnixNano"),
        observed_time_unix_nano: nanos("observedTimeUnixNano"),
        id: record.id,
        event_name: record.event_name,
        body: record
            .body
            .as_deref()
            .and_then(json::parse)
            .unwrap_or_default(),
        attributes,
    })
}

/// Adds what requests have missed, round after round, until the task is dropped.
pub(crate) async fn run(store: Store, writer: Writer, pulse: Pulse) {
    let mut turn = Turn::new(Utc::now());
    loop {
        let mut outcome = forget(&store, &turn, &pulse).await;
        for _ in 0..LOOKS_OF_ROUND {
            match look(&store, &writer, &mut turn).await {
                Ok(true) => {}
                Ok(false) => break,
                // The next look goes on after those that failed.
                Err(error) => outcome = Err(error),
            }
            pulse.alive();
        }
        match outcome {
            Ok(()) => pulse.succeeded(),
            Err(error) => pulse.failed(&error),
        }
        tokio::time::sleep(ROUND).await;
    }
}

/// Where looks through all notes, one after the other, have come to.
struct Turn {
    after: Note,
    began: DateTime<Utc>,
    /// When the turn before this one began: every note that was there by then has been looked at.
    complete_since: Option<DateTime<Utc>>,
}

impl Turn {
    fn new(now: DateTime<Utc>) -> Self {
        Self {
            after: Note::default(),
            began: now,
            complete_since: None,
        }
    }

    /// Begins again from the first note.
    fn complete(&mut self, now: DateTime<Utc>) {
        *self = Self {
            complete_since: Some(self.began),
            ..Self::new(now)
        };
    }
}

/// Gives up on notes that are too old, but on none that nobody looked at since it was made.
async fn forget(store: &Store, turn: &Turn, pulse: &Pulse) -> Result<(), StoreError> {
    let Some(since) = turn.complete_since else {
        return Ok(());
    };
    let before = since.min(Utc::now() - PATIENCE);
    while pending::forget(store, before, NOTES_OF_LOOK).await? == NOTES_OF_LOOK.unsigned_abs() {
        pulse.alive();
    }
    Ok(())
}

/// Adds the records of the next notes whose observations are there; whether there may be more notes.
async fn look(store: &Store, writer: &Writer, turn: &mut Turn) -> Result<bool, StoreError> {
    let notes = pending::next(store, &turn.after, NOTES_OF_LOOK).await?;
    let is_last = notes.len() < usize::try_from(NOTES_OF_LOOK).unwrap_or(usize::MAX);
    match notes.last() {
        Some(last) if !is_last => turn.after = last.clone(),
        _ => turn.complete(Utc::now()),
    }
    let mut by_project: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for note in notes.into_iter().filter(|note| note.is_there) {
        let traces = by_project.entry(note.project_id).or_default();
        traces.insert(note.trace_id);
    }
    let mut outcome = Ok(!is_last);
    for (project, traces) in by_project {
        let traces: Vec<String> = traces.into_iter().collect();
        for traces in traces.chunks(TRACES_OF_BATCH) {
            if let Ok(project) = ProjectId::parse(project.clone())
                && let Err(error) = add(store, writer, &project, traces).await
            {
                outcome = Err(error);
            }
        }
    }
    outcome
}
