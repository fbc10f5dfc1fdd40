//! Errors of gobgpd and of calls to it. Operators read the messages.

use super::peer_config::RESTART_TIME_S;

/// Reasons why gobgpd cannot be used, or why it rejected a request.
#[derive(Debug, thiserror::Error)]
pub enum GobgpError {
    /// Nothing listens at the socket.
    #[error(
        "gobgpd does not respond at {path}: {why}. Check that gobgpd runs on this node, and see \
         its log"
    )]
    Unreachable {
        /// Path of the socket.
        path: String,
        /// Error of the connection attempt.
        why: String,
    },
    /// gobgpd has another API version, or is too old.
    #[error("gobgpd is {0}: install GoBGP 4.7 or newer")]
    TooOld(String),
    /// The BGP server of gobgpd was stopped, and only a new gobgpd process can replace it.
    #[error(
        "gobgpd was stopped to be replaced, and peers with graceful restart keep its routes for \
         {RESTART_TIME_S} s: if no other one has started by then, restart it"
    )]
    Stopped,
    /// gobgpd rejected a session, or its BFD.
    #[error("{0}")]
    Rejected(String),
    /// A call failed unexpectedly.
    #[error("gobgpd did not complete {call}: {why}. See the log of gobgpd on this node")]
    Call {
        /// Name of the call in GoBGP's API.
        call: &'static str,
        /// Error of the call.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_gobgpd_has_its_message() {
        let text = |text: &str| text.to_owned();
        let rows = [
            (
                GobgpError::Unreachable { path: text("/run/gobgp.sock"), why: text("refused") },
                "gobgpd does not respond at /run/gobgp.sock: refused. Check that gobgpd runs on this node, and see its log",
            ),
            (
                GobgpError::TooOld(text("GoBGP/4.6.0")),
                "gobgpd is GoBGP/4.6.0: install GoBGP 4.7 or newer",
            ),
            (
                GobgpError::Stopped,
                "gobgpd was stopped to be replaced, and peers with graceful restart keep its routes for 120 s: if no other one has started by then, restart it",
            ),
            (GobgpError::Rejected(text("invalid ttl")), "invalid ttl"),
            (
                GobgpError::Call { call: "ListPeer", why: text("no response within 10s") },
                "gobgpd did not complete ListPeer: no response within 10s. See the log of gobgpd on this node",
            ),
        ];
        for (error, expect) in rows {
            // A new variant does not compile until it is added here and to the rows.
            match &error {
                GobgpError::Unreachable { .. }
                | GobgpError::TooOld(_)
                | GobgpError::Stopped
                | GobgpError::Rejected(_)
                | GobgpError::Call { .. } => {}
            }
            assert_eq!(error.to_string(), expect);
        }
    }
}
