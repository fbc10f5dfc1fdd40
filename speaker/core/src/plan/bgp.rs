//! BGP in the plan: the desired BGP configuration, and the status of the sessions. Pure.

mod bgp_config;
mod export_groups;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ferrolb_core::bgp::{BgpAdvertisements, RouteInput, Sessions, sessions};
use ferrolb_proto::api::{BgpSessionState, BgpSessionStatus, BgpStatus, KubeProxyState};
use ferrolb_proto::facts::{BgpPeer, Node, PeerLocation, SessionParameters};

use super::{Desired, Memo};
use crate::event::{NodeIssue, SessionIssue};
use crate::state::State;
use bgp_config::{PlannedConfig, SessionContext, plan_config};

pub use bgp_config::{BgpConfig, BgpIdentity, SessionConfig};
pub use export_groups::{
    ExportAttributes, ExportGroups, RouteReceiver, RouteReceivers, STATEMENTS_MAX, export_groups,
    limit_routes,
};

/// Sessions for the metrics, by the names of their BGPPeers.
pub type SessionMetrics = BTreeMap<Box<str>, SessionMetric>;

/// One session for the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionMetric {
    /// Address of the router: `192.0.2.1:179`, `[2001:db8::1]:179`, `eth0:179`.
    pub router: Box<str>,
    /// True if the BGP session is established.
    pub established: bool,
    /// Number of prefixes that are advertised to the router.
    pub prefixes: i64,
}

/// Returns whether this node has a gobgpd, and all inputs of its configuration have arrived.
pub(super) fn is_known(state: &State) -> bool {
    state.config.gobgp
        && state.missing_input().is_none()
        && state.bgp_objects.missing_input().is_none()
}

/// Inputs of the BGP part of the plan that do not depend on Services.
pub(super) struct BgpInput<'a> {
    node: &'a Node,
    sessions: Sessions<'a>,
    advertisements: BgpAdvertisements<'a>,
    draining: bool,
    /// See [`RouteInput::unhealthy`].
    unhealthy: bool,
}

impl<'a> BgpInput<'a> {
    /// Returns the inputs of this node, if its Node exists.
    pub(super) fn new(state: &'a State, draining: bool) -> Option<Self> {
        let (node, objects) = (state.own_node()?, &state.bgp_objects);
        // After a restart of the speaker, kube-proxy's health is unknown. If gobgpd still has
        // routes, they are not de-preferred for this reason. If gobgpd has none, as after a boot,
        // routers send the node no traffic, and should send none before kube-proxy's health is
        // known.
        let unhealthy = match state.proxy_health.state {
            KubeProxyState::Unhealthy => true,
            KubeProxyState::Unknown => draining || state.prefixes_at_start == Some(0),
            KubeProxyState::Healthy | KubeProxyState::NotChecked => draining,
        };
        Some(Self {
            node,
            sessions: sessions(objects.peers.values(), &node.labels),
            advertisements: BgpAdvertisements::new(
                objects.advertisements.values(),
                objects.communities.values(),
            ),
            draining,
            unhealthy,
        })
    }

    /// Returns the input of the routes.
    pub(super) const fn routes(&self) -> RouteInput<'a, '_> {
        let Self { node, sessions, advertisements, unhealthy, .. } = self;
        RouteInput { node, sessions, advertisements, unhealthy: *unhealthy }
    }

    /// Returns the desired BGP configuration, with the routes in `memo`, and the status of gobgpd
    /// and of its sessions. Sets the metrics about them in `desired`.
    pub(super) fn plan(
        &self,
        state: &State,
        memo: &Memo,
        desired: &mut Desired,
    ) -> (BgpConfig, BgpStatus) {
        let (sessions, objects) = (&self.sessions, &state.bgp_objects);
        let discovered_router = |(peer, session): &(&BgpPeer, &'_ SessionParameters)| {
            let address = state.bgp.sessions.get(&peer.name)?.address?;
            Some((session.location.interface()?.to_owned(), address))
        };
        let context = SessionContext {
            node: self.node,
            secrets: &objects.passwords,
            last_passwords: &objects.last_passwords,
            profiles: objects.profiles.values().map(|profile| (&*profile.name, profile)).collect(),
            unnumbered_routers: sessions.active.iter().filter_map(discovered_router).collect(),
        };
        let outcome = plan_config(&context, sessions, (memo.routes.routes(), memo.routes.counts()));
        let announced = i64::try_from(outcome.config.routes.len()).unwrap_or(i64::MAX);
        let status = BgpStatus { announced, ..status(state, sessions, &outcome) };
        desired.session_metrics = session_metrics(sessions, &status);
        desired.prefixes_over_limit = outcome.prefixes_over_limit;
        let no_restart_reason = no_restart_reason(state.leaving, self.draining, self.node);
        (BgpConfig { no_restart_reason, ..outcome.config }, status)
    }
}

