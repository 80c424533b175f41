//! Environments on the Langfuse and OTLP paths are normalised, never refused.

/// The environment of everything that names none.
pub const DEFAULT: &str = "default";

/// Lower-cases, strips leading `langfuse` prefixes, cuts to 40 characters; what then is empty or
/// holds anything but `a-z0-9_-` is `default`. (Langfuse's public rule; golden cases V-9.)
pub fn normalise(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut rest = lower.as_str();
    while let Some(stripped) = rest.strip_prefix("langfuse") {
        rest = stripped.strip_prefix(['-', '_']).unwrap_or(stripped);
    }
    let cut = crate::text::cut_chars(rest, 40);
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if !cut.is_empty() && cut.bytes().all(plain) {
        cut.to_owned()
    } else {
        DEFAULT.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_are_normalised() {
        let check = |text: &str, expected: &str| assert_eq!(normalise(text), expected);
        check("Prod", "prod");
        check("langfuse-test", "test");
        check("langfuselangfuse-x", "x");
        check("Langfuse-Prod!", "default");
        check(".invalid!", "default");
        check("langfuse", "default");
        check(&"a".repeat(50), &"a".repeat(40));
    }
}
