//! What the condition `ferrolb.io/Announced` of one Service should say, from what the API and the speakers say. Pure;
//! `docs/reasons.md` explains each reason.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::announce::{Bar, Group, Scene, Served};
use ferrolb_proto::api::{IpMode, LinkTrouble, TroubleReason};
use ferrolb_proto::bgp::Silence;
use ferrolb_proto::facts::{Endpoint, Node, Policy, Service, SpeakerLink, Usable};
use ferrolb_proto::range::Family;

use super::reason::Reason;
use super::routers::{Routers, Told};
use super::voices::{Owner, Owners, Voices};
use crate::desired::Condition;
use crate::state::service::{SEPARATOR, join};

/// Nodes that a message names.
const NODES_NAMED_MAX: usize = 5;

const WITHOUT_LOCAL: &str = "without usable endpoint (externalTrafficPolicy Local)";

/// What a Service's condition should say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) condition: Condition,
    /// It is right already: announced, and nobody is about to stop.
    pub(super) firm: bool,
}

/// What a finding is made of.
pub(super) struct Case<'a> {
    pub(super) service: &'a Service,
    /// The endpoints of all its slices.
    pub(super) endpoints: Vec<&'a Endpoint>,
    pub(super) scene: &'a Scene<'a>,
    /// The Services that share addresses with it, itself included; none if nothing of it may be announced.
    pub(super) group: Option<Group<'a>>,
    /// The same, as they are announced by BGP.
    pub(super) sharers: Vec<Served<'a>>,
    /// None: with this API group speakers have no place to say what they do.
    pub(super) voices: Option<&'a Voices<'a>>,
    /// None: nothing is announced by BGP.
    pub(super) routers: Option<&'a Routers<'a>>,
}

