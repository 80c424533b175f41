//! The composition root: database → store → writer → router → listener, and back down in order.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::serve::ListenerExt;
use chrono::Utc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use xtrace_model::ProjectId;
use xtrace_store::{Options, Store, StoreError, Writer, WriterLimits, keys, maintenance, usage};

use crate::auth::{Authenticator, hash_key_pair};
use crate::config::{Database, DatabaseConfig, HealthcheckConfig, KeyPair, ServeConfig};
use crate::embedded_postgres::EmbeddedPostgres;
use crate::gateway::Gateway;
use crate::limits::ReadLimiter;
use crate::receivers::body::BodyLimits;
use crate::router::{metrics_router, router};
use crate::secrets::{self, Secrets};
use crate::self_metrics;

/// From SIGTERM to exit; orchestrators kill after ten seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(7);
/// For connections to Postgres to be given back.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// `xtrace serve`: runs until it is asked to stop.
pub async fn serve(config: ServeConfig) -> anyhow::Result<()> {
    let server = Server::start(config).await?;
    wait_for_stop().await?;
    tracing::info!("stopping: finishing requests and writing what was accepted");
    server.stop().await
}

/// `xtrace migrate`.
pub async fn migrate(config: DatabaseConfig) -> anyhow::Result<()> {
    let (url, embedded) = open_database(&config).await?;
    let store = Store::new(&Options::new(url)).context("DATABASE_URL is malformed")?;
    store.migrate().await.context("the migrations failed")?;
    store.close().await;
    if let Some(postgres) = embedded {
        postgres.stop().await;
    }
    tracing::info!("the schema is up to date");
    Ok(())
}

/// `xtrace healthcheck`: asks `/readyz`.
pub async fn healthcheck(config: HealthcheckConfig) -> anyhow::Result<()> {
    let address = config.bind_addr;
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), ask)
        .await
        .with_context(|| format!("{address} does not answer"))?
        .with_context(|| format!("{address} can't be reached"))?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    bail!("{address} is not ready: {body}")
}

/// A running service.
pub struct Server {
    address: SocketAddr,
    store: Store,
    stop: watch::Sender<bool>,
    http: JoinHandle<std::io::Result<()>>,
    writer: JoinHandle<()>,
    background: JoinHandle<()>,
    embedded: Option<EmbeddedPostgres>,
}

impl Server {
    /// Starts everything. With a database that is away the service starts too, says so on
    /// `/readyz`, and goes on once the database is there.
    pub async fn start(config: ServeConfig) -> anyhow::Result<Self> {
        let (url, embedded) = open_database(config.database()).await?;
        let mut server = Self::start_on(config, &Options::new(url)).await?;
        server.embedded = embedded;
        Ok(server)
    }

    /// The same on a database that is there, however the configuration names one.
    pub async fn start_on(config: ServeConfig, options: &Options) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(config.bind_addr)
            .await
            .with_context(|| format!("can't listen on {} (BIND_ADDR)", config.bind_addr))?;
        let address = listener.local_addr()?;
        let metrics_listener = match config.metrics_addr {
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                Some(
                    listener
                        .with_context(|| format!("can't listen on {address} (METRICS_ADDR)"))?,
                )
            }
            None => None,
        };
        self_metrics::install();
        let secrets = make_secrets(&config)?;
        let store = Store::new(options).context("DATABASE_URL is malformed")?;
        let (writer, writer_task) = Writer::start(store.clone(), WriterLimits::default());
        let project = config.default_project_id.clone();
        let gateway = Gateway {
            store: store.clone(),
            writer,
            authenticator: Authenticator::new(store.clone(), &secrets.api_token, project.clone()),
            read_limiter: ReadLimiter::new(config.reads_per_second(), config.rate_limit_burst),
            body_limits: BodyLimits::new(config.body_bytes_max),
        };
        let background =
            prepare(store.clone(), project, secrets.key_pair, config.retention()).await?;
        let (stop, stopped) = watch::channel(false);
        if let Some(listener) = metrics_listener {
            let router = metrics_router(gateway.clone());
            tokio::spawn(serve_http(listener, router, stopped.clone()));
        }
        let http = tokio::spawn(serve_http(listener, router(gateway), stopped));
        tracing::info!("listening on http://{address}");
        if let Some(file) = &secrets.file {
            tracing::info!("credentials are in {}", file.display());
        }
        Ok(Self {
            address,
            store,
            stop,
            http,
            writer: writer_task,
            background,
            embedded: None,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops in order: no new requests, running ones finish, the queue is written, Postgres stops.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        self.background.abort();
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, async {
            let served = self.http.await;
            // The last handle on the writer went with the last request.
            let _ = self.writer.await;
            served
        });
        if let Ok(served) = drained.await {
            served.context("the HTTP server failed")??;
        } else {
            tracing::warn!("some requests did not finish in time and were cut off, unacknowledged");
        }
        // Writers that wait for requests which were cut off keep their connections.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.store.close()).await;
        if let Some(postgres) = self.embedded {
            postgres.stop().await;
        }
        Ok(())
    }
}

async fn serve_http(
    listener: TcpListener,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Small answers must not wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        })
        .await
}

async fn open_database(
    config: &DatabaseConfig,
) -> anyhow::Result<(String, Option<EmbeddedPostgres>)> {
    match config.database() {
        Database::Url(url) => Ok((url, None)),
        Database::Embedded { pg_bin } => {
            let data_dir = config.data_dir()?;
            let postgres = EmbeddedPostgres::start(&data_dir, pg_bin.as_deref()).await?;
            Ok((postgres.database_url(), Some(postgres)))
        }
    }
}

/// The data directory is only needed when something must be kept there.
fn make_secrets(config: &ServeConfig) -> anyhow::Result<Secrets> {
    if let Some(secrets) = secrets::configured(config)? {
        return Ok(secrets);
    }
    let data_dir = config.database().data_dir()?;
    std::fs::create_dir_all(&data_dir)
        .with_context(|| format!("the data directory {} can't be made", data_dir.display()))?;
    secrets::load_or_make(config, &data_dir)
}

/// Makes the database ready: at once if it is there, else as soon as it is. Returns the task that
/// goes on with maintenance.
async fn prepare(
    store: Store,
    project: ProjectId,
    pair: KeyPair,
    retention: maintenance::Retention,
) -> anyhow::Result<JoinHandle<()>> {
    const PAUSE: Duration = Duration::from_secs(1);
    match make_ready(&store, &project, &pair).await {
        Ok(()) => {}
        Err(StoreError::Unavailable(cause)) => {
            tracing::warn!(?cause, "the database is away; waiting for it");
            return Ok(tokio::spawn(async move {
                while make_ready(&store, &project, &pair).await.is_err() {
                    tokio::time::sleep(PAUSE).await;
                }
                tracing::info!("the database is there");
                keep_up(store, retention).await;
            }));
        }
        Err(error) => return Err(error).context("the database can't be used"),
    }
    Ok(tokio::spawn(keep_up(store, retention)))
}

/// What runs beside requests for as long as the service does.
async fn keep_up(store: Store, retention: maintenance::Retention) {
    tokio::join!(
        usage::run(store.clone()),
        maintenance::run(store, retention)
    );
}

async fn make_ready(store: &Store, project: &ProjectId, pair: &KeyPair) -> Result<(), StoreError> {
    store.migrate().await?;
    let now = Utc::now();
    keys::ensure_project(store, project, now).await?;
    let hash = hash_key_pair(&pair.public, &pair.secret);
    keys::put(store, project, &pair.public, &hash, now).await
}

async fn wait_for_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
