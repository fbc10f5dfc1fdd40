//! Selects the live speakers, and decides from their SpeakerStatuses which nodes announce an
//! address. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::credibility::is_outdated_by;
use ferrolb_proto::api::InterfaceIssue;
use ferrolb_proto::facts::{
    FailingHealthCheck, Key, Speaker, SpeakerInterface, UncheckedHealthCheck,
};
use ferrolb_proto::range::{AddressRange, Family};

use crate::state::messages::announced::{Owner, Reporter};

/// The live speakers, and those whose SpeakerStatus is stale
/// ([`crate::credibility::stale_speakers`]). Both are sorted by node.
#[derive(Debug, Default)]
pub(super) struct LiveSpeakers<'a> {
    live: Vec<&'a Speaker>,
    stale: Vec<&'a Speaker>,
}

/// The owners of an address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Owners<'a> {
    /// The nodes that announce the address, sorted by name.
    pub(super) all: Vec<Owner<'a>>,
    /// True if two owners receive each other's hellos on interfaces on which they announce the
    /// address. One of these owners is then about to stop its announcement.
    pub(super) moving: bool,
    /// True if two owners do not receive each other's hellos: one of them is isolated, or they are
    /// on separate parts of the network.
    pub(super) partitioned: bool,
}

impl<'a> LiveSpeakers<'a> {
    /// Selects the live speakers: those whose node is not in `stale`. `speakers` must be sorted by
    /// node.
    pub(super) fn new(
        speakers: impl Iterator<Item = &'a Speaker>,
        stale: &BTreeSet<Box<str>>,
    ) -> Self {
        let (stale, live) = speakers.partition(|speaker| stale.contains(&speaker.node));
        Self { live, stale }
    }

    /// Returns the nodes whose stale SpeakerStatus lists the address.
    pub(super) fn stale_owners(&self, address: IpAddr) -> Vec<&'a str> {
        let lists = |it: &&&Speaker| it.interfaces_with(address).next().is_some();
        self.stale.iter().filter(lists).map(|speaker| &*speaker.node).collect()
    }

    /// Returns the nodes whose stale SpeakerStatus has an established BGP session.
    pub(super) fn stale_routers(&self) -> Vec<&'a str> {
        let routers = self.stale.iter().filter(|it| it.has_session());
        routers.map(|speaker| &*speaker.node).collect()
    }

    /// Returns the live speaker of a node.
    pub(super) fn of(&self, node: &str) -> Option<&'a Speaker> {
        let index = self.live.binary_search_by(|speaker| (*speaker.node).cmp(node)).ok()?;
        self.live.get(index).copied()
    }

    /// Returns the nodes on which all endpoints of a Service in one family fail their health check,
    /// each with the report of its speaker.
    pub(super) fn failing(
        &self,
        service: &Key,
    ) -> impl Iterator<Item = (&'a str, &'a FailingHealthCheck)> {
        let failing_of = move |speaker: &'a Speaker| {
            speaker.failing(service).iter().map(|failing| (&*speaker.node, failing))
        };
        self.live.iter().copied().flat_map(failing_of)
    }

    /// Returns the unchecked endpoints of a Service, each entry with the node of its speaker.
    pub(super) fn unchecked(
        &self,
        service: &Key,
    ) -> impl Iterator<Item = (&'a str, &'a UncheckedHealthCheck)> {
        let unchecked_of = move |speaker: &'a Speaker| {
            speaker.unchecked(service).iter().map(|unchecked| (&*speaker.node, unchecked))
        };
        self.live.iter().copied().flat_map(unchecked_of)
    }

    /// Returns all interfaces, each with the name of its node.
    fn interfaces(&self) -> impl Iterator<Item = (&'a str, &'a SpeakerInterface)> {
        let interfaces_of = |speaker: &'a Speaker| {
            speaker.interfaces.iter().map(|interface| (&*speaker.node, interface))
        };
        self.live.iter().copied().flat_map(interfaces_of)
    }

    /// Returns the issues that speakers report for an address, each with the reporting interface.
    pub(super) fn issues(
        &self,
        address: IpAddr,
    ) -> impl Iterator<Item = (Reporter<'a>, &'a InterfaceIssue)> {
        let issues_of = |(node, interface): (&'a str, &'a SpeakerInterface)| {
            let reporter = Reporter { node, interface: &interface.name };
            interface.issues.iter().map(move |issue| (reporter, issue))
        };
        self.interfaces().flat_map(issues_of).filter(move |(_, issue)| issue.address == address)
    }

    /// Returns the subnets, in the family of an address, of all interfaces that announce it. `None`
    /// if those of none of them are known.
    pub(super) fn subnets_around(&self, address: IpAddr) -> Option<Vec<AddressRange>> {
        let family = Family::of(address);
        let announcing = self.live.iter().flat_map(|speaker| {
            let interfaces = speaker.interfaces_with(address);
            interfaces.filter(move |interface| speaker.knows_subnets(interface, family))
        });
        let mut announcing = announcing.peekable();
        announcing.peek()?;
        let subnets = announcing.flat_map(|interface| interface.subnets.iter().copied());
        Some(subnets.filter(|subnet| subnet.family() == family).collect())
    }

    /// Returns the node with an interface that has this hardware address.
    pub(super) fn node_with_mac(&self, mac: &str) -> Option<&'a str> {
        self.interfaces().find(|(_, interface)| *interface.mac == *mac).map(|(node, _)| node)
    }

    /// Returns whether an interface reports a node as unheard.
    pub(super) fn is_unheard(&self, node: &str, at: Reporter<'_>) -> bool {
        self.interfaces().any(|(reporting, interface)| {
            reporting == at.node
                && *interface.name == *at.interface
                && interface.unheard.iter().any(|unheard| **unheard == *node)
        })
    }

    /// Returns an unheard node and the interface at which its hellos do not arrive: one of them
    /// announces this address.
    pub(super) fn unheard(
        &self,
        address: IpAddr,
        owners: &[Owner<'_>],
    ) -> Option<(Reporter<'a>, &'a str)> {
        self.interfaces().find_map(|(node, interface)| {
            let announces = interface.addresses.binary_search(&address).is_ok();
            let is_affected =
                |unheard: &&str| announces || owners.iter().any(|owner| owner.node == *unheard);
            let unheard = interface.unheard.iter().map(|node| &**node).find(is_affected)?;
            Some((Reporter { node, interface: &interface.name }, unheard))
        })
    }

    /// Returns the owners of an address, without those whose report about it is outdated
    /// ([`is_outdated_by`]).
    pub(super) fn owners(&self, address: IpAddr) -> Owners<'a> {
        let reports = |speaker: &&Speaker| speaker.interfaces_with(address).next().is_some();
        let reporting: Vec<&Speaker> = self.live.iter().copied().filter(reports).collect();
        let is_outdated =
            |speaker: &Speaker| reporting.iter().any(|it| is_outdated_by(speaker, it, address));
        let owning: Vec<_> = reporting.iter().filter(|speaker| !is_outdated(speaker)).collect();
        let receives_on_interfaces = |one: &Speaker, other: &Speaker| {
            one.interfaces_with(address).any(|interface| interface.receives_hellos_of(&other.node))
        };
        let mut owners = Owners::default();
        for (i, one) in owning.iter().enumerate() {
            for other in &owning[i + 1..] {
                owners.moving |=
                    receives_on_interfaces(one, other) && receives_on_interfaces(other, one);
                owners.partitioned |= one.is_isolated_at(address)
                    || other.is_isolated_at(address)
                    || !one.receives_hellos_of(&other.node);
            }
            let interfaces =
                one.interfaces_with(address).map(|interface| &*interface.name).collect();
            owners.all.push(Owner { node: &one.node, interfaces });
        }
        owners
    }
}