impl Case<'_> {
    /// The finding; the Service has at least one address.
    pub(super) fn finding(&self) -> Finding {
        let mut parts: Vec<(Reason, String, Vec<IpAddr>)> = Vec::new();
        let mut firm = true;
        for assigned in &self.service.assigned {
            let (reason, text, settled) = self.address(assigned.address, assigned.mode);
            firm &= settled;
            match parts.iter_mut().find(|(is, same, _)| *is == reason && *same == text) {
                Some((.., addresses)) => addresses.push(assigned.address),
                None => parts.push((reason, text, vec![assigned.address])),
            }
        }
        // What a person has to look at first, first.
        parts.sort_by_key(|(reason, ..)| *reason);
        let reason = parts.first().map_or(Reason::Pending, |(reason, ..)| *reason);
        let text = |(_, text, addresses): &(Reason, String, Vec<IpAddr>)| format!("{} {text}", join(addresses));
        let is_announced = reason == Reason::Announced;
        let remarks = self.remarks(is_announced);
        let message = parts.iter().map(text).chain(remarks.all).collect::<Vec<_>>().join(SEPARATOR).into();
        let condition = Condition { status: reason.status(), reason: reason.name().into(), message, since: None };
        Finding { condition, firm: firm && is_announced && !remarks.hindered }
    }

    /// The reason for one address, what is said after it, and whether that is there to stay.
    fn address(&self, address: IpAddr, mode: Option<IpMode>) -> (Reason, String, bool) {
        let never = |reason, text: &str| (reason, text.to_owned(), true);
        if mode == Some(IpMode::Proxy) && !self.service.demand.request.announce {
            return never(
                Reason::NoDataPath,
                "is not announced: with ipMode Proxy kube-proxy takes no traffic for it on any node; if something else there \
                 does, say ferrolb.io/ip-mode: Proxy,announce",
            );
        }
        let on_links = self.on_links(address);
        let told = self.routers.and_then(|routers| routers.told(self.scene, &self.sharers, address));
        match told.map(|told| self.by_bgp(address, &told)) {
            Some(by_bgp) => both_ways(on_links, by_bgp),
            None => on_links,
        }
    }

    /// What is said of an address as the nodes' links have it.
    fn on_links(&self, address: IpAddr) -> (Reason, String, bool) {
        let owners = self.voices.map(|voices| voices.owners(address)).unwrap_or_default();
        let trouble = self.voices.and_then(|voices| voices.troubles(address).min_by_key(|(_, is)| is.reason));
        match trouble {
            Some((by, trouble)) if !is_remark(trouble) => self.trouble(by, trouble, &owners),
            _ if owners.all.is_empty() => self.unannounced(address),
            trouble => (Reason::Announced, announced(&owners, trouble.map(|(_, trouble)| trouble)), !owners.moving),
        }
    }

    /// What is said of an address that is to be announced by BGP.
    fn by_bgp(&self, address: IpAddr, told: &Told<'_>) -> (Reason, String) {
        let few = |names: &BTreeSet<&str>| some(&names.iter().collect::<Vec<_>>(), NODES_NAMED_MAX);
        let Told { from, last, to, apart, missing, yielding, barred } = told;
        let some = |names: &[&str]| some(names, NODES_NAMED_MAX);
        if !(from.is_empty() && last.is_empty()) {
            // With policy Cluster these are the same nodes for thousands of Services: a session that comes or goes is not told of each of them.
            let nodes = |names: &[&str]| match self.service.policy {
                Policy::Cluster => "every node that may and has a session".to_owned(),
                Policy::Local => some(names),
            };
            let text = match (from.as_slice(), last.as_slice(), self.service.policy) {
                ([], last, _) => format!("by BGP from {} to {}, as the last resort", nodes(last), few(to)),
                (from, [_, ..], Policy::Local) => {
                    format!("by BGP from {} to {}, and as the last resort from {}", nodes(from), few(to), some(last))
                }
                (from, ..) => format!("by BGP from {} to {}", nodes(from), few(to)),
            };
            let yields = match yielding.is_empty() {
                true => String::new(),
                false => format!(
                    " (BGPAdvertisement {} yields to an older one that says another localPref, med or asPathPrepend)",
                    few(yielding)
                ),
            };
            return (Reason::Announced, text + &yields);
        }
        if barred.contains_key(&Silence::Barred(Bar::NoEndpoint)) {
            return (Reason::NoEndpoints, self.no_endpoint(address));
        }
        if !apart.is_empty() {
            let text = format!(
                "is not announced by BGP: no session of {} with {} is established; look at what these BGPPeers say",
                some(apart),
                few(missing)
            );
            return (Reason::NoSession, text);
        }
        let may = |(silence, _): &(&Silence, &usize)| !matches!(silence, Silence::Barred(_));
        if self.voices.is_none() && barred.iter().any(|silence| may(&silence)) {
            let text = "may be announced by BGP; whether it is cannot be said with this --api-group".to_owned();
            return (Reason::NotObserved, text);
        }
        let cause = |(silence, count): (&Silence, &usize)| {
            let cause = match silence {
                // Here each address is judged by itself.
                Silence::Barred(Bar::CannotServe) if self.service.policy == Policy::Local => WITHOUT_LOCAL,
                Silence::Barred(bar) => self.cause(*bar),
                Silence::NoSpeaker => "without a speaker",
                Silence::NoGobgpd => "whose speaker has no --gobgp",
            };
            format!("{count} {cause}")
        };
        let causes: Vec<_> = barred.iter().map(cause).collect();
        let text = format!(
            "is not announced by BGP: no node may announce it; of {}: {}",
            nodes(barred.values().sum()),
            causes.join(", ")
        );
        (Reason::NoCandidateNode, text)
    }

    fn trouble(&self, by: &str, trouble: &LinkTrouble, owners: &Owners<'_>) -> (Reason, String, bool) {
        let LinkTrouble { mac, node, .. } = trouble;
        let still = if owners.all.is_empty() { String::new() } else { format!(", and so does {}", names(&owners.all)) };
        if trouble.reason == TroubleReason::KernelAnswers {
            let node = node.as_deref().unwrap_or(by);
            let text = format!(
                "is answered for by the kernel of {node} ({mac}){still}: with kube-proxy in IPVS mode set strictARP, else take \
                 the address off the node's interfaces, or end another load balancer's speaker there"
            );
            return (Reason::KernelAnswers, text, true);
        }
        let text = format!(
            "is answered for by somebody else ({mac}, seen by {by}){still}: take the address away from that host, or out of the pool"
        );
        (Reason::AddressConflict, text, true)
    }

    /// Why nobody says that he announces an address that could be.
    fn unannounced(&self, address: IpAddr) -> (Reason, String, bool) {
        let (reason, text) = match &self.group {
            Some(group) if !group.has_endpoint() => (Reason::NoEndpoints, self.no_endpoint(address)),
            Some(group) if group.addresses().contains(&address) => self.nobody(group),
            Some(_) | None => (Reason::NoAdvertisement, self.unadvertised(address)),
        };
        (reason, text, true)
    }

    fn no_endpoint(&self, address: IpAddr) -> String {
        let what = match self.service.usable {
            Usable::ReadyOrTerminating => "is ready, or serving while it terminates",
            Usable::Ready => "is ready, as ferrolb.io/usable asks",
            Usable::Serving => "is serving, as ferrolb.io/usable asks",
        };
        // Those that it has are of the other family.
        let family = if self.usable().next().is_some() { format!("{} ", Family::of(address)) } else { String::new() };
        format!("is not announced: no {family}endpoint of the Service {what}; look at its pods and its selector")
    }

    fn unadvertised(&self, address: IpAddr) -> String {
        match self.scene.pool_of(self.service.from_pool.as_deref(), address) {
            Some(pool) => format!(
                "is not announced: no valid L2Advertisement or BGPAdvertisement selects pool {} and this Service; create one, or mend its selectors",
                pool.name
            ),
            None => "is not announced: no IPAddressPool has it any more".to_owned(),
        }
    }

    /// There are endpoints and advertisements: is there a node?
    fn nobody(&self, group: &Group<'_>) -> (Reason, String) {
        let mut causes: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut may, mut count) = (Vec::new(), 0);
        for (node, bar) in group.bars(self.scene) {
            count += 1;
            match bar.map(|bar| self.cause(bar)).or_else(|| self.no_link(group, node)) {
                Some(cause) => *causes.entry(cause).or_default() += 1,
                None => may.push(node),
            }
        }
        if may.is_empty() {
            let causes: Vec<_> = causes.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
            let text = format!(
                "is not announced: no node may announce it; of {}: {}{}",
                nodes(count),
                causes.join(", "),
                self.nowhere()
            );
            return (Reason::NoCandidateNode, text);
        }
        self.silent(group, &may)
    }

    /// What is to be said where its endpoints are on no node.
    fn nowhere(&self) -> &'static str {
        let has_node = |endpoint: &Endpoint| endpoint.node.is_some();
        if self.service.policy == Policy::Local && self.usable().next().is_some() && !self.usable().any(has_node) {
            "; its usable endpoints have no nodeName, so they are on no node"
        } else {
            ""
        }
    }

    fn cause(&self, bar: Bar) -> &'static str {
        let has = |family| self.service.announceable().any(|address| Family::of(address) == family);
        let needs = |family| has(family) && self.is_served(family);
        match (bar, self.service.policy) {
            (Bar::Unreachable, _) => "with its network unavailable or out of service",
            (Bar::Excluded, _) => "labelled exclude-from-external-load-balancers",
            (Bar::NotSelected, _) => "not selected by an advertisement",
            (Bar::CannotServe, Policy::Local) if needs(Family::V4) && needs(Family::V6) => {
                "without usable endpoints of both families (externalTrafficPolicy Local)"
            }
            (Bar::CannotServe, Policy::Local) => WITHOUT_LOCAL,
            (Bar::CannotServe, Policy::Cluster) => "without usable endpoint of a Service that shares the address",
            (Bar::NoEndpoint, _) => "without usable endpoint anywhere",
            (Bar::NoRouter, _) => "without a BGPPeer that it is announced to",
            (Bar::TooManyCommunities, _) => {
                "with more communities than a route can carry, of all advertisements together"
            }
        }
    }

    /// Whether a node's speaker says that the node has no link on which it could be announced.
    fn no_link(&self, group: &Group<'_>, node: &Node) -> Option<&'static str> {
        let speaker = self.voices?.of(&node.name)?;
        let serves = speaker.links.iter().any(|link| link.up && !link.muted && group.selects_link(node, &link.name));
        (!serves).then_some("without a link that speaks and is selected by an advertisement")
    }

    /// Nodes may announce it, and none says that it does.
    fn silent(&self, group: &Group<'_>, may: &[&Node]) -> (Reason, String) {
        let nodes = list(may);
        let Some(voices) = self.voices else {
            let text = format!("may be announced from {nodes}; which node does cannot be said with this --api-group");
            return (Reason::NotObserved, text);
        };
        let speakers: Vec<_> = may.iter().filter_map(|node| Some((node, voices.of(&node.name)?))).collect();
        if speakers.is_empty() {
            let text = format!(
                "is not announced: no speaker runs on a node that may announce it ({nodes}); look at the DaemonSet speaker and its logs"
            );
            return (Reason::NoSpeaker, text);
        }
        let deaf = speakers.iter().all(|(node, speaker)| {
            let speaks = |link: &&SpeakerLink| link.up && !link.muted && group.selects_link(node, &link.name);
            speaker.links.iter().filter(speaks).all(|link| link.deaf)
        });
        if deaf {
            let text = format!(
                "is not announced: the speakers of all nodes that may announce it ({nodes}) hear nothing on their links; look at the network"
            );
            return (Reason::SpeakersDeaf, text);
        }
        let text = format!(
            "is not announced: {nodes} may announce it, and no speaker says that it does; if that lasts, look at their logs"
        );
        (Reason::Pending, text)
    }
}

