//! The caller of a request, or Langfuse's refusal.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use xtrace_model::caller::ScoreWriter;
use xtrace_model::{AuthFailure, Authentication, ProjectId};

use crate::error::CompatError;

/// The project that the caller may write scores to: a public key alone opens that much.
pub(crate) struct ScoreProject(pub(crate) ProjectId);

impl<S: Sync> FromRequestParts<S> for ScoreProject {
    type Rejection = CompatError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CompatError> {
        match Project::from_request_parts(parts, state).await {
            Ok(Project(project)) => Ok(Self(project)),
            Err(error) => match parts.extensions.get::<ScoreWriter>() {
                Some(ScoreWriter(project)) => Ok(Self(project.clone())),
                None => Err(error),
            },
        }
    }
}

/// The project that the caller's credentials open.
pub(crate) struct Project(pub(crate) ProjectId);

impl<S: Sync> FromRequestParts<S> for Project {
    type Rejection = CompatError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, CompatError> {
        let found = parts.extensions.get::<Authentication>().cloned();
        match found.unwrap_or(Err(AuthFailure::Missing)) {
            Ok(caller) => Ok(Self(caller.project)),
            Err(failure) => Err(CompatError::Auth(failure)),
        }
    }
}
