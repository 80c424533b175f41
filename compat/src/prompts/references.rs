//! Prompts within prompts: `@@@langfusePrompt:name=…|version=…@@@`, put in when a prompt is read.
//!
//! First all that is referred to is looked up, one statement a level; then texts are put in, each made once.
//! Both have a budget: a few short prompts that name each other, or one long prompt that is named often, could
//! become endless.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use serde_json::{Map, Value, json};
use xtrace_model::{ProjectId, json as rules};
use xtrace_store::prompts::{self, Prompt, Referred, Which};
use xtrace_store::{Store, StoreError};

use crate::body;
use crate::error::CompatError;

/// How many prompts lie within each other, the one that is asked for included.
const DEPTH_MAX: usize = 5;
/// Of a prompt with all its references put in.
const BYTES_MAX: usize = 10_000_000;
/// References of a prompt, and of all that it refers to.
const REFERENCES_MAX: usize = 1_000;
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

impl Tag<'_> {
    fn key(&self) -> Key {
        (self.name.to_owned(), self.which.clone())
    }
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

/// A reference that leads somewhere.
type Key = (String, Which);

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
    if texts_of(content).all(|text| tags(text).is_empty()) {
        return Ok(Ok(None));
    }
    match find_all(store, project, content).await {
        Ok(found) => Ok(Resolver::new(root, &found).resolve(content).map(Some)),
        Err(Stop::Fault(words)) => Ok(Err(words)),
        Err(Stop::Store(error)) => Err(error),
    }
}

/// The texts of a prompt: itself, or the contents of its messages.
fn texts_of(content: &Value) -> impl Iterator<Item = &str> {
    let messages = content.as_array().into_iter().flatten();
    let contents = messages.filter_map(|message| message.get("content")?.as_str());
    content.as_str().into_iter().chain(contents)
}

/// Everything that a prompt refers to, down to the last level.
#[derive(Default)]
struct Found {
    prompts: HashMap<Key, Referred>,
    /// By id.
    texts: HashMap<String, String>,
}

async fn find_all(store: &Store, project: &ProjectId, content: &Value) -> Result<Found, Stop> {
    let mut found = Found::default();
    // JSON text is longer than what it says: line ends and quotes are escaped.
    let mut bytes_left = 2 * BYTES_MAX;
    let mut references = 0;
    let mut wanted: Vec<Key> = Vec::new();
    let mut want = |text: &str, wanted: &mut Vec<Key>| {
        let tags = tags(text);
        references += tags.len();
        wanted.extend(tags.iter().map(Tag::key));
        if references <= REFERENCES_MAX {
            return Ok(());
        }
        Err(Stop::Fault(format!(
            "The prompt and all that it refers to have more than {REFERENCES_MAX} references: put texts that \
             are needed often into one prompt"
        )))
    };
    for text in texts_of(content) {
        want(text, &mut wanted)?;
    }
    for _ in 1..DEPTH_MAX {
        let mut seen = HashSet::new();
        wanted.retain(|key| !found.prompts.contains_key(key) && seen.insert(key.clone()));
        if wanted.is_empty() {
            break;
        }
        let level = prompts::find_all(store, project, &wanted, bytes_left).await?;
        let mut next = Vec::new();
        for (place, mut prompt) in level {
            if let Some(json) = prompt.prompt.take() {
                bytes_left = bytes_left.saturating_sub(json.len());
                let text = rules::parse(&json).unwrap_or_default();
                let text = text.as_str().unwrap_or_default();
                if !found.texts.contains_key(&prompt.id) {
                    want(text, &mut next)?;
                    found.texts.insert(prompt.id.clone(), text.to_owned());
                }
            } else if prompt.r#type == "text" && !found.texts.contains_key(&prompt.id) {
                return Err(Stop::Fault(too_large()));
            }
            if let Some(key) = wanted.get(place) {
                found.prompts.insert(key.clone(), prompt);
            }
        }
        wanted = next;
    }
    if wanted.iter().all(|key| found.prompts.contains_key(key)) {
        return Ok(found);
    }
    Err(Stop::Fault(too_deep()))
}

fn too_deep() -> String {
    format!("Maximum nesting depth exceeded ({DEPTH_MAX})")
}

fn too_large() -> String {
    format!(
        "The prompt with all its references has more than {BYTES_MAX} bytes: refer to fewer or shorter prompts"
    )
}

/// A text with its references put in, and how many prompts lie within each other in it.
#[derive(Clone)]
struct Made {
    text: Rc<str>,
    height: usize,
}

