//! Messages about kube-proxy's health: the request, the reply, and the remedy. Pure. No message
//! contains a time or a count, because each new message is written to the API server.

use std::fmt::{self, Display};

use ferrolb_proto::api::KubeProxyState;

use super::{CheckRound, Families, KubeProxyMode, KubeProxyMonitor, LivezResult, RoundOutcome};

/// The result of one round of requests to kube-proxy's health server at `url`, as part of a
/// message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoundResult<'a> {
    /// The health server did not respond, or its response is not that of a kube-proxy.
    Failed {
        url: &'a str,
        error: &'a str,
    },
    /// No process listens at `url`, and a health check node port reports a healthy kube-proxy.
    HealthyAtNodePort {
        url: &'a str,
    },
    /// No process listens at the health server, and a health check node port reports that the rules
    /// of kube-proxy are late.
    LateAtNodePort,
    /// No process listens at `url`.
    Refused {
        url: &'a str,
    },
    Healthy {
        url: &'a str,
    },
    /// kube-proxy has no rules for these families yet.
    Starting {
        url: &'a str,
        families: Families,
    },
    /// The rules of kube-proxy are late; `families` are the affected ones, if they are known.
    Late {
        url: &'a str,
        families: Option<Families>,
    },
}

impl Display for RoundResult<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { url, error } => write!(f, "{url}: {error}"),
            Self::HealthyAtNodePort { url } => write!(
                f,
                "nothing listens at {url}, but a health check node port reports a healthy \
                 kube-proxy"
            ),
            Self::LateAtNodePort => f.write_str(
                "a health check node port reports that the rules of kube-proxy are late",
            ),
            Self::Refused { url } => write!(f, "nothing listens at {url}"),
            Self::Healthy { url } => write!(f, "{url} reports a healthy kube-proxy"),
            Self::Starting { url, families } => {
                write!(f, "{url} reports that kube-proxy has no rules for {families} yet")
            }
            Self::Late { url, families: None } => {
                write!(f, "{url} reports that the rules of kube-proxy are late")
            }
            Self::Late { url, families: Some(families) } => {
                write!(f, "{url} reports that the rules of kube-proxy are late for {families}")
            }
        }
    }
}

/// The message about a health state. `result` is the text of a round's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HealthMessage<'a> {
    Off,
    NotCheckedYet,
    /// kube-proxy may be starting, because gobgpd had no routes when the speaker started.
    MayBeStarting {
        result: &'a str,
    },
    /// kube-proxy may be starting, because the Node is not Ready.
    NodeNotReady {
        result: &'a str,
    },
    Healthy {
        result: &'a str,
    },
    Unhealthy {
        result: &'a str,
    },
    /// No kube-proxy was found on this node, although one is expected there.
    Missing {
        result: &'a str,
        elsewhere: bool,
    },
    /// No kube-proxy was found on any node, so none is expected.
    NotExpected {
        result: &'a str,
    },
}

impl Display for HealthMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("--kube-proxy-health is off"),
            Self::NotCheckedYet => f.write_str("kube-proxy has not been checked yet"),
            Self::MayBeStarting { result } => write!(
                f,
                "{result}. kube-proxy may be starting, as gobgpd had no routes when the speaker \
                 started"
            ),
            Self::NodeNotReady { result } => {
                write!(f, "{result}. kube-proxy may be starting, as the Node is not Ready")
            }
            Self::Healthy { result } => f.write_str(result),
            Self::Unhealthy { result } => {
                write!(f, "{result}: see the log of kube-proxy on this node")
            }
            Self::Missing { result, elsewhere } => {
                let elsewhere =
                    if *elsewhere { ", while kube-proxy is healthy on another node" } else { "" };
                write!(
                    f,
                    "{result}{elsewhere}: start kube-proxy on this node, or set \
                     --kube-proxy-address to its health address"
                )
            }
            Self::NotExpected { result } => write!(
                f,
                "{result}, and no other node reports a healthy kube-proxy, so none is expected. If \
                 there is one, set --kube-proxy-address to its health address"
            ),
        }
    }
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
                let late = rules.families_with(Some(false), both);
                RoundResult::Late {
                    url,
                    families: Some(late).filter(|late| *late != Families::default()),
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
            KubeProxyState::Unknown if result.is_empty() => HealthMessage::NotCheckedYet,
            KubeProxyState::Unknown if self.context.ready => {
                HealthMessage::MayBeStarting { result }
            }
            KubeProxyState::Unknown => HealthMessage::NodeNotReady { result },
            KubeProxyState::Healthy => HealthMessage::Healthy { result },
            KubeProxyState::Unhealthy if self.found_kube_proxy => {
                HealthMessage::Unhealthy { result }
            }
            KubeProxyState::Unhealthy => {
                HealthMessage::Missing { result, elsewhere: self.context.healthy_elsewhere }
            }
            KubeProxyState::NotChecked => HealthMessage::NotExpected { result },
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
            | RoundResult::Late { .. } => {}
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
                RoundResult::Late { url, families: None },
                "http://10.0.0.1:10256/livez reports that the rules of kube-proxy are late",
            ),
            (
                RoundResult::Late { url, families: Some(families) },
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
            | HealthMessage::MayBeStarting { .. }
            | HealthMessage::NodeNotReady { .. }
            | HealthMessage::Healthy { .. }
            | HealthMessage::Unhealthy { .. }
            | HealthMessage::Missing { .. }
            | HealthMessage::NotExpected { .. } => {}
        };
        let rows = [
            (HealthMessage::Off, "--kube-proxy-health is off"),
            (HealthMessage::NotCheckedYet, "kube-proxy has not been checked yet"),
            (
                HealthMessage::MayBeStarting { result },
                "nothing listens at http://10.0.0.1:10256/livez. kube-proxy may be starting, as \
                 gobgpd had no routes when the speaker started",
            ),
            (
                HealthMessage::NodeNotReady { result },
                "nothing listens at http://10.0.0.1:10256/livez. kube-proxy may be starting, as \
                 the Node is not Ready",
            ),
            (HealthMessage::Healthy { result }, result),
            (
                HealthMessage::Unhealthy { result },
                "nothing listens at http://10.0.0.1:10256/livez: see the log of kube-proxy on this \
                 node",
            ),
            (
                HealthMessage::Missing { result, elsewhere: true },
                "nothing listens at http://10.0.0.1:10256/livez, while kube-proxy is healthy on \
                 another node: start kube-proxy on this node, or set --kube-proxy-address to its \
                 health address",
            ),
            (
                HealthMessage::NotExpected { result },
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
