//! What a request goes through, over HTTP and over gRPC: admitted by its headers, read, decoded,
//! mapped, written, answered.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use chrono::Utc;
use xtrace_model::text::repair_json;
use xtrace_model::{Caller, ProjectId, time};
use xtrace_store::{Store, metrics};

use super::error::OtlpError;
use super::mapping::{self, Mapped, Sender};
use super::reply::{Encoding, Signal, Transport};
use super::supplements::Concern;
use super::wire::{Caps, DecodeError};
use super::{grpc, json, protobuf};
use crate::auth;
use crate::gateway::Gateway;
use crate::receivers::aside::aside;
use crate::receivers::body::{self, Account, Quota, ReadBody};
use crate::self_metrics;

/// `POST /v1/traces` and `POST /api/public/otel/v1/traces`: stores the spans, then answers.
pub async fn traces_over_http(State(gateway): State<Gateway>, request: Request) -> Response {
    over_http(&gateway, request, Signal::Traces).await
}

/// `POST /v1/logs` and `POST /api/public/otel/v1/logs`: stores the records, then answers.
pub async fn logs_over_http(State(gateway): State<Gateway>, request: Request) -> Response {
    over_http(&gateway, request, Signal::Logs).await
}

/// `POST /v1/metrics` and `POST /api/public/otel/v1/metrics`: stores the points, then answers.
pub async fn metrics_over_http(State(gateway): State<Gateway>, request: Request) -> Response {
    over_http(&gateway, request, Signal::Metrics).await
}

/// `opentelemetry.proto.collector.trace.v1.TraceService/Export`.
pub async fn traces_over_grpc(State(gateway): State<Gateway>, request: Request) -> Response {
    over_grpc(&gateway, request, Signal::Traces).await
}

/// `opentelemetry.proto.collector.metrics.v1.MetricsService/Export`.
pub async fn metrics_over_grpc(State(gateway): State<Gateway>, request: Request) -> Response {
    over_grpc(&gateway, request, Signal::Metrics).await
}

/// `opentelemetry.proto.collector.logs.v1.LogsService/Export`.
pub async fn logs_over_grpc(State(gateway): State<Gateway>, request: Request) -> Response {
    over_grpc(&gateway, request, Signal::Logs).await
}

async fn over_http(gateway: &Gateway, request: Request, signal: Signal) -> Response {
    let encoding = Encoding::of(request.headers().get(header::CONTENT_TYPE));
    let transport = encoding.map(Transport::Http);
    // When the request's own type is unusable, JSON is what people can read.
    let reply = transport.unwrap_or(Transport::Http(Encoding::Json));
    answer(gateway, request, signal, transport, reply).await
}

async fn over_grpc(gateway: &Gateway, request: Request, signal: Signal) -> Response {
    if !grpc::is_grpc(request.headers()) {
        return Transport::Http(Encoding::Json).refused(&OtlpError::ContentType);
    }
    let transport = Transport::Grpc;
    answer(gateway, request, signal, Some(transport), transport).await
}

/// How a request is answered that no handler of OTLP gets to see; `None` if it is no exporter's.
pub(crate) fn transport_of(request: &Request) -> Option<Transport> {
    let path = request.uri().path();
    let encoding = Encoding::of(request.headers().get(header::CONTENT_TYPE));
    let below_mount = path.strip_prefix("/api/public/otel").unwrap_or(path);
    let is_endpoint = ["/v1/traces", "/v1/logs", "/v1/metrics"].contains(&below_mount)
        || path.starts_with("/opentelemetry.proto.collector.");
    if is_endpoint {
        return Some(Transport::Http(encoding.unwrap_or(Encoding::Json)));
    }
    let looks_like_otlp = path == "/" || path.starts_with("/v1/") || path.contains("/otel");
    let encoding = encoding.filter(|_| looks_like_otlp && request.method() == Method::POST)?;
    Some(Transport::Http(encoding))
}

