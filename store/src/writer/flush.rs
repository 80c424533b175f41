//! One transaction: read what is stored, merge, write what changed, commit, answer.
//!
//! Rows are not locked ahead. Every change of a trace or of any of its observations writes the
//! trace's row, and only if that row is still the one that was read; a new trace conflicts with itself
//! by its key. Whoever loses such a race rolls back and starts again in two transactions that can't
//! lose for ever: see [`Stage`].

use std::collections::BTreeSet;
use std::mem;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use metrics::{counter, histogram};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, PgConnection, Postgres};
use xtrace_model::{Batch, ProjectId, TraceId};

use super::changes::{self, Books, Change};
use super::combine::Group;
use super::insert::{Method, Rows};
use super::known::Look;
use super::partitions::KnownDays;
use super::queue::Taken;
use super::request::Part;
use super::sessions::{self, KnownSessions};
use super::{combine, doubts, encode, known, logs, places, roll_up, scores};
use crate::erasure::fence;
use crate::error::{UNIQUE_VIOLATION, is_partition_in_the_making, is_sqlstate};
use crate::{Store, StoreError, metrics as points};

/// How many transactions are tried for one group of requests.
const ATTEMPTS: usize = 16;

/// How long one of them may take. Nothing tells a connection that Postgres works on from one whose other end has
/// vanished without a word, as with a host that lost its power.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);

/// Rows are sent when they are so many bytes, so that a huge request isn't in memory twice.
const STREAM_BYTES_MAX: usize = 8 << 20;

/// A writer's hold on the database.
pub(super) struct Flusher {
    store: Store,
    connection: Option<PoolConnection<Postgres>>,
    /// When the connection last served.
    used: Instant,
    days: KnownDays,
    sessions: KnownSessions,
    /// Projects of the last transaction that take nothing more.
    closed: BTreeSet<ProjectId>,
}

/// What a transaction writes.
///
/// Writers can't wait for each other in a circle: new traces come before known ones, each by key. Who
/// waits at a new trace holds no known one; who waits at a known one waits for somebody who has no
/// more new ones to write, and is at a greater key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Everything; tried first.
    All,
    /// New traces alone: whoever conflicts has made one of them known, so there are ever fewer.
    New,
    /// Known traces, which all are by now. They are locked as they are read, so that nobody is faster.
    Known,
}

/// Why a transaction was rolled back.
pub(super) enum Setback {
    /// Another writer was faster.
    Conflict(Option<sqlx::Error>),
    Failed(StoreError),
}

impl From<StoreError> for Setback {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Internal(cause) | StoreError::Unavailable(Some(cause))
                if is_sqlstate(&cause, &CONFLICTS) || is_partition_in_the_making(&cause) =>
            {
                Self::Conflict(Some(cause))
            }
            other => Self::Failed(other),
        }
    }
}

impl From<Setback> for StoreError {
    /// For work that nobody does again at once.
    fn from(setback: Setback) -> Self {
        match setback {
            Setback::Failed(error) => error,
            Setback::Conflict(cause) => Self::Unavailable(cause),
        }
    }
}

