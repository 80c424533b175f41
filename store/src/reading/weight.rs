//! What a row weighs: the most bytes that it can be as JSON.

use sqlx::postgres::PgRow;
use sqlx::{Column, Row};

use super::Bound;

/// What a row costs beside its values: names of members, and the values of fixed size.
pub(super) const ROW_BYTES: usize = 512;
/// Columns that are taken apart to be shown, all others are handed on as they are.
const TAKEN_APART: [&str; 8] = [
    "metadata",
    "otel",
    "tool_definitions",
    "model_parameters",
    "body",
    "attributes",
    "rest",
    "experiment",
];
/// Values within them at most; one that is held for itself costs some hundred bytes.
const VALUES_MAX: usize = 400_000;

/// The weight of a row; an error if it can't be taken apart within bounds.
pub(super) fn of(row: &PgRow) -> Result<usize, Bound> {
    let mut weight = ROW_BYTES;
    let mut values = 0;
    for column in row.columns() {
        let Ok(value) = row.try_get_raw(column.ordinal()) else {
            continue;
        };
        let bytes = value.as_bytes().unwrap_or_default();
        weight += escaped(bytes);
        if TAKEN_APART.contains(&column.name()) {
            values += values_within(bytes);
        }
    }
    if values > VALUES_MAX {
        return Err(Bound::Bytes);
    }
    Ok(weight)
}

/// How many values a JSON text is taken apart into, by what begins or separates them outside its strings.
fn values_within(json: &[u8]) -> usize {
    let (mut values, mut is_text, mut is_escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b',' | b'[' | b'{' => values += usize::from(!is_text),
            _ => {}
        }
    }
    values
}

/// How long a text is in a JSON string. In small groups, whose sums fit a byte, so that many bytes are
/// looked at at once.
fn escaped(bytes: &[u8]) -> usize {
    const GROUP: usize = 32;
    let more = |byte: &u8| {
        let is_short = matches!(byte, b'"' | b'\\' | b'\n' | b'\r' | b'\t');
        u8::from(is_short) + 5 * u8::from(!is_short && *byte < 0x20)
    };
    let groups = bytes.chunks(GROUP);
    let more = groups.map(|group| usize::from(group.iter().map(more).sum::<u8>()));
    bytes.len() + more.sum::<usize>()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_list_within_a_text_is_one_value() {
        for (json, values) in [
            (r#"{"a":[1,2,3],"b":{}}"#, 6),
            (r#"{"a":"[1,2,3]","b":"\",{[\\"}"#, 2),
            (r#""[1,2,3]""#, 0),
        ] {
            assert_eq!(super::values_within(json.as_bytes()), values, "{json}");
        }
    }

    #[test]
    fn no_text_is_longer_as_json() {
        for text in ["plain", "\"\\\n\r\t", "\u{0}\u{1f}\u{8}", "退款 ü"] {
            let json = serde_json::to_string(text).unwrap();
            assert!(super::escaped(text.as_bytes()) + 2 >= json.len(), "{json}");
        }
    }
}
