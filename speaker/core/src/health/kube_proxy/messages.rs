//! Messages about kube-proxy's health: the request, the reply, and the remedy. Pure. No message
//! contains a time or a count, because each new message is written to the API server.

use ferrolb_proto::api::KubeProxyState;

use super::{CheckRound, Families, KubeProxyMode, KubeProxyMonitor, LivezResult, RoundOutcome};

/// The result of one round of requests to kube-proxy's health server at `url`, as part of a
/// message. `Display` renders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum RoundResult<'a> {
    /// The health server did not respond, or its response is not that of a kube-proxy.
    #[error("{url}: {error}")]
    Failed { url: &'a str, error: &'a str },
    /// No process listens at `url`, and a health check node port reports a healthy kube-proxy.
    #[error("nothing listens at {url}, but a health check node port reports a healthy kube-proxy")]
    HealthyAtNodePort { url: &'a str },
    /// No process listens at the health server, and a health check node port reports that the rules
    /// of kube-proxy are late.
    #[error("a health check node port reports that the rules of kube-proxy are late")]
    LateAtNodePort,
    /// No process listens at `url`.
    #[error("nothing listens at {url}")]
    Refused { url: &'a str },
    #[error("{url} reports a healthy kube-proxy")]
    Healthy { url: &'a str },
    /// kube-proxy has no rules for these families yet.
    #[error("{url} reports that kube-proxy has no rules for {families} yet")]
    Starting { url: &'a str, families: Families },
    /// The rules of kube-proxy are late, and the affected families are not known.
    #[error("{url} reports that the rules of kube-proxy are late")]
    Late { url: &'a str },
    /// The rules of kube-proxy are late for these families.
    #[error("{url} reports that the rules of kube-proxy are late for {families}")]
    LateFor { url: &'a str, families: Families },
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
}

impl CheckRound {
    /// Returns the result of the round as a text.
    pub(super) fn result_text(&self, needed: Families) -> Box<str> {
        let url = &format!("http://{}/livez", self.server);
        let rules = match &self.livez {
            LivezResult::Replied { rules, .. } => rules.unwrap_or_default(),
            LivezResult::Refused | LivezResult::Failed(_) => Default::default(),
        };
        let both = Families { v4: true, v6: true };
        let result = match (self.outcome(needed), &self.livez, self.node_port_healthy) {
            (_, LivezResult::Failed(error), _) => RoundResult::Failed { url, error },
            (RoundOutcome::Good, LivezResult::Refused, _) => RoundResult::HealthyAtNodePort { url },
            (_, LivezResult::Refused, Some(_)) => RoundResult::LateAtNodePort,
            (_, LivezResult::Refused, None) => RoundResult::Refused { url },
            (RoundOutcome::Good, ..) => RoundResult::Healthy { url },
            (RoundOutcome::Starting, ..) => {
                RoundResult::Starting { url, families: rules.families_with(None, needed) }
            }
            (RoundOutcome::Bad | RoundOutcome::Refused, ..) => {
                match rules.families_with(Some(false), both) {
                    late if late == Families::default() => RoundResult::Late { url },
                    families => RoundResult::LateFor { url, families },
                }
            }
        };
        result.to_string().into()
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
            KubeProxyState::NotChecked => HealthMessage::NotExpected(result),
            KubeProxyState::Unknown if result.is_empty() => HealthMessage::NotCheckedYet,
            KubeProxyState::Unknown if self.context.ready => HealthMessage::MayBeStarting(result),
            KubeProxyState::Unknown => HealthMessage::NodeNotReady(result),
            KubeProxyState::Healthy => HealthMessage::Healthy(result),
            KubeProxyState::Unhealthy if self.found_kube_proxy => HealthMessage::Unhealthy(result),
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
        let (url, error) = ("http://10.0.0.1:10256/livez", "no response within 1000 ms");
        let families = Families { v4: false, v6: true };
        // The match has no default case, so that every new variant must be added here and to the
        // rows below.
        let exhaustive = |result: &RoundResult<'_>| match result {
            RoundResult::Failed { .. }
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
                RoundResult::Failed { url, error },
                "http://10.0.0.1:10256/livez: no response within 1000 ms",
            ),
            (
                RoundResult::HealthyAtNodePort { url },
                "nothing listens at http://10.0.0.1:10256/livez, but a health check node port \
                 reports a healthy kube-proxy",
            ),
            (
                RoundResult::LateAtNodePort,
                "a health check node port reports that the rules of kube-proxy are late",
            ),
            (RoundResult::Refused { url }, "nothing listens at http://10.0.0.1:10256/livez"),
            (
                RoundResult::Healthy { url },
                "http://10.0.0.1:10256/livez reports a healthy kube-proxy",
            ),
            (
                RoundResult::Starting { url, families },
                "http://10.0.0.1:10256/livez reports that kube-proxy has no rules for IPv6 yet",
            ),
            (
                RoundResult::Late { url },
                "http://10.0.0.1:10256/livez reports that the rules of kube-proxy are late",
            ),
            (
                RoundResult::LateFor { url, families },
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
            | HealthMessage::NotExpected(_) => {}
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
        ];
        for (message, text) in rows {
            exhaustive(&message);
            assert_eq!(message.to_string(), text);
        }
    }
}
