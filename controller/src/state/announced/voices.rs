//! What the speakers say of who announces an address, and whom of them to believe. Pure.
//!
//! A dead speaker's status stays as it was and still names what it had. But those who live say whom they hear: a speaker that
//! says it hears others, and whom none of them hears, is not there any more. A deaf speaker hears
//! nobody, so its silence about another one proves nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_proto::api::LinkTrouble;
use ferrolb_proto::facts::{Failing, Key, Speaker};

/// The speakers that count, by node.
#[derive(Debug, Default)]
pub(super) struct Voices<'a>(Vec<&'a Speaker>);

/// A node that says it announces an address, and its links.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owner<'a> {
    pub(super) node: &'a str,
    pub(super) links: Vec<&'a str>,
}

/// Who announces an address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Owners<'a> {
    /// By node.
    pub(super) all: Vec<Owner<'a>>,
    /// Two of them hear each other where both announce: one is about to stop.
    pub(super) moving: bool,
    /// Two of them do not hear each other: one of the two is deaf, or both hear others only.
    pub(super) parted: bool,
}

impl<'a> Voices<'a> {
    /// The speakers, by node, without those that are `void`.
    pub(super) fn new(speakers: impl Iterator<Item = &'a Speaker>, void: &BTreeSet<Box<str>>) -> Self {
        Self(speakers.filter(|speaker| !void.contains(&speaker.node)).collect())
    }

