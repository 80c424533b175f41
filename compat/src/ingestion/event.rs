//! An event's envelope: what it is about, and its place in time.

use serde_json::Value;
use xtrace_model::Micros;
use xtrace_model::observation::Kind;
use xtrace_model::register::{RANK_DERIVED, RANK_EXPLICIT, RANK_STAND_IN, Stamp};
use xtrace_model::score::RANK_PUBLIC;

use crate::auth::Sender;
use crate::body::{Issue, Object};
use crate::error::issue;

/// Langfuse's limit of an id.
pub(super) const ID_CHARS_MAX: usize = 800;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventKind {
    Trace,
    Observation {
        /// None where the body tells.
        kind: Option<Kind>,
        is_update: bool,
    },
    Score,
    /// What the SDK says of itself.
    Log,
}

const fn creation(kind: Kind) -> EventKind {
    EventKind::Observation {
        kind: Some(kind),
        is_update: false,
    }
}

const fn update(kind: Kind) -> EventKind {
    EventKind::Observation {
        kind: Some(kind),
        is_update: true,
    }
}

const KINDS: [(&str, EventKind); 17] = [
    ("trace-create", EventKind::Trace),
    ("score-create", EventKind::Score),
    ("span-create", creation(Kind::Span)),
    ("span-update", update(Kind::Span)),
    ("generation-create", creation(Kind::Generation)),
    ("generation-update", update(Kind::Generation)),
    ("event-create", creation(Kind::Event)),
    ("agent-create", creation(Kind::Agent)),
    ("tool-create", creation(Kind::Tool)),
    ("chain-create", creation(Kind::Chain)),
    ("retriever-create", creation(Kind::Retriever)),
    ("evaluator-create", creation(Kind::Evaluator)),
    ("embedding-create", creation(Kind::Embedding)),
    ("guardrail-create", creation(Kind::Guardrail)),
    (
        "observation-create",
        EventKind::Observation {
            kind: None,
            is_update: false,
        },
    ),
    (
        "observation-update",
        EventKind::Observation {
            kind: None,
            is_update: true,
        },
    ),
    ("sdk-log", EventKind::Log),
];

impl EventKind {
    pub(super) fn is_update(self) -> bool {
        matches!(
            self,
            Self::Observation {
                is_update: true,
                ..
            }
        )
    }
}

/// One event.
pub(super) struct Event<'a> {
    pub(super) id: String,
    pub(super) time: Micros,
    pub(super) kind: EventKind,
    pub(super) body: Object<'a>,
    /// Of its JSON text.
    pub(super) bytes: usize,
    hash: u64,
}

/// The place of an event among all that tell of the same thing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct When {
    pub(crate) time: Micros,
    pub(super) is_update: bool,
    hash: u64,
    sender: Sender,
}

impl When {
    /// A request that is an event of its own.
    pub(crate) fn now(time: Micros, hash: u64) -> Self {
        Self {
            time,
            is_update: false,
            hash,
            sender: Sender::Known,
        }
    }

    /// The same, as this sender says it: a secret's word counts more.
    pub(crate) fn said_by(self, sender: Sender) -> Self {
        Self { sender, ..self }
    }

    /// The rank of what was sent, and of what stands in for it.
    fn rank(self, sent: bool) -> u8 {
        match (self.sender, sent) {
            (Sender::Known, true) => RANK_EXPLICIT,
            (Sender::Known, false) => RANK_DERIVED,
            (Sender::Public, true) => RANK_PUBLIC,
            (Sender::Public, false) => RANK_STAND_IN,
        }
    }

    /// The later event wins; of one time, updates do.
    pub(crate) fn latest(self) -> Stamp {
        Stamp::latest(self.rank(true), self.nanos(), u64::from(self.is_update))
            .of_version(0, self.hash)
    }

    /// What the event's type tells, for an update: the creation knows better.
    pub(super) fn derived(self) -> Stamp {
        Stamp {
            rank: RANK_DERIVED,
            ..self.latest()
        }
    }

    /// The first event stays; what was sent beats what stands in for it.
    pub(crate) fn first(self, sent: bool) -> Stamp {
        Stamp::earliest(self.rank(sent), self.nanos(), u64::from(self.is_update))
            .of_version(0, self.hash)
    }

    fn nanos(self) -> i64 {
        self.time.saturating_mul(1000)
    }
}

impl<'a> Event<'a> {
    /// Parses an event; a fault comes with the id that it is answered under.
    pub(super) fn parse(value: &'a Value) -> Result<Self, (String, Issue)> {
        let named = value.get("id").and_then(Value::as_str);
        let id = named.unwrap_or("unknown").to_owned();
        Self::parse_as(value, id.clone()).map_err(|issue| (id, issue))
    }

    fn parse_as(value: &'a Value, id: String) -> Result<Self, Issue> {
        let event = Object::of(value, "")?;
        check_id("id", &event.required_text("id", 1)?)?;
        let Some(time) = event.time("timestamp")? else {
            return Err(issue::missing(&["timestamp"], "string"));
        };
        let name = event.required_text("type", 1)?;
        let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
            return Err(issue::not_an_option("type", &names));
        };
        let Some(body) = event.object("body")? else {
            return Err(issue::missing(&["body"], "object"));
        };
        let text = value.get("body").map(Value::to_string).unwrap_or_default();
        Ok(Self {
            id,
            time,
            kind: *kind,
            body,
            bytes: text.len(),
            hash: xxhash_rust::xxh3::xxh3_64(text.as_bytes()),
        })
    }

    pub(super) fn when(&self) -> When {
        When {
            time: self.time,
            is_update: self.kind.is_update(),
            hash: self.hash,
            sender: Sender::Known,
        }
    }
}

/// The rule for ids of events and of bodies.
pub(super) fn check_id(name: &str, id: &str) -> Result<(), Issue> {
    if id.contains('\r') {
        let path = [Value::from(name)];
        return Err(issue::custom(
            &path,
            "ID cannot contain carriage return characters",
        ));
    }
    if id.chars().count() > ID_CHARS_MAX {
        return Err(issue::long(name, ID_CHARS_MAX));
    }
    Ok(())
}
