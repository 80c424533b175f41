//! Authentication: from an `Authorization` header to a caller. Both schemes open every path.
//!
//! The outcome travels in the request's extensions, since every dialect words its own refusal.

mod attempts;
mod known_keys;

use std::net::{IpAddr, Ipv4Addr};
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
use xtrace_store::Store;
use xtrace_store::keys::{ApiKey, hash_key_pair};

use crate::dialect::Dialect;
use crate::gateway::Gateway;
use crate::limits::Refusal;
use crate::listener::network;
use crate::proxies::ClientAddress;
use attempts::{Attempts, Verdict};
use known_keys::{KnownKeys, Memory};

/// Knows which credentials open which project.
#[derive(Clone)]
pub struct Authenticator {
    api_hash: [u8; 32],
    admin_hash: Option<[u8; 32]>,
    default_project: ProjectId,
    keys: KnownKeys,
    attempts: Attempts,
}

impl Authenticator {
    /// The API token writes to the default project and reads it, the admin token administers; key pairs
    /// are looked up in the store. Failures of one address are held back beyond so many a second.
    pub fn new(
        store: Store,
        api_token: &str,
        admin_token: Option<&str>,
        default_project: ProjectId,
        failures_per_second: u32,
    ) -> Self {
        Self {
            keys: KnownKeys::new(store),
            attempts: Attempts::new(failures_per_second),
            api_hash: Sha256::digest(api_token).into(),
            admin_hash: admin_token.map(|token| Sha256::digest(token).into()),
            default_project,
        }
    }

    /// Finds the caller that a header stands for, or who may at least write scores; or says how long an
    /// address with too many failures is refused.
    pub async fn authenticate(
        &self,
        header: Option<&str>,
        address: IpAddr,
    ) -> Result<(Authentication, Option<ScoreWriter>), Refusal> {
        use xtrace_model::credentials::CredentialsError;
        let Some(header) = header else {
            return Ok((Err(AuthFailure::Missing), None));
        };
        let credentials = match Credentials::parse(header) {
            Err(CredentialsError::Scheme) => return Ok((Err(AuthFailure::Scheme), None)),
            Err(CredentialsError::Malformed) => return Ok((Err(AuthFailure::Malformed), None)),
            Ok(credentials) => credentials,
        };
        let name = match &credentials {
            Credentials::Bearer(token) => token,
            Credentials::Basic { public, .. } => public,
        };
        let now = Instant::now();
        let (lookup, wait) = match self.attempts.judge(address, name, now) {
            Verdict::Try => (Lookup::Ask, None),
            Verdict::OnlyKnown(wait) => (Lookup::Recall, Some(wait)),
            Verdict::Refuse(wait) => return Err(refusal(wait)),
        };
        let mut writer = None;
        let found = match &credentials {
            Credentials::Bearer(token) => self.bearer(token, &mut writer, lookup).await,
            Credentials::Basic { public, secret } => self.basic(public, secret, lookup).await,
        };
        if matches!(
            found,
            Err(AuthFailure::UnknownKeyPair | AuthFailure::UnknownToken)
        ) {
            self.attempts.failed(address, name, now);
            if let Some(wait) = wait {
                return Err(refusal(wait));
            }
        } else if found != Err(AuthFailure::Unavailable) {
            self.attempts.succeeded(address, now);
        }
        Ok((found, writer))
    }

    async fn bearer(
        &self,
        token: &str,
        writer: &mut Option<ScoreWriter>,
        lookup: Lookup,
    ) -> Authentication {
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
            // Administrators are not of a project.
            if !scopes.admin && !self.keys.is_open(&self.default_project).await {
                return Err(AuthFailure::UnknownToken);
            }
            return Ok(Caller {
                project: self.default_project.clone(),
                credential: credential.to_owned(),
                scopes,
            });
        }
        let Some(key) = self.key(token, lookup).await? else {
            return Err(AuthFailure::UnknownToken);
        };
        let scopes = Scopes::parse(&key.scopes).unwrap_or_default();
        *writer = ProjectId::parse(key.project_id)
            .ok()
            .filter(|_| scopes.scores)
            .map(ScoreWriter);
        Err(AuthFailure::Insufficient)
    }

    async fn basic(&self, public: &str, secret: &str, lookup: Lookup) -> Authentication {
        let key = self.key(public, lookup).await?;
        let key = key.ok_or(AuthFailure::UnknownKeyPair)?;
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
    async fn key(&self, public: &str, lookup: Lookup) -> Result<Option<ApiKey>, AuthFailure> {
        let key = match (self.keys.recall(public), lookup) {
            (Memory::Fresh(key), _) => key,
            // A key that is known is asked for again however many strangers' keys are refused.
            (Memory::Old(key), _) => self.keys.look_up(public, Some(key)).await?,
            (Memory::Nothing, Lookup::Ask) => self.keys.look_up(public, None).await?,
            (Memory::Nothing, Lookup::Recall) => None,
        };
        Ok(key.filter(|key| key.expires_at.is_none_or(|end| end > Utc::now())))
    }
}

/// Whether keys that nobody presented lately are looked up.
#[derive(Debug, Clone, Copy)]
enum Lookup {
    Ask,
    Recall,
}

fn refusal(wait: Duration) -> Refusal {
    Refusal { wait, limit: 0 }
}

/// Middleware: finds the caller, and leaves what it found to the handler.
pub async fn authenticate(
    State(gateway): State<Gateway>,
    mut request: Request,
    next: Next,
) -> Response {
    let header = request.headers().get(header::AUTHORIZATION);
    let header = header.map(|value| value.to_str().unwrap_or_default().to_owned());
    let address = request.extensions().get::<ClientAddress>();
    let address = address.map_or(Ipv4Addr::UNSPECIFIED.into(), |client| network(client.0));
    let authenticator = &gateway.authenticator;
    let (mut authentication, mut writer) =
        match authenticator.authenticate(header.as_deref(), address).await {
            Ok(found) => found,
            Err(refusal) => return Dialect::of(&request).too_many_requests(refusal),
        };
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

/// Whether the caller's scopes are enough. Paths that administrators ask look themselves.
fn may(caller: &Caller, request: &Request) -> bool {
    let path = request.uri().path();
    let administers = [
        "/api/public/health",
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
