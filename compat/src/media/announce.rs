//! `/media`: what clients announce, report and ask for.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use xtrace_model::{ProjectId, time};
use xtrace_store::media::{self, Link, Media as Stored, Owner, Report};

use super::link::{Action, Grant, VALID, base_url};
use crate::Compat;
use crate::auth::Project;
use crate::body::{Issue, JsonBody, Object};
use crate::error::{CompatError, issue};
use crate::filter;
use crate::query::{PathId, iso};

/// Of the hash: enough to be unique, and what clients compute too.
const ID_CHARS: usize = 22;
/// What may be kept. Nothing of it runs in a browser: downloads say so.
const TYPES: [&str; 54] = [
    "image/png",
    "image/jpeg",
    "image/jpg",
    "image/webp",
    "image/gif",
    "image/svg+xml",
    "image/tiff",
    "image/bmp",
    "image/avif",
    "image/heic",
    "audio/mpeg",
    "audio/mp3",
    "audio/wav",
    "audio/ogg",
    "audio/oga",
    "audio/aac",
    "audio/mp4",
    "audio/flac",
    "audio/opus",
    "audio/webm",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/mpeg",
    "video/quicktime",
    "video/x-msvideo",
    "video/x-matroska",
    "text/plain",
    "text/html",
    "text/css",
    "text/csv",
    "text/markdown",
    "text/x-python",
    "text/x-typescript",
    "application/javascript",
    "application/x-yaml",
    "application/pdf",
    "application/msword",
    "application/vnd.ms-excel",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "application/zip",
    "application/json",
    "application/xml",
    "application/octet-stream",
    "application/rtf",
    "application/x-ndjson",
    "application/vnd.apache.parquet",
    "application/gzip",
    "application/x-tar",
    "application/x-7z-compressed",
    "application/x-zip-compressed",
    "audio/x-wav",
];

/// `POST /media`: what is to come, and where to; nowhere if it is here already.
pub(crate) async fn announce(
    State(compat): State<Compat>,
    Project(project): Project,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Value>), CompatError> {
    let body = Object::of_body(&body)?;
    let (announced, link) = parse(body).map_err(CompatError::Invalid)?;
    let bytes_max = compat.media.settings.bytes_max;
    if u64::try_from(announced.content_length).is_ok_and(|length| length > bytes_max) {
        return Err(CompatError::BadRequest(format!(
            "File size must be less than {bytes_max} bytes"
        )));
    }
    let ids = std::slice::from_ref(&announced.id);
    let known = media::find(&compat.store, &project, ids).await?.pop();
    let is_here = known.as_ref().is_some_and(|known| {
        known.is_here()
            && known.content_type == announced.content_type
            && known.sha256 == announced.sha256
    });
    let now = Utc::now();
    media::announce(&compat.store, &project, &announced, &link, now).await?;
    let mut url = None;
    if !is_here {
        let grant = grant(Action::Upload, &project, &announced, now);
        let key = compat.media.key(&compat.store).await?;
        let base = base_url(compat.media.settings.public_url.as_deref(), &headers);
        url = Some(format!(
            "{base}/api/public/media/upload/{}",
            grant.sign(key)
        ));
    }
    let answer = json!({"mediaId": announced.id, "uploadUrl": url});
    Ok((StatusCode::CREATED, Json(answer)))
}

fn grant(action: Action, project: &ProjectId, media: &Stored, now: DateTime<Utc>) -> Grant {
    Grant {
        action,
        project: project.to_string(),
        media: media.id.clone(),
        content_type: media.content_type.clone(),
        content_length: media.content_length,
        sha256: BASE64_STANDARD.encode(&media.sha256),
        expires: (now + VALID).timestamp(),
    }
}

fn parse(body: Object<'_>) -> Result<(Stored, Link), Issue> {
    let content_type = body.option("contentType", &TYPES)?;
    let content_type = content_type.ok_or_else(|| issue::not_an_option("contentType", &TYPES))?;
    let length = body.whole("contentLength")?;
    let length = length.ok_or_else(|| issue::missing(&["contentLength"], "number"))?;
    if length < 1 {
        return Err(issue::too_small("contentLength", 1));
    }
    let hash = body.required_text("sha256Hash", 1)?;
    let sha256 = BASE64_STANDARD
        .decode(&hash)
        .ok()
        .filter(|hash| hash.len() == 32);
    let Some(sha256) = sha256 else {
        let message = "sha256Hash must be the SHA-256 of the file in base64, 44 characters";
        return Err(issue::custom(&[json!("sha256Hash")], message));
    };
    let id = BASE64_URL_SAFE_NO_PAD.encode(&sha256)[..ID_CHARS].to_owned();
    let announced = Stored {
        id,
        sha256,
        content_type: content_type.to_owned(),
        content_length: length,
        upload_id: None,
        uploaded_at: None,
        upload_http_status: None,
        upload_http_error: None,
    };
    Ok((announced, link(body)?))
}