impl From<sqlx::Error> for Setback {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

/// Unique violation, serialization failure, deadlock.
const CONFLICTS: [&str; 3] = [UNIQUE_VIOLATION, "40001", "40P01"];

impl Drop for Flusher {
    fn drop(&mut self) {
        self.drop_connection();
    }
}

impl Flusher {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            connection: None,
            used: Instant::now(),
            days: KnownDays::default(),
            sessions: KnownSessions::default(),
            closed: BTreeSet::new(),
        }
    }

    /// Writes the parts of one transaction and tells each what became of it. What fails for its data is tried
    /// alone when its project's turn comes, so that only the item with the fault suffers, and nobody waits
    /// for the search.
    pub(super) async fn flush(&mut self, mut taken: Taken) {
        let mut parts = taken.parts();
        for part in parts.iter().filter(|part| !part.is_suspect) {
            let waited = part.queued().elapsed();
            histogram!("xtrace_queue_seconds").record(waited.as_secs_f64());
        }
        while !parts.is_empty() {
            let batches: Vec<&Batch> = parts.iter().map(|part| &part.batch).collect();
            let outcome = self.write(&batches).await;
            let closed = mem::take(&mut self.closed);
            if closed.is_empty() {
                return settle(&taken, parts, outcome);
            }
            // The others have their transaction at once.
            let is_closed = |part: &Part| closed.contains(&part.batch.project);
            let (gone, rest): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(is_closed);
            parts = rest;
            for part in gone {
                part.failed(StoreError::ProjectGone);
            }
        }
    }

    /// Commits the batches: all of their rows, or none.
    async fn write(&mut self, batches: &[&Batch]) -> Result<(), StoreError> {
        let began = Instant::now();
        self.drop_dead_connection().await;
        let outcome = self.attempts(batches).await;
        if outcome.is_err() {
            self.roll_back().await;
        }
        self.used = Instant::now();
        let rows: usize = batches.iter().map(|batch| batch.rows()).sum();
        histogram!("xtrace_transaction_rows").record(rows as f64);
        histogram!("xtrace_commit_seconds").record(began.elapsed().as_secs_f64());
        outcome
    }

    async fn attempts(&mut self, batches: &[&Batch]) -> Result<(), StoreError> {
        let mut reconnected = false;
        let mut last = None;
        let mut stage = Stage::All;
        let mut has_strays = false;
        for _ in 0..ATTEMPTS {
            let look = match stage {
                _ if has_strays => Look::Everywhere,
                Stage::All | Stage::New => Look::Quick,
                Stage::Known => Look::Locked,
            };
            let attempt = self.attempt(batches, (stage, look));
            let attempt = tokio::time::timeout(ATTEMPT_MAX, attempt);
            // A connection whose other end has vanished is silent for ever.
            let outcome = attempt
                .await
                .unwrap_or_else(|_| Err(StoreError::silent().into()));
            match outcome {
                Ok(()) if stage == Stage::New => stage = Stage::Known,
                Ok(()) => return Ok(()),
                Err(Setback::Conflict(cause)) => {
                    counter!("xtrace_conflicts_total").increment(1);
                    has_strays |= cause.as_ref().is_some_and(is_of_an_observation);
                    last = cause;
                    stage = Stage::New;
                }
                // Postgres answered, and is ready for the next.
                Err(Setback::Failed(
                    error @ (StoreError::Refused(_)
                    | StoreError::ProjectGone
                    | StoreError::Unavailable(Some(sqlx::Error::Decode(_)))),
                )) => return Err(error),
                // A connection that was idle may have died since; everything may be sent twice.
                Err(Setback::Failed(StoreError::Unavailable(_)))
                    if !reconnected && self.drop_connection() =>
                {
                    reconnected = true;
                }
                Err(Setback::Failed(error)) => {
                    self.drop_connection();
                    return Err(error);
                }
            }
        }
        Err(match last {
            // Nobody is faster so many times: the key is there, and will be.
            Some(cause) if is_sqlstate(&cause, &[UNIQUE_VIOLATION]) => StoreError::Refused(cause),
            last => StoreError::Unavailable(last),
        })
    }

    async fn drop_dead_connection(&mut self) {
        if let Some(connection) = &mut self.connection
            && !self.store.line().still_serves(connection, self.used).await
        {
            self.drop_connection();
        }
    }

    /// Ends a transaction that failed. Dropping it only has that done before the next statement, and this writer's
    /// next one may be long in coming: until then others would wait for the rows that it locked.
    async fn roll_back(&mut self) {
        if let Some(connection) = &mut self.connection {
            let ended = tokio::time::timeout(ATTEMPT_MAX, connection.ping()).await;
            if !matches!(ended, Ok(Ok(()))) {
                self.drop_connection();
            }
        }
    }

    /// Whether there was one.
    fn drop_connection(&mut self) -> bool {
        // Closed, not given back: what it is in the middle of must end with it.
        self.connection
            .take()
            .map(|connection| drop(connection.detach()))
            .is_some()
    }

    async fn attempt(&mut self, batches: &[&Batch], plan: (Stage, Look)) -> Result<(), Setback> {
        let (stage, _) = plan;
        let method = self.store.method();
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let acquired = self.store.write().acquire().await;
                // What the other side of a lost connection knows now is not certain: it may be another server,
                // that was promoted without the last commits.
                self.store.series().forget_all();
                self.sessions.forget();
                none.insert(acquired.map_err(StoreError::from)?)
            }
        };
        let books = books(&self.store, connection, batches).await?;
        let now = Utc::now();
        self.days.make(connection, batches, now).await?;
        let mut transaction = connection.begin().await?;
        let projects: BTreeSet<&ProjectId> = batches.iter().map(|batch| &batch.project).collect();
        let groups = combine::by_trace(batches);
        let outcome = if groups.is_empty() {
            let open = fence::ask(&mut transaction, &projects).await;
            open.map(|()| Written::default()).map_err(Setback::from)
        } else {
            let with = (method, &books, &self.sessions, &projects);
            write_documents(&mut transaction, with, groups, plan, now).await
        };
        let mut written = match outcome {
            Err(Setback::Failed(StoreError::ProjectGone)) => {
                self.closed = fence::closed(&mut transaction, &projects).await?;
                // A project that is made again has none of the series that the old one had.
                self.store.series().forget_all();
                return Err(if self.closed.is_empty() {
                    // It was made again since.
                    Setback::Conflict(None)
                } else {
                    Setback::Failed(StoreError::ProjectGone)
                });
            }
            outcome => outcome?,
        };
        // Written once: the stage of known traces comes after that of new ones.
        let mut new_series = Vec::new();
        if stage != Stage::New {
            let cache = self.store.series();
            new_series = points::insert::write(&mut transaction, cache, batches, now).await?;
            written.points = batches.iter().map(|batch| batch.points.len()).sum();
            written.logs = logs::write(&mut transaction, batches, now).await?;
            written.scores = scores::write(&mut transaction, batches, now).await?;
        }
        transaction.commit().await?;
        written.count();
        self.sessions.remember(written.sessions);
        self.store.series().remember(&new_series, now.date_naive());
        Ok(())
    }
}