    /// The speaker of a node.
    pub(super) fn of(&self, node: &str) -> Option<&'a Speaker> {
        let place = self.0.binary_search_by(|speaker| (*speaker.node).cmp(node)).ok()?;
        self.0.get(place).copied()
    }

    /// The nodes that say that none of their own endpoints of a Service and family passes its health check, with what the check says.
    pub(super) fn failing(&self, service: &Key) -> impl Iterator<Item = (&'a str, &'a Failing)> {
        let of = move |speaker: &'a Speaker| speaker.failing(service).iter().map(|failing| (&*speaker.node, failing));
        self.0.iter().copied().flat_map(of)
    }

    /// What is wrong with an address, as each speaker says.
    pub(super) fn troubles(&self, address: IpAddr) -> impl Iterator<Item = (&'a str, &'a LinkTrouble)> {
        let of = |speaker: &'a Speaker| {
            speaker.links.iter().flat_map(|link| &link.troubles).map(|trouble| (&*speaker.node, trouble))
        };
        self.0.iter().copied().flat_map(of).filter(move |(_, trouble)| trouble.address == address)
    }

    /// Who announces an address. Of two that say so, one that hears the other and is not heard by it speaks of the past.
    pub(super) fn owners(&self, address: IpAddr) -> Owners<'a> {
        let claim: Vec<_> = self.0.iter().filter(|speaker| speaker.links_with(address).next().is_some()).collect();
        let deaf = |speaker: &Speaker| speaker.links_with(address).all(|link| link.deaf);
        let misses = |one: &Speaker, other: &Speaker| !deaf(one) && !one.hears(&other.node);
        let past = |speaker: &Speaker| claim.iter().any(|other| speaker.hears(&other.node) && misses(other, speaker));
        let claim: Vec<&Speaker> = claim.iter().map(|speaker| **speaker).filter(|speaker| !past(speaker)).collect();
        let hears_there = |one: &Speaker, other: &Speaker| one.links_with(address).any(|link| link.hears(&other.node));
        let mut owners = Owners::default();
        for (i, one) in claim.iter().enumerate() {
            for other in &claim[i + 1..] {
                owners.moving |= hears_there(one, other) && hears_there(other, one);
                owners.parted |= deaf(one) || deaf(other) || misses(one, other) && misses(other, one);
            }
            let links = one.links_with(address).map(|link| &*link.name).collect();
            owners.all.push(Owner { node: &one.node, links });
        }
        owners
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::facts::{Node, SpeakerLink, void};

    use super::*;

    const ADDRESS: &str = "172.30.0.200";

    /// A speaker in a word for each link: `eth0:node2,node3!` hears these and announces the
    /// address, `eth0:~!` is deaf.
    fn speaker(node: &str, links: &[&str]) -> Speaker {
        let link = |text: &&str| {
            let (name, heard) = text.split_once(':').expect("NAME:HEARD");
            let (heard, has) = heard.strip_suffix('!').map_or((heard, false), |heard| (heard, true));
            let addresses = if has { vec![ADDRESS.parse().unwrap()] } else { Vec::new() };
            SpeakerLink {
                name: name.into(),
                up: true,
                deaf: heard == "~",
                heard: heard.split(',').filter(|name| !["", "~"].contains(name)).map(Into::into).collect(),
                addresses: addresses.into(),
                ..SpeakerLink::default()
            }
        };
        Speaker { node: node.into(), links: links.iter().map(link).collect(), ..Speaker::default() }
    }

    /// The owners, and whether one is about to stop, or they are apart.
    fn owners(speakers: &[Speaker], lost: &[&str], gone: &[&str]) -> (String, bool, bool) {
        let node = |speaker: &Speaker| Node {
            lost: lost.contains(&&*speaker.node),
            name: speaker.node.clone(),
            ..Node::default()
        };
        let nodes: Vec<_> = speakers.iter().map(node).filter(|node| !gone.contains(&&*node.name)).collect();
        let void = void(speakers.iter(), |name| nodes.iter().find(|node| *node.name == *name));
        let voices = Voices::new(speakers.iter(), &void);
        let owners = voices.owners(ADDRESS.parse().unwrap());
        let names: Vec<_> =
            owners.all.iter().map(|owner| format!("{}({})", owner.node, owner.links.join(","))).collect();
        (names.join(" "), owners.moving, owners.parted)
    }

    #[test]
    fn who_lives_is_believed_and_who_is_heard_by_nobody_is_not() {
        let plain = |node: &str, link: &str| speaker(node, &[link]);
        let cases = [
            ("one owner", vec![plain("a", "eth0:b!"), plain("b", "eth0:a")], "a(eth0)", false, false),
            ("a single node", vec![plain("a", "eth0:!")], "a(eth0)", false, false),
            ("nobody", vec![plain("a", "eth0:b"), plain("b", "eth0:a")], "", false, false),
            (
                "the dead one still says so",
                vec![plain("a", "eth0:b,c!"), plain("b", "eth0:c!"), plain("c", "eth0:b")],
                "b(eth0)",
                false,
                false,
            ),
            (
                "the dead one, and nobody has taken over yet",
                vec![plain("a", "eth0:b,c!"), plain("b", "eth0:c"), plain("c", "eth0:b")],
                "",
                false,
                false,
            ),
            ("the dead one of two", vec![plain("a", "eth0:b!"), plain("b", "eth0:!")], "b(eth0)", false, false),
            (
                "a deaf one, and the one that took over from it or failed",
                vec![plain("a", "eth0:~!"), plain("b", "eth0:a!")],
                "a(eth0) b(eth0)",
                false,
                true,
            ),
            (
                "a deaf one, and one that took over and hears it among others",
                vec![plain("a", "eth0:~!"), plain("b", "eth0:a,c!"), plain("c", "eth0:a,b")],
                "a(eth0) b(eth0)",
                false,
                true,
            ),
            ("two deaf ones", vec![plain("a", "eth0:~!"), plain("b", "eth0:~!")], "a(eth0) b(eth0)", false, true),
            ("a deaf one alone", vec![plain("a", "eth0:~!"), plain("b", "eth0:~")], "a(eth0)", false, false),
            ("a partition", vec![plain("a", "eth0:!"), plain("b", "eth0:!")], "a(eth0) b(eth0)", false, true),
            ("a hand-over", vec![plain("a", "eth0:b!"), plain("b", "eth0:a!")], "a(eth0) b(eth0)", true, false),
            (
                "two wires",
                vec![speaker("a", &["eth0:b!", "eth1:b"]), speaker("b", &["eth0:a", "eth1:a!"])],
                "a(eth0) b(eth1)",
                // Which links are one wire is not known here: it counts as a move, and a move that lasts names both.
                true,
                false,
            ),
            (
                "two wires that not all nodes are on",
                vec![speaker("a", &["eth0:c!"]), speaker("b", &["eth1:c!"]), speaker("c", &["eth0:a", "eth1:b"])],
                "a(eth0) b(eth1)",
                false,
                true,
            ),
            (
                "on two links of one node",
                vec![speaker("a", &["eth0:b!", "eth1:b!"]), plain("b", "eth0:a")],
                "a(eth0,eth1)",
                false,
                false,
            ),
        ];
        for (what, speakers, expect, moving, parted) in cases {
            assert_eq!(owners(&speakers, &[], &[]), (expect.to_owned(), moving, parted), "{what}");
        }
    }

    #[test]
    fn a_node_that_is_gone_or_lost_announces_nothing() {
        let alone = [speaker("a", &["eth0:!"])];
        assert_eq!(owners(&alone, &["a"], &[]).0, "");
        assert_eq!(owners(&alone, &[], &["a"]).0, "");
        let both = [speaker("a", &["eth0:b!"]), speaker("b", &["eth0:a"])];
        assert_eq!(owners(&both, &["b"], &[]).0, "a(eth0)", "the kubelet of b is away, its speaker is not");
        assert_eq!(owners(&both, &[], &["b"]).0, "", "a speaks of a node that is gone: so is a");
    }
}
