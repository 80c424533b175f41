//! What the items of a dataset must look like: JSON Schemas, each compiled once, evaluated away from the threads
//! that serve requests, if that takes no more than a bounded amount of work (see [`super::work`]).

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use xtrace_model::{ProjectId, json as rules};
use xtrace_store::StoreError;
use xtrace_store::datasets::{Dataset, Item, NamedItem};

use super::work::{self, Counter};
use crate::error::CompatError;
use crate::shares::Shares;

/// Faults that an answer names at most.
const NAMED_MAX: usize = 10;
/// Bytes of a fault's words: they quote the value.
const WORDS_BYTES_MAX: usize = 500;
/// Of a schema as JSON text.
const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Values of a schema.
const SCHEMA_NODES_MAX: usize = 1_000;
/// Of a pattern, compiled.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// Of all patterns of the schemas that are remembered, by estimate: the cache of each may grow as large as it.
const REMEMBERED_BYTES_MAX: usize = 32 << 20;
/// To hold a value against a schema: some 200 objects of a schema for each of 10,000 values.
const WORK_MAX: u64 = 2_000_000;
/// To find all faults of a value that has some; of others the first one is named.
const WORK_OF_FAULTS_MAX: u64 = 200_000;
/// To hold all items of a dataset against a schema that changes.
const WORK_OF_ALL_MAX: u64 = 50_000_000;
/// Validations at once, in all and of a project.
const AT_ONCE_MAX: usize = 2;
const AT_ONCE_OF_PROJECT_MAX: usize = 1;
/// Of the thread: schemas and values within each other are calls within each other.
const STACK_BYTES: usize = 64 << 20;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(20);

/// Compiled schemas, and turns to use them.
#[derive(Clone)]
pub(crate) struct Schemas {
    turns: Arc<Shares>,
    compiled: Arc<Mutex<Compiled>>,
}

/// By schema as JSON text.
#[derive(Default)]
struct Compiled {
    schemas: HashMap<String, Arc<Schema>>,
    bytes: usize,
}

/// A schema, and how values are held against it.
struct Schema {
    value: Value,
    validator: Validator,
}

impl Default for Schemas {
    fn default() -> Self {
        Self {
            turns: Arc::new(Shares::new(AT_ONCE_MAX, AT_ONCE_OF_PROJECT_MAX)),
            compiled: Arc::default(),
        }
    }
}

impl Schemas {
    /// Whether a value is a schema that can be used; the fault is for the caller to read.
    pub(super) async fn check(
        &self,
        project: &ProjectId,
        schema: String,
    ) -> Result<Result<(), String>, CompatError> {
        self.aside(project, move |schemas| schemas.compile(&schema).map(drop))
            .await
    }

    /// Holds an item against the schemas of its dataset.
    pub(super) async fn check_item(
        &self,
        project: &ProjectId,
        dataset: &Dataset,
        item: &Item,
    ) -> Result<(), CompatError> {
        let pairs = pairs(dataset, item);
        if pairs.is_empty() {
            return Ok(());
        }
        let faults = self.aside(project, move |schemas| {
            let mut work = WORK_MAX;
            schemas.faults(&pairs, &mut work)
        });
        let faults = faults.await?.map_err(CompatError::BadRequest)?;
        if faults.is_empty() {
            return Ok(());
        }
        Err(CompatError::BadRequest(format!(
            "Dataset item validation failed: {}",
            faults.join("; ")
        )))
    }

    /// Holds all items against the schemas of their dataset.
    pub(super) async fn check_all(
        &self,
        project: &ProjectId,
        dataset: &Dataset,
        items: Vec<NamedItem>,
    ) -> Result<(), CompatError> {
        let dataset = dataset.clone();
        let broken = self.aside(project, move |schemas| schemas.broken(&dataset, &items));
        let broken = broken.await?.map_err(CompatError::BadRequest)?;
        let count = match broken.len() {
            0 => return Ok(()),
            NAMED_MAX => "more than 10".to_owned(),
            count => count.to_string(),
        };
        Err(CompatError::BadRequest(format!(
            "Schema validation failed for {count} item(s). Details: {}",
            broken.join(" | ")
        )))
    }

