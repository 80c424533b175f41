//! What a span is: rules P0 to P11, first hit wins.

use xtrace_model::observation::Kind;

use super::Source;
use super::attributes::Attributes;
use super::conventions::RULES;

/// The span's kind.
pub(super) fn of(attributes: &Attributes, source: &Source, span_name: &str) -> Kind {
    let mut rules = RULES.kinds.iter();
    rules
        .find_map(|rule| rule.kind(attributes, source, span_name))
        .unwrap_or(Kind::Span)
}
