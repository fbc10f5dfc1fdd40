//! Selects the live speakers, and decides from their SpeakerStatuses which nodes announce an
//! address. Pure.
//!
//! The SpeakerStatus of a failed speaker does not change and still lists its addresses. Each
//! speaker reports from which other speakers it receives hellos. A speaker that reports hellos of
//! others has failed if none of these others receives its hellos. An isolated speaker receives
//! nothing, so a missing entry in its list proves nothing about another speaker.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_proto::api::InterfaceIssue;
use ferrolb_proto::facts::{FailingHealthCheck, Key, Speaker};

use crate::state::messages::announced::Owner;

/// The live speakers, sorted by node.
#[derive(Debug, Default)]
pub(super) struct LiveSpeakers<'a>(Vec<&'a Speaker>);

/// The owners of an address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Owners<'a> {
    /// The nodes that announce the address, sorted by name.
    pub(super) all: Vec<Owner<'a>>,
    /// True if two owners receive each other's hellos on interfaces on which they announce the
    /// address. One of them is then about to stop.
    pub(super) moving: bool,
    /// True if two owners do not receive each other's hellos: one of them is isolated, or they are
    /// on separate parts of the network.
    pub(super) parted: bool,
}

impl<'a> LiveSpeakers<'a> {
    /// Selects the live speakers: those whose node is not in `void`. `speakers` must be sorted by
    /// node.
    pub(super) fn new(
        speakers: impl Iterator<Item = &'a Speaker>,
        void: &BTreeSet<Box<str>>,
    ) -> Self {
        Self(speakers.filter(|speaker| !void.contains(&speaker.node)).collect())
    }

