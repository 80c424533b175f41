//! A JSON object that merges leaf by leaf: later keys win, earlier keys stay, arrays and scalars
//! are replaced whole. Every leaf knows its stamp, so the result is free of arrival order.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::json;
use crate::register::Stamp;

/// Deeper objects are kept as one value: a limit on recursion, not on data.
const DEPTH_MAX: usize = 32;
/// Deeper values are written as JSON text: readers of JSON end at 128 levels, of which each level of a tree
/// takes two.
const VALUE_DEPTH_MAX: usize = 16;

/// A mergeable object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// Greatest stamp at which this node was sent as an object.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    object: Option<Stamp>,
    /// Newest value that is no object.
    #[serde(
        rename = "v",
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_scalar",
        deserialize_with = "read_scalar"
    )]
    scalar: Option<(Stamp, Value)>,
    #[serde(rename = "c", default, skip_serializing_if = "BTreeMap::is_empty")]
    children: BTreeMap<String, Tree>,
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
/// `[stamp, value]`, or `[stamp, text, true]` for a deep one.
fn write_scalar<S: Serializer>(
    scalar: &Option<(Stamp, Value)>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match scalar {
        Some((stamp, value)) if json::is_deeper(value, VALUE_DEPTH_MAX) => {
            (stamp, value.to_string(), true).serialize(serializer)
        }
        other => other.serialize(serializer),
    }
}

fn read_scalar<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<(Stamp, Value)>, D::Error> {
    struct Scalar;
    impl<'de> Visitor<'de> for Scalar {
        type Value = (Stamp, Value);

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a stamp and a value")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut pieces: A) -> Result<Self::Value, A::Error> {
            let missing = || A::Error::custom("a stamp or a value is missing");
            let stamp = pieces.next_element()?.ok_or_else(missing)?;
            let value: Value = pieces.next_element()?.ok_or_else(missing)?;
            let is_text = pieces.next_element::<bool>()?.unwrap_or(false);
            match value {
                Value::String(text) if is_text => {
                    let value = serde_json::from_str(&text).map_err(A::Error::custom)?;
                    Ok((stamp, value))
                }
                value => Ok((stamp, value)),
            }
        }
    }
    deserializer.deserialize_seq(Scalar).map(Some)
}

impl Tree {
    /// The whole of `value` written at `stamp`.
    pub fn new(value: Value, stamp: Stamp) -> Self {
        Self::at_depth(value, stamp, 0)
    }

    fn at_depth(value: Value, stamp: Stamp, depth: usize) -> Self {
        match value {
            Value::Object(members) if depth < DEPTH_MAX => Self {
                object: Some(stamp),
                scalar: None,
                children: members
                    .into_iter()
                    .map(|(key, value)| (key, Self::at_depth(value, stamp, depth + 1)))
                    .collect(),
            },
            value => Self {
                scalar: Some((stamp, value)),
                ..Self::default()
            },
        }
    }

    /// Visits every text, within lists too.
    pub(crate) fn texts_mut(&mut self, visit: &mut impl FnMut(&mut String)) {
        if let Some((_, value)) = &mut self.scalar {
            texts_of(value, visit);
        }
        for child in self.children.values_mut() {
            child.texts_mut(visit);
        }
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.object.is_none() && self.scalar.is_none() && self.children.is_empty()
    }

    /// Bytes of its texts and keys, and a round sum for each value.
    pub fn weight(&self) -> usize {
        let scalar = self.scalar.as_ref().map_or(0, |(_, value)| weight(value));
        let children = self.children.iter();
        scalar
            + children
                .map(|(key, child)| key.len() + child.weight())
                .sum::<usize>()
    }

    /// Keeps of every leaf the newest version.
    pub fn merge(&mut self, other: Self) {
        self.object = self.object.max(other.object);
        let newer = match (&self.scalar, &other.scalar) {
            (Some((mine, _)), Some((theirs, _))) => theirs > mine,
            (None, Some(_)) => true,
            _ => false,
        };
        if newer {
            self.scalar = other.scalar;
        }
        for (key, child) in other.children {
            self.children.entry(key).or_default().merge(child);
        }
    }

