//! The composition root: database → store → writer → router → listener, and back down in order.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chrono::Utc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use xtrace_model::ProjectId;
use xtrace_store::background::{Background, Limits, Loop};
use xtrace_store::configured_keys::{Configured, configure};
use xtrace_store::{
    Options, Retention, Store, StoreError, Unusable, Writer, WriterLimits, keys, maintenance,
    metrics, projects, usage,
};

use crate::auth::Authenticator;
use crate::config::{Database, DatabaseConfig, HealthcheckConfig, KeyPair, ServeConfig};
use crate::embedded_postgres::EmbeddedPostgres;
use crate::exit::BadSetting;
use crate::gateway::Gateway;
use crate::health::Health;
use crate::limits::ReadLimiter;
use crate::listener::Connections;
use crate::receivers::body::BodyLimits;
use crate::receivers::otlp::{self, Supplements};
use crate::router::{metrics_router, otlp_grpc_router, otlp_http_router, router};
use crate::secrets::{self, Secrets};
use crate::{cors, listener, self_metrics};

/// From SIGTERM to exit; orchestrators kill after ten seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(7);
/// For connections to Postgres to be given back.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// `xtrace serve`: runs until it is asked to stop.
pub async fn serve(config: ServeConfig) -> anyhow::Result<()> {
    let delay = config.shutdown_delay();
    let mut signals = Signals::new()?;
    let mut server = tokio::select! {
        server = Server::start(config) => server?,
        () = signals.next() => return Ok(()),
    };
    let fault = tokio::select! {
        () = signals.next() => None,
        fault = server.fault() => Some(fault),
    };
    let end = async {
        match fault {
            None => {
                server.say_not_ready();
                tokio::time::sleep(delay).await;
                tracing::info!("stopping: finishing requests and writing what was accepted");
                server.stop().await
            }
            Some(fault) => {
                server.stop().await?;
                Err(fault.into())
            }
        }
    };
    tokio::select! {
        end = end => end,
        () = signals.next() => bail!(
            "ended at once by a second signal; requests that were running got no answer"
        ),
    }
}

/// `xtrace migrate`.
pub async fn migrate(config: DatabaseConfig) -> anyhow::Result<()> {
    let (url, embedded) = open_database(&config).await?;
    let store = open_store(&Options::new(url))?;
    store.migrate().await?;
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

/// Where to listen.
struct Bound {
    main: TcpListener,
    metrics: Option<TcpListener>,
    otlp_http: Option<TcpListener>,
    otlp_grpc: Option<TcpListener>,
}

impl Bound {
    async fn of(config: &ServeConfig) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr, setting: &str| {
            let listener = TcpListener::bind(address).await;
            listener.with_context(|| format!("can't listen on {address} ({setting})"))
        };
        let metrics = match config.metrics_addr {
            Some(address) => Some(bind(address, "METRICS_ADDR").await?),
            None => None,
        };
        let (http, grpc) = (config.otlp_http_addr.0, config.otlp_grpc_addr.0);
        Ok(Self {
            main: bind(config.bind_addr, "BIND_ADDR").await?,
            metrics,
            otlp_http: listener::bind_optional(http, "OTLP_HTTP_ADDR").await,
            otlp_grpc: listener::bind_optional(grpc, "OTLP_GRPC_ADDR").await,
        })
    }
}

/// What handlers share.
fn gateway(
    config: &ServeConfig,
    secrets: &Secrets,
    store: &Store,
    writer: &Writer,
    health: Health,
) -> Gateway {
    Gateway {
        health,
        store: store.clone(),
        writer: writer.clone(),
        authenticator: Authenticator::new(
            store.clone(),
            &secrets.api_token,
            secrets.admin_token.as_deref(),
            config.default_project_id.clone(),
            config.limits.auth_failures_per_second,
        ),
        read_limiter: ReadLimiter::new(config.reads_per_second(), config.rate_limit_burst),
        series_limits: config.series_limits(),
        body_limits: BodyLimits::new(config.body_bytes_max, config.limits.write_rates()),
        supplements: Supplements::default(),
        proxies: config.limits.trusted_proxies.clone(),
        media: config.media(),
    }
}

