//! What one project reads at once is bounded: each request has a `Reading` of the store, until its answer is sent.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use xtrace_model::caller::ScoreWriter;

use crate::auth;
use crate::gateway::Gateway;

/// Middleware: what the handler reads counts as its caller's project's.
pub async fn bound_reads(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let project = match auth::caller(request.extensions()) {
        Ok(caller) => Some(caller.project),
        Err(_) => {
            let writer = request.extensions().get::<ScoreWriter>();
            writer.map(|ScoreWriter(project)| project.clone())
        }
    };
    let Some(project) = project else {
        return next.run(request).await;
    };
    let reading = gateway.store.reading(&project);
    let response = reading.scope(next.run(request)).await;
    // Kept by the body, and so until the answer is sent or its client has gone.
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _kept = &reading;
            frame
        }))
    })
}
