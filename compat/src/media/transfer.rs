//! Bytes in and out, a piece at a time: a large file costs no more memory than a small one.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::Utc;
use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};
use xtrace_model::ProjectId;
use xtrace_store::media::{self, Upload};
use xtrace_store::{Store, StoreError};

use super::link::{Action, Grant};
use crate::Compat;
use crate::error::CompatError;

/// Bytes of a piece.
const PIECE: usize = 128 * 1024;
/// A client that sends nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// `PUT /media/upload/{token}`.
pub(crate) async fn upload(
    State(compat): State<Compat>,
    Path(token): Path<String>,
    request: Request,
) -> Result<StatusCode, CompatError> {
    let grant = granted(&compat, &token, Action::Upload).await?;
    let _permit = permit(&compat)?;
    check_headers(request.headers(), &grant)?;
    let upload = Upload {
        project: project(&grant)?,
        id: uuid::Uuid::new_v4().to_string(),
    };
    match receive(&compat.store, &upload, request.into_body(), &grant).await {
        Ok(()) => Ok(StatusCode::OK),
        Err(error) => {
            // What stays behind here, maintenance finds.
            let _ = media::abandon(&compat.store, &upload).await;
            Err(error)
        }
    }
}

async fn granted(compat: &Compat, token: &str, action: Action) -> Result<Grant, CompatError> {
    let key = compat.media.key(&compat.store).await?;
    let grant = Grant::parse(token, key, Utc::now());
    grant.filter(|grant| grant.action == action).ok_or_else(|| {
        CompatError::Forbidden("This link is not valid any more; ask for a new one".to_owned())
    })
}

fn permit(compat: &Compat) -> Result<tokio::sync::OwnedSemaphorePermit, CompatError> {
    let transfers = compat.media.transfers.clone();
    transfers
        .try_acquire_owned()
        .map_err(|_| CompatError::Store(StoreError::Unavailable(None)))
}

fn project(grant: &Grant) -> Result<ProjectId, CompatError> {
    ProjectId::parse(grant.project.as_str())
        .map_err(|_| CompatError::Forbidden("This link names no project".to_owned()))
}

/// What the client says of its bytes must be what it announced.
fn check_headers(headers: &HeaderMap, grant: &Grant) -> Result<(), CompatError> {
    let length = grant.content_length.to_string();
    let announced = [
        (header::CONTENT_TYPE.as_str(), grant.content_type.as_str()),
        (header::CONTENT_LENGTH.as_str(), length.as_str()),
        ("x-amz-checksum-sha256", grant.sha256.as_str()),
    ];
    for (name, value) in announced {
        let said = headers.get(name).map(HeaderValue::as_bytes);
        if said.is_some_and(|said| said != value.as_bytes()) {
            return Err(CompatError::Forbidden(format!(
                "SignatureDoesNotMatch: {name} must be {value}, as announced"
            )));
        }
    }
    Ok(())
}

async fn receive(
    store: &Store,
    upload: &Upload,
    body: Body,
    grant: &Grant,
) -> Result<(), CompatError> {
    let mut stream = body.into_data_stream();
    let mut hasher = Sha256::new();
    let (mut piece, mut number, mut length) = (Vec::with_capacity(PIECE), 0, 0);
    loop {
        let frame = tokio::time::timeout(PATIENCE, stream.next()).await;
        let frame = match frame {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) | Err(_) => {
                return Err(CompatError::BadRequest("The upload broke off".to_owned()));
            }
        };
        length += i64::try_from(frame.len()).unwrap_or(i64::MAX);
        if length > grant.content_length {
            return Err(wrong_length(grant));
        }
        hasher.update(&frame);
        let mut rest: Bytes = frame;
        while piece.len() + rest.len() >= PIECE {
            let taken = rest.split_to(PIECE - piece.len());
            piece.extend_from_slice(&taken);
            media::add_chunk(store, upload, number, &piece, Utc::now()).await?;
            piece.clear();
            number += 1;
        }
        piece.extend_from_slice(&rest);
    }
    if length != grant.content_length {
        return Err(wrong_length(grant));
    }
    if BASE64_STANDARD.encode(hasher.finalize()) != grant.sha256 {
        return Err(CompatError::BadRequest(
            "ChecksumMismatch: the bytes are not those whose SHA-256 was announced".to_owned(),
        ));
    }
    if !piece.is_empty() || number == 0 {
        media::add_chunk(store, upload, number, &piece, Utc::now()).await?;
    }
    if media::finish(store, upload, &grant.media, Utc::now()).await? {
        return Ok(());
    }
    Err(CompatError::NotFound("Media asset not found".to_owned()))
}

fn wrong_length(grant: &Grant) -> CompatError {
    CompatError::Forbidden(format!(
        "SignatureDoesNotMatch: {} bytes were announced",
        grant.content_length
    ))
}

/// `GET /media/download/{token}`.
pub(crate) async fn download(
    State(compat): State<Compat>,
    Path(token): Path<String>,
) -> Result<Response, CompatError> {
    let grant = granted(&compat, &token, Action::Download).await?;
    let permit = permit(&compat)?;
    let project = project(&grant)?;
    let ids = std::slice::from_ref(&grant.media);
    let found = media::find(&compat.store, &project, ids).await?.pop();
    let Some(upload_id) = found.and_then(|media| media.upload_id) else {
        return Err(CompatError::NotFound("Media asset not found".to_owned()));
    };
    let upload = Upload {
        project,
        id: upload_id,
    };
    let store = compat.store.clone();
    // The next piece is read when the client has taken the last one.
    let pieces = stream::try_unfold((0, permit), move |(number, permit)| {
        let (store, upload) = (store.clone(), upload.clone());
        async move {
            let piece = media::chunk(&store, &upload, number).await?;
            Ok::<_, StoreError>(piece.map(|piece| (Bytes::from(piece), (number + 1, permit))))
        }
    });
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    let content_type = HeaderValue::from_str(&grant.content_type);
    headers.insert(
        header::CONTENT_TYPE,
        content_type.unwrap_or(HeaderValue::from_static("application/octet-stream")),
    );
    headers.insert(header::CONTENT_LENGTH, grant.content_length.into());
    // A page or picture that somebody uploaded must not act in our name.
    let safety = [
        (
            header::CONTENT_SECURITY_POLICY,
            "sandbox; default-src 'none'; style-src 'unsafe-inline'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "private, max-age=3600"),
    ];
    for (name, value) in safety {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}
