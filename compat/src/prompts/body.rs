//! The body that makes a version: names, labels, texts and messages, each with its rules.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use xtrace_model::json as rules;
use xtrace_store::prompts::NewPrompt;

use crate::body::{Issue, Object};
use crate::error::{CompatError, issue};

const NAME_CHARS_MAX: usize = 255;
const LABEL_CHARS_MAX: usize = 36;
const MESSAGE_CHARS_MAX: usize = 500;
/// Names that are paths of Langfuse's own pages.
const RESERVED: [&str; 3] = ["new", "metrics", "prompt-detail"];
const TYPES: [&str; 2] = ["text", "chat"];

/// A new version; its number is not known yet.
pub(super) fn parse(body: Object<'_>) -> Result<NewPrompt, CompatError> {
    let new = parse_members(body).map_err(CompatError::Invalid)?;
    if new.r#type == "chat" {
        check_placeholders(body.sent("prompt").unwrap_or(&Value::Null))?;
    }
    Ok(new)
}

fn parse_members(body: Object<'_>) -> Result<NewPrompt, Issue> {
    let name = body.required_text("name", 0)?.trim().to_owned();
    check_name(&name)?;
    let kind = body.option("type", &TYPES)?.unwrap_or("text");
    let Some(prompt) = body.get("prompt") else {
        return Err(issue::missing(
            &["prompt"],
            if kind == "text" { "string" } else { "array" },
        ));
    };
    match kind {
        "text" if !prompt.is_string() => {
            return Err(issue::wrong_type(&["prompt"], "string", prompt));
        }
        "text" => {}
        _ => check_messages(prompt)?,
    }
    let labels = body.texts("labels")?.unwrap_or_default();
    for (index, label) in labels.iter().enumerate() {
        check_label(index, label)?;
    }
    let commit_message = body.text("commitMessage")?;
    if commit_message
        .as_ref()
        .is_some_and(|text| text.chars().count() > MESSAGE_CHARS_MAX)
    {
        return Err(issue::long("commitMessage", MESSAGE_CHARS_MAX));
    }
    let config = body.get("config").cloned().unwrap_or_else(|| json!({}));
    Ok(NewPrompt {
        id: uuid::Uuid::new_v4().to_string(),
        name,
        r#type: kind,
        prompt: rules::storable(prompt.clone()).to_string(),
        config: rules::storable(config).to_string(),
        labels,
        tags: body.texts("tags")?,
        commit_message,
    })
}

fn check_name(name: &str) -> Result<(), Issue> {
    let opens = name.find('<');
    let has_tag = opens.is_some_and(|at| name[at..].contains('>'));
    let fault = if name.is_empty() {
        "Text cannot be empty"
    } else if has_tag {
        "Text cannot contain HTML tags"
    } else if name.contains('|') {
        "Prompt name cannot contain '|' character"
    } else if name.starts_with('/') {
        "Name cannot start with a slash"
    } else if name.ends_with('/') {
        "Name cannot end with a slash"
    } else if name.contains("//") {
        "Name cannot contain consecutive slashes"
    } else if RESERVED.contains(&name) {
        return Err(issue::custom(
            &[json!("name")],
            &format!("Prompt name cannot be '{name}'"),
        ));
    } else if name.chars().count() > NAME_CHARS_MAX {
        return Err(issue::long("name", NAME_CHARS_MAX));
    } else {
        return Ok(());
    };
    Err(issue::custom(&[json!("name")], fault))
}

fn check_label(index: usize, label: &str) -> Result<(), Issue> {
    let known =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
    if !label.is_empty() && label.len() <= LABEL_CHARS_MAX && label.bytes().all(known) {
        return Ok(());
    }
    let path = [json!("labels"), json!(index)];
    Err(issue::custom(
        &path,
        "Label must be 1 to 36 characters of lowercase letters, digits, underscores, hyphens and periods",
    ))
}

/// Messages of a role and a content, or placeholders of a name.
fn check_messages(prompt: &Value) -> Result<(), Issue> {
    let Value::Array(messages) = prompt else {
        return Err(issue::wrong_type(&["prompt"], "array", prompt));
    };
    for (index, message) in messages.iter().enumerate() {
        let member = |name: &str| {
            let found = message.get(name).unwrap_or(&Value::Null);
            if found.is_string() {
                return Ok(());
            }
            let path = vec![json!("prompt"), json!(index), json!(name)];
            Err(issue::wrong_type_at(path, "string", found))
        };
        if message["type"] == "placeholder" {
            member("name")?;
        } else {
            member("role")?;
            member("content")?;
        }
    }
    Ok(())
}

/// A name is a variable or a placeholder, not both.
fn check_placeholders(prompt: &Value) -> Result<(), CompatError> {
    let messages = prompt.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut variables = BTreeSet::new();
    for content in messages
        .iter()
        .filter_map(|message| message["content"].as_str())
    {
        let pieces = content.split("{{").skip(1);
        variables.extend(pieces.filter_map(|piece| Some(piece.split_once("}}")?.0.trim())));
    }
    let placeholders = messages
        .iter()
        .filter(|message| message["type"] == "placeholder");
    let names = placeholders.filter_map(|message| message["name"].as_str());
    let both: Vec<&str> = names.filter(|name| variables.contains(name)).collect();
    if both.is_empty() {
        return Ok(());
    }
    Err(CompatError::BadRequest(format!(
        "Cannot create prompt, variables and placeholders must be unique, the following are not: {}",
        both.join(", ")
    )))
}
