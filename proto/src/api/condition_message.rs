//! Message of a condition, of limited length. Messages repeat texts of other objects, such as names
//! of interfaces, and the API server does not limit the conditions of a Service. Every condition
//! that the controller writes or stores has a message of this type.

use std::fmt::{self, Display, Write};
use std::ops::Deref;

use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use serde::{Deserialize, Deserializer, Serialize};

use super::{CONDITION_ESTABLISHED, CONDITION_VALID};

/// Maximum length of a message that the controller writes, in bytes.
pub const MESSAGE_LENGTH_MAX: usize = 4_096;
/// End of a message that was too long.
const CUT_MARK: &str = "...";
/// Maximum length of a stored message. A cut one is longer than any that the controller writes:
/// its cut loses at most three bytes of a character.
const STORED_LENGTH_MAX: usize = MESSAGE_LENGTH_MAX + 4;

/// `message` of a condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct ConditionMessage(Box<str>);

impl ConditionMessage {
    /// Renders a message, and cuts it to [`MESSAGE_LENGTH_MAX`].
    #[must_use]
    pub fn new(message: impl Display) -> Self {
        Self(Cut::render(message, MESSAGE_LENGTH_MAX).into())
    }

    /// Returns a message that an object in the API has. If it is longer than any that the
    /// controller writes, the result equals none of those, so that the controller replaces it.
    #[must_use]
    pub(crate) fn stored(text: &str) -> Self {
        Self(Cut::render(text, STORED_LENGTH_MAX).into())
    }
}

impl Deref for ConditionMessage {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Display for ConditionMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that takes at most a number of bytes. The rest of a longer one is never stored.
struct Cut {
    text: String,
    length_max: usize,
}

impl Cut {
    fn render(message: impl Display, length_max: usize) -> String {
        let mut cut = Self { text: String::new(), length_max };
        // The only error is that the text is complete.
        let _ = write!(cut, "{message}");
        cut.text
    }
}

impl Write for Cut {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.text.len() + part.len() <= self.length_max {
            self.text.push_str(part);
            return Ok(());
        }
        let end = self.length_max - CUT_MARK.len();
        let room = part.floor_char_boundary(end.saturating_sub(self.text.len()));
        self.text.push_str(&part[..room]);
        self.text.truncate(self.text.floor_char_boundary(end));
        self.text.push_str(CUT_MARK);
        Err(fmt::Error)
    }
}

/// Decodes FerroLB's conditions of a custom resource. Texts that are too long are cut, so that a
/// foreign writer cannot fill the memory.
pub(super) fn stored_conditions<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<v1::Condition>, D::Error> {
    let mut conditions = Vec::<v1::Condition>::deserialize(from)?;
    conditions.retain(|it| [CONDITION_VALID, CONDITION_ESTABLISHED].contains(&&*it.type_));
    for v1::Condition { message, reason, .. } in &mut conditions {
        *message = ConditionMessage::stored(message).0.into();
        *reason = ConditionMessage::stored(reason).0.into();
    }
    Ok(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_at_a_character_and_a_stored_one_differs_from_it() {
        for (character, start) in
            ["x", "ü", "\u{20ac}", "\u{1f980}"].iter().zip(["", "a", "ab", "abc"])
        {
            let text = format!("{start}{}", character.repeat(1_000_000));
            let (written, stored) = (ConditionMessage::new(&text), ConditionMessage::stored(&text));
            assert!((MESSAGE_LENGTH_MAX - 3..=MESSAGE_LENGTH_MAX).contains(&written.len()));
            assert!(written.ends_with(&format!("{character}...")));
            assert!(stored.len() <= STORED_LENGTH_MAX && stored != written, "{character}");
            assert_eq!(ConditionMessage::stored(&written), written);
        }
        assert_eq!(&*ConditionMessage::new(format_args!("{} {}", "two", "parts")), "two parts");
    }

    #[test]
    fn a_text_of_the_maximum_length_is_complete() {
        let text = "x".repeat(MESSAGE_LENGTH_MAX);
        assert_eq!(&*ConditionMessage::new(&text), text);
        assert_eq!(&*ConditionMessage::stored(&text), text);
    }
}
