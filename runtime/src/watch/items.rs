//! Takes a list apart while it arrives: one object at a time, so that a page of any size takes the
//! memory of its largest object. Pure; lives for one page.
//!
//! An object of a list is an element of an array in the outermost object, `items`. All else is the
//! envelope, which stays JSON: `{"metadata":{"resourceVersion":"7","continue":""},"items":[]}`.
//! Text that is not JSON ends in objects or in an envelope that cannot be decoded.

use super::OBJECT_BYTES_MAX;

/// The depth of the array: inside the outermost object.
const ARRAY_DEPTH: usize = 2;

/// An object, or all else of a page, is larger than [`OBJECT_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the API server sent an object of more than {OBJECT_BYTES_MAX} bytes")]
pub(super) struct TooLarge;

/// The part of a page that arrived and belongs to no complete object.
#[derive(Debug, Default)]
pub(super) struct Items {
    /// Objects and arrays that are open.
    depth: usize,
    /// True if the second of them is an array.
    in_array: bool,
    in_string: bool,
    escaped: bool,
    item: Vec<u8>,
    envelope: Vec<u8>,
}

impl Items {
    /// Reads up to the end of the next object. Returns how many of the bytes that were, and the
    /// object if its end is there.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Vec<u8>>), TooLarge> {
        let mut from = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            if self.in_string {
                self.read_in_string(byte);
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b',' if self.in_array && self.depth == ARRAY_DEPTH => {
                    keep(&mut self.envelope, &bytes[from..at])?;
                    from = at + 1;
                }
                b'{' | b'[' => {
                    if self.in_array && self.depth == ARRAY_DEPTH {
                        keep(&mut self.envelope, &bytes[from..at])?;
                        from = at;
                    }
                    self.depth += 1;
                    self.in_array |= self.depth == ARRAY_DEPTH && byte == b'[';
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.in_array && self.depth == ARRAY_DEPTH {
                        keep(&mut self.item, &bytes[from..=at])?;
                        return Ok((at + 1, Some(std::mem::take(&mut self.item))));
                    }
                    self.in_array &= self.depth >= ARRAY_DEPTH;
                }
                _ => {}
            }
        }
        let in_item = self.in_array && self.depth > ARRAY_DEPTH;
        keep(if in_item { &mut self.item } else { &mut self.envelope }, &bytes[from..])?;
        Ok((bytes.len(), None))
    }

    /// All of the page but its objects, once it is read to its end.
    pub(super) fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    const fn read_in_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) -> Result<(), TooLarge> {
    if kept.len() + bytes.len() > OBJECT_BYTES_MAX {
        return Err(TooLarge);
    }
    kept.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The objects and the envelope of a text that arrives in pieces of this size.
    fn taken_apart(text: &str, piece: usize) -> (Vec<String>, String) {
        let (mut items, mut objects) = (Items::default(), Vec::new());
        for mut bytes in text.as_bytes().chunks(piece) {
            while !bytes.is_empty() {
                let (read, object) = items.read(bytes).unwrap();
                objects.extend(object.map(|object| String::from_utf8(object).unwrap()));
                bytes = &bytes[read..];
            }
        }
        (objects, String::from_utf8(items.envelope().to_vec()).unwrap())
    }

    #[test]
    fn a_list_is_taken_apart_however_it_is_cut() {
        let list = r#"{"kind":"L","metadata":{"resourceVersion":"7","x":{"y":[{}]},"continue":"a,[{"},"items":[{"a":[{"b":1},2]}, {"c":"\"}],\\"},{}],"z":[ ]}"#;
        let envelope =
            r#"{"kind":"L","metadata":{"resourceVersion":"7","x":{"y":[{}]},"continue":"a,[{"},"items":[ ],"z":[ ]}"#;
        for piece in 1..=list.len() {
            let (objects, rest) = taken_apart(list, piece);
            assert_eq!(objects, [r#"{"a":[{"b":1},2]}"#, r#"{"c":"\"}],\\"}"#, "{}"], "in pieces of {piece}");
            assert_eq!(rest, envelope, "in pieces of {piece}");
        }
    }

    #[test]
    fn text_that_is_no_list_stays_as_it_is_and_never_panics() {
        for text in ["", "]]}}", r#"{"items":null}"#, "[1,2]", r#"{"items":[1,"#, "\"\\"] {
            let (objects, rest) = taken_apart(text, 2);
            assert!(objects.is_empty(), "{text}: {objects:?}");
            assert!(serde_json::from_str::<serde_json::Value>(&rest).is_err() || rest == text, "{text}: {rest}");
        }
    }

    #[test]
    fn an_object_and_an_envelope_have_a_largest_size() {
        let half = vec![b' '; OBJECT_BYTES_MAX / 2 + 1];
        for head in ["", r#"{"items":[{"#] {
            let mut items = Items::default();
            items.read(head.as_bytes()).unwrap();
            items.read(&half).unwrap();
            assert_eq!(items.read(&half), Err(TooLarge), "after {head}");
        }
    }
}
