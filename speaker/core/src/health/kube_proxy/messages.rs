//! Messages about kube-proxy's health: the request, the reply, and the remedy. Pure. No message
//! contains a time or a count, because each new message is written to the API server.

use std::net::SocketAddr;

use ferrolb_proto::api::KubeProxyState;

use super::{
    CheckRound, EXPECTED_MAX, Families, KubeProxyMode, KubeProxyMonitor, LivezResult, RoundOutcome,
};

/// The result of one round of requests to kube-proxy's health server, as part of a message.
/// `Display` renders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RoundResult<'a> {
    /// The health server did not respond in time.
    #[error("http://{server}/livez: {error}")]
    TimedOut { server: SocketAddr, error: &'a str },
    /// The connection to the health server failed, or its response is not that of a kube-proxy.
    #[error("http://{server}/livez: {error}")]
    Failed { server: SocketAddr, error: &'a str },
    /// No process listens there, and a health check node port reports a healthy kube-proxy.
    #[error(
        "nothing listens at http://{server}/livez, but a health check node port reports a healthy kube-proxy"
    )]
    HealthyAtNodePort { server: SocketAddr },
    /// No process listens at the health server, and a health check node port reports that the rules
    /// of kube-proxy are late.
    #[error("a health check node port reports that the rules of kube-proxy are late")]
    LateAtNodePort,
    /// No process listens there.
    #[error("nothing listens at http://{server}/livez")]
    Refused { server: SocketAddr },
    #[error("http://{server}/livez reports a healthy kube-proxy")]
    Healthy { server: SocketAddr },
    /// kube-proxy has no rules for these families yet.
    #[error("http://{server}/livez reports that kube-proxy has no rules for {families} yet")]
    Starting { server: SocketAddr, families: Families },
    /// The rules of kube-proxy are late, and the affected families are not known.
    #[error("http://{server}/livez reports that the rules of kube-proxy are late")]
    Late { server: SocketAddr },
    /// The rules of kube-proxy are late for these families.
    #[error("http://{server}/livez reports that the rules of kube-proxy are late for {families}")]
    LateFor { server: SocketAddr, families: Families },
}

/// The message about a health state, with the text of a round's result. `Display` renders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum HealthMessage<'a> {
    #[error("--kube-proxy-health is off")]
    Off,
    #[error("kube-proxy has not been checked yet")]
    NotCheckedYet,
    /// kube-proxy may be starting, because gobgpd had no routes when the speaker started.
    #[error("{0}. kube-proxy may be starting, as gobgpd had no routes when the speaker started")]
    MayBeStarting(&'a str),
    /// kube-proxy may be starting, because the Node is not Ready.
    #[error("{0}. kube-proxy may be starting, as the Node is not Ready")]
    NodeNotReady(&'a str),
    #[error("{0}")]
    Healthy(&'a str),
    #[error("{0}: see the log of kube-proxy on this node")]
    Unhealthy(&'a str),
    /// No kube-proxy was found on this node, although one is expected there.
    #[error(
        "{0}: start kube-proxy on this node, or set --kube-proxy-address to its health address"
    )]
    Missing(&'a str),
    /// The same, while kube-proxy is healthy on another node.
    #[error(
        "{0}, while kube-proxy is healthy on another node: start kube-proxy on this node, or set \
         --kube-proxy-address to its health address"
    )]
    MissingOnlyHere(&'a str),
    /// No kube-proxy was found on any node, so none is expected.
    #[error(
        "{0}, and no other node reports a healthy kube-proxy, so none is expected. If there is \
         one, set --kube-proxy-address to its health address"
    )]
    NotExpected(&'a str),
    /// Each kube-proxy has stopped, or was replaced.
    #[error(
        "{0}, and no node has had a healthy kube-proxy for {seconds} s, so none is expected",
        seconds = EXPECTED_MAX.as_secs()
    )]
    Gone(&'a str),
}

