//! The Langfuse public API on top of xtrace's store. `README.md` beside this crate lists what is
//! served and where it differs.

mod admin;
mod annotation_queues;
mod answer;
mod auth;
mod body;
mod comments;
mod cursor;
mod daily;
mod datasets;
mod error;
mod experiments;
mod fields;
mod filter;
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod ingestion;
mod media;
mod metrics;
mod models;
mod observations;
mod payload;
mod projects;
mod prompts;
mod query;
mod score_configs;
mod scores;
mod sessions;
mod shares;
mod traces;

use axum::Router;
use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use xtrace_store::{Store, Writer};

use error::CompatError;
pub use media::MediaSettings;

/// What handlers share.
#[derive(Clone)]
pub struct Compat {
    /// What is read, and small things that are written at once.
    pub store: Store,
    /// The write path of traces, observations and scores.
    pub writer: Writer,
    media: media::Media,
    schemas: datasets::schema::Schemas,
}

impl Compat {
    /// Shares a store, its write path, and how media are kept.
    pub fn new(store: Store, writer: Writer, settings: MediaSettings) -> Self {
        Self {
            store,
            writer,
            media: media::Media::new(settings),
            schemas: datasets::schema::Schemas::default(),
        }
    }
}

impl FromRef<Compat> for Store {
    fn from_ref(compat: &Compat) -> Self {
        compat.store.clone()
    }
}

/// Every path of the dialect. Requests carry an `xtrace_model::Authentication` in their extensions, and
/// bodies that are whole and decompressed.
pub fn router(compat: Compat) -> Router {
    telemetry()
        .merge(prompts())
        .merge(datasets())
        .merge(annotation())
        .merge(administration())
        .method_not_allowed_fallback(|| async { CompatError::MethodNotAllowed })
        .with_state(compat)
}

/// Paths whose link is their permission, and whose bodies are read as they come, however long.
pub fn links(compat: Compat) -> Router {
    Router::new()
        .route("/api/public/media/upload/{token}", put(media::upload))
        .route("/api/public/media/download/{token}", get(media::download))
        .method_not_allowed_fallback(|| async { CompatError::MethodNotAllowed })
        .with_state(compat)
}

fn telemetry() -> Router<Compat> {
    Router::new()
        .route("/api/public/health", get(health::health))
        .route("/api/public/ready", get(health::ready))
        .route("/api/public/ingestion", post(ingestion::receive))
        .route(
            "/api/public/spans",
            post(ingestion::legacy::create_span).patch(ingestion::legacy::update_span),
        )
        .route(
            "/api/public/generations",
            post(ingestion::legacy::create_generation).patch(ingestion::legacy::update_generation),
        )
        .route("/api/public/events", post(ingestion::legacy::create_event))
        .route(
            "/api/public/traces",
            get(traces::list)
                .post(traces::create)
                .delete(traces::delete_all),
        )
        .route(
            "/api/public/traces/{trace_id}",
            get(traces::find).delete(traces::delete),
        )
        .route("/api/public/observations", get(observations::list))
        .route(
            "/api/public/observations/{observation_id}",
            get(observations::find),
        )
        .route("/api/public/v2/observations", get(observations::v2::list))
        .route("/api/public/sessions", get(sessions::list))
        .route("/api/public/sessions/{session_id}", get(sessions::find))
        .route(
            "/api/public/scores",
            get(scores::list_v1).post(scores::create),
        )
        .route(
            "/api/public/scores/{score_id}",
            get(scores::find_v1).delete(scores::delete),
        )
        .route("/api/public/v2/scores", get(scores::list_v2))
        .route("/api/public/v2/scores/{score_id}", get(scores::find_v2))
        .route("/api/public/v3/scores", get(scores::list_v3))
        .route("/api/public/metrics/daily", get(daily::list))
        .route("/api/public/metrics", get(metrics::answer_v1))
        .route("/api/public/v2/metrics", get(metrics::answer_v2))
        .route("/api/public/media", post(media::announce))
        .route(
            "/api/public/media/{media_id}",
            get(media::get).patch(media::patch),
        )
}

fn prompts() -> Router<Compat> {
    Router::new()
        .route(
            "/api/public/v2/prompts",
            get(prompts::list).post(prompts::create),
        )
        .route(
            "/api/public/v2/prompts/{name}",
            get(prompts::find).delete(prompts::delete),
        )
        .route(
            "/api/public/v2/prompts/{name}/versions/{version}",
            patch(prompts::add_labels),
        )
        .route(
            "/api/public/prompts",
            get(prompts::find_v1).post(prompts::create_v1),
        )
}

