//! The caller of a request, or Langfuse's refusal.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use xtrace_model::caller::ScoreWriter;
use xtrace_model::{AuthFailure, Authentication, Caller, ProjectId};

use crate::error::CompatError;

/// The project that the caller may write scores to, and whether a public key alone opens that much.
pub(crate) struct ScoreProject(pub(crate) ProjectId, pub(crate) Sender);

/// Who sends scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Who knows a secret.
    Known,
    /// Anybody who has seen a page that holds the public key.
    Public,
}

impl<S: Sync> FromRequestParts<S> for ScoreProject {
    type Rejection = CompatError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CompatError> {
        match Project::from_request_parts(parts, state).await {
            Ok(Project(project)) => Ok(Self(project, Sender::Known)),
            Err(error) => match parts.extensions.get::<ScoreWriter>() {
                Some(ScoreWriter(project)) => Ok(Self(project.clone(), Sender::Public)),
                None => Err(error),
            },
        }
    }
}

/// A caller who administers projects and keys.
pub(crate) struct Admin(pub(crate) Caller);

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = CompatError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, CompatError> {
        let found = parts.extensions.get::<Authentication>().cloned();
        match found.unwrap_or(Err(AuthFailure::Missing)) {
            Ok(caller) if caller.scopes.admin => Ok(Self(caller)),
            Ok(_) | Err(AuthFailure::Insufficient) => Err(CompatError::Forbidden(
                "Organization-scoped API key required: send XTRACE_ADMIN_TOKEN as Bearer, or a key with the scope admin"
                    .to_owned(),
            )),
            Err(failure) => Err(CompatError::Auth(failure)),
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
