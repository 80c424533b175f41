//! What is stored already of the documents that came.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, FromRow, PgConnection, Row};
use xtrace_model::price::Priced;
use xtrace_model::usage::Costs;
use xtrace_model::{Observation, ProjectId, Trace, time};

use super::combine::{Group, TraceKey};
use super::places::{self, Keys, Range};
use super::rollup::{COMPUTED_COLUMNS, Part};
use crate::StoreError;
use crate::stored::{self, ObservationRow, TraceRow, Unreadable};

/// A stored trace, with what came of it that is stored too.
pub(super) struct KnownTrace {
    pub(super) document: Trace,
    pub(super) created_at: DateTime<Utc>,
    /// Changes whenever the row does. None where only observations are stored, and no row of the trace.
    pub(super) version: Option<String>,
    /// The starts that its observations lie between; none of a trace without observations.
    pub(super) ranges: Vec<Range>,
    /// Whether its sums are of those that changes are added to.
    pub(super) has_sums: bool,
    /// By id: those of its observations that came again.
    pub(super) observations: HashMap<String, KnownObservation>,
}

/// A stored observation.
pub(super) struct KnownObservation {
    pub(super) document: Observation,
    pub(super) created_at: DateTime<Utc>,
    /// What it contributed to the sums of its trace.
    pub(super) part: Part,
    /// What it was priced at, if that was read.
    pub(super) priced: Option<Priced>,
}

/// Stored traces by project and id.
pub(super) type Known = HashMap<(String, String), KnownTrace>;

/// The name that a trace has in [`Known`].
pub(super) fn name((project, id): TraceKey<'_>) -> (String, String) {
    (project.as_str().to_owned(), id.as_str().to_owned())
}

/// How stored rows are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// As they lie: observations within the extent of their trace.
    Quick,
    /// The same, and nobody else changes these traces until the transaction ends.
    Locked,
    /// The same, and what can't be read is passed over, so that it keeps nothing from the rest.
    Readable,
    /// At any time, observations without a row of their trace included. A lost trace or an extent that is
    /// too narrow leaves such, which nobody would find else.
    Everywhere,
}

