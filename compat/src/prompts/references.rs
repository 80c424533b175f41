//! Prompts within prompts: `@@@langfusePrompt:name=…|version=…@@@`, put in when a prompt is read.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use xtrace_model::{ProjectId, json as rules};
use xtrace_store::prompts::{self, Prompt, Which};
use xtrace_store::{Store, StoreError};

/// How deep references may go.
const DEPTH_MAX: usize = 5;
/// A few short prompts that name each other often could become endless.
const BYTES_MAX: usize = 10_000_000;
const OPENING: &str = "@@@langfusePrompt:";
const CLOSING: &str = "@@@";

/// The prompt that is asked for.
pub(super) struct Root<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    /// None while it is made.
    pub(super) version: Option<i32>,
}

/// A prompt with all that it refers to.
pub(super) struct Resolved {
    pub(super) content: Value,
    pub(super) graph: Value,
}

/// A reference and where it stands.
#[derive(Debug, PartialEq)]
struct Tag<'a> {
    text: &'a str,
    name: &'a str,
    which: Which,
}

/// All well-formed references of a text; the others are text.
fn tags(text: &str) -> Vec<Tag<'_>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find(OPENING) {
        let begin = from + at;
        let inner = begin + OPENING.len();
        let Some(length) = text[inner..].find(CLOSING) else {
            break;
        };
        let end = inner + length;
        from = end + CLOSING.len();
        if let Some((name, which)) = reference(&text[inner..end]) {
            found.push(Tag {
                text: &text[begin..from],
                name,
                which,
            });
        }
    }
    found
}

fn reference(inner: &str) -> Option<(&str, Which)> {
    let (name, which) = inner.split_once('|')?;
    let name = name.strip_prefix("name=")?;
    if let Some(version) = which.strip_prefix("version=") {
        return Some((name, Which::Version(version.parse().ok()?)));
    }
    let label = which
        .strip_prefix("label=")
        .filter(|label| !label.contains('|'))?;
    Some((name, Which::Label(label.to_owned())))
}

/// What is being put in.
struct Resolver<'a> {
    store: &'a Store,
    project: &'a ProjectId,
    root: &'a Root<'a>,
    /// Texts by id, with all references put in.
    texts: HashMap<String, String>,
    dependencies: Map<String, Value>,
}

/// What stops a resolution: words for the caller, or the store.
enum Stop {
    Fault(String),
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Puts references in. None if there are none; the inner error is for the caller to read.
pub(super) async fn resolve(
    store: &Store,
    project: &ProjectId,
    root: &Root<'_>,
    content: &Value,
) -> Result<Result<Option<Resolved>, String>, StoreError> {
    let mut resolver = Resolver {
        store,
        project,
        root,
        texts: HashMap::new(),
        dependencies: Map::new(),
    };
    match resolver.content(content).await {
        Ok(_) if resolver.dependencies.is_empty() => Ok(Ok(None)),
        Ok(content) => {
            let version = root.version;
            let root = json!({"name": root.name, "version": version, "id": root.id});
            let graph = json!({"root": root, "dependencies": resolver.dependencies});
            Ok(Ok(Some(Resolved { content, graph })))
        }
        Err(Stop::Fault(words)) => Ok(Err(words)),
        Err(Stop::Store(error)) => Err(error),
    }
}

impl Resolver<'_> {
    /// A text, or the contents of messages.
    async fn content(&mut self, content: &Value) -> Result<Value, Stop> {
        let id = self.root.id;
        match content {
            Value::String(text) => Ok(self.text(id, text, &mut Vec::new()).await?.into()),
            Value::Array(messages) => {
                let mut resolved = messages.clone();
                for message in &mut resolved {
                    if let Some(Value::String(text)) = message.get_mut("content") {
                        *text = self.text(id, text, &mut Vec::new()).await?;
                    }
                }
                Ok(resolved.into())
            }
            other => Ok(other.clone()),
        }
    }

    /// The text of the prompt `id` with its references put in; `path` holds the ids that lead there.
    async fn text(&mut self, id: &str, text: &str, path: &mut Vec<String>) -> Result<String, Stop> {
        let mut resolved = String::new();
        let mut rest = text;
        for tag in tags(text) {
            let found = self.find(&tag).await?;
            self.remember(id, &found);
            let inner = self.inner(&found, path).await?;
            let (before, after) = rest.split_once(tag.text).unwrap_or((rest, ""));
            resolved.push_str(before);
            resolved.push_str(&inner);
            rest = after;
            if resolved.len() > BYTES_MAX {
                return Err(Stop::Fault(format!(
                    "The resolved prompt is larger than {BYTES_MAX} bytes"
                )));
            }
        }
        resolved.push_str(rest);
        Ok(resolved)
    }

