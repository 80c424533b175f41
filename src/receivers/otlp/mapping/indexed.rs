//! Objects and arrays that instrumentations flatten into dotted keys, rebuilt (rule IDX).
//! `gen_ai.prompt.0.role` and `gen_ai.prompt.0.content` become `[{"role": …, "content": …}]`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::attributes::Attributes;

/// Slots of all arrays of one side at most; attributes that would need more are left out.
const SLOTS_MAX: usize = 10_001;

/// Rebuilds what lies under `prefix`, of the keys that `belongs` accepts (given what follows the
/// dot). Returns the value and the keys that it was made of.
pub(super) fn rebuild(
    attributes: &Attributes,
    prefix: &str,
    belongs: impl Fn(&str) -> bool,
) -> Option<(Value, Vec<String>)> {
    let mut root = Node::default();
    let mut keys = Vec::new();
    let mut slots = SLOTS_MAX;
    let dotted = [prefix, "."].concat();
    for (path, value) in attributes.under(&dotted).filter(|(path, _)| belongs(path)) {
        if root.insert(path, value.clone(), &mut slots) {
            keys.push([dotted.as_str(), path].concat());
        }
    }
    if keys.is_empty() {
        None
    } else {
        Some((root.into_value(), keys))
    }
}

/// A value, or children by path segment.
#[derive(Default)]
struct Node {
    value: Option<Value>,
    children: BTreeMap<String, Node>,
    /// Slots of the array that the children may become, holes included.
    slots: usize,
}

impl Node {
    /// Puts a value at a path; false if that takes more array slots than are left.
    fn insert(&mut self, path: &str, value: Value, slots_left: &mut usize) -> bool {
        let (segment, rest) = path
            .split_once('.')
            .map_or((path, None), |(a, b)| (a, Some(b)));
        if let Some(index) = index(segment) {
            let needed = index.saturating_add(1).saturating_sub(self.slots);
            let Some(left) = slots_left.checked_sub(needed) else {
                return false;
            };
            *slots_left = left;
            self.slots += needed;
        }
        let node = self.children.entry(segment.to_owned()).or_default();
        match rest {
            Some(rest) => node.insert(rest, value, slots_left),
            None => {
                node.value = Some(value);
                true
            }
        }
    }

    /// An array if every child is named by a number, else an object. Holes become null; the array
    /// ends with its last element.
    fn into_value(self) -> Value {
        if self.children.is_empty() {
            return self.value.unwrap_or_default();
        }
        if !self.children.keys().all(|name| index(name).is_some()) {
            let members = self
                .children
                .into_iter()
                .map(|(name, node)| (name, node.into_value()));
            return Value::Object(members.collect());
        }
        let mut items = vec![Value::Null; self.slots];
        for (name, node) in self.children {
            if let Some(slot) = index(&name).and_then(|at| items.get_mut(at)) {
                *slot = node.into_value();
            }
        }
        Value::Array(items)
    }
}

fn index(segment: &str) -> Option<usize> {
    let plain = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| segment.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receivers::otlp::wire::{AnyValue, KeyValue};
    use serde_json::json;

    fn check(pairs: &[(&str, &str)], expected: &Value) {
        let pairs = pairs.iter().map(|(key, value)| KeyValue {
            key: (*key).to_owned().into(),
            value: AnyValue::Text((*value).to_owned().into()),
        });
        let rebuilt = rebuild(&Attributes::new(pairs.collect()), "p", |_| true);
        assert_eq!(rebuilt.map_or(Value::Null, |(value, _)| value), *expected);
    }

    #[test]
    fn dotted_keys_become_arrays_and_objects() {
        check(
            &[
                ("p.1.role", "b"),
                ("p.0.calls.0.id", "c"),
                ("p.0.calls.0.name", "n"),
                ("q.0", "other"),
            ],
            &json!([{"calls": [{"id": "c", "name": "n"}]}, {"role": "b"}]),
        );
        check(
            &[("p.a", "x"), ("p.b.0", "y")],
            &json!({"a": "x", "b": ["y"]}),
        );
        check(&[("p.2", "x")], &json!([null, null, "x"]));
        check(&[("q", "x")], &Value::Null);
    }

    #[test]
    fn a_huge_index_is_left_out() {
        check(
            &[("p.999999999999999999999999.x", "far"), ("p.0.x", "near")],
            &json!([{"x": "near"}]),
        );
        check(&[("p.10001", "far"), ("p.0", "near")], &json!(["near"]));
    }

    #[test]
    fn all_arrays_share_their_slots() {
        let keys: Vec<String> = (0..50).map(|n| format!("p.{n}.x.9000")).collect();
        let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "far")).collect();
        let pairs = pairs.iter().map(|(key, value)| KeyValue {
            key: (*key).to_owned().into(),
            value: AnyValue::Text((*value).to_owned().into()),
        });
        let (value, used) = rebuild(&Attributes::new(pairs.collect()), "p", |_| true).unwrap();
        assert_eq!(used.len(), 1);
        assert!(value.to_string().len() < 100_000);
    }
}
