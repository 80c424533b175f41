//! Which text Postgres can hold, and how other text is repaired: U+FFFD takes the place of
//! U+0000, of lone surrogates and of bytes that are no UTF-8. Nothing is refused for its text.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter};

/// Replaces U+0000, which Postgres' `text` and `jsonb` refuse.
pub fn without_nul(text: &str) -> Cow<'_, str> {
    if memchr(0, text.as_bytes()).is_some() {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Cuts to at most `chars_max` characters.
pub fn cut_chars(text: &str, chars_max: usize) -> &str {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// Cuts to at most `bytes_max` bytes, on a character boundary.
pub fn cut_bytes(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max.min(text.len()))]
}

/// Makes JSON text safe to decode and to store: invalid UTF-8, the escape of U+0000 and escapes
/// of lone surrogates become U+FFFD. Text that needs no repair is borrowed.
pub fn repair_json(body: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(body);
    if !has_suspicious_escape(text.as_bytes()) {
        return text;
    }
    Cow::Owned(repair_escapes(&text))
}

/// Escapes that may need repair: `\u0000` and `\ud8..` to `\udf..`.
fn has_suspicious_escape(bytes: &[u8]) -> bool {
    memchr_iter(b'\\', bytes).any(|at| {
        matches!(
            bytes[at + 1..],
            [b'u', b'0', b'0', ..] | [b'u', b'd' | b'D', _, ..]
        )
    })
}

/// Escapes are legal inside strings only, so strings need not be followed.
fn repair_escapes(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut repaired = String::with_capacity(text.len());
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        let (length, sound) = match escaped_unit(&bytes[at..]) {
            Some(0) => (6, false),
            Some(0xd800..=0xdbff) => match escaped_unit(&bytes[at + 6..]) {
                Some(0xdc00..=0xdfff) => (12, true),
                _ => (6, false),
            },
            Some(0xdc00..=0xdfff) => (6, false),
            Some(_) => (6, true),
            None => (2, true),
        };
        if !sound {
            repaired.push_str(&text[copied..at]);
            repaired.push_str("\\ufffd");
            copied = at + length;
        }
        at += length;
    }
    repaired.push_str(&text[copied.min(text.len())..]);
    repaired
}

/// The code unit of a `\uXXXX` escape at the start of `bytes`.
fn escaped_unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

/// JSON text whose characters are themselves: `\uXXXX` escapes, which Python's encoder writes for everything beyond
/// ASCII, become UTF-8, so that a search for 退款 finds them. Escapes of controls, quotes, backslashes and lone
/// surrogates stay, and so does every other byte. Text that is no JSON is borrowed as it is.
pub fn unescape_json(text: &str) -> Cow<'_, str> {
    let may_be_escaped =
        memchr(b'\\', text.as_bytes()).is_some_and(|at| text[at..].contains("\\u"));
    if !may_be_escaped || !crate::json::is_json(text) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut unescaped = String::with_capacity(text.len());
    let (mut copied, mut at) = (0, 0);
    // Escapes are legal inside strings only, so strings need not be followed.
    while let Some(next) = text[at..].find('\\') {
        at += next;
        let (found, length) = escaped_char(&bytes[at..]);
        if let Some(found) = found {
            unescaped.push_str(&text[copied..at]);
            unescaped.push(found);
            copied = at + length;
        }
        at += length;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    unescaped.push_str(&text[copied..]);
    Cow::Owned(unescaped)
}

/// The character that an escape at the start of `bytes` stands for, if it may stand there itself, and the
/// escape's length.
fn escaped_char(bytes: &[u8]) -> (Option<char>, usize) {
    let Some(unit) = escaped_unit(bytes) else {
        return (None, 2);
    };
    let pair = match unit {
        0xd800..=0xdbff => escaped_unit(&bytes[6..]).map(|low| [unit, low]),
        _ => None,
    };
    let units = pair
        .as_ref()
        .map_or(std::slice::from_ref(&unit), |pair| pair.as_slice());
    let mut decoded = char::decode_utf16(units.iter().copied());
    match decoded.next() {
        Some(Ok(char)) if char.is_control() || matches!(char, '"' | '\\') => (None, 6),
        Some(Ok(char)) => (Some(char), 6 * char.len_utf16()),
        _ => (None, 6),
    }
}

