//! Setup of every row: three nodes with one pod each of one Service, a router with a session to
//! each node, and a client behind the router that connects all the time.
//!
//! The router's kernel sends all connections of one client to the same node. That node is the one
//! that each row disturbs.

use crate::bench::settle::SETTLE_MAX;
use crate::cluster::ferrolb::{ADMIN_PORT, CONTROLLER, NAMESPACE};
use crate::lab::RunningProbe;
use crate::routers::{Peering, Router, RouterKind};
use crate::topology::routers::{NODE_AS, OUTSIDE, ROUTER_AS, ROUTERS};
use crate::topology::{CONTROL_PLANE, Host};
use crate::traffic::probe::ProbeReport;
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Host of the router; the client's path goes through it.
const ROUTER: &str = ROUTERS[0];
/// Address of the Service; no network of the lab contains it.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
/// Interval of the client's connections.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// Time for which the client connects before the event. [`PROBE_AFTER`] is the time after the
/// event.
const PROBE_BEFORE: Duration = Duration::from_secs(1);
const PROBE_AFTER: Duration = Duration::from_secs(2);
/// Maximum time for which the client connects if the event does not end.
const PROBE_MAX: Duration = Duration::from_secs(300);
/// Time for which the router must not change before a run begins.
const UNCHANGED_MIN: Duration = Duration::from_secs(5);

/// Command that sets the default of Linux (`fib_multipath_hash_policy`): the router's kernel
/// selects a path by the addresses alone, so one client always uses one node.
const HASH_BY_ADDRESS: &str = "echo 0 >/proc/sys/net/ipv4/fib_multipath_hash_policy";

/// Failure detection methods of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionParameters {
    /// Interval of BFD in both directions in milliseconds; the third lost packet in a row is a
    /// failure.
    pub(super) bfd: Option<u16>,
    /// True if graceful restart is on, in both directions.
    pub(super) graceful: bool,
}

impl SessionParameters {
    /// Returns the hold time: the minimum, or with BFD a time too long to matter.
    fn hold_seconds(self) -> u16 {
        if self.bfd.is_some() { 90 } else { 3 }
    }
}

/// Lab with the objects that all rows use.
pub(super) struct BgpFailoverSetup<'a> {
    pub(super) lab: &'a Lab,
}

/// A router with its sessions.
pub(super) struct RouterPath<'a> {
    lab: &'a Lab,
    router: Router<'a>,
    parameters: SessionParameters,
}

impl<'a> BgpFailoverSetup<'a> {
    /// Starts FerroLB and creates the pods, the pool and the Service.
    pub(super) fn start(lab: &'a Lab) -> Result<Self> {
        lab.exec(ROUTER, &["sh", "-c", HASH_BY_ADDRESS])?;
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")?;
        for node in lab.nodes() {
            lab.start_speaker(&node, &[])?;
            lab.pod(&format!("web-{node}"), &node, &[("app", "web")])?;
        }
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}],
        }});
        lab.apply_objects(&[
            custom_resource(
                "v1beta1",
                "IPAddressPool",
                "routed",
                &json!({"addresses": [format!("{ADDRESS}/32")]}),
            ),
            custom_resource("v1beta1", "BGPAdvertisement", "all", &json!({})),
            service,
        ])?;
        Ok(Self { lab })
    }

    /// Runs `work` with a router of the given kind whose sessions have the given parameters.
    pub(super) fn with_router<T>(
        &self,
        kind: RouterKind,
        parameters: SessionParameters,
        work: impl FnOnce(&RouterPath<'a>) -> Result<T>,
    ) -> Result<T> {
        let mut peer = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": self.lab.host(ROUTER)?.v4(),
            "holdTime": format!("{}s", parameters.hold_seconds()), "connectTime": "1s", "enableGracefulRestart": parameters.graceful});
        if let Some(interval) = parameters.bfd {
            let spec = json!({"receiveInterval": interval, "transmitInterval": interval, "detectMultiplier": 3});
            self.lab.apply_objects(&[custom_resource(
                "v1beta1",
                "BFDProfile",
                &profile_name(interval),
                &spec,
            )])?;
            peer["bfdProfile"] = profile_name(interval).into();
        }
        self.lab.apply_objects(&[custom_resource("v1beta2", "BGPPeer", "router", &peer)])?;
        let router =
            Router::start_with_peering(self.lab, kind, ROUTER, &peering(self.lab, parameters)?)?;
        let path = RouterPath { lab: self.lab, router, parameters };
        let result = work(&path).with_context(|| format!("{} with {parameters:?}", path.router))?;
        path.router.stop()?;
        self.lab.kubectl(&["delete", "bgppeer", "router", "-n", NAMESPACE])?;
        Ok(result)
    }
}