    /// The stamp that all leaves share, if they do; such a tree is its value and that stamp.
    pub fn uniform_stamp(&self) -> Option<Stamp> {
        let stamp = self.newest();
        let own = |known: Option<Stamp>| known.is_none_or(|known| known == stamp);
        let one_kind = self.object.is_none() || self.scalar.is_none();
        let uniform = one_kind
            && own(self.object)
            && own(self.scalar.as_ref().map(|(stamp, _)| *stamp))
            && self
                .children
                .values()
                .all(|child| child.uniform_stamp() == Some(stamp));
        uniform.then_some(stamp)
    }

    /// The value to show; `None` when nothing was written.
    pub fn value(&self) -> Option<Value> {
        self.value_after(Stamp::NEVER)
    }

    /// The value of what was written after `hidden`: a value that is no object hides everything
    /// below it that is older.
    fn value_after(&self, hidden: Stamp) -> Option<Value> {
        let scalar = self.scalar.as_ref().filter(|(stamp, _)| *stamp > hidden);
        let object = self.object.filter(|stamp| *stamp > hidden);
        let hidden = scalar.map_or(hidden, |(stamp, _)| *stamp);
        let shown: Map<String, Value> = self
            .children
            .iter()
            .filter_map(|(key, child)| Some((key.clone(), child.value_after(hidden)?)))
            .collect();
        match scalar {
            Some((stamp, value)) if shown.is_empty() && object.is_none_or(|o| o < *stamp) => {
                Some(value.clone())
            }
            None if shown.is_empty() && object.is_none() => None,
            _ => Some(Value::Object(shown)),
        }
    }

    fn newest(&self) -> Stamp {
        let scalar = self.scalar.as_ref().map(|(stamp, _)| *stamp);
        let children = self.children.values().map(Self::newest);
        children
            .chain(self.object)
            .chain(scalar)
            .max()
            .unwrap_or(Stamp::NEVER)
    }
}

/// The tree of one owner: of several the greatest counts alone, and its own versions merge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnedTree {
    owner: Stamp,
    tree: Tree,
}

impl Default for OwnedTree {
    fn default() -> Self {
        Self {
            owner: Stamp::NEVER,
            tree: Tree::default(),
        }
    }
}

impl OwnedTree {
    /// The value of one version of the owner that `stamp` ranks.
    pub fn new(value: Value, stamp: Stamp) -> Self {
        // Versions of one owner differ in no more than their version; later ones win.
        Self {
            owner: stamp.of_version(0, 0),
            tree: Tree::new(value, stamp),
        }
    }

    /// Keeps the greater owner's tree; of one owner, of every leaf the newest version.
    pub fn merge(&mut self, other: Self) {
        match other.owner.cmp(&self.owner) {
            Ordering::Greater => *self = other,
            Ordering::Equal => self.tree.merge(other.tree),
            Ordering::Less => {}
        }
    }

    /// Bytes of its texts and keys, and a round sum for each value.
    pub fn weight(&self) -> usize {
        self.tree.weight()
    }

    /// Whether nobody owns it.
    pub fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// The value to show.
    pub fn value(&self) -> Option<Value> {
        self.tree.value()
    }
}

fn weight(value: &Value) -> usize {
    const VALUE_BYTES: usize = 16;
    VALUE_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::Number(number) => number.as_str().len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(members) => {
                let members = members.iter();
                members.map(|(key, value)| key.len() + weight(value)).sum()
            }
            Value::Null | Value::Bool(_) => 0,
        }
}

/// Lays `over` on `under`: objects member by member, everything else replaced.
pub fn overlay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                match under.get_mut(&key) {
                    Some(slot) => overlay(slot, value),
                    None => {
                        under.insert(key, value);
                    }
                }
            }
        }
        (slot, over) => *slot = over,
    }
}

