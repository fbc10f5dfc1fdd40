//! Stated stops: the pods whose speakers have stated that they stop. Pure; each replica of the
//! controller owns its own memory of them.

use std::collections::BTreeMap;

use ferrolb_proto::api::WatchedNodeState;
use ferrolb_proto::facts::Speaker;

use crate::credibility::watched_by;

/// The nodes whose speakers have stated their stop, each with the UID of the speaker's pod at that
/// time. The next speaker of a node may write its SpeakerStatus before others receive its replies.
#[derive(Debug, Default)]
pub struct StatedStops(BTreeMap<Box<str>, Box<str>>);

impl StatedStops {
    /// Records the stops that these speakers report, and forgets those that none reports any more.
    /// `pod_uid` returns the UID of the pod of a node's speaker. A stop has no pod if a node is
    /// already silent when the first report of it arrives: another speaker may run by then.
    pub fn update<'a>(
        &mut self,
        speakers: impl Iterator<Item = &'a Speaker>,
        pod_uid: impl Fn(&str) -> Box<str>,
    ) {
        let mut reported = BTreeMap::<&str, bool>::new();
        for it in speakers.flat_map(watched_by) {
            if it.state == WatchedNodeState::Leaving {
                *reported.entry(&it.node).or_default() |= it.silent;
            }
        }
        self.0.retain(|node, _| reported.contains_key(&**node));
        for (node, is_silent) in reported {
            let pod = || if is_silent { Box::default() } else { pod_uid(node) };
            self.0.entry(node.into()).or_insert_with(pod);
        }
    }

    /// Returns the UID of the pod whose speaker has stated its stop on a node, if it is known.
    #[must_use]
    pub fn pod(&self, node: &str) -> Option<&str> {
        self.0.get(node).map(|pod| &**pod).filter(|pod| !pod.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::api::WatchedNode;

    use super::*;

    #[test]
    fn a_stop_keeps_its_pod_until_no_speaker_reports_it() {
        let mut stops = StatedStops::default();
        let mut update = |reports: &[(WatchedNodeState, bool)], uid: &str| {
            let speaker = |(state, silent): &(WatchedNodeState, bool)| {
                let watched = WatchedNode { node: "a".into(), state: *state, silent: *silent };
                Speaker { watched: [watched].into(), ..Speaker::default() }
            };
            let speakers: Vec<_> = reports.iter().map(speaker).collect();
            stops.update(speakers.iter(), |_| uid.into());
            stops.pod("a").map(ToOwned::to_owned)
        };
        use WatchedNodeState::{Leaving, Replies};
        assert_eq!(update(&[(Replies, false)], "first"), None);
        assert_eq!(update(&[(Leaving, false), (Replies, false)], "first"), Some("first".into()));
        let silent = [(Leaving, true), (Leaving, true)];
        assert_eq!(update(&silent, "second"), Some("first".into()));
        assert_eq!(update(&[(Replies, false)], "second"), None);
        assert_eq!(update(&silent, "second"), None, "the stop may be that of an earlier pod");
    }
}