/// Tells each part of a transaction what became of it.
fn settle(taken: &Taken, parts: Vec<Part>, outcome: Result<(), StoreError>) {
    match outcome {
        Ok(()) => parts.into_iter().for_each(Part::committed),
        Err(error) if parts.len() > 1 && is_of_its_data(&error) => taken.try_alone(parts),
        Err(error @ StoreError::Refused(_)) => {
            tracing::debug!(cause = error.for_log(), "an item was refused");
            for part in parts {
                taken.refuse(part);
            }
        }
        Err(error) => fail(parts, error),
    }
}

/// Whether a key is there already that is an observation's. Writers that race meet at the rows of traces, so
/// this one lies where it was not looked for.
fn is_of_an_observation(cause: &sqlx::Error) -> bool {
    let database = cause.as_database_error();
    let table = database.and_then(sqlx::error::DatabaseError::table);
    table.is_some_and(|table| table.starts_with("observations"))
}

/// Whether other data might be written though this was not.
fn is_of_its_data(error: &StoreError) -> bool {
    match error {
        StoreError::Refused(_) | StoreError::Internal(_) | StoreError::Timeout => true,
        // A row that only a newer program may write, or points of a series that is not described.
        StoreError::Unavailable(Some(sqlx::Error::Decode(_))) => true,
        StoreError::Overloaded { .. }
        | StoreError::Busy { .. }
        | StoreError::TooLarge
        | StoreError::TooBroad(_)
        | StoreError::ProjectGone
        | StoreError::Unavailable(_) => false,
    }
}

/// Fails the requests of all parts; the cause is logged here, once.
fn fail(parts: Vec<Part>, error: StoreError) {
    let cause = error.for_log();
    tracing::warn!(%error, cause, parts = parts.len(), "a write failed; none of it is acknowledged");
    // A statement that took too long may be quicker next time: exporters are to send it again.
    let error = match error {
        StoreError::Timeout => StoreError::Unavailable(None),
        other => other,
    };
    let mut parts = parts.into_iter();
    let first = parts.next();
    for part in parts {
        part.failed(error.for_another());
    }
    if let Some(part) = first {
        part.failed(error);
    }
}

