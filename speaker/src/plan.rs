//! From what is known to what is wanted: [`plan`] is pure, imports no driver, and is computed anew after every event. What it
//! gives is the latest value, never a change: the drivers compare it with what they have.

mod bgp;
mod choice;
mod data_path;
mod dump;
mod probes;
mod reach;
mod slices;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ferrolb_proto::Instant;
use ferrolb_proto::announce::exclusion_means_nothing;
use ferrolb_proto::api::{DataPathStatus, LinkStatus, LinkTrouble, SpeakerStatusStatus, TroubleReason};
use ferrolb_proto::bgp::{Covered, Doubted};
use ferrolb_proto::claim::{Says, Trouble, TroubleKind};
use ferrolb_proto::election::Unit;
use ferrolb_proto::verdict::Verdict;
use ferrolb_proto::wire::hello::KeyRing;
use ferrolb_proto::wire::{Mac, ndp};

use crate::event::{Link, LinkReport};
use crate::state::{Failure, State};

pub use bgp::{
    ClassOrder, Identity, Mark, PeerOrder, RESTART_TIME_S, Shown, ShownSession, Wanted, family as bgp_family,
};
pub use data_path::Questions;
pub use probes::{FAILING_MAX, Probes};

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The links that are spoken on, by index.
    pub links: BTreeMap<u32, LinkOrder>,
    /// Of these, the names of those on which nothing is announced until another speaker is received
    /// there.
    pub waiting: BTreeSet<Box<str>>,
    /// What this node says of itself.
    pub status: SpeakerStatusStatus,
    /// What kube-proxy is asked.
    pub questions: Questions,
    /// Why this node hands over what it announces, though its speaker stays.
    pub draining: Option<&'static str>,
    /// Whose health is asked after.
    pub probes: Probes,
    /// What gobgpd is to have; none: that is not known, and it stays as it is.
    pub bgp: Option<Wanted>,
    /// Its sessions as metrics show them.
    pub shown: Shown,
    /// Prefixes that are not announced because there are too many kinds of them.
    pub left_out: usize,
    /// What other nodes' speakers say of themselves is to be known: this node drains, and may withdraw what they announce.
    pub watches_speakers: bool,
    /// What others announce by BGP in place of this node, and since when.
    pub covered: Arc<Covered>,
    /// Whose speakers are asked whether they live: this node drains, and does not hear them.
    pub doubted: Doubted,
    /// How many of our Services get each verdict on this node.
    pub verdicts: BTreeMap<Verdict, i64>,
    /// Why the program does not do its work, if so.
    pub not_ready: Option<String>,
    /// Every Node carries the exclude label, so it is ignored.
    pub exclusion_ignored: bool,
    /// Every link has handed over what it had: the process may end.
    pub left: bool,
    /// When the plan has to be computed again although nothing happened.
    pub wake: Option<Instant>,
}

/// One link and what is said there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOrder {
    /// The link's name.
    pub name: Box<str>,
    /// Its hardware address.
    pub mac: Mac,
    /// This node announces something there.
    pub selected: bool,
    /// What its thread is told.
    pub order: Arc<Order>,
    /// The IPv6 addresses whose questions it is to hear: those that are answered for here, and those that could be soon.
    pub listened_for: Arc<BTreeSet<Ipv6Addr>>,
}

/// What the thread of a link is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// All units that may be announced on this wire.
    pub units: Vec<Arc<Unit>>,
    /// The keys of the hello protocol.
    pub keys: KeyRing,
    /// The hardware addresses of all links of this node: what they say is said by this node.
    pub macs: Box<[Mac]>,
    /// An IPv4 address of this link, to ask others with.
    pub source: Option<Ipv4Addr>,
    /// An IPv6 address of it, for the same: a link-local one where it has one. Without any only what nobody can ask is asked.
    pub source_v6: Option<Ipv6Addr>,
    /// What this node says of itself.
    pub says: Says,
    /// Hand over what is held, and say when it is done.
    pub leaving: bool,
}