fn link(body: Object<'_>) -> Result<Link, Issue> {
    let said = |name: &str| Ok::<_, Issue>(body.text(name)?.filter(|id| !id.is_empty()));
    let (trace, observation) = (said("traceId")?, said("observationId")?);
    let (dataset, item) = (said("datasetId")?, said("datasetItemId")?);
    let (owner, fields) = match (trace, observation, dataset, item) {
        (Some(trace), None, None, None) => (Owner::Trace(trace), ["input", "output", "metadata"]),
        (Some(trace), Some(id), None, None) => (
            Owner::Observation(trace, id),
            ["input", "output", "metadata"],
        ),
        (None, None, Some(dataset), Some(item)) => (
            Owner::Item(dataset, item),
            ["input", "expectedOutput", "metadata"],
        ),
        _ => {
            let message = "Provide either traceId (with optional observationId), or datasetId and datasetItemId";
            return Err(issue::of_whole(message));
        }
    };
    let field = body.option("field", &fields)?;
    let field = field.ok_or_else(|| issue::not_an_option("field", &fields))?;
    Ok(Link {
        owner,
        field: field.to_owned(),
    })
}

/// `PATCH /media/{id}`: how the upload went, as the client saw it.
pub(crate) async fn patch(
    State(compat): State<Compat>,
    Project(project): Project,
    PathId(id): PathId,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, CompatError> {
    let body = Object::of_body(&body)?;
    let report = report(body).map_err(CompatError::Invalid)?;
    if media::report(&compat.store, &project, &id, &report).await? {
        return Ok(Json(json!({"message": "OK"})));
    }
    Err(CompatError::NotFound(format!(
        "Media asset {id} not found in project {project}"
    )))
}

fn report(body: Object<'_>) -> Result<Report, Issue> {
    let at = body.required_text("uploadedAt", 1)?;
    let at = filter::lenient_time(&at).ok_or_else(|| issue::not_a_time("uploadedAt"))?;
    let status = body.whole("uploadHttpStatus")?;
    let status = status.ok_or_else(|| issue::missing(&["uploadHttpStatus"], "number"))?;
    let status = i32::try_from(status).map_err(|_| issue::too_big("uploadHttpStatus", 999))?;
    body.number("uploadTimeMs")?;
    let error = body.text("uploadHttpError")?.filter(|_| status != 200);
    Ok(Report {
        uploaded_at: time::to_utc(at),
        status,
        error,
    })
}

/// `GET /media/{id}`: where to download it from.
pub(crate) async fn get(
    State(compat): State<Compat>,
    Project(project): Project,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Json<Value>, CompatError> {
    let mut found = media::find(&compat.store, &project, &[id]).await?;
    let missing = |message: String| Err(CompatError::NotFound(message));
    let Some(media) = found.pop() else {
        return missing("Media asset not found".to_owned());
    };
    match media.upload_http_status {
        _ if media.is_here() => {}
        None | Some(200 | 201) => return missing("Media not yet uploaded".to_owned()),
        Some(status) => {
            let error = media.upload_http_error.unwrap_or_default();
            return missing(format!("Media upload failed with status {status}: {error}"));
        }
    }
    let shown = signed(&compat, &project, &media, &headers).await?;
    Ok(Json(json!({
        "mediaId": media.id,
        "contentType": media.content_type,
        "contentLength": media.content_length,
        "uploadedAt": media.uploaded_at.map(iso),
        "url": shown.url,
        "urlExpiry": shown.expiry,
    })))
}

/// A link to download from.
pub(crate) struct Shown {
    pub(crate) url: String,
    pub(crate) expiry: String,
}

/// Signs a link to download a file from.
pub(crate) async fn signed(
    compat: &Compat,
    project: &ProjectId,
    media: &Stored,
    headers: &HeaderMap,
) -> Result<Shown, CompatError> {
    let now = Utc::now();
    let token =
        grant(Action::Download, project, media, now).sign(compat.media.key(&compat.store).await?);
    let base = base_url(compat.media.settings.public_url.as_deref(), headers);
    Ok(Shown {
        url: format!("{base}/api/public/media/download/{token}"),
        expiry: iso(now + VALID),
    })
}
