//! Reasons why the speaker is not ready, as data. Pure; `/readyz` shows the message.

use std::fmt::{self, Display};

/// Reason why the speaker is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotReady<'a> {
    /// The speaker stops, and hands its addresses over.
    Stopping,
    /// The first list of this resource, or of the interfaces, has not arrived yet.
    WaitingFor(&'a str),
    /// No Node has the name that `--node-name` sets.
    NoNode(&'a str),
    /// The Secret `ferrolb-hello` holds no hello key.
    NoKey,
}

impl Display for NotReady<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str("stopping"),
            Self::WaitingFor(what) => write!(f, "waiting for {what}"),
            Self::NoNode(name) => write!(f, "Node {name:?} does not exist: check --node-name"),
            Self::NoKey => f.write_str(
                "waiting for a key in Secret ferrolb-hello: see the log of the controller, which \
                 creates it",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_message() {
        // A new variant does not compile until it is added here and to the rows.
        let exhaustive = |why: &NotReady<'_>| match why {
            NotReady::Stopping
            | NotReady::WaitingFor(_)
            | NotReady::NoNode(_)
            | NotReady::NoKey => {}
        };
        let rows = [
            (NotReady::Stopping, "stopping"),
            (NotReady::WaitingFor("Services"), "waiting for Services"),
            (NotReady::NoNode("n1"), "Node \"n1\" does not exist: check --node-name"),
            (
                NotReady::NoKey,
                "waiting for a key in Secret ferrolb-hello: see the log of the controller, which \
                 creates it",
            ),
        ];
        for (why, text) in rows {
            exhaustive(&why);
            assert_eq!(why.to_string(), text);
        }
    }
}
