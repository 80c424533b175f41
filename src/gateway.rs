//! What handlers share: cheap clones of handles, built once in `server.rs`.

use xtrace_compat::MediaSettings;
use xtrace_store::metrics::SeriesLimits;
use xtrace_store::{Store, Writer};

use crate::auth::Authenticator;
use crate::health::Health;
use crate::limits::ReadLimiter;
use crate::proxies::TrustedProxies;
use crate::receivers::body::BodyLimits;
use crate::receivers::otlp::Supplements;

/// The state of every route.
#[derive(Clone)]
pub struct Gateway {
    /// Whether requests will be served.
    pub health: Health,
    /// The database.
    pub store: Store,
    /// The write path.
    pub writer: Writer,
    /// Who may do what.
    pub authenticator: Authenticator,
    /// How often they may read.
    pub read_limiter: ReadLimiter,
    /// How many series there may be.
    pub series_limits: SeriesLimits,
    /// How much they may send.
    pub body_limits: BodyLimits,
    /// Who is believed about where a request comes from.
    pub proxies: TrustedProxies,
    /// How media are kept.
    pub media: MediaSettings,
    /// Traces that log records wait for.
    pub(crate) supplements: Supplements,
}