/// The prices of all projects that batches are of.
async fn books(
    store: &Store,
    connection: &mut PgConnection,
    batches: &[&Batch],
) -> Result<Books, StoreError> {
    let mut books = Books::new();
    for batch in batches {
        if !books.contains_key(&batch.project) {
            // Read before the batch was queued: nobody's transaction waits for patterns to be compiled.
            let book = match store.price_books().latest(&batch.project) {
                Some(book) => book,
                None => {
                    let executor = &mut *connection;
                    store.price_book_over(executor, &batch.project).await?
                }
            };
            books.insert(batch.project.clone(), book);
        }
    }
    Ok(books)
}

async fn write_documents(
    connection: &mut PgConnection,
    (method, books, sessions, projects): (Method, &Books, &KnownSessions, &BTreeSet<&ProjectId>),
    groups: Vec<Group<'_>>,
    (stage, look): (Stage, Look),
    now: DateTime<Utc>,
) -> Result<Written, Setback> {
    let mut known = known::read(connection, &groups, look, projects).await?;
    let mut changes = changes::merge(groups, &mut known, books, now);
    // Before all else, so that no writer waits for a session while it holds a trace; those of known traces too
    // before these are locked, in the stage after that of new ones.
    let sessions = sessions.make(connection, &changes).await?;
    if stage == Stage::New {
        changes.retain(Change::is_new);
    }
    if changes.is_empty() {
        return Ok(Written {
            sessions,
            ..Written::default()
        });
    }
    let written = Written {
        traces: changes.len(),
        observations: changes.iter().map(|change| change.observations.len()).sum(),
        sessions,
        ..Written::default()
    };
    write_changes(connection, method, &known, changes, now).await?;
    Ok(written)
}

/// Sums traces up and writes them, with their changed observations.
pub(super) async fn write_changes(
    connection: &mut PgConnection,
    method: Method,
    known: &known::Known,
    mut changes: Vec<Change<'_>>,
    now: DateTime<Utc>,
) -> Result<(), Setback> {
    roll_up::roll_up(connection, known, &mut changes, now).await?;
    write_traces(connection, method, &changes, now).await?;
    doubts::mark(connection, &changes, now).await?;
    delete_outdated(connection, &changes).await?;
    let new_rows = || Rows::new("observations", encode::OBSERVATION_COLUMNS, method);
    let mut rows = new_rows();
    rows.reserve(encode::observations_bytes(&changes).min(STREAM_BYTES_MAX));
    for change in &changes {
        for observation in &change.observations {
            encode::observation(&mut rows, change.project, observation, now);
        }
        if rows.bytes() > STREAM_BYTES_MAX {
            mem::replace(&mut rows, new_rows())
                .insert(connection)
                .await?;
        }
    }
    rows.insert(connection).await?;
    Ok(())
}

/// Rows that a transaction wrote.
#[derive(Default)]
struct Written {
    traces: usize,
    observations: usize,
    points: usize,
    logs: u64,
    scores: u64,
    /// Those whose rows are there now.
    sessions: Vec<sessions::Key>,
}

impl Written {
    fn count(&self) {
        let tables = [
            ("traces", self.traces as u64),
            ("observations", self.observations as u64),
            ("metric_points", self.points as u64),
            ("logs", self.logs),
            ("scores", self.scores),
        ];
        if tables.iter().all(|(_, rows)| *rows == 0) {
            counter!("xtrace_unchanged_transactions_total").increment(1);
        }
        for (table, rows) in tables.into_iter().filter(|(_, rows)| *rows > 0) {
            counter!("xtrace_committed_rows_total", "table" => table).increment(rows);
        }
    }
}

