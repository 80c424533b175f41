//! Exit codes: what a script can tell from the end of the program.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done, or stopped as asked |
//! | 1 | anything else |
//! | 2 | a flag, a variable or a file of settings is wrong |
//! | 3 | the database is out of reach or can't be used |
//! | 7 | the schema of the database is newer, or another program's |

use xtrace_store::Unusable;

/// A setting that is wrong, in a sentence that names it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadSetting(pub String);

/// The code that an error ends the program with.
pub fn code(error: &anyhow::Error) -> u8 {
    const FAILURE: u8 = 1;
    let of_cause = |cause: &(dyn std::error::Error + 'static)| {
        if cause.is::<BadSetting>() {
            return Some(2);
        }
        match cause.downcast_ref::<Unusable>()? {
            Unusable::Away(_) | Unusable::Unfit(_) => Some(3),
            Unusable::Foreign(_) => Some(7),
        }
    };
    error.chain().find_map(of_cause).unwrap_or(FAILURE)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn codes_are_found_below_any_context() {
        let words = || "words".to_owned();
        for (error, expected) in [
            (anyhow::Error::new(BadSetting(words())), 2),
            (Unusable::Away(words()).into(), 3),
            (Unusable::Unfit(words()).into(), 3),
            (Unusable::Foreign(words()).into(), 7),
            (anyhow::anyhow!("words"), 1),
        ] {
            let wrapped = Err::<(), _>(error).context("outer").unwrap_err();
            assert_eq!(code(&wrapped), expected, "{wrapped:#}");
        }
    }
}