    async fn find(&self, tag: &Tag<'_>) -> Result<Prompt, Stop> {
        let reference = match &tag.which {
            Which::Version(version) => format!("{} - version {version}", tag.name),
            Which::Label(label) => format!("{} - label {label}", tag.name),
        };
        let found = prompts::find(self.store, self.project, tag.name, &tag.which).await?;
        match found {
            None => Err(Stop::Fault(format!(
                "Prompt dependency not found: {reference}"
            ))),
            Some(found) if found.r#type != "text" => Err(Stop::Fault(format!(
                "Prompt dependency is not a text prompt: {reference}"
            ))),
            Some(found) => Ok(found),
        }
    }

    fn remember(&mut self, id: &str, found: &Prompt) {
        let entry = json!({"id": found.id, "name": found.name, "version": found.version});
        let of_this = self.dependencies.entry(id).or_insert_with(|| json!([]));
        if let Value::Array(all) = of_this
            && !all.contains(&entry)
        {
            all.push(entry);
        }
    }

    async fn inner(&mut self, found: &Prompt, path: &mut Vec<String>) -> Result<String, Stop> {
        if found.name == self.root.name || path.contains(&found.id) {
            return Err(Stop::Fault(format!(
                "Circular dependency detected involving prompt '{}' version {}",
                found.name, found.version
            )));
        }
        if path.len() >= DEPTH_MAX {
            return Err(Stop::Fault(format!(
                "Maximum nesting depth exceeded ({DEPTH_MAX})"
            )));
        }
        if let Some(text) = self.texts.get(&found.id) {
            return Ok(text.clone());
        }
        let raw = rules::parse(&found.prompt).unwrap_or_default();
        path.push(found.id.clone());
        let text = Box::pin(self.text(&found.id, raw.as_str().unwrap_or_default(), path)).await?;
        path.pop();
        self.texts.insert(found.id.clone(), text.clone());
        Ok(text)
    }
}

/// Which other prompts need one of the versions that are going, in words.
pub(super) async fn needed(
    store: &Store,
    project: &ProjectId,
    name: &str,
    going: &[Prompt],
    staying: &[Prompt],
) -> Result<Vec<String>, StoreError> {
    let quoted = Value::from(format!("{OPENING}name={name}|")).to_string();
    let holding = prompts::holding(store, project, quoted.trim_matches('"')).await?;
    let mut needed = Vec::new();
    for parent in holding.iter().filter(|parent| parent.name != name) {
        let content = rules::parse(&parent.prompt).unwrap_or_default();
        let mut texts = Vec::new();
        match &content {
            Value::String(text) => texts.push(text.as_str()),
            other => {
                let messages = other.as_array().into_iter().flatten();
                texts.extend(messages.filter_map(|message| message["content"].as_str()));
            }
        }
        for tag in texts
            .into_iter()
            .flat_map(tags)
            .filter(|tag| tag.name == name)
        {
            let (is_needed, reference) = match &tag.which {
                Which::Version(version) => (
                    going.iter().any(|prompt| prompt.version == *version),
                    format!("v{version}"),
                ),
                Which::Label(label) => (
                    going.iter().any(|prompt| prompt.labels.contains(label))
                        && label != prompts::LATEST
                        && !staying.iter().any(|prompt| prompt.labels.contains(label))
                        || label == prompts::LATEST && staying.is_empty(),
                    label.clone(),
                ),
            };
            let words = format!(
                "{} v{} depends on {name} {reference}",
                parent.name, parent.version
            );
            if is_needed && !needed.contains(&words) {
                needed.push(words);
            }
        }
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_references_count() {
        let text = "a @@@langfusePrompt:name=x/y|version=2@@@ b @@@langfusePrompt:name=z|label=prod@@@\
            @@@langfusePrompt:version=2|name=x@@@ @@@langfusePrompt:name=x@@@ \
            @@@langfusePrompt:name=x|version=two@@@ @@@langfusePrompt:name=x|label=a|b@@@ @@@langfusePrompt:";
        let found: Vec<(&str, Which)> = tags(text)
            .into_iter()
            .map(|tag| (tag.name, tag.which))
            .collect();
        assert_eq!(
            found,
            [
                ("x/y", Which::Version(2)),
                ("z", Which::Label("prod".to_owned()))
            ]
        );
    }
}