/// The answer to any other method than POST.
pub async fn method_not_allowed(request: Request) -> Response {
    let encoding = Encoding::of(request.headers().get(header::CONTENT_TYPE));
    Transport::Http(encoding.unwrap_or(Encoding::Json)).refused(&OtlpError::Method)
}

impl Transport {
    /// The answer at a path that is none.
    pub(crate) fn not_found(self) -> Response {
        self.refused(&OtlpError::NoSuchEndpoint)
    }

    /// The answer of a handler that panicked.
    pub(crate) fn fault(self) -> Response {
        self.refused(&OtlpError::Fault)
    }

    /// Any other answer that no handler gives.
    pub(crate) fn refused_outside(self, status: StatusCode, message: String) -> Response {
        self.refused(&OtlpError::Outside(status, message))
    }
}

/// What is left to say once the items are stored.
struct Accepted {
    rejected: Vec<mapping::Rejected>,
    all: usize,
}

async fn answer(
    gateway: &Gateway,
    request: Request,
    signal: Signal,
    transport: Option<Transport>,
    reply: Transport,
) -> Response {
    let (parts, body) = request.into_parts();
    let outcome = match admit(&parts, transport, gateway) {
        Ok(admitted) => export(gateway, &parts, body, admitted, signal).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(Accepted { rejected, all }) => reply.accepted(signal, &rejected, all),
        Err(error) => reply.refused(&error),
    }
}

/// Whatever can be known before the body is read.
fn admit(
    parts: &Parts,
    transport: Option<Transport>,
    gateway: &Gateway,
) -> Result<(Caller, Transport), OtlpError> {
    let caller = auth::caller(&parts.extensions).map_err(OtlpError::Auth)?;
    let transport = transport.ok_or(OtlpError::ContentType)?;
    match transport {
        Transport::Http(_) => body::check(&parts.headers, &quota(gateway, &caller))?,
        Transport::Grpc => drop(grpc::encoding(&parts.headers)?),
    }
    Ok((caller, transport))
}

/// A message's bytes, and what they are written in.
struct Sent {
    body: ReadBody,
    encoding: Encoding,
}

fn quota(gateway: &Gateway, caller: &Caller) -> Quota {
    let account = Account::Project(caller.project.clone());
    gateway.body_limits.of(account)
}

async fn read(
    quota: &Quota,
    parts: &Parts,
    body: Body,
    transport: Transport,
) -> Result<Sent, OtlpError> {
    Ok(match transport {
        Transport::Http(encoding) => Sent {
            body: body::read(&parts.headers, body, quota).await?,
            encoding,
        },
        Transport::Grpc => Sent {
            body: grpc::read(parts, body, quota).await?,
            encoding: Encoding::Protobuf,
        },
    })
}

async fn export(
    gateway: &Gateway,
    parts: &Parts,
    body: Body,
    (caller, transport): (Caller, Transport),
    signal: Signal,
) -> Result<Accepted, OtlpError> {
    let sent = read(&quota(gateway, &caller), parts, body, transport).await?;
    let sender = sender(&parts.headers);
    let ReadBody { bytes, mut share } = sent.body;
    let length = bytes.len();
    let series_key = match signal {
        Signal::Metrics => gateway.store.series_key().await?,
        Signal::Traces | Signal::Logs => metrics::SeriesKey::default(),
    };
    let target = Target {
        series_key,
        store: gateway.store.clone(),
        project: caller.project,
    };
    let work = move || {
        let mut mapped = decode_and_map(&bytes, sent.encoding, signal, &target, &sender)?;
        // What the estimate leaves out, such as metadata, was sent too.
        mapped.batch.bytes = mapped.batch.bytes.max(bytes.len());
        Ok::<_, DecodeError>(mapped)
    };
    let Mapped {
        mut batch,
        mut rejected,
    } = aside(length, work).await.ok_or(OtlpError::Fault)??;
    share.grow_to(batch.bytes).await?;
    let items = batch.observations.len() + batch.logs.len() + batch.points.len();
    let all = items + rejected.len();
    let limits = gateway.series_limits;
    for (metric, points) in metrics::admit(&gateway.store, &mut batch, limits).await? {
        let one = mapping::Rejected::by_limit(&metric);
        rejected.extend(std::iter::repeat_n(one, points));
    }
    if all > 0 {
        check_ingestion_version(&parts.headers)?;
    }
    let (project, concern) = (batch.project.clone(), Concern::of(&batch));
    let committed = gateway.writer.submit(batch).await?;
    let (store, writer) = (&gateway.store, &gateway.writer);
    gateway
        .supplements
        .after(store, writer, &project, concern)
        .await;
    rejected.extend(
        committed
            .refused
            .into_iter()
            .map(mapping::Rejected::by_database),
    );
    for one in &rejected {
        self_metrics::refused(one.reason, 1);
        tracing::debug!(reason = one.reason, "an item was rejected");
    }
    Ok(Accepted { rejected, all })
}

