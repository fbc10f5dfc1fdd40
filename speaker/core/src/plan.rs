//! The plan: computes the desired configuration from the state. [`plan`] is pure, and this module
//! imports no driver. The main loop calls [`plan`] again after events that can change its result.
//! Each result is complete, never a change; the drivers compare it with the actual configuration.
//! The [`Memo`] makes the cost of a plan that of the changes since the latest one.

mod bgp;
mod check_scope;
mod dump;
mod interfaces;
mod memo;
mod not_ready;
mod probes;
mod proxy_health;
mod received_ranges;
mod second_path;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::announce::every_node_is_excluded;
use ferrolb_core::shared_map::SharedMap;
use ferrolb_proto::Instant;
use ferrolb_proto::api::{
    InterfaceIssue, InterfaceIssueReason, InterfaceStatus, KubeProxyStatus, LateHellos,
    SpeakerStatusStatus,
};
use ferrolb_proto::range::AddressRange;
use ferrolb_proto::wire::hello::HelloKeyRing;
use ferrolb_proto::wire::{Mac, ndp};

use crate::claim::{self, AddressConflict, ConflictKind, NodeState, Owned};
use crate::event::{Link, LinkReport};
use crate::state::{LinkFailure, State};
use bgp::BgpInput;
use not_ready::NotReady;
use probes::HealthCheckMemo;
use units::LinkUnits;

pub use bgp::{
    BgpConfig, BgpIdentity, ExportAttributes, ExportGroups, RouteReceiver, RouteReceivers,
    STATEMENTS_MAX, SessionConfig, SessionMetric, SessionMetrics, export_groups, limit_routes,
};
pub use memo::Memo;
pub use probes::{HealthChecks, REPORTED_SERVICES_MAX};
pub use proxy_health::ProxyTargets;
pub use received_ranges::{IPV4_RANGES_MAX, IPV6_RANGES_MAX};
pub use second_path::{NodeWatchConfig, OtherNode, SecondPathConfig};
pub use units::{SERVING_NAMES, ServingCounts, Units};

/// Desired configuration of all drivers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Configurations of the interfaces that the speaker uses, by index.
    pub links: BTreeMap<u32, LinkPlan>,
    /// Configuration of the second path between the speakers.
    pub second_path: Arc<SecondPathConfig>,
    /// Configuration of the driver that watches other nodes.
    pub node_watch: NodeWatchConfig,
    /// Names of the interfaces that the speaker uses, but on which it announces nothing until it
    /// receives another speaker there.
    pub waiting_for_speaker: BTreeSet<Box<str>>,
    /// SpeakerStatus to write for this node.
    pub status: Arc<SpeakerStatusStatus>,
    /// Addresses that this node announces, by interface. The interfaces in `status` do not list
    /// them; the writer of the SpeakerStatus adds them when it writes.
    pub owned: OwnedAddresses,
    /// Servers that the health check of kube-proxy contacts.
    pub proxy_targets: ProxyTargets,
    /// Reason for which this node hands over its addresses although its speaker continues to run.
    /// None: the node does not drain.
    pub drain_reason: Option<&'static str>,
    /// Endpoints whose health the speaker must check.
    pub probes: HealthChecks,
    /// Desired BGP configuration. None: not known yet, so the driver changes nothing in gobgpd.
    pub bgp: Option<BgpConfig>,
    /// State of the BGP sessions, for the metrics.
    pub session_metrics: SessionMetrics,
    /// Number of prefixes that are not advertised, because this node's routes would need too many
    /// different sets of attributes.
    pub prefixes_over_limit: usize,
    /// Number of the Services' addresses, by how this node can serve them.
    pub addresses: ServingCounts,
    /// Reason for which the speaker is not ready. None: the speaker is ready.
    pub not_ready_reason: Option<String>,
    /// True if the exclude label is ignored because every Node has it.
    pub exclusion_ignored: bool,
    /// True if every interface has handed over its addresses, so that the process may end.
    pub handed_over: bool,
    /// Time at which the plan must be computed again even without an event.
    pub replan_at: Option<Instant>,
}

/// Addresses that this node owns and announces, by the name of the interface.
pub type OwnedAddresses = BTreeMap<Box<str>, SharedMap<IpAddr, Owned>>;

