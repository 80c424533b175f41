//! Bytes in and out, a piece at a time: a large file costs no more memory than a small one. Every transfer ends in a
//! time that its length allows, so that peers who are slow on purpose give their places back.

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
use tokio::sync::mpsc;
use xtrace_model::ProjectId;
use xtrace_store::media::{self, Announced, Upload};
use xtrace_store::{Store, StoreError};

use super::link::{Action, Grant};
use crate::Compat;
use crate::error::CompatError;
use crate::shares::Share;

/// Bytes of a piece.
const PIECE: usize = 128 * 1024;
/// A client that sends nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// A transfer takes [`PATIENCE`] and at this rate, or it is cut off.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;
/// What a browser runs, or lays out with what it runs: it is saved, never shown as a page of ours.
const ACTIVE: [&str; 6] = [
    "text/html",
    "text/css",
    "image/svg+xml",
    "application/xml",
    "application/javascript",
    "text/x-typescript",
];

/// How long a transfer of so many bytes may take.
fn time_for(bytes: i64) -> Duration {
    let bytes = u64::try_from(bytes).unwrap_or(0);
    PATIENCE + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN)
}

/// `PUT /media/upload/{token}`.
pub(crate) async fn upload(
    State(compat): State<Compat>,
    Path(token): Path<String>,
    request: Request,
) -> Result<StatusCode, CompatError> {
    let grant = granted(&compat, &token, Action::Upload).await?;
    let project = project(&grant)?;
    let _share = share(&compat, &project)?;
    check_headers(request.headers(), &grant)?;
    let upload = Upload {
        project,
        id: uuid::Uuid::new_v4().to_string(),
    };
    let receive = receive(&compat.store, &upload, request.into_body(), &grant);
    let received = tokio::time::timeout(time_for(grant.content_length), receive).await;
    match received.unwrap_or_else(|_| Err(broken_off())) {
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

fn share(compat: &Compat, project: &ProjectId) -> Result<Share, CompatError> {
    let share = compat.media.transfers.try_take(project);
    share.ok_or(CompatError::Store(StoreError::Unavailable(None)))
}

fn broken_off() -> CompatError {
    CompatError::BadRequest("The upload broke off".to_owned())
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
                return Err(broken_off());
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
    let announced = Announced {
        media: &grant.media,
        content_type: &grant.content_type,
        content_length: grant.content_length,
    };
    if media::finish(store, upload, &announced, Utc::now()).await? {
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
    let project = project(&grant)?;
    let share = share(&compat, &project)?;
    let ids = std::slice::from_ref(&grant.media);
    let found = media::find(&compat.store, &project, ids).await?.pop();
    let missing = || CompatError::NotFound("Media asset not found".to_owned());
    let mut found = found.ok_or_else(missing)?;
    let id = found.upload_id.take().ok_or_else(missing)?;
    let upload = Upload { project, id };
    let length = found.content_length;
    let pieces = pieces(compat.store.clone(), upload, length, share);
    let mut response = Body::from_stream(whole(pieces, length)).into_response();
    let headers = response.headers_mut();
    let is_active = ACTIVE.contains(&found.content_type.as_str());
    let content_type = HeaderValue::from_str(&found.content_type);
    headers.insert(
        header::CONTENT_TYPE,
        content_type.unwrap_or(HeaderValue::from_static("application/octet-stream")),
    );
    headers.insert(header::CONTENT_LENGTH, length.into());
    // A page or picture that somebody uploaded must not act in our name, nor tell others of its link.
    let safety = [
        (
            "content-security-policy",
            "sandbox; default-src 'none'; style-src 'unsafe-inline'",
        ),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-site"),
        ("referrer-policy", "no-referrer"),
        (
            "content-disposition",
            if is_active { "attachment" } else { "inline" },
        ),
        ("cache-control", "private, max-age=900"),
    ];
    for (name, value) in safety {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Pieces of a file, the next one read when the last one is taken. They end, and the share with them, when
/// the client takes them too slowly or not at all: a stream alone would wait for it without end.
fn pieces(
    store: Store,
    upload: Upload,
    length: i64,
    share: Share,
) -> mpsc::Receiver<Result<Bytes, StoreError>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let send = async {
            for number in 0.. {
                let piece = media::chunk(&store, &upload, number).await;
                let Some(piece) = piece.transpose() else {
                    return;
                };
                let is_last = piece.is_err();
                if sender.send(piece.map(Bytes::from)).await.is_err() || is_last {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(time_for(length), send).await;
        drop(share);
    });
    receiver
}

/// The pieces as a body, which fails when they end too soon.
fn whole(
    pieces: mpsc::Receiver<Result<Bytes, StoreError>>,
    length: i64,
) -> impl futures_util::Stream<Item = Result<Bytes, StoreError>> {
    stream::try_unfold((pieces, length), |(mut pieces, left)| async move {
        match pieces.recv().await.transpose()? {
            Some(piece) => {
                let left = left - i64::try_from(piece.len()).unwrap_or(i64::MAX);
                Ok(Some((piece, (pieces, left))))
            }
            None if left > 0 => Err(StoreError::Timeout),
            None => Ok(None),
        }
    })
}