    /// Works where no request is served, when it is the project's turn.
    async fn aside<T: Send + 'static>(
        &self,
        project: &ProjectId,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, CompatError> {
        let turn = self.turns.take_within(project, PATIENCE).await;
        let turn = turn.ok_or(StoreError::Overloaded {
            retry_after: Duration::from_secs(2),
        })?;
        let schemas = self.clone();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("schema".to_owned())
            .stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            let outcome = work(&schemas);
            // Whoever asked may be gone; the turn ends with the work.
            drop(turn);
            let _ = answer.send(outcome);
        });
        started.map_err(|_| StoreError::Unavailable(None))?;
        answered.await.map_err(|_| CompatError::Fault)
    }

    fn broken(&self, dataset: &Dataset, items: &[NamedItem]) -> Result<Vec<String>, String> {
        let mut broken = Vec::new();
        let mut left_of_all = WORK_OF_ALL_MAX;
        for NamedItem { item, .. } in items {
            let mut work = left_of_all.min(WORK_MAX);
            let before = work;
            let faults = self.faults(&pairs(dataset, item), &mut work)?;
            left_of_all = left_of_all.saturating_sub(before - work);
            if !faults.is_empty() {
                broken.push(format!("{}: {}", item.id, faults.join("; ")));
            }
            if broken.len() >= NAMED_MAX {
                break;
            }
        }
        Ok(broken)
    }

    fn faults(&self, pairs: &[Pair], work: &mut u64) -> Result<Vec<String>, String> {
        let mut faults = Vec::new();
        for pair in pairs {
            let schema = self.compile(&pair.schema)?;
            let value = pair.value.as_deref();
            let Some(value) = value.map_or(Some(Value::Null), rules::parse) else {
                return Err(format!(
                    "{}: it has too many values to be held against a schema",
                    pair.what
                ));
            };
            let found = schema.faults_of(&value, work).map_err(|fault| {
                format!("{} can't be held against its schema: {fault}", pair.what)
            })?;
            if !found.is_empty() {
                faults.push(format!(
                    "{} validation failed: {}",
                    pair.what,
                    found.join(", ")
                ));
            }
        }
        Ok(faults)
    }

    fn compile(&self, schema: &str) -> Result<Arc<Schema>, String> {
        let compiled = || self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = compiled().schemas.get(schema) {
            return Ok(Arc::clone(known));
        }
        if schema.len() > SCHEMA_BYTES_MAX {
            return Err(format!("it has more than {SCHEMA_BYTES_MAX} bytes"));
        }
        let value = rules::parse(schema).unwrap_or_default();
        let bytes = 20 * schema.len() + patterns(&value) * PATTERN_BYTES_MAX;
        let new = Arc::new(Schema {
            validator: compile(&value)?,
            value,
        });
        if bytes <= REMEMBERED_BYTES_MAX {
            let mut compiled = compiled();
            if compiled.bytes + bytes > REMEMBERED_BYTES_MAX {
                *compiled = Compiled::default();
            }
            let known = compiled.schemas.insert(schema.to_owned(), Arc::clone(&new));
            if known.is_none() {
                compiled.bytes += bytes;
            }
        }
        Ok(new)
    }
}

/// A value and what it must look like.
struct Pair {
    what: &'static str,
    schema: String,
    value: Option<String>,
}

fn pairs(dataset: &Dataset, item: &Item) -> Vec<Pair> {
    let parts = [
        ("Input", &dataset.input_schema, &item.input),
        (
            "Expected output",
            &dataset.expected_output_schema,
            &item.expected_output,
        ),
    ];
    let pairs = parts.into_iter().filter_map(|(what, schema, value)| {
        Some(Pair {
            what,
            schema: schema.clone()?,
            value: value.clone(),
        })
    });
    pairs.collect()
}

fn compile(schema: &Value) -> Result<Validator, String> {
    if !schema.is_object() {
        return Err("it is no object".to_owned());
    }
    if work::nodes(schema) > SCHEMA_NODES_MAX {
        return Err(format!("it has more than {SCHEMA_NODES_MAX} values"));
    }
    let any = Counter::new(schema, WORK_MAX).work(&Value::Null);
    any.map_err(|fault| fault.to_string())?;
    let patterns = PatternOptions::regex()
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX);
    // References to other documents are not followed: nothing is fetched for a stranger's schema.
    jsonschema::options()
        .with_pattern_options(patterns)
        .build(schema)
        .map_err(|error| with_rules(words(&error)))
}