/// Puts together what was found.
struct Resolver<'a> {
    root: &'a Root<'a>,
    found: &'a Found,
    /// By id.
    made: HashMap<&'a str, Made>,
    /// Bytes that may still be put together, in all texts.
    bytes_left: usize,
    dependencies: Map<String, Value>,
}

impl<'a> Resolver<'a> {
    fn new(root: &'a Root<'a>, found: &'a Found) -> Self {
        Self {
            root,
            found,
            made: HashMap::new(),
            // Each level holds what is within it once more.
            bytes_left: BYTES_MAX * DEPTH_MAX,
            dependencies: Map::new(),
        }
    }

    fn resolve(mut self, content: &Value) -> Result<Resolved, String> {
        let content = self.content(content)?;
        let (id, version) = (self.root.id, self.root.version);
        let root = json!({"name": self.root.name, "version": version, "id": id});
        let graph = json!({"root": root, "dependencies": self.dependencies});
        Ok(Resolved { content, graph })
    }

    /// A text, or the contents of messages.
    fn content(&mut self, content: &Value) -> Result<Value, String> {
        let mut bytes = 0;
        let mut resolved = |text: &str| {
            let text = self.text(self.root.id, text, &mut Vec::new())?.text;
            bytes += text.len();
            if bytes > BYTES_MAX {
                return Err(too_large());
            }
            Ok(Value::from(&*text))
        };
        let Value::Array(messages) = content else {
            return content.as_str().map_or(Ok(content.clone()), resolved);
        };
        let message = |message: &Value| {
            let Value::Object(members) = message else {
                return Ok(message.clone());
            };
            let member = |(name, value): (&String, &Value)| {
                let value = match value {
                    Value::String(text) if name == "content" => resolved(text)?,
                    other => other.clone(),
                };
                Ok((name.clone(), value))
            };
            let members: Result<Map<String, Value>, String> = members.iter().map(member).collect();
            Ok(Value::Object(members?))
        };
        messages.iter().map(message).collect()
    }

    /// The text of the prompt `id` with its references put in; `path` holds the ids that lead there.
    fn text(&mut self, id: &str, text: &str, path: &mut Vec<&'a str>) -> Result<Made, String> {
        let mut resolved = String::new();
        let mut height = 0;
        let mut rest = text;
        for tag in tags(text) {
            let found = self.find(&tag)?;
            self.remember(id, found);
            let inner = self.inner(found, path)?;
            height = height.max(inner.height);
            let (before, after) = rest.split_once(tag.text).unwrap_or((rest, ""));
            self.push(&mut resolved, before)?;
            self.push(&mut resolved, &inner.text)?;
            rest = after;
        }
        self.push(&mut resolved, rest)?;
        Ok(Made {
            text: resolved.into(),
            height: height + 1,
        })
    }

    fn push(&mut self, resolved: &mut String, text: &str) -> Result<(), String> {
        let left = self.bytes_left.checked_sub(text.len());
        self.bytes_left = left.ok_or_else(too_large)?;
        resolved.push_str(text);
        if resolved.len() > BYTES_MAX {
            return Err(too_large());
        }
        Ok(())
    }

    fn find(&self, tag: &Tag<'_>) -> Result<&'a Referred, String> {
        let reference = match &tag.which {
            Which::Version(version) => format!("{} - version {version}", tag.name),
            Which::Label(label) => format!("{} - label {label}", tag.name),
        };
        match self.found.prompts.get(&tag.key()) {
            None => Err(format!("Prompt dependency not found: {reference}")),
            Some(found) if found.r#type != "text" => Err(format!(
                "Prompt dependency is not a text prompt: {reference}"
            )),
            Some(found) => Ok(found),
        }
    }

    fn remember(&mut self, id: &str, found: &Referred) {
        let entry = json!({"id": found.id, "name": found.name, "version": found.version});
        let of_this = self.dependencies.entry(id).or_insert_with(|| json!([]));
        if let Value::Array(all) = of_this
            && !all.contains(&entry)
        {
            all.push(entry);
        }
    }

    fn inner(&mut self, found: &'a Referred, path: &mut Vec<&'a str>) -> Result<Made, String> {
        if found.name == self.root.name || path.contains(&found.id.as_str()) {
            return Err(format!(
                "Circular dependency detected involving prompt '{}' version {}",
                found.name, found.version
            ));
        }
        let known = self.made.get(found.id.as_str()).cloned();
        // The prompt that is asked for is the first level.
        let depth = 1 + path.len() + known.as_ref().map_or(1, |known| known.height);
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        if let Some(known) = known {
            return Ok(known);
        }
        let text = self.found.texts.get(&found.id);
        path.push(&found.id);
        let made = self.text(&found.id, text.map_or("", String::as_str), path)?;
        path.pop();
        self.made.insert(&found.id, made.clone());
        Ok(made)
    }
}