/// Metadata is an object: any other value becomes `{"metadata": value}`, null and `{}` nothing.
pub fn as_metadata(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(members) if members.is_empty() => None,
        Value::Object(members) => Some(Value::Object(members)),
        other => Some(serde_json::json!({ "metadata": other })),
    }
}

fn texts_of(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter_mut().for_each(|item| texts_of(item, visit)),
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| texts_of(member, visit)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::RANK_EXPLICIT;
    use proptest::prelude::*;
    use serde_json::json;

    fn at(time: i64) -> Stamp {
        Stamp::latest(RANK_EXPLICIT, time, 0)
    }

    fn fold(parts: &[(i64, Value)]) -> Option<Value> {
        let mut merged = Tree::default();
        for (time, value) in parts {
            merged.merge(Tree::new(value.clone(), at(*time)));
        }
        merged.value()
    }

    #[test]
    fn later_keys_win_and_earlier_keys_stay() {
        let parts = [
            (1, json!({"step": 1, "status": "s", "list": [1, 2]})),
            (2, json!({"step": 2, "list": [3], "error": ""})),
        ];
        let expected = Some(json!({"step": 2, "status": "s", "list": [3], "error": ""}));
        assert_eq!(fold(&parts), expected);
        let [first, second] = parts;
        assert_eq!(fold(&[second, first]), expected);
    }

    #[test]
    fn a_scalar_hides_what_the_object_before_it_held() {
        let parts = [
            (1, json!({"a": {"x": 1}})),
            (2, json!({"a": 5})),
            (3, json!({"a": {"y": 2}})),
        ];
        assert_eq!(fold(&parts), Some(json!({"a": {"y": 2}})));
        assert_eq!(fold(&parts[..2]), Some(json!({"a": 5})));
    }

    #[test]
    fn a_tree_of_one_version_is_its_value_and_a_stamp() {
        let tree = Tree::new(json!({"a": {"b": {}}}), at(7));
        assert_eq!(tree.uniform_stamp(), Some(at(7)));
        assert_eq!(Tree::new(tree.value().unwrap(), at(7)), tree);
    }

    #[test]
    fn the_deepest_values_survive_being_written_down() {
        let nested = |open: &str, close: &str, depth: usize| {
            let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            json::parse(&text).unwrap()
        };
        for depth in [1, 12, 17, 31, 32, 33, 64, 100, json::DEPTH_MAX] {
            for value in [nested("{\"k\":", "}", depth), nested("[", "]", depth)] {
                let tree = Tree::new(json!({ "k": value }), at(7));
                // Where it is stored it is inside of two more objects.
                let stored = json!({"r": {"tree": tree}}).to_string();
                let read: Value = serde_json::from_str(&stored).unwrap();
                let read: Tree = serde_json::from_value(read["r"]["tree"].clone()).unwrap();
                assert_eq!(read, tree, "{depth}");
            }
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(1)),
            Just(json!("x")),
            Just(json!([1])),
            Just(json!({}))
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::btree_map("[ab]", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect()))
        })
    }

    proptest! {
        #[test]
        fn merging_is_the_fold_in_time_whatever_the_order(
            parts in prop::collection::vec(any_json(), 1..5),
            seed in any::<u64>(),
        ) {
            let mut reference = Value::Null;
            for part in &parts {
                overlay(&mut reference, part.clone());
            }
            let mut stamped: Vec<_> =
                parts.into_iter().enumerate().map(|(i, part)| (i64::try_from(i).unwrap(), part)).collect();
            let turn = usize::try_from(seed % stamped.len() as u64).unwrap();
            stamped.rotate_left(turn);
            let twice: Vec<_> = stamped.iter().chain(&stamped).cloned().collect();
            prop_assert_eq!(fold(&twice), Some(reference));
        }
    }
}