    /// Returns the live speaker of a node.
    pub(super) fn of(&self, node: &str) -> Option<&'a Speaker> {
        let place = self.0.binary_search_by(|speaker| (*speaker.node).cmp(node)).ok()?;
        self.0.get(place).copied()
    }

    /// Returns the nodes on which all endpoints of a Service in one family fail their health check,
    /// each with the report of its speaker.
    pub(super) fn failing(
        &self,
        service: &Key,
    ) -> impl Iterator<Item = (&'a str, &'a FailingHealthCheck)> {
        let of = move |speaker: &'a Speaker| {
            speaker.failing(service).iter().map(|failing| (&*speaker.node, failing))
        };
        self.0.iter().copied().flat_map(of)
    }

    /// Returns the issues that speakers report for an address, each with the speaker's node.
    pub(super) fn issues(
        &self,
        address: IpAddr,
    ) -> impl Iterator<Item = (&'a str, &'a InterfaceIssue)> {
        let of = |speaker: &'a Speaker| {
            speaker
                .interfaces
                .iter()
                .flat_map(|link| &link.issues)
                .map(|issue| (&*speaker.node, issue))
        };
        self.0.iter().copied().flat_map(of).filter(move |(_, issue)| issue.address == address)
    }

    /// Returns the owners of an address.
    ///
    /// If two speakers report the address, and only the first receives hellos of the second, the
    /// report of the first is outdated. The exception is an isolated second speaker, because it
    /// receives no hellos at all.
    pub(super) fn owners(&self, address: IpAddr) -> Owners<'a> {
        let claim: Vec<_> = self
            .0
            .iter()
            .filter(|speaker| speaker.interfaces_with(address).next().is_some())
            .collect();
        let deaf = |speaker: &Speaker| speaker.interfaces_with(address).all(|link| link.isolated);
        let misses =
            |one: &Speaker, other: &Speaker| !deaf(one) && !one.receives_hellos_of(&other.node);
        let past = |speaker: &Speaker| {
            claim
                .iter()
                .any(|other| speaker.receives_hellos_of(&other.node) && misses(other, speaker))
        };
        let claim: Vec<&Speaker> =
            claim.iter().map(|speaker| **speaker).filter(|speaker| !past(speaker)).collect();
        let hears_there = |one: &Speaker, other: &Speaker| {
            one.interfaces_with(address).any(|link| link.receives_hellos_of(&other.node))
        };
        let mut owners = Owners::default();
        for (i, one) in claim.iter().enumerate() {
            for other in &claim[i + 1..] {
                owners.moving |= hears_there(one, other) && hears_there(other, one);
                owners.parted |=
                    deaf(one) || deaf(other) || misses(one, other) && misses(other, one);
            }
            let links = one.interfaces_with(address).map(|link| &*link.name).collect();
            owners.all.push(Owner { node: &one.node, links });
        }
        owners
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::facts::{Node, SpeakerInterface, stale_speakers};

    use super::*;

    const ADDRESS: &str = "172.30.0.200";

    /// Builds a speaker from one word per interface. `eth0:node2,node3!` receives hellos of these
    /// nodes and announces the address. `eth0:~!` is isolated and announces it.
    fn speaker(node: &str, links: &[&str]) -> Speaker {
        let link = |text: &&str| {
            let (name, heard) = text.split_once(':').expect("NAME:HEARD");
            let (heard, has) =
                heard.strip_suffix('!').map_or((heard, false), |heard| (heard, true));
            let addresses = if has { vec![ADDRESS.parse().unwrap()] } else { Vec::new() };
            SpeakerInterface {
                name: name.into(),
                up: true,
                isolated: heard == "~",
                hello_senders: heard
                    .split(',')
                    .filter(|name| !["", "~"].contains(name))
                    .map(Into::into)
                    .collect(),
                addresses: addresses.into(),
                ..SpeakerInterface::default()
            }
        };
        Speaker {
            node: node.into(),
            interfaces: links.iter().map(link).collect(),
            ..Speaker::default()
        }
    }

    /// Returns the owners, whether one is about to stop, and whether two do not receive each other.
    fn owners(speakers: &[Speaker], lost: &[&str], gone: &[&str]) -> (String, bool, bool) {
        let node = |speaker: &Speaker| Node {
            ready_unknown: lost.contains(&&*speaker.node),
            name: speaker.node.clone(),
            ..Node::default()
        };
        let nodes: Vec<_> =
            speakers.iter().map(node).filter(|node| !gone.contains(&&*node.name)).collect();
        let void =
            stale_speakers(speakers.iter(), |name| nodes.iter().find(|node| *node.name == *name));
        let voices = LiveSpeakers::new(speakers.iter(), &void);
        let owners = voices.owners(ADDRESS.parse().unwrap());
        let names: Vec<_> = owners
            .all
            .iter()
            .map(|owner| format!("{}({})", owner.node, owner.links.join(",")))
            .collect();
        (names.join(" "), owners.moving, owners.parted)
    }

    /// A node, and its interfaces as in [`speaker`].
    type SpeakerText = (&'static str, &'static [&'static str]);

    /// Speakers, and the result of [`owners`] for them.
    const OWNERS: [(&str, &[SpeakerText], &str, bool, bool); 15] = [
        ("one owner", &[("a", &["eth0:b!"]), ("b", &["eth0:a"])], "a(eth0)", false, false),
        ("a single node", &[("a", &["eth0:!"])], "a(eth0)", false, false),
        ("nobody", &[("a", &["eth0:b"]), ("b", &["eth0:a"])], "", false, false),
        (
            "the dead one still says so",
            &[("a", &["eth0:b,c!"]), ("b", &["eth0:c!"]), ("c", &["eth0:b"])],
            "b(eth0)",
            false,
            false,
        ),
        (
            "the dead one, and nobody has taken over yet",
            &[("a", &["eth0:b,c!"]), ("b", &["eth0:c"]), ("c", &["eth0:b"])],
            "",
            false,
            false,
        ),
        (
            "the dead one of two",
            &[("a", &["eth0:b!"]), ("b", &["eth0:!"])],
            "b(eth0)",
            false,
            false,
        ),
        (
            "a deaf one, and the one that took over from it or failed",
            &[("a", &["eth0:~!"]), ("b", &["eth0:a!"])],
            "a(eth0) b(eth0)",
            false,
            true,
        ),
        (
            "a deaf one, and one that took over and hears it among others",
            &[("a", &["eth0:~!"]), ("b", &["eth0:a,c!"]), ("c", &["eth0:a,b"])],
            "a(eth0) b(eth0)",
            false,
            true,
        ),
        (
            "two deaf ones",
            &[("a", &["eth0:~!"]), ("b", &["eth0:~!"])],
            "a(eth0) b(eth0)",
            false,
            true,
        ),
        ("a deaf one alone", &[("a", &["eth0:~!"]), ("b", &["eth0:~"])], "a(eth0)", false, false),
        ("a partition", &[("a", &["eth0:!"]), ("b", &["eth0:!"])], "a(eth0) b(eth0)", false, true),
        (
            "a hand-over",
            &[("a", &["eth0:b!"]), ("b", &["eth0:a!"])],
            "a(eth0) b(eth0)",
            true,
            false,
        ),
        (
            "two wires",
            &[("a", &["eth0:b!", "eth1:b"]), ("b", &["eth0:a", "eth1:a!"])],
            "a(eth0) b(eth1)",
            // A SpeakerStatus does not show which interfaces are on one network segment. The
            // case counts as a move, and the condition names both owners if it lasts.
            true,
            false,
        ),
        (
            "two wires that not all nodes are on",
            &[("a", &["eth0:c!"]), ("b", &["eth1:c!"]), ("c", &["eth0:a", "eth1:b"])],
            "a(eth0) b(eth1)",
            false,
            true,
        ),
        (
            "on two links of one node",
            &[("a", &["eth0:b!", "eth1:b!"]), ("b", &["eth0:a"])],
            "a(eth0,eth1)",
            false,
            false,
        ),
    ];

    #[test]
    fn who_lives_is_believed_and_who_is_heard_by_nobody_is_not() {
        for (what, speakers, expect, moving, parted) in OWNERS {
            let speakers: Vec<_> =
                speakers.iter().map(|(node, links)| speaker(node, links)).collect();
            assert_eq!(owners(&speakers, &[], &[]), (expect.to_owned(), moving, parted), "{what}");
        }
    }

    #[test]
    fn a_node_that_is_gone_or_lost_announces_nothing() {
        let alone = [speaker("a", &["eth0:!"])];
        assert_eq!(owners(&alone, &["a"], &[]).0, "");
        assert_eq!(owners(&alone, &[], &["a"]).0, "");
        let both = [speaker("a", &["eth0:b!"]), speaker("b", &["eth0:a"])];
        assert_eq!(
            owners(&both, &["b"], &[]).0,
            "a(eth0)",
            "the kubelet of b is away, its speaker is not"
        );
        assert_eq!(owners(&both, &[], &["b"]).0, "", "a speaks of a node that is gone: so is a");
    }
}