#[cfg(test)]
mod tests {
    use crate::credibility::{SpeakerPods, stale_speakers};
    use ferrolb_proto::facts::Node;

    use super::*;

    const ADDRESS: &str = "172.30.0.200";

    /// Returns a speaker with one interface per word. The interface `eth0:node2,node3!` receives
    /// hellos of node2 and node3 and announces [`ADDRESS`]. The interface `eth0:~!` is isolated and
    /// announces it.
    fn speaker(node: &str, interfaces: &[&str]) -> Speaker {
        let interface = |text: &&str| {
            let (name, senders) = text.split_once(':').expect("NAME:SENDERS");
            let (senders, owns) =
                senders.strip_suffix('!').map_or((senders, false), |senders| (senders, true));
            let addresses = if owns { vec![ADDRESS.parse().unwrap()] } else { Vec::new() };
            SpeakerInterface {
                name: name.into(),
                up: true,
                isolated: senders == "~",
                hello_senders: senders
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
            interfaces: interfaces.iter().map(interface).collect(),
            ..Speaker::default()
        }
    }

    /// Returns the owners, whether one of them is about to stop, and whether two of them do not
    /// receive each other's hellos. The kubelets of the Nodes in `lost` do not report, and the
    /// Nodes in `deleted` do not exist.
    fn owners(speakers: &[Speaker], lost: &[&str], deleted: &[&str]) -> (String, bool, bool) {
        let node = |speaker: &Speaker| Node {
            ready_unknown: lost.contains(&&*speaker.node),
            name: (*speaker.node).into(),
            ..Node::default()
        };
        let nodes: Vec<_> =
            speakers.iter().map(node).filter(|node| !deleted.contains(&&*node.name)).collect();
        let node = |name: &str| nodes.iter().find(|node| *node.name == *name);
        let stale = stale_speakers(speakers.iter(), node, &SpeakerPods::UNKNOWN);
        let live_speakers = LiveSpeakers::new(speakers.iter(), &stale);
        let owners = live_speakers.owners(ADDRESS.parse().unwrap());
        let names: Vec<_> = owners
            .all
            .iter()
            .map(|owner| format!("{}({})", owner.node, owner.interfaces.join(",")))
            .collect();
        (names.join(" "), owners.moving, owners.partitioned)
    }

    /// A node, and its interfaces as in [`speaker`].
    type SpeakerText = (&'static str, &'static [&'static str]);

    /// Cases: a name, the speakers, and the expected result of [`owners`].
    const OWNER_CASES: [(&str, &[SpeakerText], &str, bool, bool); 15] = [
        ("one owner", &[("a", &["eth0:b!"]), ("b", &["eth0:a"])], "a(eth0)", false, false),
        ("a single node", &[("a", &["eth0:!"])], "a(eth0)", false, false),
        ("no owner", &[("a", &["eth0:b"]), ("b", &["eth0:a"])], "", false, false),
        (
            "a failed speaker still lists the address",
            &[("a", &["eth0:b,c!"]), ("b", &["eth0:c!"]), ("c", &["eth0:b"])],
            "b(eth0)",
            false,
            false,
        ),
        (
            "a failed speaker lists the address, and there is no new owner yet",
            &[("a", &["eth0:b,c!"]), ("b", &["eth0:c"]), ("c", &["eth0:b"])],
            "",
            false,
            false,
        ),
        (
            "two nodes list the address, and one of them has failed",
            &[("a", &["eth0:b!"]), ("b", &["eth0:!"])],
            "b(eth0)",
            false,
            false,
        ),
        (
            "two nodes: an isolated owner and a second owner",
            &[("a", &["eth0:~!"]), ("b", &["eth0:a!"])],
            "a(eth0) b(eth0)",
            false,
            true,
        ),
        (
            "three nodes: an isolated owner and a second owner",
            &[("a", &["eth0:~!"]), ("b", &["eth0:a,c!"]), ("c", &["eth0:a,b"])],
            "a(eth0) b(eth0)",
            false,
            true,
        ),
        (
            "two isolated owners",
            &[("a", &["eth0:~!"]), ("b", &["eth0:~!"])],
            "a(eth0) b(eth0)",
            false,
            true,
        ),
        ("one isolated owner", &[("a", &["eth0:~!"]), ("b", &["eth0:~"])], "a(eth0)", false, false),
        ("a partition", &[("a", &["eth0:!"]), ("b", &["eth0:!"])], "a(eth0) b(eth0)", false, true),
        ("a handover", &[("a", &["eth0:b!"]), ("b", &["eth0:a!"])], "a(eth0) b(eth0)", true, false),
        (
            "two interfaces that receive hellos of both owners",
            &[("a", &["eth0:b!", "eth1:b"]), ("b", &["eth0:a", "eth1:a!"])],
            "a(eth0) b(eth1)",
            // A SpeakerStatus does not show which interfaces are on one network segment. The
            // case counts as a move, and the condition names both owners if it lasts.
            true,
            false,
        ),
        (
            "two segments, and each lacks one of three nodes",
            &[("a", &["eth0:c!"]), ("b", &["eth1:c!"]), ("c", &["eth0:a", "eth1:b"])],
            "a(eth0) b(eth1)",
            false,
            true,
        ),
        (
            "two interfaces of one node",
            &[("a", &["eth0:b!", "eth1:b!"]), ("b", &["eth0:a"])],
            "a(eth0,eth1)",
            false,
            false,
        ),
    ];

    #[test]
    fn owners_are_reported_by_live_speakers_only() {
        for (case, speakers, expect, moving, partitioned) in OWNER_CASES {
            let speakers: Vec<_> =
                speakers.iter().map(|(node, interfaces)| speaker(node, interfaces)).collect();
            assert_eq!(
                owners(&speakers, &[], &[]),
                (expect.to_owned(), moving, partitioned),
                "{case}"
            );
        }
    }

    #[test]
    fn a_deleted_or_unreachable_node_owns_no_address() {
        let alone = [speaker("a", &["eth0:!"])];
        assert_eq!(owners(&alone, &["a"], &[]).0, "");
        assert_eq!(owners(&alone, &[], &["a"]).0, "");
        let both = [speaker("a", &["eth0:b!"]), speaker("b", &["eth0:a"])];
        assert_eq!(
            owners(&both, &["b"], &[]).0,
            "a(eth0)",
            "the kubelet of b does not report, but its speaker runs"
        );
        assert_eq!(
            owners(&both, &[], &["b"]).0,
            "",
            "a reports hellos of a deleted node, so its status is stale"
        );
    }
}