/// Reads what is stored. Who is going to add rows of projects asks with it whether they take any, which saves a
/// message; see [`crate::erasure::fence`].
pub(super) async fn read(
    connection: &mut PgConnection,
    groups: &[Group<'_>],
    look: Look,
    asked: &BTreeSet<&ProjectId>,
) -> Result<Known, StoreError> {
    let mut known = traces(connection, groups, look, asked).await?;
    if look == Look::Everywhere {
        for group in groups {
            let trace = known.entry(name(group.key()));
            let trace = trace.or_insert_with(|| KnownTrace::lost(group));
            trace.ranges = vec![(time::to_utc(time::EARLIEST), time::to_utc(time::LATEST))];
            // They don't count what was not found where it should be.
            trace.has_sums = false;
        }
    }
    if !known.is_empty() {
        observations(connection, groups, &mut known).await?;
    }
    Ok(known)
}

async fn traces(
    connection: &mut PgConnection,
    groups: &[Group<'_>],
    look: Look,
    asked: &BTreeSet<&ProjectId>,
) -> Result<Known, StoreError> {
    let (projects, ids): (Vec<&str>, Vec<&str>) = groups
        .iter()
        .map(|group| (group.project.as_str(), group.id.as_str()))
        .unzip();
    // Locked in the order of the keys, as every writer does.
    let lock = if matches!(look, Look::Locked | Look::Readable) {
        "order by k.at for update of t"
    } else {
        ""
    };
    // There is a row in any case; without a trace if none is stored.
    let sql = format!(
        "select f.open, t.*
           from (select count(*) as open from projects where id = any($3) and deleting_at is null) f
           left join (
                select {}
                  from unnest($1::text[], $2::text[]) with ordinality k(project_id, id, at)
                  join traces t on t.project_id = k.project_id and t.id = k.id {lock}) t on true",
        stored::TRACE_COLUMNS
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(projects)
        .bind(ids)
        .bind(asked.iter().map(|id| id.as_str()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let mut known = Known::new();
    for row in rows {
        if usize::try_from(row.try_get::<i64, _>("open")?).ok() != Some(asked.len()) {
            return Err(StoreError::ProjectGone);
        }
        if row.try_get::<Option<&str>, _>("id")?.is_none() {
            continue;
        }
        let row = TraceRow::from_row(&row)?;
        let name = (row.project_id.clone(), row.id.clone());
        match known_trace(row) {
            Ok(trace) => known.extend(trace.map(|trace| (name, trace))),
            Err(_) if look == Look::Readable => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(known)
}

impl KnownTrace {
    /// A trace that has no row, though it may have observations.
    fn lost(group: &Group<'_>) -> Self {
        Self {
            document: Trace::new(group.id.clone()),
            created_at: Utc::now(),
            version: None,
            ranges: Vec::new(),
            has_sums: false,
            observations: HashMap::new(),
        }
    }
}

fn known_trace(row: TraceRow) -> Result<Option<KnownTrace>, Unreadable> {
    let (created_at, version) = (row.created_at, row.version.clone());
    let ranges = places::ranges(row.first_start.zip(row.last_start), row.days.as_deref());
    let has_sums = row.has_sums;
    let document = row.into_trace()?;
    Ok(document.map(|document| KnownTrace {
        document,
        created_at,
        version: Some(version),
        ranges,
        has_sums,
        observations: HashMap::new(),
    }))
}

/// Observations can only be stored where their trace is, and lie in the partitions of its days:
/// new traces cost no look-up, and known ones only a few.
async fn observations(
    connection: &mut PgConnection,
    groups: &[Group<'_>],
    known: &mut Known,
) -> Result<(), StoreError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        #[sqlx(flatten)]
        row: ObservationRow,
        #[sqlx(flatten)]
        part: Part,
    }
    let mut keys = Keys::default();
    for group in groups {
        let Some(trace) = known.get(&name(group.key())) else {
            continue;
        };
        for observation in &group.observations {
            keys.push(group.key(), observation.id.as_str(), &trace.ranges);
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "select {}, {COMPUTED_COLUMNS} from {} and o.id = k.id",
        stored::OBSERVATION_COLUMNS,
        places::UNNEST_KEYS
    );
    let rows: Vec<Row> = keys.bind(&sql).fetch_all(connection).await?;
    for found in rows {
        let (row, part) = (found.row, found.part);
        let trace = (row.project_id.clone(), row.trace_id.clone());
        let (id, created_at) = (row.id.clone(), row.created_at);
        if let (Some(trace), Some(document)) = (known.get_mut(&trace), row.into_observation()?) {
            let observation = KnownObservation {
                document,
                created_at,
                part,
                priced: None,
            };
            trace.observations.insert(id, observation);
        }
    }
    Ok(())
}

/// Reads all stored observations of known traces that can be read, with the prices that they were written with.
pub(super) async fn add_all_observations(
    connection: &mut PgConnection,
    groups: &[Group<'_>],
    known: &mut Known,
) -> Result<(), StoreError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        #[sqlx(flatten)]
        row: ObservationRow,
        #[sqlx(flatten)]
        part: Part,
        #[sqlx(json(nullable))]
        cost_details: Option<Costs>,
        model_id: Option<String>,
        tier_id: Option<String>,
        tier_name: Option<String>,
    }
    let mut keys = Keys::default();
    for group in groups {
        if let Some(trace) = known.get(&name(group.key())) {
            keys.push(group.key(), "", &trace.ranges);
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "select {}, {COMPUTED_COLUMNS}, o.cost_details, o.model_id, o.tier_id, o.tier_name from {}",
        stored::OBSERVATION_COLUMNS,
        places::UNNEST_KEYS
    );
    let rows: Vec<Row> = keys.bind(&sql).fetch_all(connection).await?;
    for found in rows {
        let (row, part) = (found.row, found.part);
        let trace = (row.project_id.clone(), row.trace_id.clone());
        let (id, created_at) = (row.id.clone(), row.created_at);
        let priced = Priced {
            model_id: found.model_id,
            tier: found.tier_id.zip(found.tier_name),
            costs: found.cost_details.unwrap_or_default(),
        };
        if let (Some(trace), Some(document)) =
            (known.get_mut(&trace), row.into_observation().ok().flatten())
        {
            let observation = KnownObservation {
                document,
                created_at,
                part,
                priced: Some(priced),
            };
            trace.observations.insert(id, observation);
        }
    }
    Ok(())
}