fn datasets() -> Router<Compat> {
    Router::new()
        .route(
            "/api/public/v2/datasets",
            get(datasets::list).post(datasets::create),
        )
        .route("/api/public/v2/datasets/{name}", get(datasets::find))
        .route(
            "/api/public/datasets",
            get(datasets::list_v1).post(datasets::create_v1),
        )
        .route("/api/public/datasets/{name}", get(datasets::find_v1))
        .route(
            "/api/public/datasets/{name}/runs",
            get(datasets::runs::list),
        )
        .route(
            "/api/public/datasets/{name}/runs/{run}",
            get(datasets::runs::find).delete(datasets::runs::delete),
        )
        .route(
            "/api/public/dataset-items",
            get(datasets::items::list).post(datasets::items::create),
        )
        .route(
            "/api/public/dataset-items/{item_id}",
            get(datasets::items::find).delete(datasets::items::delete),
        )
        .route(
            "/api/public/dataset-run-items",
            get(datasets::run_items::list).post(datasets::run_items::create),
        )
        .route("/api/public/experiments", get(experiments::list))
        .route("/api/public/experiment-items", get(experiments::items))
}

fn administration() -> Router<Compat> {
    Router::new()
        .route(
            "/api/public/projects",
            get(projects::list).post(admin::create_project),
        )
        .route(
            "/api/public/projects/{project_id}",
            put(admin::update_project).delete(admin::delete_project),
        )
        .route(
            "/api/public/projects/{project_id}/apiKeys",
            get(admin::list_keys).post(admin::create_key),
        )
        .route(
            "/api/public/projects/{project_id}/apiKeys/{key_id}",
            delete(admin::delete_key),
        )
        .route(
            "/api/public/organizations/projects",
            get(admin::list_projects),
        )
        .route(
            "/api/public/organizations/apiKeys",
            get(admin::list_admin_keys),
        )
}

fn annotation() -> Router<Compat> {
    Router::new()
        .route(
            "/api/public/score-configs",
            get(score_configs::list).post(score_configs::create),
        )
        .route(
            "/api/public/score-configs/{config_id}",
            get(score_configs::find).patch(score_configs::update),
        )
        .route("/api/public/models", get(models::list).post(models::create))
        .route(
            "/api/public/models/{model_id}",
            get(models::find)
                .put(models::replace)
                .delete(models::delete),
        )
        .route(
            "/api/public/comments",
            get(comments::list).post(comments::create),
        )
        .route("/api/public/comments/{comment_id}", get(comments::find))
        .route(
            "/api/public/annotation-queues",
            get(annotation_queues::list).post(annotation_queues::create),
        )
        .route(
            "/api/public/annotation-queues/{queue_id}",
            get(annotation_queues::find),
        )
        .route(
            "/api/public/annotation-queues/{queue_id}/items",
            get(annotation_queues::items).post(annotation_queues::add_item),
        )
        .route(
            "/api/public/annotation-queues/{queue_id}/items/{item_id}",
            get(annotation_queues::find_item)
                .patch(annotation_queues::update_item)
                .delete(annotation_queues::delete_item),
        )
        .route(
            "/api/public/annotation-queues/{queue_id}/assignments",
            post(annotation_queues::assign).delete(annotation_queues::unassign),
        )
}

/// The answer to a path that the dialect does not have.
pub fn not_found() -> Response {
    CompatError::NoSuchEndpoint.into_response()
}

/// The answer to a request that is refused before a handler is asked, in words that say why.
pub fn refused(status: StatusCode, message: &str) -> Response {
    let error = match status {
        StatusCode::FORBIDDEN => "ForbiddenError",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowedError",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableError",
        status if status.is_client_error() => "InvalidRequestError",
        _ => "InternalServerError",
    };
    let body = serde_json::json!({"message": message, "error": error});
    (status, axum::Json(body)).into_response()
}

/// The answer of a handler that panicked.
pub fn fault() -> Response {
    CompatError::Fault.into_response()
}

/// The answer to a caller who reads too often.
pub fn rate_limited(retry_after_s: u64, limit: u32, reset_at: &str) -> Response {
    CompatError::RateLimited {
        retry_after_s,
        limit,
        reset_at: reset_at.to_owned(),
    }
    .into_response()
}
