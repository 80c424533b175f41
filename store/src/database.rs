//! The connection to Postgres: pools, migrations, and whether both are well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::watch;
use xtrace_model::price::PriceList;

use crate::StoreError;
use crate::metrics::series::SeriesCache;
use crate::price_book::PriceBooks;
use crate::writer::Method;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

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
    NotReady(&'static str),
}

/// A handle on the database; clones share everything.
#[derive(Clone)]
pub struct Store {
    read: PgPool,
    write: PgPool,
    background: PgPool,
    migrated: Arc<watch::Sender<bool>>,
    method: Method,
    price_books: Arc<PriceBooks>,
    key_changes: Arc<AtomicU64>,
    series: Arc<SeriesCache>,
}

/// Writes only look up keys; a hash or merge join would read every partition for that. Plans are made
/// for every execution: one that was made while a table (such as the partition of a new day) was empty
/// reads all of it ever after, and one for all values can't leave partitions out.
const WRITE_OPTIONS: [(&str, &str); 5] = [
    ("jit", "off"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_custom_plan"),
];

/// Each writer keeps one; the others make partitions and sum traces up.
const WRITE_CONNECTIONS_MAX: u32 = 8;

impl Store {
    /// Prepares pools; connects when first needed.
    pub fn new(options: &Options) -> Result<Self, StoreError> {
        let connect: PgConnectOptions = options.database_url.parse()?;
        let connect = connect.application_name("xtrace");
        let is_socket = connect.get_socket().is_some();
        let by_connection = if is_socket {
            Method::Copy
        } else {
            Method::Insert
        };
        let method = options.method.unwrap_or(by_connection);
        let timeout_ms = options.statement_timeout.as_millis().to_string();
        let read_options = connect.clone().options([
            ("statement_timeout", timeout_ms.as_str()),
            ("default_transaction_read_only", "on"),
            ("jit", "off"),
            // Which partitions and which index are right depends on the values.
            ("plan_cache_mode", "force_custom_plan"),
        ]);
        let pool = |connections_max: u32| {
            PgPoolOptions::new()
                .max_connections(connections_max)
                .acquire_timeout(Duration::from_secs(3))
                .test_before_acquire(true)
        };
        Ok(Self {
            read: pool(options.read_connections_max).connect_lazy_with(read_options),
            write: pool(WRITE_CONNECTIONS_MAX)
                .connect_lazy_with(connect.clone().options(WRITE_OPTIONS)),
            background: pool(3).connect_lazy_with(connect.options([("jit", "off")])),
            migrated: Arc::new(watch::Sender::new(false)),
            method,
            price_books: Arc::default(),
            key_changes: Arc::default(),
            series: Arc::default(),
        })
    }

    /// Runs the migrations (under sqlx's advisory lock) and makes partitions for the days ahead.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.check_version().await?;
        MIGRATIONS
            .run(&self.write)
            .await
            .map_err(|error| match error {
                sqlx::migrate::MigrateError::Execute(error) => error.into(),
                other => StoreError::Internal(sqlx::Error::Migrate(Box::new(other))),
            })?;
        crate::partitions::make_ahead(self).await?;
        self.migrated.send_replace(true);
        Ok(())
    }

    /// The schema needs lz4 compression, which came with PostgreSQL 14.
    async fn check_version(&self) -> Result<(), StoreError> {
        const OLDEST: i32 = 140_000;
        let version: i32 = sqlx::query_scalar("select current_setting('server_version_num')::int")
            .fetch_one(&self.read)
            .await?;
        if version >= OLDEST {
            return Ok(());
        }
        let fault = format!(
            "PostgreSQL 14 or newer is needed; the server is {}",
            version / 10_000
        );
        Err(StoreError::Internal(sqlx::Error::Configuration(
            fault.into(),
        )))
    }

    /// Asks Postgres for a sign of life.
    pub async fn readiness(&self) -> Readiness {
        if !*self.migrated.borrow() {
            return Readiness::NotReady(
                "the database is not reached yet or its migrations have not run",
            );
        }
        match sqlx::query("select 1").execute(&self.read).await {
            Ok(_) => Readiness::Ready,
            Err(_) => Readiness::NotReady("the database does not answer"),
        }
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
        self.background.close().await;
    }

    /// Name, connections in use and idle connections of each pool.
    pub fn connections(&self) -> [(&'static str, u32, u32); 3] {
        let of = |name, pool: &PgPool| {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            (name, pool.size().saturating_sub(idle), idle)
        };
        [
            of("read", &self.read),
            of("write", &self.write),
            of("background", &self.background),
        ]
    }

    /// How often this process has changed keys: whoever remembers some knows by it that they may be others.
    pub fn key_changes(&self) -> u64 {
        self.key_changes.load(Ordering::Acquire)
    }

    pub(crate) fn keys_changed(&self) {
        self.key_changes.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn price_books(&self) -> &PriceBooks {
        &self.price_books
    }

    pub(crate) fn series(&self) -> &SeriesCache {
        &self.series
    }

    /// How rows are best sent over this connection.
    pub(crate) fn method(&self) -> Method {
        self.method
    }

    pub(crate) fn read(&self) -> &PgPool {
        &self.read
    }

    /// For work that no request waits for.
    pub(crate) fn background(&self) -> &PgPool {
        &self.background
    }

    pub(crate) fn write(&self) -> &PgPool {
        &self.write
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
