//! Splits a list into its objects while it arrives, so that a page of any size needs only the
//! memory of its largest object. Pure. One [`ListSplitter`] reads one page.
//!
//! The objects of a list are the elements of the array `items` in the outermost JSON object. All
//! other text is the envelope, which remains valid JSON:
//! `{"metadata":{"resourceVersion":"7","continue":""},"items":[]}`. If the text is not JSON,
//! [`ListSplitter`] returns objects or an envelope that cannot be decoded.

use super::OBJECT_BYTES_MAX;

/// The nesting depth inside the array of objects: the outermost object is 1, the array in it 2.
const ARRAY_DEPTH: usize = 2;

/// The error for an object, or an envelope of a page, that is larger than [`OBJECT_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the API server sent an object of more than {OBJECT_BYTES_MAX} bytes")]
pub(super) struct TooLarge;

/// The part of a page that has arrived and is not part of a complete object.
#[derive(Debug, Default)]
pub(super) struct ListSplitter {
    /// The number of JSON objects and arrays that have begun and not ended.
    depth: usize,
    /// True inside an array of the outermost object, such as `items`.
    in_array: bool,
    in_string: bool,
    escaped: bool,
    item: Vec<u8>,
    envelope: Vec<u8>,
}

impl ListSplitter {
    /// Reads up to the end of the next object. Returns the number of bytes that were read, and the
    /// object if it is complete.
    ///
    /// # Errors
    /// [`TooLarge`] if the object or the envelope exceeds [`OBJECT_BYTES_MAX`].
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
                    append(&mut self.envelope, &bytes[from..at])?;
                    from = at + 1;
                }
                b'{' | b'[' => {
                    if self.in_array && self.depth == ARRAY_DEPTH {
                        append(&mut self.envelope, &bytes[from..at])?;
                        from = at;
                    }
                    self.depth += 1;
                    self.in_array |= self.depth == ARRAY_DEPTH && byte == b'[';
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.in_array && self.depth == ARRAY_DEPTH {
                        append(&mut self.item, &bytes[from..=at])?;
                        return Ok((at + 1, Some(std::mem::take(&mut self.item))));
                    }
                    self.in_array &= self.depth >= ARRAY_DEPTH;
                }
                _ => {}
            }
        }
        let in_item = self.in_array && self.depth > ARRAY_DEPTH;
        append(if in_item { &mut self.item } else { &mut self.envelope }, &bytes[from..])?;
        Ok((bytes.len(), None))
    }

    /// Returns the text of the page without its objects. The text is complete only at the end of
    /// the page.
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

fn append(buffer: &mut Vec<u8>, bytes: &[u8]) -> Result<(), TooLarge> {
    if buffer.len() + bytes.len() > OBJECT_BYTES_MAX {
        return Err(TooLarge);
    }
    buffer.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the objects and the envelope of a text that arrives in pieces of this size.
    fn split(text: &str, piece: usize) -> (Vec<String>, String) {
        let (mut splitter, mut objects) = (ListSplitter::default(), Vec::new());
        for mut bytes in text.as_bytes().chunks(piece) {
            while !bytes.is_empty() {
                let (read, object) = splitter.read(bytes).unwrap();
                objects.extend(object.map(|object| String::from_utf8(object).unwrap()));
                bytes = &bytes[read..];
            }
        }
        (objects, String::from_utf8(splitter.envelope().to_vec()).unwrap())
    }

    #[test]
    fn a_list_is_split_whatever_the_size_of_its_pieces() {
        let list = r#"{"kind":"L","metadata":{"resourceVersion":"7","x":{"y":[{}]},"continue":"a,[{"},"items":[{"a":[{"b":1},2]}, {"c":"\"}],\\"},{}],"z":[ ]}"#;
        let envelope = r#"{"kind":"L","metadata":{"resourceVersion":"7","x":{"y":[{}]},"continue":"a,[{"},"items":[ ],"z":[ ]}"#;
        for piece in 1..=list.len() {
            let (objects, rest) = split(list, piece);
            assert_eq!(
                objects,
                [r#"{"a":[{"b":1},2]}"#, r#"{"c":"\"}],\\"}"#, "{}"],
                "each piece has {piece} bytes"
            );
            assert_eq!(rest, envelope, "each piece has {piece} bytes");
        }
    }

    #[test]
    fn text_that_is_not_a_list_becomes_the_envelope() {
        for text in ["", "]]}}", r#"{"items":null}"#, "[1,2]", r#"{"items":[1,"#, "\"\\"] {
            let (objects, rest) = split(text, 2);
            assert!(objects.is_empty(), "{text} contains no object of a list: {objects:?}");
            assert!(
                serde_json::from_str::<serde_json::Value>(&rest).is_err() || rest == text,
                "the envelope of {text} is the text itself or no JSON: {rest}"
            );
        }
    }

    #[test]
    fn the_sizes_of_an_object_and_an_envelope_are_limited() {
        let half = vec![b' '; OBJECT_BYTES_MAX / 2 + 1];
        for head in ["", r#"{"items":[{"#] {
            let mut splitter = ListSplitter::default();
            splitter.read(head.as_bytes()).unwrap();
            splitter.read(&half).unwrap();
            assert_eq!(splitter.read(&half), Err(TooLarge), "the text after {head:?} is too large");
        }
    }
}
