//! Messages about kube-proxy's health: the request, the reply, and the remedy. Pure. No message
//! contains a time or a count, because each new message is written to the API server.

use std::fmt::{self, Display};

use super::{CheckRound, Families, KubeProxyMode, KubeProxyMonitor, LivezResult, RoundOutcome};
use crate::api::KubeProxyState;

/// The result of one round of requests to the health server at `url`, as part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding<'a> {
    /// The server did not respond as kube-proxy does.
    Failed {
        url: &'a str,
        why: &'a str,
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

impl Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { url, why } => write!(f, "{url}: {why}"),
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

/// The message about a health state. `found` is the text of a round's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message<'a> {
    Off,
    NotCheckedYet,
    /// kube-proxy may be starting, because gobgpd had no routes when the speaker started.
    MayBeStarting {
        found: &'a str,
    },
    /// kube-proxy may be starting, because the Node is not Ready.
    NodeNotReady {
        found: &'a str,
    },
    Healthy {
        found: &'a str,
    },
    Unhealthy {
        found: &'a str,
    },
    /// No kube-proxy was found on this node, although one is expected there.
    Missing {
        found: &'a str,
        elsewhere: bool,
    },
    /// No kube-proxy was found on any node, so none is expected.
    NotExpected {
        found: &'a str,
    },
}

impl Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("--kube-proxy-health is off"),
            Self::NotCheckedYet => f.write_str("kube-proxy has not been checked yet"),
            Self::MayBeStarting { found } => write!(
                f,
                "{found}. kube-proxy may be starting, as gobgpd had no routes when the speaker \
                 started"
            ),
            Self::NodeNotReady { found } => {
                write!(f, "{found}. kube-proxy may be starting, as the Node is not Ready")
            }
            Self::Healthy { found } => f.write_str(found),
            Self::Unhealthy { found } => {
                write!(f, "{found}: see the log of kube-proxy on this node")
            }
            Self::Missing { found, elsewhere } => {
                let elsewhere =
                    if *elsewhere { ", while kube-proxy is healthy on another node" } else { "" };
                write!(
                    f,
                    "{found}{elsewhere}: start kube-proxy on this node, or set \
                     --kube-proxy-address to its health address"
                )
            }
            Self::NotExpected { found } => write!(
                f,
                "{found}, and no other node reports a healthy kube-proxy, so none is expected. If \
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
        let finding = match (self.outcome(needed), &self.livez, self.node_port_healthy) {
            (_, LivezResult::Failed(why), _) => Finding::Failed { url, why },
            (RoundOutcome::Good, LivezResult::Refused, _) => Finding::HealthyAtNodePort { url },
            (_, LivezResult::Refused, Some(_)) => Finding::LateAtNodePort,
            (_, LivezResult::Refused, None) => Finding::Refused { url },
            (RoundOutcome::Good, ..) => Finding::Healthy { url },
            (RoundOutcome::Starting, ..) => {
                Finding::Starting { url, families: rules.families_with(None, needed) }
            }
            (RoundOutcome::Bad | RoundOutcome::Refused, ..) => {
                let late = rules.families_with(Some(false), both);
                Finding::Late {
                    url,
                    families: Some(late).filter(|late| *late != Families::default()),
                }
            }
        };
        finding.to_string().into()
    }
}

impl KubeProxyMonitor {
    /// Returns the message of a judgement with this state.
    pub(super) fn message(&self, state: KubeProxyState) -> Box<str> {
        let found = &*self.reported_reason;
        let message = match state {
            KubeProxyState::NotChecked if self.config.mode == KubeProxyMode::Off => Message::Off,
            KubeProxyState::Unknown if found.is_empty() => Message::NotCheckedYet,
            KubeProxyState::Unknown if self.situation.ready => Message::MayBeStarting { found },
            KubeProxyState::Unknown => Message::NodeNotReady { found },
            KubeProxyState::Healthy => Message::Healthy { found },
            KubeProxyState::Unhealthy if self.found_kube_proxy => Message::Unhealthy { found },
            KubeProxyState::Unhealthy => {
                Message::Missing { found, elsewhere: self.situation.healthy_elsewhere }
            }
            KubeProxyState::NotChecked => Message::NotExpected { found },
        };
        message.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_its_message() {
        let (url, why) = ("http://10.0.0.1:10256/livez", "no response within 1000 ms");
        let families = Families { v4: false, v6: true };
        // Exhaustive: a new variant does not compile before it is here.
        let exhaustive = |finding: &Finding<'_>| match finding {
            Finding::Failed { .. }
            | Finding::HealthyAtNodePort { .. }
            | Finding::LateAtNodePort
            | Finding::Refused { .. }
            | Finding::Healthy { .. }
            | Finding::Starting { .. }
            | Finding::Late { .. } => {}
        };
        let rows = [
            (
                Finding::Failed { url, why },
                "http://10.0.0.1:10256/livez: no response within 1000 ms",
            ),
            (
                Finding::HealthyAtNodePort { url },
                "nothing listens at http://10.0.0.1:10256/livez, but a health check node port \
                 reports a healthy kube-proxy",
            ),
            (
                Finding::LateAtNodePort,
                "a health check node port reports that the rules of kube-proxy are late",
            ),
            (Finding::Refused { url }, "nothing listens at http://10.0.0.1:10256/livez"),
            (Finding::Healthy { url }, "http://10.0.0.1:10256/livez reports a healthy kube-proxy"),
            (
                Finding::Starting { url, families },
                "http://10.0.0.1:10256/livez reports that kube-proxy has no rules for IPv6 yet",
            ),
            (
                Finding::Late { url, families: None },
                "http://10.0.0.1:10256/livez reports that the rules of kube-proxy are late",
            ),
            (
                Finding::Late { url, families: Some(families) },
                "http://10.0.0.1:10256/livez reports that the rules of kube-proxy are late for \
                 IPv6",
            ),
        ];
        for (finding, text) in rows {
            exhaustive(&finding);
            assert_eq!(finding.to_string(), text);
        }
    }

    #[test]
    fn every_state_has_its_message() {
        let found = "nothing listens at http://10.0.0.1:10256/livez";
        let exhaustive = |message: &Message<'_>| match message {
            Message::Off
            | Message::NotCheckedYet
            | Message::MayBeStarting { .. }
            | Message::NodeNotReady { .. }
            | Message::Healthy { .. }
            | Message::Unhealthy { .. }
            | Message::Missing { .. }
            | Message::NotExpected { .. } => {}
        };
        let rows = [
            (Message::Off, "--kube-proxy-health is off"),
            (Message::NotCheckedYet, "kube-proxy has not been checked yet"),
            (
                Message::MayBeStarting { found },
                "nothing listens at http://10.0.0.1:10256/livez. kube-proxy may be starting, as \
                 gobgpd had no routes when the speaker started",
            ),
            (
                Message::NodeNotReady { found },
                "nothing listens at http://10.0.0.1:10256/livez. kube-proxy may be starting, as \
                 the Node is not Ready",
            ),
            (Message::Healthy { found }, found),
            (
                Message::Unhealthy { found },
                "nothing listens at http://10.0.0.1:10256/livez: see the log of kube-proxy on this \
                 node",
            ),
            (
                Message::Missing { found, elsewhere: true },
                "nothing listens at http://10.0.0.1:10256/livez, while kube-proxy is healthy on \
                 another node: start kube-proxy on this node, or set --kube-proxy-address to its \
                 health address",
            ),
            (
                Message::NotExpected { found },
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