/// Says what a pattern may be, where one is refused.
fn with_rules(fault: String) -> String {
    if !fault.ends_with("is not a \"regex\"") {
        return fault;
    }
    format!(
        "{fault}: patterns have no look-around and no back references, and not more than {PATTERN_BYTES_MAX} \
         bytes when compiled"
    )
}

/// Patterns that a schema may have at most.
fn patterns(schema: &Value) -> usize {
    match schema {
        Value::Array(items) => items.iter().map(patterns).sum(),
        Value::Object(members) => {
            let of_member = |(name, value): (&String, &Value)| match (name.as_str(), value) {
                ("patternProperties", Value::Object(named)) => named.len() + patterns(value),
                ("pattern", Value::String(_)) => 1,
                (_, value) => patterns(value),
            };
            members.iter().map(of_member).sum()
        }
        _ => 0,
    }
}

impl Schema {
    /// Up to ten faults of a value.
    fn faults_of(&self, value: &Value, work: &mut u64) -> Result<Vec<String>, work::Fault> {
        let needed = Counter::new(&self.value, *work).work(value)?;
        *work = work.saturating_sub(needed);
        if self.validator.is_valid(value) {
            return Ok(Vec::new());
        }
        if needed > WORK_OF_FAULTS_MAX {
            let first = self.validator.validate(value).err();
            return Ok(first.iter().map(words).collect());
        }
        let all = self.validator.iter_errors(value).take(NAMED_MAX);
        Ok(all.map(|error| words(&error)).collect())
    }
}