impl RoundResult<'_> {
    pub(super) const fn outcome(&self) -> RoundOutcome {
        match self {
            Self::Healthy { .. } | Self::HealthyAtNodePort { .. } => RoundOutcome::Good,
            Self::Failed { .. }
            | Self::LateAtNodePort
            | Self::Late { .. }
            | Self::LateFor { .. } => RoundOutcome::Bad,
            Self::Starting { .. } => RoundOutcome::Starting,
            Self::Refused { .. } => RoundOutcome::Refused,
            Self::TimedOut { .. } => RoundOutcome::Timeout,
        }
    }
}

impl CheckRound {
    /// Returns the result of the round. `needed` are the families for which kube-proxy must have
    /// rules. Late rules count in these alone, and the result names all families with late rules.
    pub(super) fn result(&self, needed: Families) -> RoundResult<'_> {
        let (server, none) = (self.server, Families::default());
        let both = Families { v4: true, v6: true };
        let (live, rules) = match (&self.livez, self.node_port_healthy) {
            (LivezResult::Replied { live, rules }, _) => (*live, *rules),
            (LivezResult::TimedOut(error), _) => return RoundResult::TimedOut { server, error },
            (LivezResult::Failed(error), _) => return RoundResult::Failed { server, error },
            (LivezResult::Refused, Some(true)) => return RoundResult::HealthyAtNodePort { server },
            (LivezResult::Refused, Some(false)) => return RoundResult::LateAtNodePort,
            (LivezResult::Refused, None) => return RoundResult::Refused { server },
        };
        let with = |state, of| rules.map_or(none, |rules| rules.families_with(state, of));
        let (late, missing) = (with(Some(false), both), with(None, needed));
        if live && with(Some(false), needed) == none {
            if missing == none {
                RoundResult::Healthy { server }
            } else {
                RoundResult::Starting { server, families: missing }
            }
        } else if late == none {
            RoundResult::Late { server }
        } else {
            RoundResult::LateFor { server, families: late }
        }
    }
}

impl KubeProxyMonitor {
    /// Returns the message for a health with this state.
    pub(super) fn message(&self, state: KubeProxyState) -> Box<str> {
        let result = &*self.reported_reason;
        let message = match state {
            KubeProxyState::NotChecked if self.config.mode == KubeProxyMode::Off => {
                HealthMessage::Off
            }
            KubeProxyState::NotChecked if self.found_at.is_some() => HealthMessage::Gone(result),
            KubeProxyState::NotChecked => HealthMessage::NotExpected(result),
            KubeProxyState::Unknown if result.is_empty() => HealthMessage::NotCheckedYet,
            KubeProxyState::Unknown if self.context.ready => HealthMessage::MayBeStarting(result),
            KubeProxyState::Unknown => HealthMessage::NodeNotReady(result),
            KubeProxyState::Healthy => HealthMessage::Healthy(result),
            KubeProxyState::Unhealthy if self.found_at.is_some() => {
                HealthMessage::Unhealthy(result)
            }
            KubeProxyState::Unhealthy if self.context.healthy_elsewhere => {
                HealthMessage::MissingOnlyHere(result)
            }
            KubeProxyState::Unhealthy => HealthMessage::Missing(result),
        };
        message.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_result_has_its_message() {
        let server = SocketAddr::from(([10, 0, 0, 1], 10256));
        let families = Families { v4: false, v6: true };
        // The match has no default case, so that every new variant must be added here and to the
        // rows below.
        let exhaustive = |result: &RoundResult<'_>| match result {
            RoundResult::TimedOut { .. }
            | RoundResult::Failed { .. }
            | RoundResult::HealthyAtNodePort { .. }
            | RoundResult::LateAtNodePort
            | RoundResult::Refused { .. }
            | RoundResult::Healthy { .. }
            | RoundResult::Starting { .. }
            | RoundResult::Late { .. }
            | RoundResult::LateFor { .. } => {}
        };
        let rows = [
            (
                RoundResult::TimedOut { server, error: "no response within 1000 ms" },
                "http://10.0.0.1:10256/livez: no response within 1000 ms",
            ),
            (
                RoundResult::Failed { server, error: "not an HTTP response" },
                "http://10.0.0.1:10256/livez: not an HTTP response",
            ),
            (
                RoundResult::HealthyAtNodePort { server },
                "nothing listens at http://10.0.0.1:10256/livez, but a health check node port \
                 reports a healthy kube-proxy",
            ),
            (
                RoundResult::LateAtNodePort,
                "a health check node port reports that the rules of kube-proxy are late",
            ),
            (RoundResult::Refused { server }, "nothing listens at http://10.0.0.1:10256/livez"),
            (
                RoundResult::Healthy { server },
                "http://10.0.0.1:10256/livez reports a healthy kube-proxy",
            ),
            (
                RoundResult::Starting { server, families },
                "http://10.0.0.1:10256/livez reports that kube-proxy has no rules for IPv6 yet",
            ),
            (
                RoundResult::Late { server },
                "http://10.0.0.1:10256/livez reports that the rules of kube-proxy are late",
            ),
            (
                RoundResult::LateFor { server, families },
                "http://10.0.0.1:10256/livez reports that the rules of kube-proxy are late for \
                 IPv6",
            ),
        ];
        for (result, text) in rows {
            exhaustive(&result);
            assert_eq!(result.to_string(), text);
        }
    }

