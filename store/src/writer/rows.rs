//! Stored documents of a transaction: found, merged with what came, and written where they changed.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection};
use xtrace_model::{Observation, ProjectId, Trace, json, time};

use super::combine::{Documents, ObservationKey, TraceKey};
use super::insert::{Method, Rows};
use crate::stored::{self, MergeState, ObservationRow, TraceRow};
use crate::{StoreError, prices};

/// Traces are locked by stripe: few enough locks for Postgres' lock table, whatever a batch holds.
const STRIPES: u64 = 256;
/// Names the lock space of traces.
const LOCK_SPACE: i32 = 0x7874_7263;

/// A stored document, and what must be known of its row to replace it.
pub(super) struct Stored<T> {
    document: T,
    created_at: DateTime<Utc>,
    start: Option<DateTime<Utc>>,
    last_start: Option<DateTime<Utc>>,
}

pub(super) type StoredTraces = BTreeMap<TraceKey, Stored<Trace>>;
pub(super) type StoredObservations = BTreeMap<ObservationKey, Stored<Observation>>;

/// Locks the traces until the transaction ends, in one order for all writers of all processes.
pub(super) async fn lock(
    connection: &mut PgConnection,
    traces: impl Iterator<Item = &TraceKey>,
) -> Result<(), StoreError> {
    let stripe = |(project, trace): &TraceKey| {
        let key = format!("{project}\0{trace}");
        i32::try_from(xxhash_rust::xxh3::xxh3_64(key.as_bytes()) % STRIPES).unwrap_or_default()
    };
    let stripes: BTreeSet<i32> = traces.map(stripe).collect();
    sqlx::query("select pg_advisory_xact_lock($1, stripe) from unnest($2::int[]) stripe")
        .bind(LOCK_SPACE)
        .bind(Vec::from_iter(stripes))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn stored_traces(
    connection: &mut PgConnection,
    traces: impl Iterator<Item = &TraceKey>,
) -> Result<StoredTraces, StoreError> {
    let (projects, ids): (Vec<&str>, Vec<&str>) = traces
        .map(|(project, id)| (project.as_str(), id.as_str()))
        .unzip();
    let sql = format!(
        "select {} from unnest($1::text[], $2::text[]) k(project_id, id)
           join traces t on t.project_id = k.project_id and t.id = k.id",
        stored::TRACE_COLUMNS
    );
    let rows: Vec<TraceRow> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(projects)
        .bind(ids)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().filter_map(stored_trace).collect())
}

fn stored_trace(row: TraceRow) -> Option<(TraceKey, Stored<Trace>)> {
    let project = ProjectId::parse(row.project_id.clone()).ok()?;
    let (created_at, start, last_start) = (row.created_at, row.first_start, row.last_start);
    let document = row.into_trace()?;
    let key = (project, document.id.clone());
    Some((
        key,
        Stored {
            document,
            created_at,
            start,
            last_start,
        },
    ))
}

/// Observations can only be stored where their trace is, and lie in the partitions of its extent:
/// new traces cost no look-up, and known ones only a few.
pub(super) async fn stored_observations(
    connection: &mut PgConnection,
    traces: &StoredTraces,
    observations: impl Iterator<Item = &ObservationKey>,
) -> Result<StoredObservations, StoreError> {
    let mut keys = ObservationKeys::default();
    for key in observations {
        let trace = traces.get(&(key.0.clone(), key.1.clone()));
        let extent = trace.and_then(|trace| trace.start.zip(trace.last_start));
        if let Some((first, last)) = extent {
            keys.push(key, first, last);
        }
    }
    if keys.ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = format!(
        "select {} from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
             k(project_id, trace_id, id, first_start, last_start)
           join observations o
             on o.project_id = k.project_id and o.trace_id = k.trace_id and o.id = k.id
            and o.start_time between k.first_start and k.last_start",
        stored::OBSERVATION_COLUMNS
    );
    let rows: Vec<ObservationRow> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(keys.projects)
        .bind(keys.traces)
        .bind(keys.ids)
        .bind(keys.firsts)
        .bind(keys.lasts)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().filter_map(stored_observation).collect())
}

#[derive(Default)]
struct ObservationKeys<'a> {
    projects: Vec<&'a str>,
    traces: Vec<&'a str>,
    ids: Vec<&'a str>,
    firsts: Vec<DateTime<Utc>>,
    lasts: Vec<DateTime<Utc>>,
}