/// The addresses announced on one link, while they are gathered.
struct Share<'a> {
    link: &'a Link,
    /// Services are announced there.
    announces: bool,
    /// Some of them by this node.
    selected: bool,
    units: Vec<Arc<Unit>>,
}

impl Desired {
    /// Takes from the plan `before` what says the same: ten thousand units are in memory once, and who is told of all sees at once which
    /// are others.
    pub fn keep_orders(&mut self, before: &Self) {
        if before.probes.targets == self.probes.targets {
            self.probes.targets = Arc::clone(&before.probes.targets);
        }
        for (index, link) in &mut self.links {
            let Some(before) = before.links.get(index) else { continue };
            if let Some(order) = Arc::get_mut(&mut link.order) {
                units::keep(&mut order.units, &before.order.units);
            }
            if before.order == link.order {
                link.order = Arc::clone(&before.order);
            }
            if before.listened_for == link.listened_for {
                link.listened_for = Arc::clone(&before.listened_for);
            }
        }
    }
}

/// What is wanted at `now`, given what is known.
#[must_use]
pub fn plan(state: &State, now: Instant) -> Desired {
    let eligible = choice::eligible(state);
    let mut desired = Desired {
        not_ready: not_ready(state),
        questions: data_path::questions(state),
        draining: data_path::draining(state),
        exclusion_ignored: !state.config.ignore_exclude_label && exclusion_means_nothing(state.nodes.values()),
        ..Desired::default()
    };
    let checked = probes::checked(state);
    let mut spoken_on = Vec::new();
    for link in &eligible {
        let retry_at = state.failures.get(&link.index).copied().map(Failure::retry_at).filter(|at| *at > now);
        desired.wake = desired.wake.into_iter().chain(retry_at).min();
        if link.up && retry_at.is_none() {
            spoken_on.push(Share {
                link,
                announces: choice::announces(state, link),
                selected: false,
                units: Vec::new(),
            });
        }
    }
    if state.waits_for().is_none() {
        for draft in units::drafts(state, &units::scene(state), &checked.failing, &mut desired.verdicts) {
            for share in spoken_on.iter_mut().filter(|share| share.announces) {
                share.selected |= draft.selects(share.link);
                share.units.push(draft.on(share.link, &state.config.node));
            }
        }
        let waiting = spoken_on.iter().filter(|share| !share.announces);
        desired.waiting = waiting.map(|share| share.link.name.clone()).collect();
    }
    let path = &state.data_path;
    let says = Says { draining: desired.draining.is_some(), unhealthy: path.unhealthy(), checked: path.checked() };
    let macs: Box<[Mac]> = state.links.iter().flat_map(|links| links.values()).map(|link| link.mac).collect();
    for Share { link, selected, units, .. } in spoken_on {
        let source = link.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let usable = link.addresses.iter().filter(|address| !link.tentative.contains(address));
        let source_v6 = usable.copied().filter_map(v6).min_by_key(|address| !address.is_unicast_link_local());
        let held = state.reports.get(&link.index).into_iter().flat_map(|report| report.held.iter().copied());
        let listened_for = units::ahead(&units, &state.config.node).chain(held).filter_map(v6).collect::<BTreeSet<_>>();
        let listened_for = Arc::new(listened_for);
        let (keys, macs) = (state.keys.clone(), macs.clone());
        let order = Arc::new(Order { units, keys, macs, source, source_v6, says, leaving: state.leaving });
        let (name, mac) = (link.name.clone(), link.mac);
        desired.links.insert(link.index, LinkOrder { name, mac, selected, order, listened_for });
    }
    let draining = desired.draining.is_some();
    let drains = draining || state.own_node().is_some_and(|node| node.cordoned);
    desired.watches_speakers = state.config.gobgp && state.config.drain_delay.is_some() && drains;
    let mut status = status(state, &eligible, draining);
    if let Some(bgp) = state.config.gobgp.then(|| bgp::bgp(state, draining, &checked.failing, now)).flatten() {
        // How the routes of a node that boots are announced depends on what gobgpd had.
        desired.bgp = state.bgp_found.map(|_| bgp.wanted);
        (desired.shown, desired.left_out) = (bgp.shown, bgp.left_out);
        (desired.covered, desired.doubted) = (Arc::new(bgp.covered), bgp.doubted);
        desired.wake = desired.wake.into_iter().chain(bgp.wake).min();
        status.bgp = Some(bgp.status);
    }
    let unchecked = checked.unchecked(state);
    let failing_services = checked.services();
    desired.status = SpeakerStatusStatus { failing_services, failing: checked.said, unchecked, ..status };
    desired.probes =
        Probes { targets: Arc::new(checked.targets), refused: checked.refused.count, slowed: checked.slowed };
    let has_left = |index| state.reports.get(index).is_some_and(|report| report.left);
    desired.left = state.leaving && desired.links.keys().all(has_left);
    desired
}

const fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

fn not_ready(state: &State) -> Option<String> {
    if state.leaving {
        return Some("leaving".to_owned());
    }
    if let Some(what) = state.waits_for() {
        return Some(format!("waiting for {what}"));
    }
    if state.own_node().is_none() {
        return Some(format!("the cluster has no Node {:?}: see --node-name", state.config.node));
    }
    state.keys.is_empty().then(|| "waiting for a key in the Secret ferrolb-hello".to_owned())
}

fn status(state: &State, eligible: &[&Link], draining: bool) -> SpeakerStatusStatus {
    let reports = || eligible.iter().filter_map(|link| state.reports.get(&link.index));
    let mut owned: Vec<_> = reports().flat_map(|report| report.held.iter()).collect();
    owned.sort_unstable();
    owned.dedup();
    let unheard = |link: &Link| state.unheard.get(&link.index).map_or(&[][..], |addresses| addresses);
    let link_status = |link: &&Link| {
        let report = state.reports.get(&link.index);
        LinkStatus {
            name: link.name.to_string(),
            mac: link.mac.to_string(),
            up: link.up,
            heard: report.into_iter().flat_map(|report| report.heard.iter().map(ToString::to_string)).collect(),
            addresses: report.into_iter().flat_map(|report| report.held.iter().copied()).collect(),
            deaf: report.is_some_and(|report| report.deaf),
            muted: report.is_some_and(|report| report.muted),
            troubles: report.into_iter().flat_map(|report| troubles(report, unheard(link))).collect(),
        }
    };
    let mut links: Vec<_> = eligible.iter().map(link_status).collect();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    SpeakerStatusStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        links,
        draining: draining || state.leaving,
        data_path: Some(DataPathStatus { state: state.data_path.state, message: state.data_path.message.to_string() }),
        failing: Vec::new(),
        failing_services: 0,
        unchecked: String::new(),
        bgp: None,
        owned_addresses: i64::try_from(owned.len()).unwrap_or(i64::MAX),
    }
}

/// What is wrong with addresses on a link that does what `report` says and cannot hear who asks for those `unheard`.
fn troubles(report: &LinkReport, unheard: &[Ipv6Addr]) -> Vec<LinkTrouble> {
    let held = unheard.iter().filter(|address| report.held.binary_search(&IpAddr::V6(**address)).is_ok());
    let deaf = held.map(|address| LinkTrouble {
        address: (*address).into(),
        reason: TroubleReason::GroupNotJoined,
        mac: ndp::group_mac(ndp::group(*address)).to_string(),
        node: None,
    });
    let mut troubles: Vec<_> = report.troubles.iter().map(trouble).chain(deaf).collect();
    troubles.sort_by_key(|trouble| (trouble.address, trouble.reason));
    troubles
}

fn trouble(trouble: &Trouble) -> LinkTrouble {
    let (reason, node) = match &trouble.kind {
        TroubleKind::Stranger => (TroubleReason::AddressConflict, None),
        TroubleKind::Kernel(node) => (TroubleReason::KernelAnswers, Some(node)),
        TroubleKind::Proxied(node) => (TroubleReason::AnsweredByProxy, Some(node)),
    };
    LinkTrouble { address: trouble.address, reason, mac: trouble.mac.to_string(), node: node.map(ToString::to_string) }
}

#[cfg(test)]
mod tests;