/// References that a refusal lists; more are counted.
const NEEDED_MAX: usize = 100;

/// Which other prompts need one of the versions that are going, in words; the last line counts what is left out.
pub(super) async fn needed(
    store: &Store,
    project: &ProjectId,
    name: &str,
    going: &[Prompt],
    staying: &[Prompt],
) -> Result<Vec<String>, CompatError> {
    let quoted = Value::from(format!("{OPENING}name={name}|")).to_string();
    let holding = prompts::holding(store, project, quoted.trim_matches('"')).await?;
    let ending = Ending::of(going, staying);
    let bytes = holding.iter().map(|parent| parent.prompt.len()).sum();
    let name = name.to_owned();
    body::aside(bytes, move || ending.dependents(&name, &holding)).await
}

/// What is not there any more once some versions of a name are gone.
struct Ending {
    versions: HashSet<i32>,
    labels: HashSet<String>,
}

impl Ending {
    fn of(going: &[Prompt], staying: &[Prompt]) -> Self {
        let stay: HashSet<&String> = staying.iter().flat_map(|prompt| &prompt.labels).collect();
        let gone = going.iter().flat_map(|prompt| &prompt.labels);
        // The newest version that stays takes the label of the newest over.
        let is_ending = |label: &&String| match label.as_str() {
            prompts::LATEST => staying.is_empty(),
            _ => !stay.contains(label),
        };
        Self {
            versions: going.iter().map(|prompt| prompt.version).collect(),
            labels: gone.filter(is_ending).cloned().collect(),
        }
    }

    /// The prompts of other names that need any of it, in words.
    fn dependents(&self, name: &str, holding: &[Prompt]) -> Vec<String> {
        let (mut words, mut others) = (Vec::new(), 0);
        for parent in holding.iter().filter(|parent| parent.name != name) {
            let references = self.needed_by(name, &parent.prompt);
            let left = NEEDED_MAX - words.len();
            others += references.len().saturating_sub(left);
            let listed = references.into_iter().take(left);
            words.extend(listed.map(|reference| {
                format!(
                    "{} v{} depends on {name} {reference}",
                    parent.name, parent.version
                )
            }));
        }
        if others > 0 {
            words.push(format!("and {others} more"));
        }
        words
    }

    /// The references of a prompt, which is JSON text, that lead to any of it; each once, in their order.
    fn needed_by(&self, name: &str, prompt: &str) -> Vec<String> {
        let content = rules::parse(prompt).unwrap_or_default();
        let tags = texts_of(&content).flat_map(tags);
        let mut seen = HashSet::new();
        let needed = tags.filter(|tag| tag.name == name).filter_map(|tag| {
            let reference = match &tag.which {
                Which::Version(version) if self.versions.contains(version) => format!("v{version}"),
                Which::Label(label) if self.labels.contains(label.as_str()) => label.clone(),
                _ => return None,
            };
            seen.insert(reference.clone()).then_some(reference)
        });
        needed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: i32, labels: &[&str]) -> Prompt {
        Prompt {
            id: number.to_string(),
            name: "n".to_owned(),
            version: number,
            r#type: "text".to_owned(),
            prompt: String::new(),
            config: String::new(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            tags: Vec::new(),
            commit_message: None,
            created_at: chrono::DateTime::UNIX_EPOCH,
            updated_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_ends_is_needed_once_in_order() {
        let going = [version(1, &["production"]), version(2, &["both", "latest"])];
        let staying = [version(3, &["both"])];
        let tag = |which: &str| format!("@@@langfusePrompt:name=n|{which}@@@");
        let text = [
            "version=2",
            "label=both",
            "label=production",
            "version=3",
            "label=latest",
            "version=2",
            "version=1",
        ]
        .map(tag)
        .concat();
        let json = Value::from(text).to_string();
        let needed = |staying: &[Prompt]| Ending::of(&going, staying).needed_by("n", &json);
        assert_eq!(needed(&staying), ["v2", "production", "v1"]);
        assert_eq!(needed(&[]), ["v2", "both", "production", "latest", "v1"]);
        assert!(
            Ending::of(&going, &staying)
                .needed_by("other", &json)
                .is_empty()
        );
    }

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
