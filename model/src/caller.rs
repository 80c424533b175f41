//! Who calls: the outcome of authentication, handed to every dialect, which words its own refusal.

use crate::ProjectId;

/// A caller who may read and write a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The project.
    pub project: ProjectId,
    /// Names the credential in rate limits and statistics; holds no secret.
    pub credential: String,
    /// What it may do.
    pub scopes: Scopes,
}

/// What a credential may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes {
    /// Read the project.
    pub read: bool,
    /// Write to it and delete from it.
    pub write: bool,
    /// Write scores to it, if nothing else.
    pub scores: bool,
    /// Make and delete projects and their keys.
    pub admin: bool,
}

impl Scopes {
    /// What keys may do unless something else is said.
    pub fn of_keys() -> Self {
        Self {
            read: true,
            write: true,
            scores: true,
            admin: false,
        }
    }

    /// What the token of administrators may do: nothing with what projects hold.
    pub fn of_admins() -> Self {
        Self {
            admin: true,
            ..Self::default()
        }
    }

    /// Reads names; none if one is unknown or there are none.
    pub fn parse<T: AsRef<str>>(names: &[T]) -> Option<Self> {
        let mut scopes = Self::default();
        for name in names {
            match name.as_ref().trim() {
                "read" => scopes.read = true,
                "write" => scopes.write = true,
                "scores" => scopes.scores = true,
                "admin" => scopes.admin = true,
                _ => return None,
            }
        }
        (scopes != Self::default()).then_some(scopes)
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            ("read", self.read),
            ("write", self.write),
            ("scores", self.scores),
            ("admin", self.admin),
        ];
        all.into_iter()
            .filter(|(_, has)| *has)
            .map(|(name, _)| name)
            .collect()
    }
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
    /// The credential is known, but not for this: a bare public key writes scores and nothing else, and
    /// keys have scopes.
    Insufficient,
    /// The database that knows the keys is away.
    Unavailable,
}

/// What authentication found; every request to a protected path carries one.
pub type Authentication = Result<Caller, AuthFailure>;