/// Returns the reason for which a new gobgpd possibly does not start soon after the present one
/// stops, if there is one. When a machine shuts down, its Node becomes not Ready or its speaker is
/// stopped.
fn no_restart_reason(leaving: bool, draining: bool, node: &Node) -> Option<&'static str> {
    let reasons = [
        (leaving, "its speaker stops"),
        (draining, "the node drains"),
        (node.cordoned, "the Node is cordoned"),
        (!node.ready, "the Node is not Ready"),
    ];
    reasons.into_iter().find_map(|(applies, reason)| applies.then_some(reason))
}

fn status(state: &State, sessions: &Sessions<'_>, outcome: &PlannedConfig<'_>) -> BgpStatus {
    let unusable = || state.bgp.unusable.clone().map(SessionIssue::GobgpUnavailable);
    let session = |(peer, session): &(&BgpPeer, &SessionParameters)| {
        let report = state.bgp.sessions.get(&peer.name).cloned().unwrap_or_default();
        let established = report.state == BgpSessionState::Established;
        let prefixes = outcome.prefixes.get(&*peer.name).copied().unwrap_or_default();
        // The list starts with the issue that the BGP driver reports. The issue that a Secret or
        // `spec.bfdProfile` causes follows.
        let issues = report
            .issue
            .or_else(unusable)
            .into_iter()
            .chain(outcome.issues.get(&*peer.name).cloned());
        BgpSessionStatus {
            peer: peer.name.to_string(),
            address: report.address.or(session.location.address()),
            asn: report.asn,
            state: report.state,
            since: report
                .since
                .and_then(|since| jiff::Timestamp::from_second(since).ok())
                .map(|since| since.to_string()),
            bfd: report.bfd,
            prefixes: if established { prefixes } else { 0 },
            issues: issues.map(|issue| issue.status()).collect(),
        }
    };
    let mut sessions_status: Vec<_> = sessions.active.iter().map(session).collect();
    sessions_status.sort_by(|a, b| a.peer.cmp(&b.peer));
    let established = sessions_status
        .iter()
        .filter(|session| session.state == BgpSessionState::Established)
        .count();
    let established = format!("{established}/{}", sessions_status.len());
    let over_limit = || over_limit(outcome).map(|issue| issue.status());
    let issue = unusable().map(|issue| issue.status()).or_else(over_limit);
    let issues = issue.into_iter().collect();
    BgpStatus { issues, established, sessions: sessions_status, ..BgpStatus::default() }
}

/// Returns the issue about prefixes that exceed [`STATEMENTS_MAX`], if there are any.
fn over_limit(outcome: &PlannedConfig<'_>) -> Option<NodeIssue> {
    let prefixes = outcome.prefixes_over_limit;
    (prefixes > 0).then_some(NodeIssue::TooManyAttributes { prefixes, limit: STATEMENTS_MAX })
}

fn session_metrics(sessions: &Sessions<'_>, status: &BgpStatus) -> SessionMetrics {
    let statuses: BTreeMap<&str, _> =
        status.sessions.iter().map(|status| (&*status.peer, status)).collect();
    let metric = |(peer, session): &(&BgpPeer, &SessionParameters)| {
        let status = statuses.get(&*peer.name)?;
        let (router, prefixes) = (router(session).into(), status.prefixes);
        let established = status.state == BgpSessionState::Established;
        Some((peer.name.clone(), SessionMetric { router, established, prefixes }))
    };
    sessions.active.iter().filter_map(metric).collect()
}

/// Returns the address of a router in the form of MetalLB's metrics.
fn router(session: &SessionParameters) -> String {
    match &session.location {
        PeerLocation::Address(address) => SocketAddr::new(*address, session.port).to_string(),
        PeerLocation::Interface(link) => format!("{link}:{}", session.port),
    }
}

#[cfg(test)]
mod tests;