/// A running service.
pub struct Server {
    address: SocketAddr,
    otlp_http_address: Option<SocketAddr>,
    otlp_grpc_address: Option<SocketAddr>,
    store: Store,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
    writer: JoinHandle<()>,
    background: JoinHandle<()>,
    fault: oneshot::Receiver<Unusable>,
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
        let bound = Bound::of(&config).await?;
        self_metrics::install();
        let secrets = make_secrets(&config)?;
        let store = open_store(options)?;
        let (writer, writer_task) = Writer::start(store.clone(), WriterLimits::default());
        let project = config.default_project_id.clone();
        let background = Background::default();
        let health = Health::new(store.clone(), writer.clone(), background.clone());
        let gateway = gateway(&config, &secrets, &store, &writer, health);
        let preparation = Preparation {
            store: store.clone(),
            project,
            pair: secrets.key_pair.clone(),
        };
        let (background, fault) =
            prepare(preparation, writer, config.retention(), background).await?;
        let (stop, stopped) = watch::channel(false);
        let cors = cors::layer(&config.otlp_cors_origins);
        let address_of = |listener: &Option<TcpListener>| listener.as_ref()?.local_addr().ok();
        let address = bound.main.local_addr()?;
        let otlp_http_address = address_of(&bound.otlp_http);
        let otlp_grpc_address = address_of(&bound.otlp_grpc);
        let served = [
            (Some(bound.main), router(gateway.clone(), cors.clone())),
            (bound.metrics, metrics_router(gateway.clone())),
            (bound.otlp_http, otlp_http_router(gateway.clone(), cors)),
            (bound.otlp_grpc, otlp_grpc_router(gateway)),
        ];
        let connections = Connections::new(config.limits.connections());
        let mut listeners = JoinSet::new();
        for (listener, router) in served {
            if let Some(listener) = listener {
                let (connections, stopped) = (connections.clone(), stopped.clone());
                listeners.spawn(listener::serve(listener, router, connections, stopped));
            }
        }
        say_addresses(address, otlp_http_address, otlp_grpc_address);
        secrets.say_what_is_to_be_known();
        warn_of_exposure(
            [Some(address), otlp_http_address, otlp_grpc_address],
            &store,
        );
        Ok(Self {
            address,
            otlp_http_address,
            otlp_grpc_address,
            store,
            stop,
            listeners,
            writer: writer_task,
            background,
            fault,
            embedded: None,
        })
    }

    /// Waits for what ends the service: a database that was away, is there, and will not do.
    pub async fn fault(&mut self) -> Unusable {
        match (&mut self.fault).await {
            Ok(fault) => fault,
            Err(_) => std::future::pending().await,
        }
    }

    /// Answers as ever, but no longer as ready, so that load balancers have time to notice.
    pub fn say_not_ready(&self) {
        self.store.is_stopping();
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for OTLP over HTTP alone.
    pub fn otlp_http_address(&self) -> Option<SocketAddr> {
        self.otlp_http_address
    }

    /// Where it listens for OTLP over gRPC alone.
    pub fn otlp_grpc_address(&self) -> Option<SocketAddr> {
        self.otlp_grpc_address
    }

    /// Stops in order: no new requests, running ones finish, the queue is written, Postgres stops.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.say_not_ready();
        self.stop.send_replace(true);
        self.background.abort();
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, async {
            self.listeners.join_all().await;
            // The last handle on the writer went with the last request.
            let _ = self.writer.await;
        });
        if drained.await.is_err() {
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

fn say_addresses(
    address: SocketAddr,
    otlp_http_address: Option<SocketAddr>,
    otlp_grpc_address: Option<SocketAddr>,
) {
    tracing::info!("listening on http://{address}");
    for (address, what) in [(otlp_http_address, "HTTP"), (otlp_grpc_address, "gRPC")] {
        if let Some(address) = address {
            tracing::info!("listening on {address} for OTLP over {what}");
        }
    }
}

pub(crate) async fn open_database(
    config: &DatabaseConfig,
) -> anyhow::Result<(String, Option<EmbeddedPostgres>)> {
    match config.database() {
        Database::Url(url) => Ok((url, None)),
        Database::Embedded { pg_bin } => {
            let data_dir = config.data_dir()?;
            let postgres = EmbeddedPostgres::start(&data_dir, pg_bin.as_deref())
                .await
                .map_err(|error| Unusable::Unfit(format!("{error:#}")))?;
            Ok((postgres.database_url(), Some(postgres)))
        }
    }
}

/// Says what others on the network could read.
fn warn_of_exposure(addresses: [Option<SocketAddr>; 3], store: &Store) {
    let open = addresses.into_iter().flatten();
    for address in open.filter(|address| !address.ip().is_loopback()) {
        tracing::warn!(
            "{address} can be reached from elsewhere, and xtrace speaks plain HTTP: tokens and payloads can be \
             read on the way unless a proxy ends TLS before it (docs/security.md)"
        );
    }
    if store.trusts_the_network() {
        tracing::warn!(
            "the connection to the database does not check whom it talks to; add sslmode=verify-full to \
             DATABASE_URL"
        );
    }
}

pub(crate) fn open_store(options: &Options) -> anyhow::Result<Store> {
    Store::new(options)
        .map_err(|error| BadSetting(format!("DATABASE_URL is malformed: {error}")).into())
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

/// Key pairs that are named at start, at most.
const NAMED_MAX: usize = 20;

/// What a database needs before requests are served from it.
struct Preparation {
    store: Store,
    project: ProjectId,
    pair: KeyPair,
}

impl Preparation {
    async fn once(&self) -> Result<(), Unusable> {
        self.store.migrate().await?;
        let now = Utc::now();
        match projects::ensure(&self.store, &self.project, now).await {
            Ok(()) => self.open_pair().await,
            // It goes on to be deleted by this process, and nothing opens it.
            Err(StoreError::ProjectGone) => {
                tracing::warn!(
                    "the default project {} is being deleted: its token and keys open nothing until that is \
                     done and xtrace is started again; or set DEFAULT_PROJECT_ID to another one",
                    self.project
                );
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the configured pair, and says which pairs open the project.
    async fn open_pair(&self) -> Result<(), Unusable> {
        let KeyPair { public, secret } = &self.pair;
        let (store, now) = (&self.store, Utc::now());
        match configure(store, &self.project, (public, secret), now).await? {
            Configured::Open { ended } if !ended.is_empty() => tracing::warn!(
                "ended key pairs that are no longer configured: {}",
                ended.join(", ")
            ),
            Configured::Open { .. } => {}
            Configured::Closed => tracing::warn!(
                "the configured key pair {public} was revoked or has expired, and stays closed; \
                 configure another, or make one with `xtrace keys create`"
            ),
            Configured::OfAnother => {
                return Err(Unusable::Unfit(format!(
                    "the configured public key {public} opens another project than {}; configure \
                     another pair, or set DEFAULT_PROJECT_ID to that project",
                    self.project
                )));
            }
        }
        let open = keys::list(store, Some(&self.project)).await?;
        let open = open
            .into_iter()
            .filter(|key| key.expires_at.is_none_or(|end| end > now));
        let open: Vec<String> = open.take(NAMED_MAX).map(|key| key.public_key).collect();
        tracing::info!("key pairs that open {}: {}", self.project, open.join(", "));
        Ok(())
    }

    /// Waits for as long as the database is away, and says why: at once, when the reason changes, and
    /// every half minute.
    async fn in_the_end(&self, first: Unusable) -> Result<(), Unusable> {
        const PAUSE: Duration = Duration::from_secs(1);
        const REMINDER: Duration = Duration::from_secs(30);
        let (mut said, mut at) = (String::new(), Instant::now());
        let mut found = Err(first);
        while let Err(away @ Unusable::Away(_)) = found {
            self.store.is_waiting(&away);
            let reason = away.to_string();
            if reason != said || at.elapsed() > REMINDER {
                tracing::warn!("{reason}; waiting for it");
                (said, at) = (reason, Instant::now());
            }
            tokio::time::sleep(PAUSE).await;
            found = self.once().await;
        }
        found
    }
}

/// Makes the database ready: at once if it is there, else as soon as it is. Returns the task that
/// goes on with maintenance, and the receiver of a fault: a database that will not do after all.
async fn prepare(
    preparation: Preparation,
    writer: Writer,
    retention: Retention,
    background: Background,
) -> anyhow::Result<(JoinHandle<()>, oneshot::Receiver<Unusable>)> {
    let store = preparation.store.clone();
    let (fault, faults) = oneshot::channel();
    let away = match preparation.once().await {
        Ok(()) => None,
        Err(away @ Unusable::Away(_)) => Some(away),
        Err(fault) => return Err(fault.into()),
    };
    let task = tokio::spawn(async move {
        if let Some(away) = away {
            if let Err(found) = preparation.in_the_end(away).await {
                // The receiver lives as long as the server.
                let _ = fault.send(found);
                return;
            }
            tracing::info!("the database is there");
        }
        Box::pin(keep_up(store, writer, retention, background)).await;
    });
    Ok((task, faults))
}

/// What runs beside requests for as long as the service does.
async fn keep_up(store: Store, writer: Writer, retention: Retention, background: Background) {
    let limits = Limits {
        silence_max: Duration::from_mins(20),
        success_max: Duration::from_mins(30),
    };
    let mut loops = maintenance::loops(&store, retention);
    let of = store.clone();
    loops.push(Loop::new("usage", limits, move |pulse| {
        usage::run(of.clone(), pulse)
    }));
    let of = store.clone();
    loops.push(Loop::new("usage_days", limits, move |pulse| {
        usage::run_days(of.clone(), pulse)
    }));
    let of = store.clone();
    loops.push(Loop::new("compaction", limits, move |pulse| {
        metrics::compact::run(of.clone(), pulse)
    }));
    loops.push(Loop::new("supplements", limits, move |pulse| {
        otlp::add_supplements(store.clone(), writer.clone(), pulse)
    }));
    background.run(loops).await;
}

/// SIGTERM and Ctrl-C, one after the other.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
