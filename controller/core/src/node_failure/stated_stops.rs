//! Stated stops: the pods whose speakers have stated that they stop. Pure; each replica of the
//! controller owns its own memory of them.

use std::collections::BTreeMap;

use ferrolb_proto::api::WatchedNodeState;
use ferrolb_proto::facts::Speaker;

use crate::credibility::{SpeakerPods, watched_by};

/// The nodes whose speakers have stated their stop, each with the UID of the speaker's pod at that
/// time, if nobody had ended it. Others may receive replies of the next speaker only after its pod
/// runs.
#[derive(Debug, Default)]
pub struct StatedStops(BTreeMap<Box<str>, Option<Box<str>>>);

impl StatedStops {
    /// Records the stops that these speakers report, and forgets those that none reports any more.
    /// A stop has no pod if a node is already silent when the first report of it arrives: another
    /// speaker may run by then.
    pub fn update<'a>(&mut self, speakers: impl Iterator<Item = &'a Speaker>, pods: &SpeakerPods) {
        let mut reported = BTreeMap::<&str, bool>::new();
        for it in speakers.flat_map(watched_by) {
            if it.state == WatchedNodeState::Leaving {
                *reported.entry(&it.node).or_default() |= it.silent;
            }
        }
        self.0.retain(|node, _| reported.contains_key(&**node));
        for (node, is_silent) in reported {
            let pod = || pods.wanted_on(node).filter(|_| !is_silent).map(Into::into);
            self.0.entry(node.into()).or_insert_with(pod);
        }
    }

    /// Returns whether nobody has ended the pod whose speaker has stated its stop on a node, so
    /// that the node has stopped.
    #[must_use]
    pub fn are_of_node(&self, node: &str, pods: &SpeakerPods) -> bool {
        let stated = self.0.get(node).and_then(Option::as_deref);
        stated.is_some() && pods.wanted_on(node) == stated
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::api::WatchedNode;
    use ferrolb_proto::facts::{Component, Key, Pod};

    use super::*;

    fn pods(uid: &str) -> SpeakerPods {
        let pod = |component, uid: &str| Pod {
            key: Key::new("ferrolb-system", uid),
            component: Some(component),
            node: "a".into(),
            ready: true,
            uid: uid.into(),
            is_wanted: true,
        };
        let all = [pod(Component::Speaker, uid), pod(Component::Controller, "controller")];
        SpeakerPods::of(all.iter())
    }

    #[test]
    fn a_stop_keeps_its_pod_until_no_speaker_reports_it() {
        let mut stops = StatedStops::default();
        let mut update = |reports: &[(WatchedNodeState, bool)], uid: &str| {
            let speaker = |(state, silent): &(WatchedNodeState, bool)| {
                let watched = WatchedNode { node: "a".into(), state: *state, silent: *silent };
                Speaker { watched: [watched].into(), ..Speaker::default() }
            };
            let speakers: Vec<_> = reports.iter().map(speaker).collect();
            stops.update(speakers.iter(), &pods(uid));
            ["first", "second"].map(|uid| stops.are_of_node("a", &pods(uid)))
        };
        use WatchedNodeState::{Leaving, Replies};
        assert_eq!(update(&[(Replies, false)], "first"), [false, false]);
        assert_eq!(update(&[(Leaving, false), (Replies, false)], "first"), [true, false]);
        let silent = [(Leaving, true), (Leaving, true)];
        assert_eq!(update(&silent, "second"), [true, false]);
        assert_eq!(update(&[(Replies, false)], "second"), [false, false]);
        assert_eq!(update(&silent, "second"), [false, false], "it may be that of an earlier pod");
    }
}
