//! Tables of every message of a condition or an Event, with its reason, for a reviewer to read. A
//! new variant does not compile until it has a row.

use super::*;
use crate::state::messages::Message;

mod announced;
mod assigned;
mod bgp;
mod node;
mod valid;

/// Limit in characters for a message with fields of usual length: an Event keeps 250.
const MESSAGE_LENGTH_MAX: usize = 250;

/// Words that the glossary replaces by other terms.
const REPLACED_WORDS: [&str; 34] = [
    "anew", "answered", "answers", "ask", "asks", "asked", "beside", "dead", "deaf", "gives",
    "given", "heard", "hear", "hears", "heed", "holder", "lest", "likewise", "links", "mend",
    "muted", "nobody", "say", "says", "shunned", "somebody", "stranger", "tell", "tells", "told",
    "usable", "voices", "wire", "yields",
];

/// Checks rows of message, reason, and text: `PATTERN => [(MESSAGE, REASON, TEXT), ...]`.
macro_rules! table {
    ($kind:ty, $render:expr; $($pattern:pat => [$(($message:expr, $reason:expr, $text:expr)),+ $(,)?]),+ $(,)?) => {{
        let exhaustive = |message: &$kind| match message { $($pattern => {})+ };
        let render: fn(&$kind) -> (String, String) = $render;
        $($(
            let message: $kind = $message;
            exhaustive(&message);
            assert!(matches!(&message, $pattern), "the row belongs to another variant: {}", $text);
            crate::state::tests::messages::check(render(&message), ($reason, $text));
        )+)+
    }};
}
use table;

/// Returns reason and message of a condition.
fn condition<M: Message>(message: &M) -> (String, String) {
    (message.reason().to_owned(), message.to_string())
}

/// Compares a reason and a text, and checks the wording.
fn check((reason, text): (String, String), expect: (&str, &str)) {
    assert_eq!((reason.as_str(), text.as_str()), expect);
    assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
    let first = text.split(' ').next().unwrap_or_default();
    assert!(!["What", "Who", "That"].contains(&first), "{text}");
    let mut words = text.split(|c: char| !c.is_alphanumeric());
    let replaced = words.find(|word| REPLACED_WORDS.contains(&word.to_lowercase().as_str()));
    assert_eq!(replaced, None, "{text}");
    assert!(
        text.chars().count() <= MESSAGE_LENGTH_MAX,
        "{} characters: {text}",
        text.chars().count()
    );
}