/// Where items go.
struct Target {
    store: Store,
    /// Of the project's metrics.
    series_key: metrics::SeriesKey,
    project: ProjectId,
}

impl Target {
    fn known_series(&self) -> metrics::KnownSeries {
        self.store.known_series(self.series_key, &self.project)
    }
}

fn decode_and_map(
    body: &[u8],
    encoding: Encoding,
    signal: Signal,
    target: &Target,
    sender: &Sender,
) -> Result<Mapped, DecodeError> {
    let project = target.project.clone();
    let received = time::from_utc(Utc::now());
    let caps = Caps::default();
    let text;
    Ok(match (signal, encoding) {
        (Signal::Traces, Encoding::Protobuf) => {
            mapping::map(protobuf::decode(body, caps)?, project, sender, received)
        }
        (Signal::Traces, Encoding::Json) => {
            text = repair_json(body);
            mapping::map(json::decode(&text, caps)?, project, sender, received)
        }
        (Signal::Metrics, Encoding::Protobuf) => {
            let export = protobuf::decode(body, caps)?;
            mapping::map_metrics(export, &target.known_series())
        }
        (Signal::Metrics, Encoding::Json) => {
            text = repair_json(body);
            let export = json::decode(&text, caps)?;
            mapping::map_metrics(export, &target.known_series())
        }
        (Signal::Logs, Encoding::Protobuf) => {
            mapping::map_logs(protobuf::decode(body, caps)?, project, sender, received)
        }
        (Signal::Logs, Encoding::Json) => {
            text = repair_json(body);
            mapping::map_logs(json::decode(&text, caps)?, project, sender, received)
        }
    })
}

fn sender(headers: &HeaderMap) -> Sender {
    Sender {
        sdk_name: langfuse_header(headers, "sdk-name").map(|name| name.to_ascii_lowercase()),
        sdk_version: langfuse_header(headers, "sdk-version"),
    }
}

/// Langfuse's headers come with hyphens or with underscores.
fn langfuse_header(headers: &HeaderMap, name: &str) -> Option<String> {
    let hyphens = format!("x-langfuse-{name}");
    let value = headers
        .get(&hyphens)
        .or_else(|| headers.get(hyphens.replace('-', "_")))?;
    value.to_str().ok().map(str::to_owned)
}

fn check_ingestion_version(headers: &HeaderMap) -> Result<(), OtlpError> {
    const SUPPORTED: i64 = 4;
    let Some(version) = langfuse_header(headers, "ingestion-version") else {
        return Ok(());
    };
    if version
        .trim()
        .parse::<i64>()
        .is_ok_and(|version| version <= SUPPORTED)
    {
        return Ok(());
    }
    Err(OtlpError::IngestionVersion(format!(
        "Unsupported x-langfuse-ingestion-version: \"{version}\". Maximum supported: \"{SUPPORTED}\"."
    )))
}