impl<'a> ObservationKeys<'a> {
    fn push(&mut self, key: &'a ObservationKey, first: DateTime<Utc>, last: DateTime<Utc>) {
        let (project, trace, id) = key;
        self.projects.push(project.as_str());
        self.traces.push(trace.as_str());
        self.ids.push(id.as_str());
        self.firsts.push(first);
        self.lasts.push(last);
    }
}

fn stored_observation(row: ObservationRow) -> Option<(ObservationKey, Stored<Observation>)> {
    let project = ProjectId::parse(row.project_id.clone()).ok()?;
    let (created_at, start) = (row.created_at, Some(row.start_time));
    let document = row.into_observation()?;
    let key = (project, document.trace_id.clone(), document.id.clone());
    Some((
        key,
        Stored {
            document,
            created_at,
            start,
            last_start: None,
        },
    ))
}

/// Writes observations that are new or changed; a repeated one writes nothing.
pub(super) async fn replace_observations(
    connection: &mut PgConnection,
    method: Method,
    documents: &mut Documents,
    mut stored: StoredObservations,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut rows = Rows::default();
    let mut outdated: Vec<(&str, &str, &str, DateTime<Utc>)> = Vec::new();
    for (key, observation) in &mut documents.observations {
        let known = stored.remove(key);
        let created_at = known.as_ref().map_or(now, |known| known.created_at);
        if let Some(Stored {
            document,
            start: Some(start),
            ..
        }) = known
        {
            let mut merged = document.clone();
            merged.merge(observation.clone());
            let changed = merged != document;
            *observation = merged;
            if !changed {
                continue;
            }
            outdated.push((key.0.as_str(), key.1.as_str(), key.2.as_str(), start));
        }
        encode_observation(&mut rows, &key.0, observation, [created_at, now]);
    }
    delete_observations(connection, &outdated).await?;
    rows.insert(connection, method, "observations", OBSERVATION_NAMES)
        .await
}

