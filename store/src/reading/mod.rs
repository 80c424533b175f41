//! What one request may read: connections and bytes, of which each project has its share.
//!
//! A request runs within the [`scope`](Reading::scope) of its [`Reading`]. Every statement on the read pool
//! goes through [`Reader`], an executor that waits for its project's turn (`admission`), weighs each row
//! before it is taken apart (`weight`), makes room for it (`memory`), and ends a statement whose rows nobody
//! wants any more. So no read needs to think of any of this.

mod admission;
mod memory;
mod weight;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr};
use xtrace_model::ProjectId;

use crate::error::{QUERY_CANCELED, is_sqlstate};
use crate::line::Line;
use admission::{Admission, Turn};
use memory::{Held, Memory};

pub use memory::ANSWER_BYTES_MAX;
/// Connections beside those that are taken in turns: large answers, which others wait for, never wait.
pub(crate) const EXTRA_CONNECTIONS: u32 = memory::LARGE_MAX;

/// How long a statement waits for its turn, and an answer until it may be large.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a statement may go on after its client has gone: Postgres looks twice a second, see `connect.rs`.
const LINGER: Duration = Duration::from_secs(1);
/// The limit of statements that have no other: so many rows are too large an answer, whatever they hold, so
/// that it is never the limit that cuts one.
pub(crate) const ROWS_MAX: usize = ANSWER_BYTES_MAX / weight::ROW_BYTES;
/// Statements that no request asks for share like those of one project, which has no id.
const NOBODY: &str = "";

tokio::task_local! {
    static CURRENT: Reading;
}

/// Why a statement can't run, or can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bound {
    /// The project's other statements don't end.
    #[error("too many questions of this project at once")]
    Turns,
    /// The project's other answers are in the way.
    #[error("too many large answers of this project at once")]
    Memory,
    /// The answer is too large.
    #[error("the answer is too large")]
    Bytes,
}

impl Bound {
    /// The bound that a failure of [`Reader`] stands for.
    pub(crate) fn of(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::AnyDriverError(cause) => cause.downcast_ref().copied(),
            _ => None,
        }
    }
}

impl From<Bound> for sqlx::Error {
    /// Executors have no errors of their own; this is the kind that no Postgres makes.
    fn from(bound: Bound) -> Self {
        let cause = match bound {
            Bound::Turns => "connections",
            Bound::Memory => "memory",
            Bound::Bytes => "bytes",
        };
        metrics::counter!("xtrace_reads_refused_total", "cause" => cause).increment(1);
        Self::AnyDriverError(Box::new(bound))
    }
}

/// What all requests read at the moment.
#[derive(Debug)]
pub(crate) struct Readings {
    admission: Arc<Admission>,
    memory: Memory,
}

impl Readings {
    /// Statements at once: so many, and those of large answers.
    pub(crate) fn new(turns: u32) -> Self {
        Self {
            admission: Arc::new(Admission::new(turns as usize, WAIT_MAX)),
            memory: Memory::new(WAIT_MAX),
        }
    }

    pub(crate) fn reading(&self, project: Option<&ProjectId>) -> Reading {
        let project = project.map_or(NOBODY, ProjectId::as_str);
        Reading(Arc::new(Inner {
            project: project.into(),
            admission: Arc::clone(&self.admission),
            held: tokio::sync::Mutex::new(self.memory.hold(project)),
            bytes: AtomicUsize::new(0),
            is_large: AtomicBool::new(false),
        }))
    }
}

/// What one request has read so far. Its memory is given back with the last clone: keep one until the answer
/// is sent.
#[derive(Debug, Clone)]
pub struct Reading(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    project: Box<str>,
    admission: Arc<Admission>,
    held: tokio::sync::Mutex<Held>,
    bytes: AtomicUsize,
    is_large: AtomicBool,
}

impl Reading {
    /// Runs a request, all of whose reads count together.
    pub async fn scope<F: Future>(&self, request: F) -> F::Output {
        CURRENT.scope(self.clone(), request).await
    }

    /// That of the request which runs, if any.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// The weight of all rows so far.
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    async fn take(&self, row: &PgRow) -> Result<(), Bound> {
        self.grow(weight::of(row)?).await
    }

    /// Makes room for more bytes of the answer.
    pub(crate) async fn grow(&self, weight: usize) -> Result<(), Bound> {
        let mut held = self.0.held.lock().await;
        held.grow(weight).await?;
        self.0.bytes.store(held.bytes(), Ordering::Relaxed);
        self.0.is_large.store(held.is_large(), Ordering::Relaxed);
        Ok(())
    }

    async fn turn(&self) -> Result<Option<Turn>, Bound> {
        if self.0.is_large.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.0.admission.turn(&self.0.project).await.map(Some)
    }
}