impl RouterPath<'_> {
    /// Waits until the router uses all nodes, BFD (if configured) is up, and nothing changes for
    /// some time. Returns the node that then serves the client.
    pub(super) fn settle(&self) -> Result<String> {
        let all: BTreeSet<IpAddr> = self
            .lab
            .nodes()
            .iter()
            .filter_map(|node| Host::named(node))
            .map(|node| node.v4().into())
            .collect();
        let mut since: Option<Instant> = None;
        wait::until("the router uses all nodes without a change", SETTLE_MAX, || {
            let used = self.used_nodes()?;
            if used != all {
                since = None;
            }
            ensure!(used == all, "the router uses {used:?}");
            if self.parameters.bfd.is_some() {
                self.check_bfd_up()?;
            }
            Ok((since.get_or_insert_with(wait::now).elapsed() >= UNCHANGED_MIN).then_some(()))
        })?;
        if !self.router.kind().forwards() {
            return self.lab.nodes().into_iter().next().context("the lab has no node");
        }
        let page = wait::until("a pod serves a page", SETTLE_MAX, || {
            Ok(Some(self.lab.http_get(OUTSIDE, server(), "/")?))
        })?;
        let pod = page.pod().context("the page names no pod")?;
        Ok(pod.trim_start_matches("web-").to_owned())
    }

    /// Checks that the speaker of each node reports its BFD session as up.
    fn check_bfd_up(&self) -> Result<()> {
        self.lab.nodes().iter().try_for_each(|node| {
            let args = [
                "get",
                "speakerstatus",
                node,
                "-n",
                NAMESPACE,
                "-o",
                "jsonpath={.status.bgp.sessions[*].bfd} {.status.bgp.sessions[*].issues[*].reason}",
            ];
            let bfd = self.lab.kubectl(&args)?;
            ensure!(bfd.trim() == "Up", "BFD of {node} is {bfd:?}");
            Ok(())
        })
    }

    /// Triggers `event` on a node while the client connects, and waits until the router no longer
    /// uses that node. Returns the client's report, and the time until the router stops using the
    /// node, in milliseconds.
    pub(super) fn observe_failure(
        &self,
        node: &str,
        limit: Duration,
        event: impl FnOnce() -> Result<()>,
    ) -> Result<(ProbeReport, f64)> {
        let mut unused_ms = 0.0;
        let report = self.probe_during(|| {
            let start = wait::now();
            event()?;
            self.wait_unused(node, limit)?;
            unused_ms = (wait::now() - start).as_secs_f64() * 1000.0;
            Ok(())
        })?;
        Ok((report, unused_ms))
    }

    /// Triggers `event` while the client connects, and returns the client's report. The report is
    /// empty if the router forwards no traffic.
    pub(super) fn probe_during(&self, event: impl FnOnce() -> Result<()>) -> Result<ProbeReport> {
        let probing = self.router.kind().forwards().then(|| self.probe());
        wait::during(PROBE_BEFORE, || Ok(()))?;
        let event_result = event();
        wait::during(PROBE_AFTER, || Ok(()))?;
        let report = probing.map(RunningProbe::stop).transpose()?;
        event_result?;
        Ok(report.unwrap_or_default())
    }

    fn probe(&self) -> RunningProbe {
        self.lab.start_probe_from(OUTSIDE, server(), PROBE_MAX, PROBE_INTERVAL)
    }

    /// Waits until the router has an established session with a node and uses the node.
    pub(super) fn wait_used(&self, node: &str) -> Result<()> {
        let next_hop = next_hop(node)?;
        wait::until(
            &format!("the router has a session with {node} and uses it"),
            SETTLE_MAX,
            || {
                let established = self
                    .router
                    .sessions()?
                    .iter()
                    .any(|session| session.neighbor == next_hop && session.established);
                Ok((established && self.used_nodes()?.contains(&next_hop)).then_some(()))
            },
        )
    }

    /// Waits until the router does not use a node.
    pub(super) fn wait_unused(&self, node: &str, limit: Duration) -> Result<()> {
        wait::until(&format!("the router stops using {node}"), limit, || {
            Ok((!self.is_used(node)?).then_some(()))
        })
    }

    /// Returns whether the router currently uses a node.
    pub(super) fn is_used(&self, node: &str) -> Result<bool> {
        Ok(self.used_nodes()?.contains(&next_hop(node)?))
    }

    /// Returns the addresses of the nodes that the router's kernel forwards to. For a router
    /// without kernel routes, returns the next hops of its paths.
    fn used_nodes(&self) -> Result<BTreeSet<IpAddr>> {
        if self.router.kind().forwards() {
            return self.router.forwards(ADDRESS);
        }
        self.next_hops()
    }

    /// Returns the next hops of all paths of the router, whether or not the router uses them.
    fn next_hops(&self) -> Result<BTreeSet<IpAddr>> {
        Ok(self.router.routes()?.into_iter().filter_map(|route| route.next_hop).collect())
    }
}

fn custom_resource(version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("ferrolb.io/{version}"), "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

fn next_hop(node: &str) -> Result<IpAddr> {
    Ok(Host::named(node).with_context(|| format!("{node} is not a node of the lab"))?.v4().into())
}

fn server() -> SocketAddr {
    SocketAddr::new(ADDRESS, 80)
}

fn profile_name(interval: u16) -> String {
    format!("every-{interval}ms")
}

/// Returns the peering of the router: all nodes, over IPv4.
fn peering(lab: &Lab, parameters: SessionParameters) -> Result<Peering> {
    let mut peering = Peering::with_nodes(lab, ROUTER)?;
    peering.neighbors.retain(|neighbor| neighbor.address.is_ipv4());
    Ok(Peering {
        hold: parameters.hold_seconds(),
        bfd: parameters.bfd,
        graceful: parameters.graceful,
        ..peering
    })
}