pub(super) async fn write_traces(
    connection: &mut PgConnection,
    method: Method,
    changes: &[Change<'_>],
    now: DateTime<Utc>,
) -> Result<(), Setback> {
    let mut replaced = Rows::new("traces", encode::TRACE_COLUMNS, Method::Insert);
    let mut new = Rows::new("traces", encode::TRACE_COLUMNS, method);
    let mut expected = 0;
    for change in changes {
        if let Some(version) = &change.version {
            encode::trace(&mut replaced, change, now);
            replaced.text(Some(version));
            expected += 1;
        } else {
            encode::trace(&mut new, change, now);
        }
    }
    new.insert(connection).await?;
    if replaced.replace(connection).await? != expected {
        return Err(Setback::Conflict(None));
    }
    Ok(())
}

async fn delete_outdated(
    connection: &mut PgConnection,
    changes: &[Change<'_>],
) -> Result<(), Setback> {
    let mut projects = Vec::new();
    let (mut traces, mut ids, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        for observation in &change.observations {
            if let Some(outdated) = &observation.outdated {
                projects.push(change.project.as_str());
                traces.push(change.trace.id.as_str());
                ids.push(observation.document.id.as_str());
                starts.push(outdated.start_time);
            }
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    let expected = ids.len() as u64;
    let bounds = places::bounds(starts.iter().map(|start| (*start, *start)).collect());
    let (one, other) = bounds.unzip();
    // The conditions on time are worded as those of `places::UNNEST_KEYS`, for the same reason.
    let deleted = sqlx::query(
        "delete from observations o
          using unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) k(project_id, trace_id, id, start_time)
          where o.project_id = k.project_id and o.trace_id = k.trace_id and o.id = k.id
            and (o.start_time = k.start_time or o.start_time = 'infinity')
            and (o.start_time between $5 and $6 or o.start_time between $7 and $8 or o.start_time = 'infinity')",
    )
    .bind(projects)
    .bind(traces)
    .bind(ids)
    .bind(starts)
    .bind(one.map(|range| range.0))
    .bind(one.map(|range| range.1))
    .bind(other.map(|range| range.0))
    .bind(other.map(|range| range.1))
    .execute(connection)
    .await?;
    if deleted.rows_affected() != expected {
        return Err(Setback::Conflict(None));
    }
    Ok(())
}

/// Sums traces up that may have lost observations.
pub(crate) async fn sum_up_again(
    store: &Store,
    keys: Vec<(String, String)>,
) -> Result<(), StoreError> {
    let parsed = keys.into_iter().filter_map(|(project, id)| {
        Some((ProjectId::parse(project).ok()?, TraceId::parse(id).ok()?))
    });
    let keys: BTreeSet<(ProjectId, TraceId)> = parsed.collect();
    let mut transaction = store.write().begin().await?;
    let groups: Vec<_> = keys
        .iter()
        .map(|(project, id)| Group::bare((project, id)))
        .collect();
    // Locked, so that no row changes before it is replaced.
    let known = known::read(&mut transaction, &groups, Look::Readable, &BTreeSet::new()).await?;
    let mut changes = Vec::new();
    for group in &groups {
        if let Some(trace) = known.get(&known::name(group.key())) {
            let mut change = changes::unchanged(group, trace);
            // Of what is gone nobody knows what it contributed.
            change.has_sums = false;
            changes.push(change);
        }
    }
    let now = Utc::now();
    roll_up::roll_up(&mut transaction, &known, &mut changes, now).await?;
    write_traces(&mut transaction, Method::Insert, &changes, now).await?;
    transaction.commit().await?;
    Ok(())
}

/// Bytes of the rows of a batch whose traces are new; for the benchmark of encoding.
#[doc(hidden)]
pub fn encoded_bytes(batch: &Batch) -> usize {
    let now = Utc::now();
    let changes = changes::merge(
        combine::by_trace(&[batch]),
        &mut known::Known::new(),
        &Books::new(),
        now,
    );
    let mut traces = Rows::new("traces", encode::TRACE_COLUMNS, Method::Copy);
    let mut observations = Rows::new("observations", encode::OBSERVATION_COLUMNS, Method::Copy);
    for change in &changes {
        encode::trace(&mut traces, change, now);
        for observation in &change.observations {
            encode::observation(&mut observations, change.project, observation, now);
        }
    }
    traces.bytes() + observations.bytes()
}
