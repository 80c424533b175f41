//! The connection to Postgres: pools, migrations, and whether both are well.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use xtrace_model::ProjectId;
use xtrace_model::price::PriceList;

use crate::connect::{self, Purpose};
use crate::line::{self, Line};
use crate::metrics::series::SeriesCache;
use crate::page::Estimates;
use crate::price_book::PriceBooks;
use crate::reading::{self, Reader, Reading, Readings};
use crate::unusable::Unusable;
use crate::writer::Method;
use crate::{StoreError, schema};

/// How the store connects.
#[derive(Debug, Clone)]
pub struct Options {
    /// A `postgres://` URL.
    pub database_url: String,
    /// The longest that one read may take before it is given up.
    pub statement_timeout: Duration,
    /// Connections for reads.
    pub read_connections_max: u32,
    /// How new rows are sent; chosen by the kind of connection unless it is given.
    pub method: Option<Method>,
}

impl Options {
    /// The defaults for a database.
    pub fn new(database_url: impl Into<String>) -> Self {
        Self {
            database_url: database_url.into(),
            statement_timeout: Duration::from_secs(15),
            read_connections_max: 8,
            method: None,
        }
    }
}

/// Whether the store can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Migrations ran and Postgres answered.
    Ready,
    /// Not yet, or not any more; the reason in words that hold no secret.
    NotReady(Cow<'static, str>),
}

/// How far the process is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// The database is not ready for use, and why.
    Starting(Cow<'static, str>),
    Serving,
    Stopping,
}

/// A handle on the database; clones share everything. Every layer around a handler has several.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    sign_of_life: Arc<Mutex<Option<(Instant, bool)>>>,
    read: PgPool,
    access: PgPool,
    write: PgPool,
    background: PgPool,
    media: PgPool,
    connect: PgConnectOptions,
    line: Line,
    statement_timeout: Duration,
    standing: Arc<watch::Sender<Standing>>,
    method: Method,
    price_books: Arc<PriceBooks>,
    key_changes: Arc<AtomicU64>,
    series: Arc<SeriesCache>,
    readings: Arc<Readings>,
    estimates: Arc<Estimates>,
}

/// Each writer keeps one; the others make partitions and sum traces up.
const WRITE_CONNECTIONS_MAX: u32 = 8;
/// Loops that work beside requests; two may be at something long.
const BACKGROUND_CONNECTIONS_MAX: u32 = 6;
/// How long an answer to the question whether Postgres is alive is given again.
const SIGN_OF_LIFE_TTL: Duration = Duration::from_secs(1);
/// Look-ups of keys and of readiness wait for no question of anybody, and never take long.
const ACCESS_CONNECTIONS_MAX: u32 = 2;
const ACCESS_STATEMENT_MAX: Duration = Duration::from_secs(2);
/// Pieces of media on their way: many transfers at once must not keep other writes waiting.
const MEDIA_CONNECTIONS_MAX: u32 = 4;

impl Store {
    /// Prepares pools; connects when first needed.
    pub fn new(options: &Options) -> Result<Self, StoreError> {
        let connect = connect::options(&options.database_url)?;
        let is_socket = connect.get_socket().is_some();
        let by_connection = if is_socket {
            Method::Copy
        } else {
            Method::Insert
        };
        let method = options.method.unwrap_or(by_connection);
        let line = Line::default();
        let pool =
            |purpose, connections_max| connect::pool(&connect, &line, purpose, connections_max);
        let read = Purpose::Read(options.statement_timeout);
        let starting = Standing::Starting(
            "the database is not reached yet or its migrations have not run".into(),
        );
        Ok(Self(Arc::new(Shared {
            sign_of_life: Arc::default(),
            read: pool(
                read,
                options.read_connections_max + reading::EXTRA_CONNECTIONS,
            ),
            access: pool(
                Purpose::Access(ACCESS_STATEMENT_MAX),
                ACCESS_CONNECTIONS_MAX,
            ),
            write: pool(Purpose::Write, WRITE_CONNECTIONS_MAX),
            background: pool(Purpose::Background, BACKGROUND_CONNECTIONS_MAX),
            media: pool(Purpose::Write, MEDIA_CONNECTIONS_MAX),
            line,
            statement_timeout: options.statement_timeout,
            connect,
            standing: Arc::new(watch::Sender::new(starting)),
            method,
            price_books: Arc::default(),
            key_changes: Arc::default(),
            series: Arc::default(),
            readings: Arc::new(Readings::new(options.read_connections_max)),
            estimates: Arc::default(),
        })))
    }

    /// Judges the database, runs the migrations that it lacks, and makes partitions for the days
    /// ahead.
    pub async fn migrate(&self) -> Result<(), Unusable> {
        schema::bring_up_to_date(&self.0.connect).await?;
        if let Err(error) = crate::partitions::make_ahead(self).await {
            // Rows can be written without: they lie in the default partition until theirs is made.
            tracing::warn!(%error, "partitions for the days ahead are made later");
        }
        self.0.standing.send_if_modified(|standing| {
            let is_starting = matches!(standing, Standing::Starting(_));
            if is_starting {
                *standing = Standing::Serving;
            }
            is_starting
        });
        Ok(())
    }

