//! A trace: fields that name a whole request, told by trace events and by any of its spans.
//!
//! The rules of precedence (explicit over implicit, latest explicit span, best root) live in the
//! stamps that the writers of a part choose; this file only holds and merges.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::register::{RANK_EXPLICIT, Register, Stamp};
use crate::stamps::Stamps;
use crate::time::Micros;
use crate::tree::{OwnedTree, Tree, overlay};
use crate::{TraceId, environment};

/// What is known of a trace, whole or in part.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Its name within the project.
    pub id: TraceId,
    /// The time that a trace event gave it, or (as a fallback) its time of arrival.
    pub timestamp: Register<Micros>,
    /// Display name.
    pub name: Register<String>,
    /// The user on whose behalf it ran.
    pub user_id: Register<String>,
    /// The conversation that it belongs to.
    pub session_id: Register<String>,
    /// Release of the application.
    pub release: Register<String>,
    /// Version of the application or of a part of it.
    pub version: Register<String>,
    /// `production`, `staging` and the like.
    pub environment: Register<String>,
    /// An id of the sender's own.
    pub external_id: Register<String>,
    /// Whether anyone may read it.
    pub public: Register<bool>,
    /// Whether somebody marked it.
    pub bookmarked: Register<bool>,
    /// Raw JSON text, or plain text.
    pub input: Register<String>,
    /// Raw JSON text, or plain text.
    pub output: Register<String>,
    /// Latency in seconds as sent; beats the computed one.
    pub sent_latency: Register<f64>,
    /// Cost in USD as sent; beats the computed one.
    pub sent_total_cost: Register<f64>,
    /// Metadata of the best root observation.
    pub root_metadata: OwnedTree,
    /// Labels; they only grow.
    pub tags: BTreeSet<String>,
    /// Metadata that was sent for the trace itself.
    pub metadata: Tree,
    /// Metadata that the resource carries for all its traces.
    pub resource_metadata: Tree,
    /// Whether strings in the metadata are final, rather than JSON text to be parsed by readers.
    pub metadata_decoded: bool,
}

/// Calls a macro with every register of a trace and the name that its stamp is stored under.
macro_rules! trace_registers {
    ($apply:ident) => {
        $apply!(
            timestamp,
            name,
            user_id,
            session_id,
            release,
            version,
            environment,
            external_id,
            public,
            bookmarked,
            input,
            output,
            sent_latency,
            sent_total_cost
        )
    };
}

impl Trace {
    /// A bare trace.
    pub fn new(id: TraceId) -> Self {
        Self {
            id,
            timestamp: Register::default(),
            name: Register::default(),
            user_id: Register::default(),
            session_id: Register::default(),
            release: Register::default(),
            version: Register::default(),
            environment: Register::new(environment::DEFAULT.to_owned(), Stamp::STAND_IN),
            external_id: Register::default(),
            public: Register::default(),
            bookmarked: Register::default(),
            input: Register::default(),
            output: Register::default(),
            sent_latency: Register::default(),
            sent_total_cost: Register::default(),
            root_metadata: OwnedTree::default(),
            tags: BTreeSet::new(),
            metadata: Tree::default(),
            resource_metadata: Tree::default(),
            metadata_decoded: false,
        }
    }

    /// Takes in another part of the same trace.
    pub fn merge(&mut self, other: Self) {
        macro_rules! merge_each {
            ($($field:ident),+) => { $(self.$field.merge(other.$field);)+ };
        }
        trace_registers!(merge_each);
        self.tags.extend(other.tags);
        self.root_metadata.merge(other.root_metadata);
        self.metadata.merge(other.metadata);
        self.resource_metadata.merge(other.resource_metadata);
        self.metadata_decoded |= other.metadata_decoded;
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
        trace_registers!(collect_each)
    }

    /// When it begins: the time it was given, else its first observation's, else its arrival.
    pub fn begins(&self, first_start: Option<Micros>) -> Micros {
        let given = self.timestamp.stamp().rank >= RANK_EXPLICIT;
        let first = first_start.filter(|_| !given);
        first.or(self.timestamp.copied()).unwrap_or_default()
    }

    /// Its environment.
    pub fn environment(&self) -> &str {
        self.environment.text().unwrap_or(environment::DEFAULT)
    }

    /// Its metadata: what was sent for the trace, over the root's, over the resource's.
    pub fn shown_metadata(&self) -> Option<Value> {
        let layers = [
            self.resource_metadata.value(),
            self.root_metadata.value(),
            self.metadata.value(),
        ];
        layers.into_iter().flatten().reduce(|mut under, over| {
            overlay(&mut under, over);
            under
        })
    }
}
