//! What a validation would cost, counted before it begins: nothing can stop it once it runs. Schemas make little text
//! into endless work, since each level of `allOf: [{"$ref": below}, {"$ref": below}]` doubles it.
//!
//! The count is an upper bound. It goes the ways that a validator goes, into every branch, and remembers what each
//! schema costs for each value, so that it is itself done in (schemas × values) steps.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Schemas that are evaluated within each other, for a value and what lies within it.
const DEPTH_MAX: usize = 1_000;
/// About as much work as a keyword: bytes that are read, and steps of a pattern over them.
const BYTES_PER_STEP: u64 = 64;

/// Why a schema is not used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    TooMuch,
    Endless,
    Reference(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooMuch => {
                formatter.write_str("too much work; make the schema simpler or the value smaller")
            }
            Self::Endless => formatter.write_str("a schema refers to itself for the same value"),
            Self::Reference(target) => write!(
                formatter,
                "the reference {target} does not lead into this schema: only # and #/… and #anchor do"
            ),
        }
    }
}

/// Counts for one schema.
pub(super) struct Counter<'a> {
    root: &'a Value,
    /// By the addresses of a schema and a value; none while it is counted.
    counted: HashMap<(usize, usize), Option<u64>>,
    max: u64,
    depth: usize,
}

impl<'a> Counter<'a> {
    /// Counts up to so much work, in no more steps than that.
    pub(super) fn new(root: &'a Value, max: u64) -> Self {
        Self {
            root,
            counted: HashMap::new(),
            max,
            depth: 0,
        }
    }

    /// The work of holding a value against the schema.
    pub(super) fn work(&mut self, value: &'a Value) -> Result<u64, Fault> {
        self.of(self.root, value)
    }

    fn of(&mut self, schema: &'a Value, value: &'a Value) -> Result<u64, Fault> {
        let Value::Object(members) = schema else {
            return Ok(1);
        };
        let key = (
            std::ptr::from_ref(schema) as usize,
            std::ptr::from_ref(value) as usize,
        );
        match self.counted.get(&key) {
            Some(Some(work)) => return Ok(*work),
            // The validator would try every order of going round.
            Some(None) => return Err(Fault::Endless),
            None => {}
        }
        if self.depth >= DEPTH_MAX || self.counted.len() as u64 >= self.max {
            return Err(Fault::TooMuch);
        }
        self.counted.insert(key, None);
        self.depth += 1;
        let within = self.within(members, value)?;
        self.depth -= 1;
        let work = own(members, value).saturating_add(within);
        if work > self.max {
            return Err(Fault::TooMuch);
        }
        self.counted.insert(key, Some(work));
        Ok(work)
    }

    /// The work of the schemas within a schema.
    fn within(&mut self, members: &'a Map<String, Value>, value: &'a Value) -> Result<u64, Fault> {
        let (mut here, mut below) = (0_u64, 0_u64);
        for (name, inner) in members {
            match name.as_str() {
                "allOf" | "anyOf" | "oneOf" => {
                    for schema in inner.as_array().into_iter().flatten() {
                        here = here.saturating_add(self.of(schema, value)?);
                    }
                }
                "dependentSchemas" | "dependencies" => {
                    for schema in inner.as_object().into_iter().flat_map(Map::values) {
                        here = here.saturating_add(self.of(schema, value)?);
                    }
                }
                "not" | "if" | "then" | "else" => {
                    here = here.saturating_add(self.of(inner, value)?);
                }
                "$ref" | "$dynamicRef" | "$recursiveRef" => {
                    for schema in self.targets(inner)? {
                        here = here.saturating_add(self.of(schema, value)?);
                    }
                }
                _ => below = below.saturating_add(self.below(name, inner, value)?),
            }
        }
        // To know which members nobody looked at, they are all looked at again, maybe for each of them.
        let is_repeated = ["unevaluatedProperties", "unevaluatedItems"]
            .iter()
            .any(|name| members.contains_key(*name));
        let times = if is_repeated { 2 + length(value) } else { 1 };
        Ok(here.saturating_mul(times).saturating_add(below))
    }