    /// Whether rows and the password travel to another host without a check of its certificate.
    pub fn trusts_the_network(&self) -> bool {
        let host = self.0.connect.get_host();
        let is_here = self.0.connect.get_socket().is_some()
            || host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback());
        !is_here && !matches!(self.0.connect.get_ssl_mode(), PgSslMode::VerifyFull)
    }

    /// Judges the database and changes nothing.
    pub async fn inspect(&self) -> Result<(), Unusable> {
        schema::inspect(&self.0.connect).await
    }

    /// Why the service waits for the database; readiness answers with it.
    pub fn is_waiting(&self, reason: &Unusable) {
        let reason = Standing::Starting(reason.to_string().into());
        self.0.standing.send_if_modified(|standing| {
            let is_starting = matches!(standing, Standing::Starting(_));
            if is_starting {
                *standing = reason;
            }
            is_starting
        });
    }

    /// From now on the service says that it is not ready, since it stops.
    pub fn is_stopping(&self) {
        self.0.standing.send_replace(Standing::Stopping);
    }

    /// How far the process itself is; Postgres is not asked.
    pub fn standing(&self) -> Readiness {
        match &*self.0.standing.borrow() {
            Standing::Serving => Readiness::Ready,
            Standing::Starting(reason) => Readiness::NotReady(reason.clone()),
            Standing::Stopping => Readiness::NotReady("the service is stopping".into()),
        }
    }

    /// Asks Postgres for a sign of life.
    pub async fn readiness(&self) -> Readiness {
        if let not_ready @ Readiness::NotReady(_) = self.standing() {
            return not_ready;
        }
        if self.is_alive().await {
            Readiness::Ready
        } else {
            Readiness::NotReady("the database does not answer".into())
        }
    }

    /// Whether Postgres answers, or did a moment ago: anybody may ask, as often as they like.
    async fn is_alive(&self) -> bool {
        let known = || {
            self.0
                .sign_of_life
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some((asked, is_alive)) = *known()
            && asked.elapsed() < SIGN_OF_LIFE_TTL
        {
            return is_alive;
        }
        let sign = sqlx::query("select 1").execute(&self.0.access);
        let is_alive = self.access_answer(sign).await.is_ok();
        *known() = Some((Instant::now(), is_alive));
        is_alive
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.0.read.close().await;
        self.0.access.close().await;
        self.0.write.close().await;
        self.0.background.close().await;
        self.0.media.close().await;
    }

    /// Name, connections in use and idle connections of each pool.
    pub fn connections(&self) -> [(&'static str, u32, u32); 5] {
        let of = |name, pool: &PgPool| {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            (name, pool.size().saturating_sub(idle), idle)
        };
        [
            of("read", &self.0.read),
            of("access", &self.0.access),
            of("write", &self.0.write),
            of("background", &self.0.background),
            of("media", &self.0.media),
        ]
    }

    /// How often this process has changed keys: whoever remembers some knows by it that they may be others.
    pub fn key_changes(&self) -> u64 {
        self.0.key_changes.load(Ordering::Acquire)
    }

    pub(crate) fn keys_changed(&self) {
        self.0.key_changes.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn price_books(&self) -> &PriceBooks {
        &self.0.price_books
    }

    pub(crate) fn series(&self) -> &SeriesCache {
        &self.0.series
    }

    pub(crate) fn estimates(&self) -> &Estimates {
        &self.0.estimates
    }

    /// How rows are best sent over this connection.
    pub(crate) fn method(&self) -> Method {
        self.0.method
    }

    /// What a request of a project may read.
    pub fn reading(&self, project: &ProjectId) -> Reading {
        self.0.readings.reading(Some(project))
    }

    /// What the request that runs may read.
    pub(crate) fn current_reading(&self) -> Reading {
        Reading::current().unwrap_or_else(|| self.0.readings.reading(None))
    }

    /// Makes room in the answer of the request that runs for bytes that no row weighs: what is computed.
    pub async fn make_room(&self, bytes: usize) -> Result<(), StoreError> {
        Ok(self.current_reading().grow(bytes).await?)
    }

    /// For reads, within the bounds of the request that runs.
    pub(crate) fn read(&self) -> Reader {
        Reader {
            pool: self.0.read.clone(),
            reading: self.current_reading(),
            line: self.0.line.clone(),
            silence_max: self.0.statement_timeout + line::OVERTIME,
        }
    }

    /// For what opens a request, whatever else is asked.
    pub(crate) fn access(&self) -> &PgPool {
        &self.0.access
    }

    /// What is answered there, unless nobody does.
    pub(crate) async fn access_answer<T>(
        &self,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let limit = ACCESS_STATEMENT_MAX + line::OVERTIME;
        self.0.line.heard(limit, answer).await
    }

    pub(crate) fn line(&self) -> &Line {
        &self.0.line
    }

    /// For work that no request waits for.
    pub(crate) fn background(&self) -> &PgPool {
        &self.0.background
    }

    /// For the bytes of media.
    pub(crate) fn media(&self) -> &PgPool {
        &self.0.media
    }

    pub(crate) fn write(&self) -> &PgPool {
        &self.0.write
    }

    /// A connection outside the pools.
    pub(crate) async fn connect(&self, purpose: Purpose) -> Result<PgConnection, StoreError> {
        Ok(connect::connection(&self.0.connect, purpose).await?)
    }
}

/// The built-in models, as JSON text: an array of models with pricing tiers.
pub fn built_in_models() -> &'static str {
    include_str!("../data/default-model-prices.json")
}

/// The built-in price list.
pub fn prices() -> &'static PriceList {
    static PRICES: OnceLock<PriceList> = OnceLock::new();
    PRICES.get_or_init(|| {
        PriceList::parse(built_in_models()).expect("the built-in price list is read by a test")
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_built_in_price_list_is_sound() {
        let model = super::prices().model("b9854a5c92dc496b997d99d21").unwrap();
        assert_eq!(model.model_name, "gpt-4o-2024-05-13");
        assert_eq!(
            model.default_tier().unwrap().prices["input"].to_string(),
            "0.000005"
        );
    }
}
