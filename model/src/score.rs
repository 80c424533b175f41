//! A score: a judgement of a trace, an observation, a session or a run over a dataset.

use serde::{Deserialize, Serialize};

use crate::register::{RANK_EXPLICIT, RANK_STAND_IN, Register, Stamp};
use crate::stamps::Stamps;
use crate::time::Micros;
use crate::{ScoreId, environment};

/// The rank of what a public key alone says: below that of every other sender. A public key stands in pages that
/// anybody reads, so it makes scores and changes those that it made, and leaves all others as they are.
pub const RANK_PUBLIC: u8 = 3;

/// What a score is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A trace, or an observation of it.
    Trace {
        /// The trace.
        trace_id: String,
        /// The observation.
        observation_id: Option<String>,
    },
    /// A session.
    Session(String),
    /// A run over a dataset.
    Run(String),
}

/// What a score says.
#[derive(Debug, Clone, PartialEq)]
pub enum ScoreValue {
    /// A number.
    Numeric(f64),
    /// Yes or no.
    Boolean(bool),
    /// A label, with the number that the score's configuration gives it (0 without one).
    Categorical(String, f64),
    /// A remark.
    Text(String),
    /// What the output should have been.
    Correction(String),
}

impl ScoreValue {
    /// The name of its type, on the wire and in the database.
    pub fn data_type(&self) -> &'static str {
        match self {
            Self::Numeric(_) => "NUMERIC",
            Self::Boolean(_) => "BOOLEAN",
            Self::Categorical(..) => "CATEGORICAL",
            Self::Text(_) => "TEXT",
            Self::Correction(_) => "CORRECTION",
        }
    }

    /// The number, 0 where there is none.
    pub fn number(&self) -> f64 {
        match self {
            Self::Numeric(number) | Self::Categorical(_, number) => *number,
            Self::Boolean(truth) => f64::from(u8::from(*truth)),
            Self::Text(_) | Self::Correction(_) => 0.0,
        }
    }

    /// The text, if there is one; truth values are spelled as Python does.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Numeric(_) => None,
            Self::Boolean(true) => Some("True"),
            Self::Boolean(false) => Some("False"),
            Self::Categorical(text, _) | Self::Text(text) | Self::Correction(text) => Some(text),
        }
    }

    /// A value read back from its columns; an unknown type is a number.
    pub fn restore(data_type: &str, number: f64, text: Option<String>) -> Self {
        let text = text.unwrap_or_default();
        match data_type {
            "BOOLEAN" => Self::Boolean(number != 0.0),
            "CATEGORICAL" => Self::Categorical(text, number),
            "TEXT" => Self::Text(text),
            "CORRECTION" => Self::Correction(text),
            _ => Self::Numeric(number),
        }
    }
}

/// Who made a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ScoreSource {
    /// A program.
    Api,
    /// An evaluator.
    Eval,
    /// A person.
    Annotation,
}

impl ScoreSource {
    /// The name on the wire and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "API",
            Self::Eval => "EVAL",
            Self::Annotation => "ANNOTATION",
        }
    }

    /// The source of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Api, Self::Eval, Self::Annotation]
            .into_iter()
            .find(|source| source.name() == name)
    }
}

/// What is known of a score, whole or in part.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Its name within the project; sent again, it is the same score.
    pub id: ScoreId,
    /// What it is of; the first that was sent stays.
    pub subject: Register<Subject>,
    /// When it was given; the first that was sent stays.
    pub timestamp: Register<Micros>,
    /// The first that was sent stays.
    pub environment: Register<String>,
    /// What it judges.
    pub name: Register<String>,
    /// What it says.
    pub value: Register<ScoreValue>,
    /// Who made it.
    pub source: Register<ScoreSource>,
    /// Why.
    pub comment: Register<String>,
    /// JSON text.
    pub metadata: Register<String>,
    /// The configuration that it follows.
    pub config_id: Register<String>,
    /// The annotation queue that it was given in.
    pub queue_id: Register<String>,
    /// The trace of the evaluator that gave it.
    pub execution_trace_id: Register<String>,
}

macro_rules! score_registers {
    ($apply:ident) => {
        $apply!(
            subject,
            timestamp,
            environment,
            name,
            value,
            source,
            comment,
            metadata,
            config_id,
            queue_id,
            execution_trace_id
        )
    };
}

impl Score {
    /// A score of which only the key is known.
    pub fn new(id: ScoreId) -> Self {
        Self {
            id,
            subject: Register::default(),
            timestamp: Register::default(),
            environment: Register::new(environment::DEFAULT.to_owned(), Stamp::STAND_IN),
            name: Register::default(),
            value: Register::default(),
            source: Register::new(ScoreSource::Api, Stamp::STAND_IN),
            comment: Register::default(),
            metadata: Register::default(),
            config_id: Register::default(),
            queue_id: Register::default(),
            execution_trace_id: Register::default(),
        }
    }

    /// Takes in another part of the same score.
    pub fn merge(&mut self, other: Self) {
        macro_rules! merge_each {
            ($($field:ident),+) => { $(self.$field.merge(other.$field);)+ };
        }
        score_registers!(merge_each);
        // Every part has a name.
        if self.name.stamp().rank == RANK_EXPLICIT {
            self.forget_public();
        }
    }

    /// Once a secret's part is known, nothing of a public key's fills what that leaves open: in whichever order
    /// they come, the secret's parts alone are the score.
    fn forget_public(&mut self) {
        let unknown = Self::new(self.id.clone());
        let is_public = |stamp: Stamp| {
            stamp.rank == RANK_PUBLIC || stamp.rank == RANK_STAND_IN && stamp != Stamp::STAND_IN
        };
        macro_rules! forget_each {
            ($($field:ident),+) => {
                $(if is_public(self.$field.stamp()) {
                    self.$field = unknown.$field;
                })+
            };
        }
        score_registers!(forget_each);
    }

    /// The stamps of all registers, to be stored beside the values.
    pub fn stamps(&self) -> Stamps {
        macro_rules! collect_each {
            ($($field:ident),+) => {
                Stamps::collect([
                    $((stringify!($field), self.$field.stamp(), self.$field.get().is_some())),+
                ])
            };
        }
        score_registers!(collect_each)
    }
}
