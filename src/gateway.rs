//! What handlers share: cheap clones of handles, built once in `server.rs`.

use xtrace_store::{Store, Writer};

use crate::auth::Authenticator;
use crate::limits::ReadLimiter;

/// Bounds on requests.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a body, on the wire and decompressed alike.
    pub body_bytes_max: usize,
}

/// The state of every route.
#[derive(Clone)]
pub struct Gateway {
    /// The database.
    pub store: Store,
    /// The write path.
    pub writer: Writer,
    /// Who may do what.
    pub authenticator: Authenticator,
    /// How often they may read.
    pub read_limiter: ReadLimiter,
    /// How much they may send.
    pub limits: Limits,
}
