//! What a judgement on the data path says to a person: what was asked, what it said, what to do. Pure; no text has a time or a
//! count in it, because each new text is written to the API server.

use super::{DataPath, Families, Livez, Mode, Outcome, Round};
use crate::api::DataPathState;

impl Round {
    /// What the round found.
    pub(super) fn finding(&self, needed: Families) -> Box<str> {
        let url = format!("http://{}/livez", self.server);
        let rules = match &self.livez {
            Livez::Answered { rules, .. } => rules.unwrap_or_default(),
            Livez::Refused | Livez::Failed(_) => Default::default(),
        };
        let both = Families { v4: true, v6: true };
        match (self.outcome(needed), &self.livez, self.witness) {
            (_, Livez::Failed(why), _) => format!("{url}: {why}"),
            (Outcome::Good, Livez::Refused, _) => {
                format!("nothing listens at {url}, but at a health check node port kube-proxy says that it works")
            }
            (_, Livez::Refused, Some(_)) => {
                "at a health check node port kube-proxy says that it is late with its rules".to_owned()
            }
            (_, Livez::Refused, None) => format!("nothing listens at {url}"),
            (Outcome::Good, ..) => format!("{url} says that kube-proxy works"),
            (Outcome::Starting, ..) => {
                format!("{url} says that kube-proxy has no rules for {} yet", rules.that_are(None, needed))
            }
            (Outcome::Bad | Outcome::Refused, ..) => match rules.that_are(Some(false), both) {
                late if late == Families::default() => format!("{url} says that kube-proxy is late with its rules"),
                late => format!("{url} says that kube-proxy is late with its rules for {late}"),
            },
        }
        .into()
    }
}

impl DataPath {
    /// What is said of `state`.
    pub(super) fn message(&self, state: DataPathState) -> Box<str> {
        let found = &self.shown;
        match state {
            DataPathState::NotChecked if self.config.mode == Mode::Off => "--kube-proxy-health is off".to_owned(),
            DataPathState::Unknown if found.is_empty() => "kube-proxy has not been asked yet".to_owned(),
            DataPathState::Unknown if self.situation.ready => {
                format!("{found}; kube-proxy may be starting, as gobgpd had no routes when the speaker started")
            }
            DataPathState::Unknown => format!("{found}; it may be starting, and so may the Node, which is not Ready"),
            DataPathState::Healthy => found.to_string(),
            DataPathState::Unhealthy if self.known => format!("{found}: see the log of kube-proxy on this node"),
            DataPathState::Unhealthy => {
                let elsewhere = if self.situation.elsewhere { ", while kube-proxy works on another node" } else { "" };
                format!("{found}{elsewhere}: start kube-proxy on this node, or say with --kube-proxy-address where it serves its health")
            }
            DataPathState::NotChecked => format!(
                "{found}, and no other node says that its kube-proxy works: taken for a cluster without one; if there is one, say with \
                 --kube-proxy-address where it serves its health"
            ),
        }
        .into()
    }
}
