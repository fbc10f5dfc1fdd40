//! Decides for each node whether it announces an address, may announce it, or the reason why not.
//! Pure; `kubectl ferrolb why` prints the result.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_core::announce::Layer2Address;
use ferrolb_core::election::{Rank, SoftRules};
use ferrolb_core::eligibility::Ineligible;
use ferrolb_proto::facts::{Node, SpeakerInterface};
use ferrolb_proto::wire::hello::Flags;
use serde::Serialize;

use super::finding::DiagnosisInput;
use crate::state::messages::cause::phrase;

/// The relation of one node to an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeVerdict {
    /// Name of the Node.
    pub node: String,
    /// Number of eligible endpoints on the node, in the address's family.
    pub endpoints: usize,
    /// On layer 2; `None` if no L2Advertisement announces the address.
    pub layer2: Option<Verdict>,
    /// By BGP; `None` if no BGPAdvertisement announces the address.
    pub bgp: Option<Verdict>,
}

/// The relation of one node to an address on one path: layer 2 or BGP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Verdict {
    /// The node announces the address.
    Announces {
        /// The interfaces on layer 2, or the BGPPeers.
        on: Vec<String>,
        /// Position among the candidates on layer 2; the best has 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        rank: Option<usize>,
        /// Reasons why other nodes rank better, why the node is about to stop, or why its failover
        /// takes longer.
        flaws: Vec<&'static str>,
    },
    /// The node announces the address if the nodes with a better rank fail.
    Candidate {
        /// Position among the candidates; the best has 1.
        rank: usize,
        /// Reasons why other nodes rank better.
        flaws: Vec<&'static str>,
    },
    /// The node may not announce the address, or cannot.
    Ineligible {
        /// The reason, as a phrase after the node's name.
        why: String,
    },
}

/// Soft rules, each with its phrase.
const SOFT_RULES: [(SoftRules, &str); 6] = [
    (SoftRules::ISOLATED, "isolated"),
    (SoftRules::FAILING, "health checks fail"),
    (SoftRules::DRAINING, "draining"),
    (SoftRules::UNHEALTHY, "kube-proxy unhealthy"),
    (SoftRules::TERMINATING, "endpoints terminating"),
    (SoftRules::CORDONED, "cordoned or not Ready"),
];

/// Phrase for the routes of a node.
const DE_PREFERRED: &str = "de-preferred";
/// Phrase for an owner that may not announce the address any more, or cannot.
const LEAVING: &str = "no longer eligible, hands over";
/// Phrase for an owner whose hellos were late.
const BUSY: &str = "busy, slower failover";
const UNKNOWN: &str = "unknown, because speakers with this --api-group write no SpeakerStatus";

fn flaws(rules: SoftRules) -> Vec<&'static str> {
    SOFT_RULES.iter().filter(|(rule, _)| rules.has(*rule)).map(|(_, phrase)| *phrase).collect()
}

