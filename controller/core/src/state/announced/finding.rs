//! Decides the content of the condition `ferrolb.io/Announced` of one Service, from the objects in
//! the API and the reports of the speakers. Pure;
//! [`messages`](crate::state::messages::announced) renders the text.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_core::announce::{
    ClusterView, Interface, Layer2Address, SelectedInterface, ServicesByAddress,
};
use ferrolb_core::eligibility::Ineligible;
use ferrolb_proto::api::{ConditionMessage, InterfaceIssue, InterfaceIssueReason, IpMode};
use ferrolb_proto::facts::{Endpoint, Node, Service, Speaker, SpeakerInterface, TrafficPolicy};
use ferrolb_proto::range::Family;

use super::bgp_export::{BgpContext, BgpExport};
use super::live_speakers::{LiveSpeakers, Owners};
use super::{CONDITION_DELAY, RESTART_DELAY};
use crate::desired::Condition;
use crate::state::Names;
use crate::state::conflicts::ReportedAddresses;
use crate::state::messages::SEPARATOR;
use crate::state::messages::announced::{
    Depreferred, Diagnosis, Finding, OwnerIssue, Reporter, Senders,
};
use crate::state::messages::cause::{Causes, LocalEndpoints};
use crate::state::messages::reason::Reason;

/// The condition that a Service should have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DesiredCondition {
    pub(super) condition: Condition,
    /// Time for which the facts must differ from the written condition before this one is written.
    pub(super) delay: Duration,
    pub(super) reported: ReportedAddresses,
}

/// A diagnosis, and the addresses to which it applies.
pub(in crate::state) type Diagnosed<'a> = (Diagnosis<'a>, Vec<IpAddr>);

/// The texts of the warnings of a Service.
#[derive(Debug, Default)]
pub(in crate::state) struct WarningTexts {
    pub(in crate::state) all: Vec<String>,
    /// True if a node with a [`Flaw`](crate::state::messages::warning::Flaw) announces the Service.
    pub(super) flawed: bool,
    /// The warning in `all` about endpoints that are not checked.
    pub(in crate::state) unchecked: Option<String>,
}

/// The facts that decide a Service's condition.
pub(in crate::state) struct DiagnosisInput<'a> {
    pub(super) service: &'a Service,
    /// The endpoints from all EndpointSlices of the Service.
    pub(super) endpoints: Vec<&'a Endpoint>,
    pub(super) cluster: &'a ClusterView<'a>,
    /// The Services that have an address of this Service, including this Service.
    pub(super) services: &'a ServicesByAddress<'a>,
    /// The addresses of this Service that L2Advertisements announce.
    pub(super) layer2: BTreeMap<IpAddr, Layer2Address<'a, 'a>>,
    /// The live speakers; `None` if the API group in use has no SpeakerStatuses.
    pub(super) live_speakers: Option<&'a LiveSpeakers<'a>>,
    /// The BGPAdvertisements and the sessions of the nodes; `None` if there are no
    /// BGPAdvertisements.
    pub(super) bgp: Option<&'a BgpContext<'a>>,
    /// The failed nodes whose pods are marked as not Ready.
    pub(super) silent_nodes: &'a [&'a str],
    /// Nodes that may still advertise an address of this Service for a deleted one.
    pub(super) former_routers: Vec<(IpAddr, &'a str)>,
}