    /// The work of a keyword that goes into a value.
    fn below(&mut self, name: &str, inner: &'a Value, value: &'a Value) -> Result<u64, Fault> {
        let mut work = 0_u64;
        match (name, value) {
            ("properties", Value::Object(values)) => {
                for (name, schema) in inner.as_object().into_iter().flatten() {
                    if let Some(value) = values.get(name) {
                        work = work.saturating_add(self.of(schema, value)?);
                    }
                }
            }
            ("patternProperties", Value::Object(values)) => {
                for schema in inner.as_object().into_iter().flat_map(Map::values) {
                    for value in values.values() {
                        work = work.saturating_add(self.of(schema, value)?);
                    }
                }
            }
            ("additionalProperties" | "unevaluatedProperties", Value::Object(values)) => {
                for value in values.values() {
                    work = work.saturating_add(self.of(inner, value)?);
                }
            }
            ("propertyNames", Value::Object(values)) => {
                // Names are texts; what a pattern costs is among what the object costs by itself.
                let of_one = self.of(inner, &Value::Null)?;
                let bytes: usize = values.keys().map(String::len).sum();
                let read = steps(bytes, inner.to_string().len());
                work = of_one
                    .saturating_mul(values.len() as u64)
                    .saturating_add(read);
            }
            (
                "items" | "prefixItems" | "additionalItems" | "unevaluatedItems" | "contains",
                Value::Array(values),
            ) => {
                let schemas = inner
                    .as_array()
                    .map_or(std::slice::from_ref(inner), Vec::as_slice);
                for schema in schemas {
                    for value in values {
                        work = work.saturating_add(self.of(schema, value)?);
                    }
                }
            }
            _ => {}
        }
        Ok(work)
    }

    /// Where a reference may lead.
    fn targets(&self, reference: &Value) -> Result<Vec<&'a Value>, Fault> {
        let target = reference.as_str().unwrap_or_default();
        let own = ["$id", "id"]
            .iter()
            .find_map(|name| self.root.get(*name)?.as_str());
        let own = own.map(|id| id.trim_end_matches('#'));
        let local = own.and_then(|id| target.strip_prefix(id)).unwrap_or(target);
        let decoded = percent_decode_str(local).decode_utf8_lossy();
        let found = match decoded
            .strip_prefix('#')
            .or(decoded.is_empty().then_some(""))
        {
            Some("") => vec![self.root],
            Some(pointer) if pointer.starts_with('/') => {
                self.root.pointer(pointer).into_iter().collect()
            }
            Some(anchor) => {
                let mut found = Vec::new();
                anchored(self.root, anchor, &mut found);
                found
            }
            None => Vec::new(),
        };
        // An id within the schema makes references lead elsewhere.
        if found.is_empty() || has_inner_id(self.root, true) {
            return Err(Fault::Reference(target.to_owned()));
        }
        Ok(found)
    }
}

/// The work of an object of a schema without the schemas within it.
fn own(members: &Map<String, Value>, value: &Value) -> u64 {
    let plain = ["enum", "const", "required", "dependentRequired"];
    let plain = plain.iter().filter_map(|name| members.get(*name));
    let named = members.get("patternProperties").and_then(Value::as_object);
    let patterns = named.into_iter().flat_map(Map::keys).map(String::len);
    let pattern = members.get("pattern").and_then(Value::as_str).map(str::len);
    let pattern_bytes: usize = patterns.chain(pattern).sum();
    let bytes = match value {
        Value::String(text) => text.len(),
        Value::Object(members) => members.keys().map(String::len).sum(),
        _ => 0,
    };
    let keywords = 1 + members.len() + plain.map(nodes).sum::<usize>();
    (keywords as u64)
        .saturating_add(length(value))
        .saturating_add(steps(bytes, 1 + pattern_bytes))
}

fn steps(bytes: usize, pattern_bytes: usize) -> u64 {
    (bytes as u64).saturating_mul(pattern_bytes as u64) / BYTES_PER_STEP
}

fn length(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.len() as u64,
        Value::Object(members) => members.len() as u64,
        _ => 0,
    }
}

/// All values within a value.
pub(super) fn nodes(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nodes).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(nodes).sum::<usize>(),
        _ => 1,
    }
}

fn anchored<'a>(schema: &'a Value, anchor: &str, found: &mut Vec<&'a Value>) {
    match schema {
        Value::Array(items) => items.iter().for_each(|item| anchored(item, anchor, found)),
        Value::Object(members) => {
            let is =
                |name: &str, text: &str| members.get(name).and_then(Value::as_str) == Some(text);
            if is("$anchor", anchor)
                || is("$dynamicAnchor", anchor)
                || is("$id", &format!("#{anchor}"))
            {
                found.push(schema);
            }
            members
                .values()
                .for_each(|member| anchored(member, anchor, found));
        }
        _ => {}
    }
}

fn has_inner_id(schema: &Value, is_root: bool) -> bool {
    match schema {
        Value::Array(items) => items.iter().any(|item| has_inner_id(item, false)),
        Value::Object(members) => {
            let is_id = |name: &str| {
                let id = members.get(name).and_then(Value::as_str);
                id.is_some_and(|id| !id.starts_with('#'))
            };
            !is_root && (is_id("$id") || is_id("id"))
                || members.values().any(|member| has_inner_id(member, false))
        }
        _ => false,
    }
}
