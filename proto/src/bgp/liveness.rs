//! The speakers that replied recently to a liveness request. The speaker's task that sends these
//! requests while its node drains owns the data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::UnverifiedSpeakers;
use crate::Instant;

/// The time for which a reply proves that a speaker is live.
const REPLY_AGE_MAX: Duration = Duration::from_secs(5);

/// The time of the latest reply of each node's speaker.
#[derive(Debug, Default)]
pub struct LivenessReplies(BTreeMap<Box<str>, Instant>);

impl LivenessReplies {
    /// Records a reply of a node's speaker.
    pub fn record(&mut self, node: Box<str>, now: Instant) {
        self.0.insert(node, now);
    }

    /// Returns the nodes in `unverified` whose speakers replied recently. Drops all other replies.
    pub fn recent(&mut self, unverified: &UnverifiedSpeakers, now: Instant) -> BTreeSet<Box<str>> {
        self.0.retain(|node, at| unverified.contains_key(node) && now.since(*at) < REPLY_AGE_MAX);
        self.0.keys().cloned().collect()
    }

    /// Returns the time at which the oldest reply expires.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.values().map(|at| *at + REPLY_AGE_MAX).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_counts_for_5_s_and_only_for_requested_nodes() {
        let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
        let unverified = |names: &[&str]| {
            names
                .iter()
                .map(|name| ((*name).into(), Box::default()))
                .collect::<UnverifiedSpeakers>()
        };
        let both = unverified(&["a", "b"]);
        let mut replies = LivenessReplies::default();
        assert_eq!(replies.deadline(), None);
        replies.record("a".into(), at(0));
        replies.record("b".into(), at(2));
        let names = |found: BTreeSet<Box<str>>| {
            found.into_iter().map(String::from).collect::<Vec<_>>().join("+")
        };
        assert_eq!(
            (names(replies.recent(&both, at(4))), replies.deadline()),
            ("a+b".into(), Some(at(5)))
        );
        assert_eq!(
            (names(replies.recent(&both, at(5))), replies.deadline()),
            ("b".into(), Some(at(7)))
        );
        replies.record("a".into(), at(6));
        assert_eq!(
            (names(replies.recent(&both, at(7))), replies.deadline()),
            ("a".into(), Some(at(11)))
        );
        assert_eq!(
            (names(replies.recent(&unverified(&["b"]), at(8))), replies.deadline()),
            ("".into(), None)
        );
        assert_eq!(
            names(replies.recent(&both, at(8))),
            "",
            "the reply of a node is dropped when the node is no longer checked"
        );
    }
}