impl DiagnosisInput<'_> {
    /// Returns the condition for the Service, which must have at least one address.
    pub(super) fn desired_condition(&self, names: &Names) -> DesiredCondition {
        let (parts, all_settled) = self.diagnoses();
        let mut reported = ReportedAddresses::default();
        for (diagnosis, addresses) in &parts {
            if diagnosis.is_announced() {
                reported.announced.extend(addresses);
            } else if diagnosis.is_foreign() {
                reported.foreign.extend(addresses);
            }
        }
        let reason = parts.first().map_or(Reason::Pending, |(diagnosis, _)| diagnosis.reason());
        let is_announced = reason == Reason::Announced;
        let WarningTexts { all: warnings, flawed: is_flawed, unchecked } =
            self.warning_texts(&parts);
        let texts = parts.iter().map(|(diagnosis, addresses)| diagnosis.text(addresses, names));
        let texts = texts.chain(warnings);
        let message = ConditionMessage::new(texts.collect::<Vec<_>>().join(SEPARATOR));
        let condition = Condition {
            status: reason.status(),
            reason: reason.name().into(),
            message,
            since: None,
        };
        let delay = if reason == Reason::SpeakersNotRunning {
            RESTART_DELAY
        } else if all_settled && is_announced && !is_flawed && unchecked.is_none() {
            Duration::ZERO
        } else {
            CONDITION_DELAY
        };
        DesiredCondition { condition, delay, reported }
    }

    /// Returns the diagnoses of all addresses, the worst first, each with its addresses. Also
    /// returns whether all of them are settled.
    pub(in crate::state) fn diagnoses(&self) -> (Vec<Diagnosed<'_>>, bool) {
        let mut all: Vec<Diagnosed<'_>> = Vec::new();
        let mut all_settled = true;
        for assigned in &self.service.assigned {
            let (diagnosis, settled) = self.diagnose(assigned.address, assigned.mode);
            all_settled &= settled;
            match all.iter_mut().find(|(same, _)| *same == diagnosis) {
                Some((_, addresses)) => addresses.push(assigned.address),
                None => all.push((diagnosis, vec![assigned.address])),
            }
        }
        all.sort_by_key(|(diagnosis, _)| diagnosis.reason());
        (all, all_settled)
    }

    /// Returns the problems of the Service that do not prevent its announcement.
    pub(in crate::state) fn warning_texts(&self, diagnosed: &[Diagnosed<'_>]) -> WarningTexts {
        let reason = diagnosed.first().map(|(diagnosis, _)| diagnosis.reason());
        let general = self.warnings(reason == Some(Reason::Announced));
        let mut texts: Vec<String> = Vec::new();
        for text in diagnosed.iter().flat_map(|(it, addresses)| it.warnings(addresses)) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts.extend(general.all.iter().map(ToString::to_string));
        let unchecked = general.all.iter().find(|warning| warning.is_about_unchecked());
        WarningTexts {
            all: texts,
            flawed: general.flawed,
            unchecked: unchecked.map(ToString::to_string),
        }
    }

    /// Returns the diagnosis of one address, and whether the diagnosis is settled: no owner and no
    /// path of the address is about to change.
    pub(in crate::state) fn diagnose(
        &self,
        address: IpAddr,
        mode: Option<IpMode>,
    ) -> (Diagnosis<'_>, bool) {
        if mode == Some(IpMode::Proxy) && !self.service.demand.request.announce_in_proxy_mode {
            return (Diagnosis { first: Finding::ProxyMode, second: None }, true);
        }
        let layer2_finding = self.layer2_finding(address);
        let export = self
            .bgp
            .and_then(|bgp| bgp.export_of(self.cluster, address, self.services.of(address)));
        match export.map(|export| self.bgp_finding(address, export)) {
            Some(bgp_finding) => both_paths(layer2_finding, bgp_finding),
            None => (Diagnosis { first: layer2_finding.0, second: None }, layer2_finding.1),
        }
    }

    /// Returns the finding for layer 2, and whether the finding is settled: no owner of the address
    /// is about to stop its announcement.
    fn layer2_finding(&self, address: IpAddr) -> (Finding<'_>, bool) {
        let owners = self
            .live_speakers
            .map(|live_speakers| live_speakers.owners(address))
            .unwrap_or_default();
        let issue = self.live_speakers.and_then(|live_speakers| {
            live_speakers.issues(address).min_by_key(|(_, issue)| issue.reason)
        });
        let warning = match issue.map(|(at, issue)| self.warning(at, issue).ok_or((at, issue))) {
            Some(Err((at, issue))) => return (conflict(at.node, issue, owners), true),
            Some(Ok(warning)) => Some(warning),
            None => None,
        };
        if owners.all.is_empty() {
            return (self.unannounced(address), true);
        }
        let Owners { all: owners, moving, partitioned } = owners;
        let unheard = || {
            let (at, from) = self.live_speakers?.unheard(address, &owners)?;
            Some(OwnerIssue::HellosFiltered { at, from, has_second_path: true })
        };
        let issue = warning.or_else(unheard);
        (Finding::Owned { owners, partitioned, issue }, !moving)
    }

    /// Returns the issue that does not prevent the announcement; `None` if another host uses the
    /// address.
    ///
    /// A speaker that has heard no other speaker since its start reports the owner of an address as
    /// a foreign host. The hardware address shows which node that is.
    fn warning<'s>(
        &'s self,
        at: Reporter<'s>,
        issue: &'s InterfaceIssue,
    ) -> Option<OwnerIssue<'s>> {
        let InterfaceIssue { mac, node, .. } = issue;
        let live_speakers = self.live_speakers;
        let filtered = |from| {
            let has_second_path = live_speakers.is_some_and(|live| live.is_unheard(from, at));
            Some(OwnerIssue::HellosFiltered { at, from, has_second_path })
        };
        match issue.reason {
            InterfaceIssueReason::AddressConflict => filtered(live_speakers?.node_with_mac(mac)?),
            InterfaceIssueReason::KernelAnswers => None,
            InterfaceIssueReason::HellosFiltered => filtered(node.as_deref().unwrap_or(mac)),
            InterfaceIssueReason::StaleNeighborProxy => {
                let speaker = node.as_deref().and_then(|node| live_speakers?.of(node));
                let has = |it: &&Speaker| it.host_addresses.contains(&issue.address);
                Some(
                    speaker.filter(has).map_or(OwnerIssue::StaleNeighborProxy { mac }, |speaker| {
                        OwnerIssue::NodeHasAddress { node: &speaker.node, mac }
                    }),
                )
            }
            InterfaceIssueReason::MulticastJoinFailed => {
                Some(OwnerIssue::MulticastJoinFailed { node: at.node, group: mac })
            }
        }
    }

    /// Returns the finding for the announcement by BGP of an address that a BGPAdvertisement
    /// selects.
    fn bgp_finding<'s>(&'s self, address: IpAddr, export: BgpExport<'s>) -> Finding<'s> {
        let BgpExport {
            preferred_nodes,
            depreferred_nodes,
            peers,
            nodes_without_session,
            missing_peers,
            overridden,
            not_advertised,
        } = export;
        let list = |names: BTreeSet<&'s str>| names.into_iter().collect::<Vec<_>>();
        if !(preferred_nodes.is_empty() && depreferred_nodes.is_empty()) {
            let senders = |nodes| match self.service.policy {
                TrafficPolicy::Cluster => Senders::Every,
                TrafficPolicy::Local => Senders::Nodes(nodes),
            };
            let (from, depreferred) =
                match (preferred_nodes.is_empty(), depreferred_nodes.is_empty()) {
                    (true, _) => (senders(depreferred_nodes), Depreferred::All),
                    (false, false) if self.service.policy == TrafficPolicy::Local => {
                        (senders(preferred_nodes), Depreferred::Also(depreferred_nodes))
                    }
                    (false, _) => (senders(preferred_nodes), Depreferred::None),
                };
            let overridden = list(overridden);
            return Finding::Routed { from, to: list(peers), depreferred, overridden };
        }
        if not_advertised.contains_key(&Ineligible::NoEndpoint) {
            return self.no_endpoint(address);
        }
        if !nodes_without_session.is_empty() {
            let peers = list(missing_peers);
            return Finding::NoSession { nodes: nodes_without_session, peers };
        }
        if self.live_speakers.is_none() && not_advertised.contains_key(&Ineligible::NoSpeaker) {
            return Finding::RouteUnknown;
        }
        let mut nodes = self.live_speakers.map(|it| it.stale_routers()).unwrap_or_default();
        nodes.retain(|node| {
            let services = self.services.of(address);
            let export = self.bgp.map(|it| it.export_from(node, self.cluster, address, services));
            matches!(export.flatten(), Some(Err(Ineligible::NoSpeaker)))
        });
        if !nodes.is_empty() {
            return Finding::NotRunning { nodes, bgp: true };
        }
        let policy = self.service.policy;
        let mut causes = Causes { counts: not_advertised, policy, ..Causes::default() };
        causes.endpoints = self.local_endpoints(address, &causes, |node| {
            let services = self.services.of(address);
            self.bgp?.export_from(&node.name, self.cluster, address, services)?.err()
        });
        Finding::NoRoute(causes)
    }

    /// Returns the finding for an address that no speaker reports on layer 2.
    fn unannounced(&self, address: IpAddr) -> Finding<'_> {
        match self.layer2.get(&address) {
            Some(layer2) if !layer2.has_endpoint() => self.no_endpoint(address),
            Some(layer2) => match self.stopped_owners(layer2) {
                nodes if nodes.is_empty() => self.unowned(layer2),
                nodes => Finding::NotRunning { nodes, bgp: false },
            },
            None => match self.cluster.pool_of(self.service.pool_annotation.as_deref(), address) {
                Some(pool) => Finding::NoAdvertisement { pool: &pool.name },
                None => Finding::NoPool,
            },
        }
    }

    /// Returns the nodes whose stopped speaker lists the address, and which may still announce it.
    fn stopped_owners<'s>(&'s self, layer2: &Layer2Address<'s, 's>) -> Vec<&'s str> {
        let mut nodes =
            self.live_speakers.map(|it| it.stale_owners(layer2.address())).unwrap_or_default();
        let is_eligible = |node: &Node| layer2.eligibility(self.cluster, node).is_ok();
        nodes.retain(|name| {
            self.cluster.nodes().any(|node| *node.name == **name && is_eligible(node))
        });
        nodes
    }

    fn no_endpoint(&self, address: IpAddr) -> Finding<'_> {
        // The Service may have eligible endpoints of the other family. In that case, the finding
        // names the family that lacks them.
        let family = self.eligible_endpoints().next().map(|_| Family::of(address));
        Finding::NoEndpoint { family, endpoint_condition: self.service.endpoint_condition }
    }

    /// Returns why a Service with eligible endpoints and an L2Advertisement has no owner on layer
    /// 2: no node is eligible, or no speaker of an eligible node announces the address.
    fn unowned<'s>(&'s self, layer2: &Layer2Address<'s, 's>) -> Finding<'s> {
        let policy = self.service.policy;
        let mut causes = Causes { policy, ..Causes::default() };
        let mut eligible = Vec::new();
        for node in self.cluster.nodes() {
            let Some(cause) = self.absence(layer2, node).filter(|it| *it != Ineligible::NoSpeaker)
            else {
                eligible.push(node);
                continue;
            };
            causes.count(cause);
            if cause == Ineligible::NoInterface && causes.interfaces.is_none() {
                let speaker = self.live_speakers.and_then(|live| live.of(&node.name));
                let interfaces = speaker.into_iter().flat_map(|it| it.interfaces.iter());
                causes.interfaces = Some((&node.name, interfaces.map(|it| &*it.name).collect()));
            }
        }
        if eligible.is_empty() {
            if causes.counts.contains_key(&Ineligible::NotSelected) {
                causes.advertisements =
                    layer2.advertisements().iter().map(|it| &*it.name).collect();
            }
            causes.endpoints =
                self.local_endpoints(layer2.address(), &causes, |node| self.absence(layer2, node));
            return Finding::NoNode(causes);
        }
        self.eligible_but_unowned(layer2, &eligible)
    }

    /// Returns the place of the eligible endpoints, if the policy is Local and nodes lack
    /// endpoints. `cause` returns why a node does not announce the address.
    fn local_endpoints(
        &self,
        address: IpAddr,
        causes: &Causes<'_>,
        cause: impl Fn(&Node) -> Option<Ineligible>,
    ) -> Option<LocalEndpoints<'_>> {
        let is_local = causes.policy == TrafficPolicy::Local;
        if !is_local || !causes.counts.contains_key(&Ineligible::NoLocalEndpoint) {
            return None;
        }
        let mut endpoints = self.eligible_endpoints_for(address).peekable();
        endpoints.peek()?;
        let nodes: BTreeSet<_> = endpoints.filter_map(|it| it.node.as_deref()).collect();
        if nodes.is_empty() {
            return Some(LocalEndpoints::WithoutNodeName);
        }
        let mut nodes = self.cluster.nodes().filter(|it| nodes.contains(&*it.name));
        // A node with an endpoint can lack one of another Service that shares the address.
        let other = |node: &Node| cause(node).filter(|it| *it != Ineligible::NoLocalEndpoint);
        nodes.find_map(|node| Some(LocalEndpoints::On(&node.name, other(node)?)))
    }

    /// Returns why a node may not or cannot announce an address on layer 2. `None` if it can, or if
    /// it may and speakers do not report their state.
    pub(super) fn absence(
        &self,
        layer2: &Layer2Address<'_, '_>,
        node: &Node,
    ) -> Option<Ineligible> {
        if let Err(why) = layer2.eligibility(self.cluster, node) {
            return Some(why);
        }
        let Some(speaker) = self.live_speakers?.of(&node.name) else {
            return Some(Ineligible::NoSpeaker);
        };
        let selected = selected_interfaces(layer2, node, speaker);
        if !selected.iter().any(|(_, selected)| selected.in_use()) {
            return Some(Ineligible::NoInterface);
        }
        // One interface in use has the subnet, or all of them announce the address, unless they
        // lack its family.
        announcing(layer2, &selected).next().is_none().then_some(Ineligible::NoIpv6)
    }

    /// Returns the finding for an address that no speaker reports on layer 2 although nodes are
    /// eligible.
    fn eligible_but_unowned<'s>(
        &'s self,
        layer2: &Layer2Address<'s, 's>,
        eligible: &[&'s Node],
    ) -> Finding<'s> {
        let nodes: Vec<&str> = eligible.iter().map(|node| &*node.name).collect();
        let Some(live_speakers) = self.live_speakers else {
            return Finding::OwnerUnknown { nodes };
        };
        let speakers: Vec<_> = eligible
            .iter()
            .filter_map(|node| Some((node, live_speakers.of(&node.name)?)))
            .collect();
        if speakers.is_empty() {
            return Finding::NoSpeaker { nodes };
        }
        let isolated = speakers.iter().all(|(node, speaker)| {
            let selected = selected_interfaces(layer2, node, speaker);
            announcing(layer2, &selected).all(|interface| interface.isolated)
        });
        if isolated { Finding::Isolated { nodes } } else { Finding::Unclaimed { nodes } }
    }
}