/// One interface and its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPlan {
    /// Interface name.
    pub name: Box<str>,
    /// Hardware address.
    pub mac: Mac,
    /// True if advertisements allow this node to announce any address on the interface.
    pub selected: bool,
    /// Configuration of the interface's thread.
    pub config: Arc<LinkConfig>,
    /// IPv6 addresses for which the interface must receive neighbor solicitations: those that this
    /// node owns there, and those for which this node is one of the first candidates.
    pub ndp_addresses: Arc<BTreeSet<Ipv6Addr>>,
}

/// Configuration of an interface's thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkConfig {
    /// All election units of this network segment.
    pub units: Units,
    /// Ranges of addresses about which the thread receives ARP and NDP frames of other hosts. They
    /// contain the addresses of all `units`. None: the ranges are not known, so the thread receives
    /// all such frames.
    pub received_ranges: Option<Arc<[AddressRange]>>,
    /// Hello keys, which sign and verify the frames between speakers.
    pub keys: HelloKeyRing,
    /// Hardware addresses of all interfaces of this node. The thread treats frames from them as
    /// this node's own, not as those of another host.
    pub macs: Box<[Mac]>,
    /// IPv4 address of this interface, used as the sender address of ARP requests.
    pub source: Option<Ipv4Addr>,
    /// IPv6 address of this interface, used as the source of neighbor solicitations; link-local if
    /// possible. None: the thread sends only solicitations from the unspecified address.
    pub source_v6: Option<Ipv6Addr>,
    /// New addresses that the thread claims but does not announce yet, because kube-proxy may have
    /// no rules for them. Each has the time at which it arrived.
    pub withheld: Arc<BTreeMap<IpAddr, Instant>>,
    /// Flags about this node that its hellos carry.
    pub node_flags: NodeState,
    /// True if the thread must hand over its addresses, and report when this is done.
    pub leaving: bool,
}

/// Computes the desired configuration at `now` from the state. `memo` has the results of the latest
/// plan, and the changes of the state since then.
#[must_use]
pub fn plan(state: &State, memo: &mut Memo, now: Instant) -> Desired {
    let eligible = interfaces::usable_interfaces(state);
    let mut desired = Desired {
        not_ready_reason: not_ready(state).map(|why| why.to_string()),
        proxy_targets: proxy_health::proxy_targets(state),
        drain_reason: proxy_health::drain_reason(state),
        exclusion_ignored: !state.config.ignore_exclude_label
            && every_node_is_excluded(state.nodes.values()),
        ..Desired::default()
    };
    let draining = desired.drain_reason.is_some();
    let has_bgp = bgp::is_known(state);
    let bgp_input = has_bgp.then(|| BgpInput::new(state, draining)).flatten();
    desired.second_path = memo.second_path(state);
    desired.node_watch = NodeWatchConfig {
        nodes: Arc::clone(&desired.second_path),
        contacts: state.contacts_of_watched(),
    };
    let mut is_reported = true;
    if state.missing_input().is_none() {
        is_reported = memo.update(state, bgp_input.as_ref());
        desired.addresses = memo.addresses.counts().clone();
    }
    plan_links(state, memo, &eligible, &mut desired, now);
    let mut bgp_status = None;
    if has_bgp {
        // If the Node is deleted, this speaker has nothing to advertise, and there are no labels
        // that a BGPPeer could select.
        let plan = bgp_input.map(|input| input.plan(state, memo, &mut desired));
        let (config, status) = plan.unwrap_or_default();
        // If gobgpd had no routes, as after a boot, the node's routes are de-preferred until
        // kube-proxy's health is known. So gobgpd must have been read first.
        desired.bgp = state.prefixes_at_start.map(|_| config);
        bgp_status = Some(status);
    }
    if is_reported || memo.status.bgp != bgp_status {
        let status = status(state, &memo.health_checks, &eligible, draining);
        memo.status = Arc::new(SpeakerStatusStatus { bgp: bgp_status, ..status });
    }
    desired.status = Arc::clone(&memo.status);
    let owned = |link: &&Link| {
        let mut owned = state.reports.get(&link.index)?.owned.clone();
        for address in state.withheld().keys() {
            owned.remove(address);
        }
        Some((link.name.clone(), owned))
    };
    desired.owned = eligible.iter().filter_map(owned).collect();
    desired.probes = memo.health_checks.checks();
    let has_handed_over = |index| state.reports.get(index).is_some_and(|report| report.handed_over);
    desired.handed_over = state.leaving && desired.links.keys().all(has_handed_over);
    desired
}