/// JSON text as readers get it: integers beyond ±2^53 become strings, since JavaScript would
/// round them. The text must be valid JSON.
pub fn quote_big_integers(json: &str) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let mut quoted = String::new();
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let end = end_of_number(bytes, at);
                if is_big_integer(&json[at..end]) {
                    quoted.push_str(&json[copied..at]);
                    quoted.push('"');
                    quoted.push_str(&json[at..end]);
                    quoted.push('"');
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    quoted.push_str(&json[copied..]);
    Cow::Owned(quoted)
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn end_of_number(bytes: &[u8], start: usize) -> usize {
    let part_of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    start
        + bytes[start..]
            .iter()
            .take_while(|byte| part_of_number(byte))
            .count()
}

fn is_big_integer(number: &str) -> bool {
    const SAFE: i64 = 1 << 53;
    number.len() > 15
        && !number.contains(['.', 'e', 'E'])
        && number
            .parse::<i64>()
            .map_or(true, |value| !(-SAFE..=SAFE).contains(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_text_is_repaired_where_postgres_would_refuse_it() {
        let check = |body: &[u8], expected: &str| assert_eq!(repair_json(body), expected);
        check(br#"{"a":"x\u0000y"}"#, r#"{"a":"x\ufffdy"}"#);
        check(br#"{"a":"\ud83d"}"#, r#"{"a":"\ufffd"}"#);
        check(
            br#"{"a":"\udc00\ud83d\ude00"}"#,
            r#"{"a":"\ufffd\ud83d\ude00"}"#,
        );
        check(br#"{"a":"\ud83dx"}"#, r#"{"a":"\ufffdx"}"#);
        check(br#"{"a":"\\u0000"}"#, r#"{"a":"\\u0000"}"#);
        check(b"{\"a\":\"\xff\"}", "{\"a\":\"\u{fffd}\"}");
        check(br#""\u00"#, r#""\u00"#);
        check(b"\"\\", "\"\\");
        check(br#""\ud83d"#, r#""\ufffd"#);
    }

    #[test]
    fn escapes_become_the_characters_that_they_stand_for() {
        let check = |text: &str, expected: &str| assert_eq!(unescape_json(text), expected);
        check(r#"{"a": "\u9000\u6b3e"}"#, r#"{"a": "退款"}"#);
        check(
            r#"["\ud83d\ude00", "\u00e9\u003c", 1.50e+2 ]"#,
            r#"["😀", "é<", 1.50e+2 ]"#,
        );
        for same in [
            r#"["\u0022\u005c\u005C\u0000\u001f\n\u007f\u0085"]"#,
            r#"["\ud83d", "\ude00\ud83d", "\ud83dx\ude00"]"#,
            r#"["\\u9000"]"#,
            r"no json \u9000",
            r#"{"a": "\u9000"#,
            r#"["退款"]"#,
            "",
        ] {
            assert!(
                matches!(unescape_json(same), Cow::Borrowed(text) if text == same),
                "{same}"
            );
        }
        check(r#"["\ud83d\u9000\\\u9000"]"#, r#"["\ud83d退\\退"]"#);
    }

    #[test]
    fn big_integers_are_quoted_and_nothing_else() {
        let check = |json: &str, expected: &str| assert_eq!(quote_big_integers(json), expected);
        check("9007199254740992", "9007199254740992");
        check("9007199254740993", "\"9007199254740993\"");
        check(
            "[-9007199254740993,1.5e300]",
            "[\"-9007199254740993\",1.5e300]",
        );
        check(
            r#"{"9007199254740993":"9007199254740993"}"#,
            r#"{"9007199254740993":"9007199254740993"}"#,
        );
        check(
            r#"{"a\"":12345678901234567890123}"#,
            r#"{"a\"":"12345678901234567890123"}"#,
        );
        check("0.1234567890123456789", "0.1234567890123456789");
    }

    #[test]
    fn cuts_fall_on_character_boundaries() {
        assert_eq!(cut_bytes("aé", 2), "a");
        assert_eq!(cut_chars("aéb", 2), "aé");
        assert_eq!(cut_chars("a", 2), "a");
    }
}