/// Returns the interfaces of a node that the L2Advertisements of an address select.
fn selected_interfaces<'a>(
    layer2: &Layer2Address<'_, '_>,
    node: &Node,
    speaker: &'a Speaker,
) -> Vec<(&'a SpeakerInterface, SelectedInterface)> {
    let selected = |interface: &'a SpeakerInterface| {
        let facts = || Interface {
            in_use: interface.up && !interface.standby,
            has_ipv6: !interface.ipv6_disabled,
            subnets: interface.subnets.to_vec(),
        };
        let advertisements = layer2.advertisements();
        let selected =
            SelectedInterface::select(advertisements, &node.labels, &interface.name, facts);
        Some((interface, selected?))
    };
    speaker.interfaces.iter().filter_map(selected).collect()
}

/// Returns those of the selected interfaces on which the node announces the address.
fn announcing<'a>(
    layer2: &Layer2Address<'_, '_>,
    selected: &'a [(&'a SpeakerInterface, SelectedInterface)],
) -> impl Iterator<Item = &'a SpeakerInterface> {
    let address = layer2.address();
    let all = || selected.iter().map(|(_, it)| it);
    let announces = move |it: &SelectedInterface| it.in_use() && it.announces(address, all());
    selected.iter().filter(move |(_, it)| announces(it)).map(|(interface, _)| *interface)
}

