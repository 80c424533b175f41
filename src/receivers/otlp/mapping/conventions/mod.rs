//! Conventions: what each emitter calls things, one file and one table each.
//!
//! Most fields are found by asking many conventions in turn. Each row says at which place it is asked;
//! places are the rule numbers of docs/mapping.md (P3 is 30, row 12 is 120, the second name 20), so
//! that there is room between them. To add a convention, write its file, name it in [`ALL`], and give
//! it a folder in `fixtures/otlp-traces`.

mod flue;
mod gen_ai;
pub(super) mod genkit;
mod google_adk;
mod langfuse;
mod langsmith;
mod livekit;
mod logfire;
mod mlflow;
mod openinference;
mod openllmetry;
mod plain;
mod semantic_kernel;
pub(super) mod vercel;

pub(super) use gen_ai::{input_messages, output_messages};
pub(super) use google_adk::SCOPE as GOOGLE_ADK_SCOPE;
pub(super) use livekit::is_plumbing;
pub(super) use logfire::is_placeholder;

use std::sync::LazyLock;

use xtrace_model::observation::Kind;

use super::Source;
use super::attributes::Attributes;
use super::content::{From, Gate};

/// Where a row stands among those of all conventions.
type Place = u16;

/// All that is particular to one emitter. What is left out is [`Convention::NONE`].
pub(super) struct Convention {
    /// What a span is: rules P0 to P10.
    kinds: &'static [(Place, KindRule)],
    /// Input and output: rows 1 to 25.
    content: &'static [(Place, Extractor)],
    /// Attributes that name the model.
    models: &'static [(Place, &'static str)],
    /// Attributes that name the user.
    users: &'static [(Place, &'static str)],
    /// Attributes that name the session.
    sessions: &'static [(Place, &'static str)],
    /// Attributes that carry tags.
    tags: &'static [(Place, &'static str)],
    /// Attributes that carry content: they may be longer, and leave the attributes when they say
    /// nothing (M-KEYS).
    content_keys: &'static [&'static str],
    /// Prefixes of such attributes.
    content_prefixes: &'static [&'static str],
}

impl Convention {
    const NONE: Self = Self {
        kinds: &[],
        content: &[],
        models: &[],
        users: &[],
        sessions: &[],
        tags: &[],
        content_keys: &[],
        content_prefixes: &[],
    };
}

const ALL: [&Convention; 14] = [
    &langfuse::CONVENTION,
    &gen_ai::CONVENTION,
    &openinference::CONVENTION,
    &openllmetry::CONVENTION,
    &vercel::CONVENTION,
    &logfire::CONVENTION,
    &google_adk::CONVENTION,
    &livekit::CONVENTION,
    &mlflow::CONVENTION,
    &langsmith::CONVENTION,
    &semantic_kernel::CONVENTION,
    &genkit::CONVENTION,
    &flue::CONVENTION,
    &plain::CONVENTION,
];

