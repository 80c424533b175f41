//! No convention: plain words that people use for attributes of their own.

use xtrace_model::observation::Kind::Generation;

use super::super::content::{From, Gate};
use super::{Convention, KindRule, extractor};

pub(super) const CONVENTION: Convention = Convention {
    kinds: &[(103, KindRule::Says(&["model"], Generation))],
    content: &[(
        140,
        extractor(
            Gate::NoInfrastructure,
            From::First(&["input"]),
            From::First(&["output"]),
        ),
    )],
    models: &[(70, "model")],
    content_keys: &["input", "output"],
    ..Convention::NONE
};