/// Returns the finding for an address for which another host or a node's kernel also replies on
/// layer 2, as the speaker of node `by` reports in `issue`.
fn conflict<'a>(by: &'a str, issue: &'a InterfaceIssue, owners: Owners<'a>) -> Finding<'a> {
    let InterfaceIssue { mac, node, .. } = issue;
    let owners = owners.all;
    if issue.reason == InterfaceIssueReason::KernelAnswers {
        let node = node.as_deref().unwrap_or(by);
        return Finding::KernelReplies { node, mac, owners };
    }
    Finding::Conflict { mac, seen_by: by, owners }
}

/// Returns the diagnosis of an address that can be announced on layer 2 and by BGP. The address is
/// announced if either path announces it, unless another host replies for it on layer 2.
fn both_paths<'a>(
    (layer2_finding, settled): (Finding<'a>, bool),
    bgp_finding: Finding<'a>,
) -> (Diagnosis<'a>, bool) {
    let pair = |first, second| Diagnosis { first, second: Some(second) };
    match (layer2_finding.reason(), bgp_finding.reason()) {
        (Reason::NoAdvertisement, _) => (Diagnosis { first: bgp_finding, second: None }, true),
        // Both paths lack an eligible endpoint: one finding is enough.
        (Reason::NoEndpoints, Reason::NoEndpoints) => {
            (Diagnosis { first: layer2_finding, second: None }, settled)
        }
        // The same holds if the same causes exclude the same numbers of nodes on both paths.
        _ if matches!((&layer2_finding, &bgp_finding),
            (Finding::NoNode(layer2), Finding::NoRoute(bgp)) if layer2 == bgp) =>
        {
            (Diagnosis { first: layer2_finding, second: None }, settled)
        }
        (Reason::Announced, reason) => {
            (pair(layer2_finding, bgp_finding), settled && reason == Reason::Announced)
        }
        (reason, Reason::Announced) if reason >= Reason::NoEndpoints => {
            (pair(bgp_finding, layer2_finding), false)
        }
        (_, _) => (pair(layer2_finding, bgp_finding), settled),
    }
}