    #[test]
    fn every_state_has_its_message() {
        let result = "nothing listens at http://10.0.0.1:10256/livez";
        let exhaustive = |message: &HealthMessage<'_>| match message {
            HealthMessage::Off
            | HealthMessage::NotCheckedYet
            | HealthMessage::MayBeStarting(_)
            | HealthMessage::NodeNotReady(_)
            | HealthMessage::Healthy(_)
            | HealthMessage::Unhealthy(_)
            | HealthMessage::Missing(_)
            | HealthMessage::MissingOnlyHere(_)
            | HealthMessage::NotExpected(_)
            | HealthMessage::Gone(_) => {}
        };
        let rows = [
            (HealthMessage::Off, "--kube-proxy-health is off"),
            (HealthMessage::NotCheckedYet, "kube-proxy has not been checked yet"),
            (
                HealthMessage::MayBeStarting(result),
                "nothing listens at http://10.0.0.1:10256/livez. kube-proxy may be starting, as \
                 gobgpd had no routes when the speaker started",
            ),
            (
                HealthMessage::NodeNotReady(result),
                "nothing listens at http://10.0.0.1:10256/livez. kube-proxy may be starting, as \
                 the Node is not Ready",
            ),
            (HealthMessage::Healthy(result), result),
            (
                HealthMessage::Unhealthy(result),
                "nothing listens at http://10.0.0.1:10256/livez: see the log of kube-proxy on this \
                 node",
            ),
            (
                HealthMessage::Missing(result),
                "nothing listens at http://10.0.0.1:10256/livez: start kube-proxy on this node, or \
                 set --kube-proxy-address to its health address",
            ),
            (
                HealthMessage::MissingOnlyHere(result),
                "nothing listens at http://10.0.0.1:10256/livez, while kube-proxy is healthy on \
                 another node: start kube-proxy on this node, or set --kube-proxy-address to its \
                 health address",
            ),
            (
                HealthMessage::NotExpected(result),
                "nothing listens at http://10.0.0.1:10256/livez, and no other node reports a \
                 healthy kube-proxy, so none is expected. If there is one, set \
                 --kube-proxy-address to its health address",
            ),
            (
                HealthMessage::Gone(result),
                "nothing listens at http://10.0.0.1:10256/livez, and no node has had a healthy \
                 kube-proxy for 120 s, so none is expected",
            ),
        ];
        for (message, text) in rows {
            exhaustive(&message);
            assert_eq!(message.to_string(), text);
        }
    }
}