/// How one convention tells what a span is.
#[derive(Clone, Copy)]
pub(super) enum KindRule {
    /// An attribute whose value, in any case and maybe in quotes, names the kind.
    Value(&'static str, &'static [(&'static str, Kind)]),
    /// The same, for spans of one instrumentation scope.
    ValueInScope(&'static str, &'static str, &'static [(&'static str, Kind)]),
    /// Names of spans of one instrumentation scope.
    NameInScope(&'static str, &'static [(&'static str, Kind)]),
    /// Any of these attributes says something.
    Says(&'static [&'static str], Kind),
    /// A function.
    Function(fn(&Attributes, &Source) -> Option<Kind>),
}

impl KindRule {
    pub(super) fn kind(
        self,
        attributes: &Attributes,
        source: &Source,
        span_name: &str,
    ) -> Option<Kind> {
        let named = |name: &str, kinds: &[(&str, Kind)]| {
            let found = kinds.iter().find(|(known, _)| *known == name);
            found.map(|(_, kind)| *kind)
        };
        let value = |key: &str, kinds| {
            let value = attributes.str(key)?;
            named(&value.trim_matches('"').to_ascii_lowercase(), kinds)
        };
        let in_scope = |scope: &str| source.scope_name() == Some(scope);
        match self {
            Self::Value(key, kinds) => value(key, kinds),
            Self::ValueInScope(scope, key, kinds) if in_scope(scope) => value(key, kinds),
            Self::NameInScope(scope, kinds) if in_scope(scope) => named(span_name, kinds),
            Self::ValueInScope(..) | Self::NameInScope(..) => None,
            Self::Says(keys, kind) => keys.iter().any(|key| attributes.says(key)).then_some(kind),
            Self::Function(function) => function(attributes, source),
        }
    }
}

/// How one convention writes input and output.
#[derive(Clone, Copy)]
pub(super) struct Extractor {
    pub(super) gate: Gate,
    pub(super) input: From,
    pub(super) output: From,
}

const fn extractor(gate: Gate, input: From, output: From) -> Extractor {
    Extractor {
        gate,
        input,
        output,
    }
}

/// The first place of content that is looked for whatever the scope of the span says.
const LATE: Place = 200;

/// The rows of all conventions in the order of their places.
pub(super) struct Rules {
    pub(super) kinds: Vec<KindRule>,
    pub(super) content: Vec<Extractor>,
    pub(super) late_content: Vec<Extractor>,
    pub(super) models: Vec<&'static str>,
    pub(super) users: Vec<&'static str>,
    pub(super) sessions: Vec<&'static str>,
    pub(super) tags: Vec<&'static str>,
    content_keys: Vec<&'static str>,
    content_prefixes: Vec<&'static str>,
}

pub(super) static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let mut content = rows(|convention| convention.content);
    let late = content.partition_point(|(place, _)| *place < LATE);
    let late_content = content.split_off(late);
    let flat = |of: fn(&Convention) -> &'static [&'static str]| {
        let mut all: Vec<&str> = ALL.iter().copied().flat_map(of).copied().collect();
        all.sort_unstable();
        all
    };
    Rules {
        kinds: in_order(rows(|convention| convention.kinds)),
        content: in_order(content),
        late_content: in_order(late_content),
        models: in_order(rows(|convention| convention.models)),
        users: in_order(rows(|convention| convention.users)),
        sessions: in_order(rows(|convention| convention.sessions)),
        tags: in_order(rows(|convention| convention.tags)),
        content_keys: flat(|convention| convention.content_keys),
        content_prefixes: flat(|convention| convention.content_prefixes),
    }
});

/// One column of all conventions, by place.
fn rows<T: Copy>(of: fn(&Convention) -> &'static [(Place, T)]) -> Vec<(Place, T)> {
    let mut rows: Vec<(Place, T)> = ALL.iter().copied().flat_map(of).copied().collect();
    rows.sort_by_key(|(place, _)| *place);
    rows
}

fn in_order<T>(rows: Vec<(Place, T)>) -> Vec<T> {
    rows.into_iter().map(|(_, row)| row).collect()
}

impl Rules {
    /// Whether an attribute carries content for sure, by its name.
    pub(super) fn is_content_key(&self, key: &str) -> bool {
        self.content_keys.binary_search(&key).is_ok()
            || self
                .content_prefixes
                .iter()
                .any(|prefix| key.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of one place would be asked in the order of [`ALL`], which nobody reads as a rule.
    #[test]
    fn no_two_rows_share_a_place() {
        fn check<T: Copy>(of: fn(&Convention) -> &'static [(Place, T)]) {
            let rows = rows(of);
            let places = rows.iter().map(|(place, _)| place);
            let distinct: std::collections::BTreeSet<_> = places.collect();
            assert_eq!(distinct.len(), rows.len());
        }
        check(|convention| convention.kinds);
        check(|convention| convention.content);
        check(|convention| convention.models);
        check(|convention| convention.users);
        check(|convention| convention.sessions);
        check(|convention| convention.tags);
    }
}
