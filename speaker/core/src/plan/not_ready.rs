//! Reasons why the speaker is not ready, as data. Pure; `/readyz` shows the message.

/// Reason why the speaker is not ready. `Display` renders its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotReady<'a> {
    /// The speaker stops, and hands its addresses over.
    #[error("stopping")]
    Stopping,
    /// The first list of this resource, or of the interfaces, has not arrived yet.
    #[error("waiting for {0}")]
    WaitingFor(&'a str),
    /// No Node has the name that `--node-name` sets.
    #[error("Node {0:?} does not exist: check --node-name")]
    NoNode(&'a str),
    /// The Secret `ferrolb-hello` holds no hello key.
    #[error(
        "waiting for a key in Secret ferrolb-hello: see the log of the controller, which creates it"
    )]
    NoKey,
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