/// Runs statements on the read pool, within the bounds of the request that runs.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) pool: PgPool,
    pub(crate) reading: Reading,
    pub(crate) line: Line,
    /// How long a statement may stay silent.
    pub(crate) silence_max: Duration,
}

impl Reader {
    async fn begin(&self) -> Result<Statement, sqlx::Error> {
        let turn = self.reading.turn().await?;
        let connection = self.pool.acquire().await?;
        Ok(Statement {
            connection: Some(connection),
            turn,
            line: self.line.clone(),
            is_running: true,
        })
    }

    /// The row of a statement that may run so long, its turn not counted; none if it runs longer, and it ends.
    pub(crate) async fn row_within<'q>(
        self,
        limit: Duration,
        query: impl Execute<'q, Postgres> + 'q,
    ) -> Result<Option<PgRow>, sqlx::Error> {
        let mut statement = self.begin().await?;
        let found = statement.connection().fetch_one(query);
        // One that is dropped while it runs is ended with its connection.
        let Ok(found) = tokio::time::timeout(limit, found).await else {
            return Ok(None);
        };
        statement.is_running = false;
        match found {
            Err(error) if is_sqlstate(&error, &[QUERY_CANCELED]) => Ok(None),
            found => found.map(Some),
        }
    }

    /// A transaction that sees one moment; whoever gets it says when it is over.
    pub(crate) async fn snapshot(self) -> Result<Snapshot, sqlx::Error> {
        let mut statement = self.begin().await?;
        let begin = sqlx::query("begin isolation level repeatable read read only")
            .execute(statement.connection());
        self.line.heard(self.silence_max, begin).await?;
        Ok(Snapshot(statement))
    }
}

/// A connection with a statement on it. One that is given up while it runs takes its connection with it:
/// else the pool would wait until it ends, and read and forget all of its rows.
struct Statement {
    connection: Option<PoolConnection<Postgres>>,
    turn: Option<Turn>,
    line: Line,
    is_running: bool,
}

impl Statement {
    fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is taken on drop alone")
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        let (Some(connection), turn) = (self.connection.take(), self.turn.take()) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if !self.is_running {
            let line = self.line.clone();
            runtime.spawn(async move { line.give_back(connection).await });
            return;
        }
        runtime.spawn(async move {
            let _ = tokio::time::timeout(LINGER, connection.close()).await;
            // Postgres notices soon; until then the statement counts as the project's.
            tokio::time::sleep(LINGER).await;
            drop(turn);
        });
    }
}

/// Whether a statement ended without an answer: what it waited for may still come.
fn is_silent<T>(outcome: &Result<T, sqlx::Error>) -> bool {
    matches!(outcome, Err(sqlx::Error::Io(_)))
}

/// Whether a statement has more to say.
fn goes_on<T>(next: &Result<Option<T>, sqlx::Error>) -> bool {
    matches!(next, Ok(Some(_))) || is_silent(next)
}

/// A snapshot that statements read from one after the other.
pub(crate) struct Snapshot(Statement);

impl Snapshot {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.0.connection()
    }

    /// Ends it; one that is dropped instead ends with its connection.
    pub(crate) async fn finish(mut self) -> Result<(), sqlx::Error> {
        sqlx::query("commit").execute(self.connection()).await?;
        self.0.is_running = false;
        Ok(())
    }
}

impl<'c> Executor<'c> for Reader {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async_stream::try_stream! {
            let mut statement = self.begin().await?;
            let connection = statement.connection.as_mut().expect("it was just taken");
            let mut found = (&mut **connection).fetch_many(query);
            loop {
                let next = self.line.heard(self.silence_max, found.try_next()).await;
                statement.is_running = goes_on(&next);
                let Some(item) = next? else {
                    break;
                };
                if let Either::Right(row) = &item {
                    self.reading.take(row).await?;
                }
                yield item;
            }
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let mut statement = self.begin().await?;
            let found = statement.connection().fetch_optional(query);
            let found = self.line.heard(self.silence_max, found).await;
            statement.is_running = is_silent(&found);
            let found = found?;
            if let Some(row) = &found {
                self.reading.take(row).await?;
            }
            Ok(found)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let mut statement = self.begin().await?;
            let prepared = statement.connection().prepare_with(sql, parameters);
            let prepared = self.line.heard(self.silence_max, prepared).await;
            statement.is_running = is_silent(&prepared);
            prepared
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let mut statement = self.begin().await?;
            let described = statement.connection().describe(sql);
            let described = self.line.heard(self.silence_max, described).await;
            statement.is_running = is_silent(&described);
            described
        })
    }
}
