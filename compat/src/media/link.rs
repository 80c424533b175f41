//! Links that carry their own permission: what they open, until when, and our signature.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// How long a link opens, as often as somebody likes: it outlives the key that asked for it, so not for long.
pub(super) const VALID: TimeDelta = TimeDelta::minutes(15);

/// What may be done with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Action {
    Upload,
    Download,
}

/// What a link opens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) action: Action,
    pub(super) project: String,
    pub(super) media: String,
    pub(super) content_type: String,
    pub(super) content_length: i64,
    /// Standard base64, as clients send it.
    pub(super) sha256: String,
    /// Seconds since 1970.
    pub(super) expires: i64,
}

impl Grant {
    /// The end of a link: the grant and its signature.
    pub(super) fn sign(&self, key: &[u8]) -> String {
        sign(&serde_json::to_vec(self).expect("a grant serialises"), key)
    }

    /// Reads the end of a link; none unless we signed it and it still opens.
    pub(super) fn parse(token: &str, key: &[u8], now: DateTime<Utc>) -> Option<Self> {
        let (grant, signature) = token.split_once('.')?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        mac(key, grant).verify_slice(&signature).ok()?;
        let grant = BASE64_URL_SAFE_NO_PAD.decode(grant).ok()?;
        let grant: Self = serde_json::from_slice(&grant).ok()?;
        (grant.expires >= now.timestamp()).then_some(grant)
    }
}

/// Bytes and their signature.
pub(super) fn sign(grant: &[u8], key: &[u8]) -> String {
    let grant = BASE64_URL_SAFE_NO_PAD.encode(grant);
    let signature = mac(key, &grant).finalize().into_bytes();
    format!("{grant}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn mac(key: &[u8], text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text.as_bytes());
    mac
}

/// Where clients reach us: as configured, or else as they just did, by the `Host` that they asked for.
pub(super) fn base_url(public_url: Option<&str>, headers: &HeaderMap) -> String {
    if let Some(url) = public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let text = |name: &str| headers.get(name)?.to_str().ok();
    // What proxies say was judged before; this is left of it.
    let scheme = text("x-forwarded-proto").filter(|scheme| *scheme == "https");
    let host = text(header::HOST.as_str()).filter(|host| !host.is_empty());
    format!(
        "{}://{}",
        scheme.unwrap_or("http"),
        host.unwrap_or("localhost")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_opens_what_it_was_made_for_until_it_ends() {
        let now = Utc::now();
        let grant = Grant {
            action: Action::Upload,
            project: "p".to_owned(),
            media: "m".to_owned(),
            content_type: "image/png".to_owned(),
            content_length: 7,
            sha256: "h".to_owned(),
            expires: now.timestamp() + 10,
        };
        let token = grant.sign(b"key");
        assert_eq!(Grant::parse(&token, b"key", now), Some(grant.clone()));
        assert_eq!(Grant::parse(&token, b"other", now), None);
        assert_eq!(
            Grant::parse(&token, b"key", now + TimeDelta::seconds(11)),
            None
        );
        let (body, signature) = token.split_once('.').unwrap();
        let other = Grant {
            project: "q".to_owned(),
            ..grant
        }
        .sign(b"other");
        let forged = format!("{}.{signature}", other.split_once('.').unwrap().0);
        for bad in [
            "",
            ".",
            body,
            &forged,
            &format!("{body}.{signature}x"),
            "%.%",
        ] {
            assert_eq!(Grant::parse(bad, b"key", now), None, "{bad}");
        }
    }
}
