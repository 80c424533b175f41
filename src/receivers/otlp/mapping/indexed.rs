//! Objects and arrays that instrumentations flatten into dotted keys, rebuilt (rule IDX).
//! `gen_ai.prompt.0.role` and `gen_ai.prompt.0.content` become `[{"role": …, "content": …}]`.

use serde_json::Value;

use super::attributes::Attributes;

/// Array slots of one span at most; attributes that would need more are left out.
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
    let dotted = format!("{prefix}.");
    for (path, value) in attributes.under(&dotted).filter(|(path, _)| belongs(path)) {
        if root.insert(path, value.clone(), &mut slots) {
            keys.push(format!("{dotted}{path}"));
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
    children: Vec<(String, Node)>,
}

impl Node {
    fn insert(&mut self, path: &str, value: Value, slots: &mut usize) -> bool {
        let (segment, rest) = path
            .split_once('.')
            .map_or((path, None), |(a, b)| (a, Some(b)));
        if index(segment).is_some_and(|index| index >= SLOTS_MAX) {
            return false;
        }
        let position = self.children.iter().rposition(|(name, _)| name == segment);
        let position = if let Some(position) = position {
            position
        } else {
            let Some(left) = slots.checked_sub(1) else {
                return false;
            };
            *slots = left;
            self.children.push((segment.to_owned(), Self::default()));
            self.children.len() - 1
        };
        let node = &mut self.children[position].1;
        if let Some(rest) = rest {
            node.insert(rest, value, slots)
        } else {
            node.value = Some(value);
            true
        }
    }

    /// An array if every child is named by a number, else an object. Holes become null; the array
    /// ends with its last element.
    fn into_value(self) -> Value {
        let numbered = !self.children.is_empty()
            && self.children.iter().all(|(name, _)| index(name).is_some());
        if let (Some(value), true) = (&self.value, self.children.is_empty()) {
            return value.clone();
        }
        if !numbered {
            let members = self
                .children
                .into_iter()
                .map(|(name, node)| (name, node.into_value()));
            return Value::Object(members.collect());
        }
        let mut items = Vec::new();
        for (name, node) in self.children {
            let at = index(&name).unwrap_or_default();
            if items.len() <= at {
                items.resize(at + 1, Value::Null);
            }
            items[at] = node.into_value();
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
}