/// Words of a bounded length: they quote the value, which may be long.
fn words(fault: &impl std::fmt::Display) -> String {
    struct Bounded(String);
    impl Write for Bounded {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let room = WORDS_BYTES_MAX - self.0.len();
            let taken = xtrace_model::text::cut_bytes(text, room);
            self.0.push_str(taken);
            if taken.len() < text.len() {
                return Err(std::fmt::Error);
            }
            Ok(())
        }
    }
    let mut words = Bounded(String::new());
    if write!(words, "{fault}").is_err() {
        words.0.push('…');
    }
    words.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(schema: &Value, value: &Value) -> Result<Vec<String>, String> {
        let schemas = Schemas::default();
        let pair = Pair {
            what: "Input",
            schema: schema.to_string(),
            value: Some(value.to_string()),
        };
        schemas.faults(&[pair], &mut WORK_MAX.clone())
    }

    /// Each level asks twice for the level below.
    fn doubling(keyword: &str, levels: usize, lowest: &Value) -> Value {
        let mut defs = serde_json::Map::from_iter([("d0".to_owned(), lowest.clone())]);
        for level in 1..=levels {
            let below = json!({"$ref": format!("#/$defs/d{}", level - 1)});
            defs.insert(format!("d{level}"), json!({keyword: [below, below]}));
        }
        json!({"$defs": defs, "$ref": format!("#/$defs/d{levels}")})
    }

    #[test]
    fn what_doubles_with_each_level_ends_or_is_refused() {
        for keyword in ["allOf", "anyOf", "oneOf"] {
            for lowest in [json!({"type": "object"}), json!({"type": "string"})] {
                for value in [json!({"a": 1}), json!([1, 2])] {
                    let fault = faults(&doubling(keyword, 40, &lowest), &value).unwrap_err();
                    assert!(fault.contains("too much work"), "{fault}");
                    faults(&doubling(keyword, 8, &lowest), &value).unwrap();
                }
            }
        }
        // Within each member again: 2^n for n levels of the value.
        let schema = json!({"$defs": {"d": {"properties": {"a": {"allOf": [{"$ref": "#/$defs/d"},
            {"$ref": "#/$defs/d"}, {"type": "object"}]}}}}, "$ref": "#/$defs/d"});
        let mut value = json!(1);
        for _ in 0..60 {
            value = json!({ "a": value });
        }
        let fault = faults(&schema, &value).unwrap_err();
        assert!(fault.contains("too much work"), "{fault}");
        // All ways round a circle.
        let all: Vec<Value> = (0..12)
            .map(|n| json!({"$ref": format!("#/$defs/d{n}")}))
            .collect();
        let defs: serde_json::Map<String, Value> = (0..12)
            .map(|n| (format!("d{n}"), json!({"anyOf": all})))
            .collect();
        let circle = json!({"$defs": defs, "$ref": "#/$defs/d0"});
        let fault = faults(&circle, &json!(1)).unwrap_err();
        assert!(fault.contains("refers to itself"), "{fault}");
        // One more look at each level for what nobody looked at.
        let mut schema = json!({"type": "object"});
        for _ in 0..40 {
            schema = json!({"allOf": [schema], "unevaluatedProperties": true});
        }
        let fault = faults(&schema, &json!({"a": 1})).unwrap_err();
        assert!(fault.contains("too much work"), "{fault}");
    }

    #[test]
    fn what_is_within_each_other_fits_the_stack() {
        let levels = 240;
        let mut defs = serde_json::Map::from_iter([("d0".to_owned(), json!({"type": "string"}))]);
        for level in 1..=levels {
            let below = json!({"$ref": format!("#/$defs/d{}", level - 1)});
            defs.insert(format!("d{level}"), json!({"properties": {"a": below}}));
        }
        let mut value = json!(1);
        for _ in 0..120 {
            value = json!({ "a": value });
        }
        let schema = json!({"$defs": defs, "$ref": format!("#/$defs/d{levels}")});
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let outcome = thread.spawn(move || faults(&schema, &value)).unwrap();
        assert_eq!(outcome.join().unwrap(), Ok(Vec::new()));
    }

    #[test]
    fn recursive_schemas_and_anchors_are_understood() {
        let tree = json!({"$id": "https://example.com/tree", "$anchor": "node", "type": "object",
            "properties": {"left": {"$ref": "#node"}, "right": {"$ref": "#"},
                "next": {"$ref": "https://example.com/tree"}, "n": {"$ref": "#/$defs/n%7E1x"}},
            "additionalProperties": false, "$defs": {"n/x": {"type": "integer"}}});
        // One text for each value that was checked, which names every fault of it.
        let named = |value: Value| {
            let texts = faults(&tree, &value).unwrap();
            texts.join("").matches(" is not of type ").count()
        };
        let sound = json!({"left": {"right": {"next": {"n": 1}}}, "n": 2});
        assert_eq!(faults(&tree, &sound), Ok(Vec::new()));
        assert_eq!(
            named(json!({"left": {"right": {"next": {"n": "1"}}}, "n": 2.5})),
            2
        );
        assert_eq!(faults(&tree, &json!({"other": 1})).unwrap().len(), 1);
    }

    #[test]
    fn schemas_are_bounded_and_patterns_are_linear() {
        let refused = |schema: Value, words: &str| {
            let fault = faults(&schema, &json!("a")).unwrap_err();
            assert!(fault.contains(words), "{fault}");
        };
        refused(json!({"title": "x".repeat(SCHEMA_BYTES_MAX)}), "bytes");
        refused(json!({"enum": vec![1; SCHEMA_NODES_MAX]}), "values");
        refused(json!([]), "object");
        refused(json!({"pattern": r"(?=a)b"}), "look-around");
        refused(json!({"pattern": r"(\w{500}){500}"}), "when compiled");
        refused(
            json!({"$ref": "https://example.com/x"}),
            "does not lead into",
        );
        refused(json!({"$ref": "#/nowhere"}), "does not lead into");
        let inner = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$id": "b", "$ref": "#/$defs/a"}}});
        refused(inner, "does not lead into");
        // A value that costs too much to match.
        let schema = json!({"items": {"pattern": "^(a+)+$"}});
        let value = json!(vec!["a".repeat(10_000); 2_000]);
        let fault = faults(&schema, &value).unwrap_err();
        assert!(fault.contains("too much work"), "{fault}");
        let found = faults(&schema, &json!(["a".repeat(10_000) + "b"])).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].len() < 600, "{}", found[0].len());
    }
}