async fn delete_observations(
    connection: &mut PgConnection,
    outdated: &[(&str, &str, &str, DateTime<Utc>)],
) -> Result<(), StoreError> {
    if outdated.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "delete from observations o
          using unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) k(project_id, trace_id, id, start_time)
          where o.project_id = k.project_id and o.trace_id = k.trace_id and o.id = k.id
            and o.start_time = k.start_time",
    )
    .bind(outdated.iter().map(|key| key.0).collect::<Vec<_>>())
    .bind(outdated.iter().map(|key| key.1).collect::<Vec<_>>())
    .bind(outdated.iter().map(|key| key.2).collect::<Vec<_>>())
    .bind(outdated.iter().map(|key| key.3).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes traces that are new or changed.
pub(super) async fn replace_traces(
    connection: &mut PgConnection,
    method: Method,
    documents: &mut Documents,
    mut stored: StoredTraces,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut rows = Rows::default();
    let (mut projects, mut ids) = (Vec::new(), Vec::new());
    for (key, trace) in &mut documents.traces {
        let known = stored.remove(key);
        let created_at = known.as_ref().map_or(now, |known| known.created_at);
        if let Some(Stored { document, .. }) = known {
            let mut merged = document.clone();
            merged.merge(trace.clone());
            if merged == document {
                continue;
            }
            *trace = merged;
            projects.push(key.0.as_str());
            ids.push(key.1.as_str());
        }
        encode_trace(&mut rows, &key.0, trace, [created_at, now]);
    }
    if !ids.is_empty() {
        sqlx::query(
            "delete from traces t using unnest($1::text[], $2::text[]) k(project_id, id)
              where t.project_id = k.project_id and t.id = k.id",
        )
        .bind(projects)
        .bind(ids)
        .execute(&mut *connection)
        .await?;
    }
    rows.insert(connection, method, "traces", TRACE_NAMES).await
}

const TRACE_NAMES: &str = "project_id, id, ts, sent_timestamp, first_start, last_start,
    last_end, name, user_id, session_id, release, version, environment, external_id, public,
    bookmarked, tags, metadata, metadata_decoded, input, output, sent_latency, sent_total_cost,
    merge_state, created_at, updated_at";

fn encode_trace(rows: &mut Rows, project: &ProjectId, trace: &Trace, times: [DateTime<Utc>; 2]) {
    let metadata = trace
        .shown_metadata()
        .map(json::storable)
        .map(|value| value.to_string());
    let [created_at, updated_at] = times.map(time::from_utc);
    rows.row()
        .text(Some(project.as_str()))
        .text(Some(trace.id.as_str()))
        .time(Some(trace.begins()))
        .time(trace.timestamp.copied())
        .time(trace.extent.first)
        .time(trace.extent.last_start)
        .time(trace.extent.last)
        .text(trace.name.text())
        .text(trace.user_id.text())
        .text(trace.session_id.text())
        .text(trace.release.text())
        .text(trace.version.text())
        .text(Some(trace.environment()))
        .text(trace.external_id.text())
        .bool(trace.public.copied())
        .bool(trace.bookmarked.copied())
        .text_array(trace.tags.iter().map(String::as_str))
        .jsonb(metadata)
        .bool(Some(trace.metadata_decoded))
        .text(trace.input.text())
        .text(trace.output.text())
        .float8(trace.sent_latency.copied())
        .float8(trace.sent_total_cost.copied())
        .text(Some(&MergeState::of_trace(trace).to_text()))
        .time(Some(created_at))
        .time(Some(updated_at));
}

const OBSERVATION_NAMES: &str = "project_id, trace_id, id, start_time, end_time,
    completion_start_time, parent_id, type, name, level, status_message, version, environment,
    model, model_parameters, prompt_name, prompt_version, usage_details, input_usage, output_usage,
    total_usage, sent_costs, cost_details, input_cost, output_cost, total_cost, model_id, tier_id,
    tier_name, input, output, metadata, metadata_decoded, tool_definitions, otel, sent, merge_state,
    created_at, updated_at";

fn encode_observation(
    rows: &mut Rows,
    project: &ProjectId,
    observation: &Observation,
    times: [DateTime<Utc>; 2],
) {
    rows.row()
        .text(Some(project.as_str()))
        .text(Some(observation.trace_id.as_str()))
        .text(Some(observation.id.as_str()))
        .time(Some(observation.begins()))
        .time(observation.ends())
        .time(observation.completion_start.copied())
        .text(observation.parent_id.text())
        .text(Some(observation.kind().name()))
        .text(observation.name.text())
        .text(Some(observation.level().name()))
        .text(observation.status_message.text())
        .text(observation.version.text())
        .text(Some(observation.environment()))
        .text(observation.model.text())
        .text(observation.model_parameters.text())
        .text(observation.prompt_name.text())
        .int4(observation.prompt_version.copied());
    encode_costs(rows, observation);
    let metadata = observation
        .metadata
        .value()
        .map(json::storable)
        .map(|value| value.to_string());
    let sent = observation.sent.value().map(|value| value.to_string());
    let [created_at, updated_at] = times.map(time::from_utc);
    rows.text(observation.input.text())
        .text(observation.output.text())
        .jsonb(metadata)
        .bool(Some(observation.metadata_decoded))
        .text(observation.tool_definitions.text())
        .text(observation.otel.text())
        .text(sent.as_deref())
        .text(Some(&MergeState::of_observation(observation).to_text()))
        .time(Some(created_at))
        .time(Some(updated_at));
}

/// What usage and the price list say; recomputed whenever the observation changes.
fn encode_costs(rows: &mut Rows, observation: &Observation) {
    let usage = observation.usage.get();
    let priced = prices().price(observation);
    let costs = Some(&priced.costs).filter(|costs| !costs.is_empty());
    let (tier_id, tier_name) = priced.tier.unzip();
    rows.jsonb(usage.map(json_text))
        .int8(usage.and_then(|usage| stored::sum_like(usage, "input")))
        .int8(usage.and_then(|usage| stored::sum_like(usage, "output")))
        .int8(usage.and_then(|usage| usage.get("total").copied()))
        .jsonb(observation.sent_costs.get().map(json_text))
        .jsonb(costs.map(json_text))
        .float8(costs.and_then(|costs| stored::sum_like(costs, "input")))
        .float8(costs.and_then(|costs| stored::sum_like(costs, "output")))
        .float8(costs.and_then(|costs| costs.get("total").copied()))
        .text(priced.model_id.as_deref())
        .text(tier_id.as_deref())
        .text(tier_name.as_deref());
}

fn json_text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("maps of numbers and texts serialise")
}
