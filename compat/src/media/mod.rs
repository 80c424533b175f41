//! Media: announced, uploaded to and downloaded from links that carry their own permission
//! (langfuse-api 12.3).
//!
//! - `announce`: `POST`, `PATCH` and `GET /media`. `link`: signed links. `transfer`: bytes in and out, piece
//!   by piece.

mod announce;
mod link;
mod transfer;

use std::sync::Arc;

use tokio::sync::OnceCell;
use xtrace_store::{Store, StoreError, media};

use crate::shares::Shares;
pub(crate) use announce::{announce, get, patch, signed};
pub(crate) use transfer::{download, upload};

/// Uploads and downloads at once, in all and of a project; each holds a few pieces in memory.
const TRANSFERS_MAX: usize = 64;
const TRANSFERS_OF_PROJECT_MAX: usize = 16;

/// How media are kept.
#[derive(Debug, Clone)]
pub struct MediaSettings {
    /// Where clients reach this service; none takes the host that they asked.
    pub public_url: Option<String>,
    /// Bytes of a file at most.
    pub bytes_max: u64,
}

/// What all transfers share.
#[derive(Clone)]
pub(crate) struct Media {
    pub(crate) settings: MediaSettings,
    key: Arc<OnceCell<Vec<u8>>>,
    transfers: Arc<Shares>,
}

impl Media {
    pub(crate) fn new(settings: MediaSettings) -> Self {
        Self {
            settings,
            key: Arc::default(),
            transfers: Arc::new(Shares::new(TRANSFERS_MAX, TRANSFERS_OF_PROJECT_MAX)),
        }
    }

    /// What links are signed with: one key for all processes of a database.
    async fn key(&self, store: &Store) -> Result<&[u8], StoreError> {
        let fresh = || {
            [
                uuid::Uuid::new_v4().into_bytes(),
                uuid::Uuid::new_v4().into_bytes(),
            ]
            .concat()
        };
        let key = self
            .key
            .get_or_try_init(|| async { media::signing_key(store, "media", &fresh()).await })
            .await?;
        Ok(key)
    }
}

/// Reads bytes as the end of a link, as they are and signed; whether the first opened anything.
pub(crate) fn fuzz_link(bytes: &[u8], key: &[u8], now: chrono::DateTime<chrono::Utc>) -> bool {
    let unsigned = std::str::from_utf8(bytes).ok();
    let unsigned = unsigned.and_then(|token| link::Grant::parse(token, key, now));
    let _ = link::Grant::parse(&link::sign(bytes, key), key, now);
    unsigned.is_some()
}