/// Plans those of the `eligible` interfaces that are up and whose threads may run. After a failure,
/// a thread waits before it is started again; `replan_at` becomes the end of this delay if it is
/// earlier.
fn plan_links(
    state: &State,
    memo: &mut Memo,
    eligible: &[&Link],
    desired: &mut Desired,
    now: Instant,
) {
    let is_complete = state.missing_input().is_none();
    let node_flags = NodeState {
        draining: desired.drain_reason.is_some(),
        unhealthy: state.proxy_health.unhealthy(),
        health_checked: state.kube_proxy_works(),
    };
    let received_ranges = memo.received_ranges.ranges();
    let mut announcing = BTreeSet::new();
    for link in eligible {
        let failure = state.link_failures.get(&link.index).copied();
        let retry_at = failure.map(LinkFailure::retry_at).filter(|at| *at > now);
        desired.replan_at = desired.replan_at.into_iter().chain(retry_at).min();
        if !link.up || retry_at.is_some() {
            continue;
        }
        let mut nothing = LinkUnits::default();
        let units = if is_complete && interfaces::may_announce(state, link) {
            announcing.insert(link.index);
            memo.addresses.link(link.index, &state.config.node)
        } else {
            if is_complete {
                desired.waiting_for_speaker.insert(link.name.clone());
            }
            &mut nothing
        };
        let plan = link_plan(state, link, units, node_flags, received_ranges.clone());
        desired.links.insert(link.index, plan);
    }
    memo.addresses.retain_links(|index| announcing.contains(&index));
}

/// Builds the configuration of one interface's thread. `units` are empty if this node announces
/// nothing on the interface.
fn link_plan(
    state: &State,
    link: &Link,
    units: &mut LinkUnits,
    node_flags: NodeState,
    received_ranges: Option<Arc<[AddressRange]>>,
) -> LinkPlan {
    let source = link.addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let usable = link.addresses.iter().filter(|address| !link.tentative.contains(address));
    let source_v6 =
        usable.copied().filter_map(v6).min_by_key(|address| !address.is_unicast_link_local());
    let no_addresses = SharedMap::default();
    let owned = state.reports.get(&link.index).map_or(&no_addresses, |report| &report.owned);
    let ndp_addresses = units.solicited_addresses(owned);
    let macs =
        state.all_links().filter(|link| !state.leads_to_pod(link)).map(|link| link.mac).collect();
    let config = LinkConfig {
        units: units.units.clone(),
        received_ranges,
        keys: state.keys.clone(),
        macs,
        source,
        source_v6,
        withheld: Arc::clone(state.withheld()),
        node_flags,
        leaving: state.leaving,
    };
    let (name, mac, selected) = (link.name.clone(), link.mac, units.is_selected());
    LinkPlan { name, mac, selected, config: Arc::new(config), ndp_addresses }
}

const fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

fn not_ready(state: &State) -> Option<NotReady<'_>> {
    if state.leaving {
        return Some(NotReady::Stopping);
    }
    if let Some(input) = state.missing_input() {
        return Some(NotReady::WaitingFor(input));
    }
    if state.own_node().is_none() {
        return Some(NotReady::NoNode(&state.config.node));
    }
    state.keys.is_empty().then_some(NotReady::NoKey)
}

fn late_hellos(late: claim::LateHellos) -> LateHellos {
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    LateHellos {
        milliseconds: millis(late.by),
        detection_milliseconds: millis(late.detection_time),
    }
}

