//! Secrets: checked without being printed, and read from files where `X_FILE` names one for `X`.

use std::fs;

use super::environment;

/// Reads a secret's file, if its variable names one, and checks the secret. Messages of the parser of
/// arguments would quote a value that is wrong.
pub(super) fn fill(
    variable: &str,
    value: &mut Option<String>,
    parse: fn(&str) -> Result<String, String>,
) -> Result<(), String> {
    let in_file = format!("{variable}_FILE");
    let mut origin = variable;
    if let Some(path) = environment(&in_file) {
        if value.is_some() {
            return Err(format!(
                "{variable} and {in_file} are both set; set one of them"
            ));
        }
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("{in_file} is {path}, which can't be read: {error}"))?;
        *value = Some(text.trim_end_matches(['\r', '\n']).to_owned());
        origin = &in_file;
    }
    if let Some(text) = value {
        *text = parse(text).map_err(|fault| format!("{origin} {fault}"))?;
    }
    Ok(())
}
