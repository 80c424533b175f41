//! Names of projects, traces, observations and scores: opaque text, echoed exactly as it came.

/// Why a text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text has more than 800 characters or 1200 bytes.
    #[error("must have at most 800 characters and 1200 bytes")]
    TooLong,
    /// The text is a project's id of more than 200 bytes.
    #[error("must have at most 200 bytes")]
    TooLongForProject,
    /// The text holds U+0000 or a carriage return.
    #[error("must not contain NUL or carriage return characters")]
    Control,
}

/// The longest id, in characters; Langfuse's limit.
pub const ID_CHARS_MAX: usize = 800;
/// The longest id, in bytes: an entry of a Postgres index holds 2704, and the longest key is made of a
/// project, a trace and an observation.
pub const ID_BYTES_MAX: usize = 1200;
/// The longest id of a project, in bytes.
pub const PROJECT_ID_BYTES_MAX: usize = 200;

/// Whether a text may be an id: of a trace, or of anything else that an index holds beside a project.
pub fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX || text.chars().count() > ID_CHARS_MAX {
        return Err(IdError::TooLong);
    }
    if text.contains(['\0', '\r']) {
        return Err(IdError::Control);
    }
    Ok(())
}

fn check_project(text: &str) -> Result<(), IdError> {
    if text.len() > PROJECT_ID_BYTES_MAX {
        return Err(IdError::TooLongForProject);
    }
    check(text)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Takes a text within the bounds of ids, without NUL or carriage return.
            pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            /// The id as it was sent.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id as it was sent, owned.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

id! {
    /// The owner of rows: every row has one, every query names one.
    ProjectId, check_project
}
id! {
    /// A trace's name within its project.
    TraceId, check
}
id! {
    /// An observation's name within its trace.
    ObservationId, check
}
id! {
    /// A score's name within its project.
    ScoreId, check
}

impl TraceId {
    /// The same 128 bits in the other common spelling: hyphenated for plain hex, plain for
    /// hyphenated. Earlier clients know UUIDs only and ask for `OTLP` traces in hyphenated form.
    pub fn other_spelling(&self) -> Option<Self> {
        let uuid = uuid::Uuid::try_parse(&self.0).ok()?;
        let other = match self.0.len() {
            32 => uuid.hyphenated().to_string(),
            36 => uuid.simple().to_string(),
            _ => return None,
        };
        Some(Self(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_1_to_800_characters_without_nul() {
        assert_eq!(TraceId::parse(""), Err(IdError::Empty));
        assert_eq!(TraceId::parse("a".repeat(801)), Err(IdError::TooLong));
        assert_eq!(TraceId::parse("a\0b"), Err(IdError::Control));
        assert_eq!(TraceId::parse("é".repeat(601)), Err(IdError::TooLong));
        assert!(TraceId::parse("é".repeat(600)).is_ok());
        assert_eq!(TraceId::parse("a b/{?}").unwrap().as_str(), "a b/{?}");
        let project = ProjectId::parse("a".repeat(201));
        assert_eq!(project, Err(IdError::TooLongForProject));
    }

    #[test]
    fn a_uuid_has_two_spellings() {
        let check = |text: &str, other: Option<&str>| {
            let id = TraceId::parse(text).unwrap();
            assert_eq!(id.other_spelling().as_ref().map(TraceId::as_str), other);
        };
        check(
            "0af7651916cd43dd8448eb211c80319c",
            Some("0af76519-16cd-43dd-8448-eb211c80319c"),
        );
        check(
            "0af76519-16cd-43dd-8448-eb211c80319c",
            Some("0af7651916cd43dd8448eb211c80319c"),
        );
        check("order-17", None);
    }
}
