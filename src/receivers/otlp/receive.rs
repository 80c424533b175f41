//! `POST /v1/traces` and `POST /api/public/otel/v1/traces`.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use bytes::Bytes;
use chrono::Utc;
use xtrace_model::text::repair_json;
use xtrace_model::{ProjectId, time};

use super::mapping::{self, Mapped, Sender};
use super::reply::{self, Encoding, OtlpError};
use super::wire::{Caps, DecodeError};
use super::{json, protobuf};
use crate::auth;
use crate::gateway::Gateway;
use crate::receivers::body::{self, ReadBody};
use crate::self_metrics;

/// Takes an export: stores its spans, then answers.
pub async fn receive(State(gateway): State<Gateway>, request: Request) -> Response {
    let encoding = Encoding::of(request.headers().get(header::CONTENT_TYPE));
    // When the request's own type is unusable, JSON is what people can read.
    let reply_encoding = encoding.unwrap_or(Encoding::Json);
    match export(&gateway, request, encoding).await {
        Ok(Accepted { rejected, all }) => reply::accepted(reply_encoding, &rejected, all),
        Err(error) => error.respond(reply_encoding),
    }
}

/// The answer to exporters at a path that is none; others get `None`.
pub fn not_found(request: &Request) -> Option<Response> {
    let path = request.uri().path();
    let looks_like_otlp = path == "/" || path.starts_with("/v1/") || path.contains("/otel");
    let encoding = Encoding::of(request.headers().get(header::CONTENT_TYPE));
    let encoding = encoding.filter(|_| looks_like_otlp && request.method() == Method::POST)?;
    Some(OtlpError::NoSuchEndpoint.respond(encoding))
}

/// The answer to any other method than POST.
pub async fn method_not_allowed(request: Request) -> Response {
    let encoding = Encoding::of(request.headers().get(header::CONTENT_TYPE));
    OtlpError::Method.respond(encoding.unwrap_or(Encoding::Json))
}

/// What is left to say once the spans are stored.
struct Accepted {
    rejected: Vec<mapping::Rejected>,
    all: usize,
}

async fn export(
    gateway: &Gateway,
    request: Request,
    encoding: Option<Encoding>,
) -> Result<Accepted, OtlpError> {
    let (parts, body) = request.into_parts();
    let caller = auth::caller(&parts.extensions).map_err(OtlpError::Auth)?;
    let encoding = encoding.ok_or(OtlpError::ContentType)?;
    let body = body::read(&parts.headers, body, &gateway.body_limits).await?;
    let sender = sender(&parts.headers);
    let ReadBody { bytes, mut share } = body;
    let Mapped {
        batch,
        mut rejected,
    } = decode_and_map(bytes, encoding, caller.project, sender).await?;
    share.grow_to(batch.bytes).await?;
    let all = batch.observations.len() + rejected.len();
    if all > 0 {
        check_ingestion_version(&parts.headers)?;
    }
    let committed = gateway.writer.submit(batch).await?;
    rejected.extend(
        committed
            .refused
            .into_iter()
            .map(mapping::Rejected::by_database),
    );
    for one in &rejected {
        self_metrics::refused(one.reason, 1);
        tracing::debug!(reason = one.reason, "a span was rejected");
    }
    Ok(Accepted { rejected, all })
}

/// Bodies above this are decoded away from the threads that serve requests.
const INLINE_BYTES_MAX: usize = 256 << 10;

async fn decode_and_map(
    body: Bytes,
    encoding: Encoding,
    project: ProjectId,
    sender: Sender,
) -> Result<Mapped, DecodeError> {
    let is_small = body.len() <= INLINE_BYTES_MAX;
    let work = move || {
        let received = time::from_utc(Utc::now());
        match encoding {
            Encoding::Protobuf => {
                let export = protobuf::decode(&body, Caps::default())?;
                Ok(mapping::map(export, project, &sender, received))
            }
            Encoding::Json => {
                let text = repair_json(&body);
                let export = json::decode(&text, Caps::default())?;
                Ok(mapping::map(export, project, &sender, received))
            }
        }
    };
    if is_small {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(DecodeError::Protobuf("decoding was interrupted")))
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