fn status(
    state: &State,
    health_checks: &HealthCheckMemo,
    eligible: &[&Link],
    draining: bool,
) -> SpeakerStatusStatus {
    let reports = || eligible.iter().filter_map(|link| state.reports.get(&link.index));
    // An address that several interfaces announce counts once.
    let owners: Vec<_> = reports().filter(|report| !report.owned.is_empty()).collect();
    let owned_addresses = match &owners[..] {
        [] => 0,
        [owner] => owner.owned.len(),
        all => all.iter().flat_map(|report| report.owned.keys()).collect::<BTreeSet<_>>().len(),
    };
    let no_report = LinkReport::default();
    let names = |names: &[Box<str>]| names.iter().map(ToString::to_string).collect();
    let link_status = |link: &&Link| {
        let report = state.reports.get(&link.index).unwrap_or(&no_report);
        let not_joined = state.unjoined.get(&link.index).map_or(&[][..], |addresses| addresses);
        InterfaceStatus {
            name: link.name.to_string(),
            mac: link.mac.to_string(),
            up: link.up,
            heard: names(&report.speakers),
            addresses: Vec::new(),
            subnets: link.subnet_names(),
            ipv6_disabled: link.up && !link.has_ipv6(),
            unheard: names(&report.unheard),
            isolated: report.isolated,
            standby: report.standby,
            late_hellos: report.late_hellos.map(late_hellos),
            issues: issues(report, not_joined),
        }
    };
    let mut interfaces: Vec<_> = eligible.iter().map(link_status).collect();
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    SpeakerStatusStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        interfaces,
        draining: draining || state.leaving,
        data_path: Some(KubeProxyStatus {
            state: state.proxy_health.state,
            message: state.proxy_health.message.to_string(),
            last_healthy: state
                .proxy_health
                .last_healthy
                .and_then(|time| time.round(jiff::Unit::Second).ok())
                .map(|time| time.to_string()),
        }),
        failing_health_checks: health_checks.reported_failing(),
        failing_services: health_checks.failing_services(),
        unchecked_health_checks: health_checks.reported_unchecked(),
        unchecked_services: health_checks.unchecked_services(),
        bgp: None,
        owned_addresses: i64::try_from(owned_addresses).unwrap_or(i64::MAX),
        watched_nodes: state.watched_nodes.to_vec(),
        host_addresses: interfaces::host_addresses(state),
        gateways: state.routes.gateways.to_vec(),
    }
}

/// Returns a status with the addresses of its interfaces.
#[must_use]
pub fn with_addresses(status: &SpeakerStatusStatus, owned: &OwnedAddresses) -> SpeakerStatusStatus {
    let mut status = status.clone();
    for interface in &mut status.interfaces {
        let owned = owned.get(&*interface.name).into_iter();
        interface.addresses = owned.flat_map(|owned| owned.keys().copied()).collect();
    }
    status
}

/// Returns the issues of the addresses on an interface. `report` is the report of the interface's
/// thread. `not_joined` are the addresses for which the interface receives no neighbor
/// solicitations.
fn issues(report: &LinkReport, not_joined: &[Ipv6Addr]) -> Vec<InterfaceIssue> {
    let owned =
        not_joined.iter().filter(|address| report.owned.contains_key(&IpAddr::V6(**address)));
    let join_issues = owned.map(|address| InterfaceIssue {
        address: (*address).into(),
        reason: InterfaceIssueReason::MulticastJoinFailed,
        mac: ndp::multicast_mac(ndp::solicited_node_group(*address)).to_string(),
        node: None,
    });
    let mut all_issues: Vec<_> =
        report.conflicts.iter().map(conflict_issue).chain(join_issues).collect();
    all_issues.sort_by_key(|issue| (issue.address, issue.reason));
    all_issues
}

fn conflict_issue(conflict: &AddressConflict) -> InterfaceIssue {
    let (reason, node) = match &conflict.kind {
        ConflictKind::ForeignHost => (InterfaceIssueReason::AddressConflict, None),
        ConflictKind::PeerKernel(node) => (InterfaceIssueReason::KernelAnswers, Some(node)),
        ConflictKind::ProxyOfFailedPeer(node) => {
            (InterfaceIssueReason::StaleNeighborProxy, Some(node))
        }
        ConflictKind::UnheardPeer(node) => (InterfaceIssueReason::HellosFiltered, Some(node)),
    };
    InterfaceIssue {
        address: conflict.address,
        reason,
        mac: conflict.mac.to_string(),
        node: node.map(ToString::to_string),
    }
}

#[cfg(test)]
mod tests;
