//! Adds what log records tell of their span to its observation, whichever came first.
//!
//! Records are committed with a note of their span, then added: at once if the observation is there,
//! else after the request that brings it, for which the traces of notes are remembered here. Whatever
//! that misses (a process that was killed, another process on the same database) is found by a round
//! every minute. Adding again changes nothing, so no step has to be exact.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use serde_json::{Map, Value};
use xtrace_model::observation::Level;
use xtrace_model::{Batch, ObservationId, ProjectId, TraceId, json, time};
use xtrace_store::pending::{self, Awaited, SpanRecord};
use xtrace_store::{Store, StoreError, Writer};

use super::mapping::{self, CONTENT_EVENTS, StoredRecord, StoredSpan};

/// Traces that are remembered at most; others wait for the next round.
const REMEMBERED_MAX: usize = 100_000;
const ROUND: Duration = Duration::from_mins(1);
const TRACES_OF_ROUND: i64 = 500;
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
pub(crate) async fn run(store: Store, writer: Writer) {
    let mut after = (String::new(), String::new());
    loop {
        match round(&store, &writer, &after).await {
            Ok(next) => after = next,
            Err(error) => {
                tracing::warn!(%error, cause = error.for_log(), "log records are added in the next round");
            }
        }
        tokio::time::sleep(ROUND).await;
    }
}

/// Where the next round begins.
async fn round(
    store: &Store,
    writer: &Writer,
    after: &(String, String),
) -> Result<(String, String), StoreError> {
    pending::forget(store, Utc::now() - PATIENCE).await?;
    let traces = pending::next(store, after, TRACES_OF_ROUND).await?;
    let last = traces.last().cloned().unwrap_or_default();
    let mut by_project: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (project, trace) in traces {
        by_project.entry(project).or_default().push(trace);
    }
    for (project, traces) in by_project {
        if let Ok(project) = ProjectId::parse(project) {
            add(store, writer, &project, &traces).await?;
        }
    }
    Ok(last)
}