/// What is said of an address that may be announced both ways: it is announced where it is by either, unless somebody else has it.
fn both_ways(on_links: (Reason, String, bool), by_bgp: (Reason, String)) -> (Reason, String, bool) {
    match (on_links, by_bgp) {
        ((Reason::NoAdvertisement, ..), (reason, text)) => (reason, text, true),
        // Both wait for the same.
        ((Reason::NoEndpoints, text, settled), (Reason::NoEndpoints, _)) => (Reason::NoEndpoints, text, settled),
        ((Reason::Announced, text, settled), (reason, by_bgp)) => {
            let but = if reason == Reason::Announced { "and" } else { "but" };
            (Reason::Announced, format!("{text}, {but} {by_bgp}"), settled && reason == Reason::Announced)
        }
        ((reason, text, _), (Reason::Announced, by_bgp)) if reason >= Reason::NoEndpoints => {
            (Reason::Announced, format!("{by_bgp}, but on no link: it {text}"), false)
        }
        ((reason, text, settled), (_, by_bgp)) => (reason, format!("{text}, and {by_bgp}"), settled),
    }
}

fn announced(owners: &Owners<'_>, trouble: Option<&LinkTrouble>) -> String {
    let mut text = format!("from {}", names(&owners.all));
    if owners.parted {
        text.push_str(", whose speakers do not hear each other");
    }
    if let Some(trouble) = trouble {
        let mac = &trouble.mac;
        text.push_str(&match trouble.reason {
            TroubleReason::GroupNotJoined => {
                format!(", which may not hear who asks for it: it could not join the group of {mac}")
            }
            TroubleReason::AnsweredByProxy | TroubleReason::AddressConflict | TroubleReason::KernelAnswers => {
                format!(", while {mac} goes on answering for its dead owner")
            }
        });
    }
    text
}

/// A trouble of an address that is announced all the same.
const fn is_remark(trouble: &LinkTrouble) -> bool {
    matches!(trouble.reason, TroubleReason::AnsweredByProxy | TroubleReason::GroupNotJoined)
}

fn names(owners: &[Owner<'_>]) -> String {
    let named = owners.iter().take(NODES_NAMED_MAX);
    let mut names: Vec<_> = named.map(|owner| format!("{} ({})", owner.node, owner.links.join(", "))).collect();
    if owners.len() > NODES_NAMED_MAX {
        names.push(format!("{} more", owners.len() - NODES_NAMED_MAX));
    }
    names.join(" and ")
}

fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

fn list(nodes: &[&Node]) -> String {
    let names: Vec<&str> = nodes.iter().map(|node| &*node.name).collect();
    some(&names, NODES_NAMED_MAX)
}

/// As many of these as a message may name, and how many more there are.
pub(super) fn some<T: AsRef<str>>(all: &[T], max: usize) -> String {
    let named = all.iter().take(max).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if all.len() > max { format!("{named} and {} more", all.len() - max) } else { named }
}
