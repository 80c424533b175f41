//! Authentication: from an `Authorization` header to a caller. Both schemes open every path.
//!
//! The outcome travels in the request's extensions, since every dialect words its own refusal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{Extensions, header};
use axum::middleware::Next;
use axum::response::Response;
use chrono::Utc;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use xtrace_model::caller::{Scopes, ScoreWriter};
use xtrace_model::credentials::Credentials;
use xtrace_model::{AuthFailure, Authentication, Caller, ProjectId};
use xtrace_store::keys::{self, ApiKey, hash_key_pair};
use xtrace_store::{Store, StoreError};

use crate::gateway::Gateway;

/// How long a key pair that was found is taken for granted.
const KEY_TTL: Duration = Duration::from_secs(1);
/// Found keys that are remembered at most.
const KEYS_MAX: usize = 10_000;

/// Knows which credentials open which project.
#[derive(Clone)]
pub struct Authenticator {
    store: Store,
    api_hash: [u8; 32],
    admin_hash: Option<[u8; 32]>,
    default_project: ProjectId,
    found: Arc<Mutex<Found>>,
}

/// Keys that were found, since when, as long as no key was changed by this process.
#[derive(Default)]
struct Found {
    changes: u64,
    keys: HashMap<String, (Instant, ApiKey)>,
}

impl Authenticator {
    /// The API token writes to the default project and reads it, the admin token administers; key pairs
    /// are looked up in the store.
    pub fn new(
        store: Store,
        api_token: &str,
        admin_token: Option<&str>,
        default_project: ProjectId,
    ) -> Self {
        Self {
            store,
            api_hash: Sha256::digest(api_token).into(),
            admin_hash: admin_token.map(|token| Sha256::digest(token).into()),
            default_project,
            found: Arc::default(),
        }
    }

    /// Finds the caller that a header stands for, or who may at least write scores.
    pub async fn authenticate(
        &self,
        header: Option<&str>,
    ) -> (Authentication, Option<ScoreWriter>) {
        use xtrace_model::credentials::CredentialsError;
        let Some(header) = header else {
            return (Err(AuthFailure::Missing), None);
        };
        match Credentials::parse(header) {
            Err(CredentialsError::Scheme) => (Err(AuthFailure::Scheme), None),
            Err(CredentialsError::Malformed) => (Err(AuthFailure::Malformed), None),
            Ok(Credentials::Bearer(token)) => {
                let mut writer = None;
                (self.bearer(&token, &mut writer).await, writer)
            }
            Ok(Credentials::Basic { public, secret }) => (self.basic(&public, &secret).await, None),
        }
    }

    async fn bearer(&self, token: &str, writer: &mut Option<ScoreWriter>) -> Authentication {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let is = |known: &[u8; 32]| bool::from(hash.ct_eq(known));
        let known = [
            (is(&self.api_hash), "API token", Scopes::of_keys()),
            (
                self.admin_hash.as_ref().is_some_and(is),
                "admin token",
                Scopes::of_admins(),
            ),
        ];
        if let Some((_, credential, scopes)) = known.into_iter().find(|(is_it, ..)| *is_it) {
            return Ok(Caller {
                project: self.default_project.clone(),
                credential: credential.to_owned(),
                scopes,
            });
        }
        let Some(key) = self.key(token).await? else {
            return Err(AuthFailure::UnknownToken);
        };
        let scopes = Scopes::parse(&key.scopes).unwrap_or_default();
        *writer = ProjectId::parse(key.project_id)
            .ok()
            .filter(|_| scopes.scores)
            .map(ScoreWriter);
        Err(AuthFailure::Insufficient)
    }

    async fn basic(&self, public: &str, secret: &str) -> Authentication {
        let key = self.key(public).await?.ok_or(AuthFailure::UnknownKeyPair)?;
        let hash = hash_key_pair(public, secret);
        if !bool::from(hash.as_slice().ct_eq(&key.secret_hash)) {
            return Err(AuthFailure::UnknownKeyPair);
        }
        let project = ProjectId::parse(key.project_id).map_err(|_| AuthFailure::UnknownKeyPair)?;
        Ok(Caller {
            project,
            credential: public.to_owned(),
            scopes: Scopes::parse(&key.scopes).unwrap_or_default(),
        })
    }

    /// The key of that public half, unless it has ended.
    async fn key(&self, public: &str) -> Result<Option<ApiKey>, AuthFailure> {
        let key = self.stored(public).await?;
        Ok(key.filter(|key| key.expires_at.is_none_or(|end| end > Utc::now())))
    }

    async fn stored(&self, public: &str) -> Result<Option<ApiKey>, AuthFailure> {
        if let Some(key) = self.remembered(public) {
            return Ok(Some(key));
        }
        // U+0000 is no part of any key, and Postgres would refuse to compare it.
        if public.contains('\0') {
            return Ok(None);
        }
        let changes = self.store.key_changes();
        let key = keys::find(&self.store, public)
            .await
            .map_err(|error: StoreError| {
                tracing::warn!(cause = error.for_log(), "credentials can't be checked");
                AuthFailure::Unavailable
            })?;
        if let Some(key) = &key {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            if found.keys.len() >= KEYS_MAX || found.changes != changes {
                found.keys.clear();
            }
            found.changes = changes;
            found
                .keys
                .insert(public.to_owned(), (Instant::now(), key.clone()));
        }
        Ok(key)
    }

    fn remembered(&self, public: &str) -> Option<ApiKey> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, key) = found.keys.get(public)?;
        let is_right = since.elapsed() < KEY_TTL && found.changes == self.store.key_changes();
        is_right.then(|| key.clone())
    }
}

/// Middleware: finds the caller, and leaves what it found to the handler.
pub async fn authenticate(
    State(gateway): State<Gateway>,
    mut request: Request,
    next: Next,
) -> Response {
    let header = request.headers().get(header::AUTHORIZATION);
    let header = header.map(|value| value.to_str().unwrap_or_default().to_owned());
    let (mut authentication, mut writer) =
        gateway.authenticator.authenticate(header.as_deref()).await;
    if let Ok(caller) = &authentication
        && !may(caller, &request)
    {
        writer = Some(ScoreWriter(caller.project.clone())).filter(|_| caller.scopes.scores);
        authentication = Err(AuthFailure::Insufficient);
    }
    request.extensions_mut().insert(authentication);
    if let Some(writer) = writer {
        request.extensions_mut().insert(writer);
    }
    next.run(request).await
}

/// Whether the caller's scopes are enough. Paths of administration look themselves.
fn may(caller: &Caller, request: &Request) -> bool {
    let path = request.uri().path();
    let administers = [
        "/api/public/projects",
        "/api/public/organizations",
        "/api/internal/",
        "/metrics",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix));
    let reads = request.method().is_safe();
    administers
        || if reads {
            caller.scopes.read
        } else {
            caller.scopes.write
        }
}

/// What [`authenticate`] found.
pub fn caller(extensions: &Extensions) -> Authentication {
    extensions
        .get::<Authentication>()
        .cloned()
        .unwrap_or(Err(AuthFailure::Missing))
}
