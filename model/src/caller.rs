//! Who calls: the outcome of authentication, handed to every dialect, which words its own refusal.

use crate::ProjectId;

/// A caller who may read and write a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The project.
    pub project: ProjectId,
    /// Names the credential in rate limits and statistics; holds no secret.
    pub credential: String,
}

/// A caller who presents a public key alone, and so may write scores to its project and nothing else.
/// Travels beside the refusal that everybody else words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreWriter(pub ProjectId);

/// Why a caller is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFailure {
    /// There is no `Authorization` header.
    Missing,
    /// The header is neither Basic nor Bearer.
    Scheme,
    /// The header's token can't be read.
    Malformed,
    /// No such key pair, or a wrong secret.
    UnknownKeyPair,
    /// No such token.
    UnknownToken,
    /// A bare public key, which opens nothing but the writing of scores.
    ScoresOnly,
    /// The database that knows the keys is away.
    Unavailable,
}

/// What authentication found; every request to a protected path carries one.
pub type Authentication = Result<Caller, AuthFailure>;
