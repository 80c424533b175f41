//! An `Authorization` header, parsed; nothing here knows which credentials are right.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// What a caller presents.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// `Bearer <token>`.
    Bearer(String),
    /// `Basic base64(public:secret)`.
    Basic {
        /// The public key: names the key pair.
        public: String,
        /// The secret key: proves it.
        secret: String,
    },
}

/// Why a header presents nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The scheme is neither Basic nor Bearer.
    #[error("the authorization scheme must be Basic or Bearer")]
    Scheme,
    /// The token is empty, is no base64, or lacks a user or a password.
    #[error("the authorization header is malformed")]
    Malformed,
}

impl Credentials {
    /// Parses a header's value. Schemes are taken in any case, and a percent-encoded space after
    /// them is a space: `OTEL_EXPORTER_OTLP_HEADERS` is percent-encoded, and some SDKs don't decode it.
    pub fn parse(header: &str) -> Result<Self, CredentialsError> {
        let header = header.trim();
        let (scheme, rest) = header
            .split_once(' ')
            .or_else(|| header.split_once("%20"))
            .ok_or(CredentialsError::Scheme)?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return match rest {
                "" => Err(CredentialsError::Malformed),
                token => Ok(Self::Bearer(token.to_owned())),
            };
        }
        if scheme.eq_ignore_ascii_case("basic") {
            return Self::parse_basic(rest).ok_or(CredentialsError::Malformed);
        }
        Err(CredentialsError::Scheme)
    }

    fn parse_basic(token: &str) -> Option<Self> {
        let decoded = String::from_utf8(decode_base64(token)?).ok()?;
        let mut pieces = decoded.split(':');
        let (public, secret) = (pieces.next()?, pieces.next()?);
        // No key has a colon; a third piece would be ignored, and so open what it does not name.
        if public.is_empty() || secret.is_empty() || pieces.next().is_some() {
            return None;
        }
        Some(Self::Basic {
            public: public.to_owned(),
            secret: secret.to_owned(),
        })
    }
}

/// Standard base64; padding may be missing or percent-encoded.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    LENIENT
        .decode(text.replace("%3D", "=").replace("%3d", "="))
        .ok()
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bearer(_) => formatter.write_str("Bearer(…)"),
            Self::Basic { public, .. } => write!(formatter, "Basic({public}:…)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_parsed() {
        let basic = Ok(Credentials::Basic {
            public: "pk".into(),
            secret: "sk".into(),
        });
        let check = |header: &str, expected: Result<Credentials, CredentialsError>| {
            assert_eq!(Credentials::parse(header), expected, "{header}");
        };
        check("Basic cGs6c2s=", basic.clone());
        check("basic cGs6c2s", basic.clone());
        check("Basic%20cGs6c2s%3D", basic);
        check("Bearer abc", Ok(Credentials::Bearer("abc".into())));
        check("Bearer ", Err(CredentialsError::Scheme));
        check("Basic cGs=", Err(CredentialsError::Malformed));
        check("Basic cGs6c2s6eA==", Err(CredentialsError::Malformed));
        check("Basic !!!!", Err(CredentialsError::Malformed));
        check("Basic OnNr", Err(CredentialsError::Malformed));
        check("Digest x", Err(CredentialsError::Scheme));
        check("", Err(CredentialsError::Scheme));
    }

    #[test]
    fn secrets_are_not_printed() {
        let credentials = Credentials::parse("Basic cGs6c2VjcmV0").unwrap();
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
