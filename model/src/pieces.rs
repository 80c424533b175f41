//! JSON that is made piece by piece, so that what a piece is made of needs no memory any more when the next
//! one is made.

use serde::Serialize;

/// Pieces are at least so long, but for the last one.
const PIECE_BYTES: usize = 64 << 10;

/// The text of a JSON object, as far as it is made.
#[derive(Debug)]
pub struct Pieces {
    made: Vec<Vec<u8>>,
    last: Vec<u8>,
    bytes: usize,
}

impl Pieces {
    /// An object that begins with the members of `head`, which must be one.
    ///
    /// # Panics
    /// If the head or a later member can't be JSON: rows and their views always can.
    pub fn of(head: &impl Serialize) -> Self {
        let mut pieces = Self {
            made: Vec::new(),
            last: Vec::new(),
            bytes: 0,
        };
        pieces.write(head);
        let end = pieces.last.pop();
        debug_assert_eq!(end, Some(b'}'), "the head is an object");
        pieces
    }

    /// An object without members.
    pub fn new() -> Self {
        Self::of(&serde_json::Map::new())
    }

    /// Adds a member.
    #[must_use]
    pub fn member(mut self, name: &str, value: &impl Serialize) -> Self {
        self.name(name);
        self.write(value);
        self
    }

    /// Adds a list, of which each item is forgotten before the next one is made.
    #[must_use]
    pub fn list<T: Serialize>(mut self, name: &str, items: impl IntoIterator<Item = T>) -> Self {
        self.name(name);
        self.last.push(b'[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.last.push(b',');
            }
            self.write(&item);
            self.cut();
        }
        self.last.push(b']');
        self
    }

    /// The whole object, and how many bytes it has.
    pub fn finish(mut self) -> (Vec<Vec<u8>>, usize) {
        self.last.push(b'}');
        self.bytes += self.last.len();
        self.made.push(self.last);
        (self.made, self.bytes)
    }

    fn name(&mut self, name: &str) {
        if self.last.last() != Some(&b'{') {
            self.last.push(b',');
        }
        self.write(&name);
        self.last.push(b':');
    }

    fn write(&mut self, value: &impl Serialize) {
        serde_json::to_writer(&mut self.last, value).expect("a view of a row serialises");
    }

    fn cut(&mut self) {
        if self.last.len() >= PIECE_BYTES {
            let mut piece = std::mem::take(&mut self.last);
            piece.shrink_to_fit();
            self.bytes += piece.len();
            self.made.push(piece);
        }
    }
}

impl Default for Pieces {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn pieces_are_one_object() {
        let long = "x".repeat(PIECE_BYTES);
        let rows = vec![json!({"id": 1}), json!(long), json!(2)];
        let pieces = Pieces::of(&json!({"a": 1})).list("rows", &rows);
        let pieces = pieces.list("none", Vec::<u8>::new()).member("b", &2);
        let (made, bytes) = pieces.finish();
        assert_eq!(made.len(), 2);
        let text = made.concat();
        assert_eq!(text.len(), bytes);
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value, json!({"a": 1, "rows": rows, "none": [], "b": 2}));
        let (made, _) = Pieces::new().member("only", &true).finish();
        assert_eq!(made.concat(), b"{\"only\":true}");
    }
}