impl DiagnosisInput<'_> {
    /// Returns the nodes that announce any address of the Service on layer 2, ascending.
    pub(in crate::state) fn owning_nodes(&self) -> Vec<String> {
        let Some(live_speakers) = self.live_speakers else { return Vec::new() };
        let owners = self.service.announceable().flat_map(|it| live_speakers.owners(it).all);
        let nodes: BTreeSet<_> = owners.map(|owner| owner.node).collect();
        nodes.into_iter().map(ToOwned::to_owned).collect()
    }

    /// Returns the relation of each node to an address, sorted by node.
    pub(in crate::state) fn verdicts(&self, address: IpAddr) -> Vec<NodeVerdict> {
        let layer2 = self.layer2.get(&address).map(|layer2| self.layer2_verdicts(layer2));
        let mut layer2 = layer2.map(Vec::into_iter);
        let mut endpoints: BTreeMap<&str, usize> = BTreeMap::new();
        for node in self.eligible_endpoints_for(address).filter_map(|it| it.node.as_deref()) {
            *endpoints.entry(node).or_default() += 1;
        }
        let verdict = |node: &Node| NodeVerdict {
            node: node.name.to_string(),
            endpoints: endpoints.get(&*node.name).copied().unwrap_or_default(),
            layer2: layer2.as_mut().and_then(Iterator::next),
            bgp: self.bgp_verdict(address, &node.name),
        };
        self.cluster.nodes().map(verdict).collect()
    }

    /// Returns the relation of each node to an address on layer 2, sorted by node.
    fn layer2_verdicts(&self, layer2: &Layer2Address<'_, '_>) -> Vec<Verdict> {
        let owners = self.live_speakers.map(|live| live.owners(layer2.address()));
        let owners = owners.unwrap_or_default().all;
        let ranks = self.ranks(layer2, |node| {
            let speaker = self.live_speakers.and_then(|live| live.of(&node.name));
            speaker.is_some_and(|speaker| speaker.draining)
        });
        let ranks: BTreeMap<_, _> = ranks
            .iter()
            .zip(1..)
            .map(|(rank, n)| (rank.node, (n, flaws(rank.soft_rules))))
            .collect();
        let verdict = |node: &Node| {
            let ranked = ranks.get(&*node.name).cloned();
            if let Some(owner) = owners.iter().find(|owner| *owner.node == *node.name) {
                let on = owner.interfaces.iter().map(ToString::to_string).collect();
                let (rank, flaws) = ranked.unzip();
                let mut flaws = flaws.unwrap_or(vec![LEAVING]);
                let speaker = self.live_speakers.and_then(|live| live.of(&node.name));
                let late = |it: &SpeakerInterface| it.slow_failover().is_some();
                if speaker.is_some_and(|it| it.interfaces_with(layer2.address()).any(late)) {
                    flaws.push(BUSY);
                }
                return Verdict::Announces { on, rank, flaws };
            }
            if let Some((rank, flaws)) = ranked {
                return Verdict::Candidate { rank, flaws };
            }
            self.ineligible(self.absence(layer2, node).unwrap_or(Ineligible::NoSpeaker))
        };
        self.cluster.nodes().map(verdict).collect()
    }

    fn ineligible(&self, why: Ineligible) -> Verdict {
        Verdict::Ineligible { why: phrase(why, self.service.policy).to_owned() }
    }

    /// Returns the ranks of the nodes that can announce an address, from the objects in the API,
    /// the best first. `draining` returns whether a node is in announcement drain.
    pub(super) fn ranks<'s>(
        &'s self,
        layer2: &Layer2Address<'_, '_>,
        draining: impl Fn(&Node) -> bool,
    ) -> Vec<Rank<'s>> {
        let selected = self.cluster.select_nodes(layer2.advertisements());
        let able = self.cluster.nodes().filter(|node| self.absence(layer2, node).is_none());
        let rank = |node: &'s Node| {
            let speaker = self.live_speakers.and_then(|live| live.of(&node.name));
            let flags = Flags {
                draining: draining(node),
                unhealthy: speaker.is_some_and(|it| it.kube_proxy_issue().is_some()),
                isolated: speaker.is_some_and(|it| it.interfaces.iter().all(|it| it.isolated)),
                ..Flags::default()
            };
            let stated = layer2.unit(&selected, &node.name).claim_rank(&node.name);
            Rank::stated(&node.name, flags, stated)
        };
        let mut ranks: Vec<_> = able.map(rank).collect();
        ranks.sort_unstable();
        ranks
    }

    /// Returns why a node has no session with these BGPPeers.
    fn without_session(&self, node: &str, peers: &BTreeSet<&str>) -> String {
        let sessions = self.live_speakers.and_then(|live| live.of(node)?.bgp.as_deref());
        let sessions = sessions.unwrap_or_default();
        let with_cause = |peer: &&str| {
            let session = sessions.iter().find(|it| *it.peer == **peer);
            match session.map(|it| &*it.message).filter(|cause| !cause.is_empty()) {
                Some(cause) => format!("{peer} ({cause})"),
                None => (*peer).to_owned(),
            }
        };
        let peers: Vec<_> = peers.iter().map(with_cause).collect();
        format!("no session with {}", peers.join(", "))
    }

    /// Returns the relation of a node to an address by BGP.
    fn bgp_verdict(&self, address: IpAddr, node: &str) -> Option<Verdict> {
        let services = self.services.of(address);
        let exported = self.bgp?.export_from(node, self.cluster, address, services)?;
        let texts = |names: BTreeSet<&str>| names.into_iter().map(ToOwned::to_owned).collect();
        Some(match exported {
            Ok((peers, targets)) if !peers.is_empty() => {
                let flaws = targets.de_preferred.then_some(DE_PREFERRED).into_iter().collect();
                Verdict::Announces { on: texts(peers), rank: None, flaws }
            }
            Ok((_, targets)) => {
                Verdict::Ineligible { why: self.without_session(node, &targets.peers) }
            }
            Err(Ineligible::NoSpeaker) if self.live_speakers.is_none() => {
                Verdict::Ineligible { why: UNKNOWN.to_owned() }
            }
            Err(why) => self.ineligible(why),
        })
    }
}
