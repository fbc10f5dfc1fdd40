//! Where every row plays: three nodes with a pod of one Service each, a router that has a session with each of them, and a client behind it that connects
//! all the time. The router's kernel sends all connections of one client to one node, so that this is the one to which something happens.

use crate::bench::rest::REST_MAX;
use crate::cluster::ferrolb::{ADMIN_PORT, CONTROLLER, NAMESPACE};
use crate::lab::Probing;
use crate::routers::{Kind, Peering, Router};
use crate::topology::routers::{NODE_AS, OUTSIDE, ROUTER_AS, ROUTERS};
use crate::topology::{CONTROL_PLANE, Host};
use crate::traffic::probe::Report;
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Where the router runs: the client's way goes by it.
const ROUTER: &str = ROUTERS[0];
/// The Service's address, which no network of the lab has.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
/// The step of the client's connections.
const STEP: Duration = Duration::from_millis(10);
/// How long the client connects before something happens, and how long after.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(2);
/// How long the client goes on if whatever happens takes no end.
const PROBE_MAX: Duration = Duration::from_secs(300);
/// How long nothing may have changed at the router before a run.
const SETTLED: Duration = Duration::from_secs(5);

/// A router's kernel chooses by the addresses alone, as Linux does unless it is told otherwise (`fib_multipath_hash_policy`): one client, one node.
const BY_ADDRESS: &str = "echo 0 >/proc/sys/net/ipv4/fib_multipath_hash_policy";
/// The delay's default would make every run wait for a minute.
const DRAIN: [&str; 2] = ["--drain-delay", "2s"];

/// How a router knows that a node is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// The interval of BFD either way, in milliseconds; three in a row may be lost.
    pub(super) bfd: Option<u16>,
    /// Graceful restart, either way.
    pub(super) graceful: bool,
}

impl Terms {
    /// The shortest that there is, or, with BFD, one that has no say.
    fn hold_seconds(self) -> u16 {
        if self.bfd.is_some() { 90 } else { 3 }
    }
}

/// The lab, and what there is at all times.
pub(super) struct Scene<'a> {
    pub(super) lab: &'a Lab,
}

/// A router with its sessions.
pub(super) struct Way<'a> {
    lab: &'a Lab,
    router: Router<'a>,
    terms: Terms,
}

impl<'a> Scene<'a> {
    /// Starts FerroLB, and makes the pods, the pool and the Service.
    pub(super) fn raise(lab: &'a Lab) -> Result<Self> {
        lab.exec(ROUTER, &["sh", "-c", BY_ADDRESS])?;
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")?;
        for node in lab.nodes() {
            lab.start_speaker(&node, &DRAIN)?;
            lab.pod(&format!("web-{node}"), &node, &[("app", "web")])?;
        }
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}],
        }});
        lab.apply_objects(&[
            object("v1beta1", "IPAddressPool", "routed", &json!({"addresses": [format!("{ADDRESS}/32")]})),
            object("v1beta1", "BGPAdvertisement", "all", &json!({})),
            service,
        ])?;
        Ok(Self { lab })
    }

    /// Does `work` with a router of a kind, on these terms.
    pub(super) fn by<T>(&self, kind: Kind, terms: Terms, work: impl FnOnce(&Way<'a>) -> Result<T>) -> Result<T> {
        let mut peer = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": self.lab.host(ROUTER)?.v4(),
            "holdTime": format!("{}s", terms.hold_seconds()), "connectTime": "1s", "enableGracefulRestart": terms.graceful});
        if let Some(interval) = terms.bfd {
            let spec = json!({"receiveInterval": interval, "transmitInterval": interval, "detectMultiplier": 3});
            self.lab.apply_objects(&[object("v1beta1", "BFDProfile", &profile(interval), &spec)])?;
            peer["bfdProfile"] = profile(interval).into();
        }
        self.lab.apply_objects(&[object("v1beta2", "BGPPeer", "router", &peer)])?;
        let router = Router::with(self.lab, kind, ROUTER, &peering(self.lab, terms)?)?;
        let way = Way { lab: self.lab, router, terms };
        let done = work(&way).with_context(|| format!("{} with {terms:?}", way.router))?;
        way.router.stop()?;
        self.lab.kubectl(&["delete", "bgppeer", "router", "-n", NAMESPACE])?;
        Ok(done)
    }
}

impl Way<'_> {
    /// Waits until the router uses all nodes, BFD watches them where it is to, and nothing changes for some time; by which of them the client is served then.
    pub(super) fn rest(&self) -> Result<String> {
        let all: BTreeSet<IpAddr> =
            self.lab.nodes().iter().filter_map(|node| Host::named(node)).map(|node| node.v4().into()).collect();
        let mut since: Option<Instant> = None;
        wait::until("the router uses all nodes for some time", REST_MAX, || {
            let now = self.uses()?;
            if now != all {
                since = None;
            }
            ensure!(now == all, "it uses {now:?}");
            if self.terms.bfd.is_some() {
                self.watched()?;
            }
            Ok((since.get_or_insert_with(wait::now).elapsed() >= SETTLED).then_some(()))
        })?;
        if !self.router.kind().forwards() {
            return self.lab.nodes().into_iter().next().context("a node");
        }
        let page = wait::until("a page", REST_MAX, || Ok(Some(self.lab.http_get(OUTSIDE, server(), "/")?)))?;
        let pod = page.pod().context("a pod")?;
        Ok(pod.trim_start_matches("web-").to_owned())
    }

    /// BFD watches the session of each node, as its speaker says.
    fn watched(&self) -> Result<()> {
        self.lab.nodes().iter().try_for_each(|node| {
            let words = [
                "get",
                "speakerstatus",
                node,
                "-n",
                NAMESPACE,
                "-o",
                "jsonpath={.status.bgp.sessions[*]['bfd', 'message']}",
            ];
            let bfd = self.lab.kubectl(&words)?;
            ensure!(bfd.trim() == "Up", "BFD of {node} is {bfd:?}");
            Ok(())
        })
    }

    /// Lets `event` happen to a node under the client's eyes, and waits until the router does not use it any more; when that was.
    pub(super) fn watch(
        &self,
        node: &str,
        limit: Duration,
        event: impl FnOnce() -> Result<()>,
    ) -> Result<(Report, f64)> {
        let mut unused_ms = 0.0;
        let report = self.during(|| {
            let start = wait::now();
            event()?;
            self.wait_unused(node, limit)?;
            unused_ms = (wait::now() - start).as_secs_f64() * 1000.0;
            Ok(())
        })?;
        Ok((report, unused_ms))
    }

    /// Lets `event` happen under the client's eyes; empty where it has no way by this router.
    pub(super) fn during(&self, event: impl FnOnce() -> Result<()>) -> Result<Report> {
        let probing = self.router.kind().forwards().then(|| self.probe());
        wait::during(BEFORE, || Ok(()))?;
        let happened = event();
        wait::during(AFTER, || Ok(()))?;
        let report = probing.map(Probing::stop).transpose()?;
        happened?;
        Ok(report.unwrap_or_default())
    }

    fn probe(&self) -> Probing {
        self.lab.start_probe_from(OUTSIDE, server(), PROBE_MAX, STEP)
    }

    /// Waits until the router has no path by a node.
    pub(super) fn wait_withdrawn(&self, node: &str) -> Result<()> {
        let hop = hop(node)?;
        wait::until("its paths are withdrawn", REST_MAX, || Ok((!self.paths()?.contains(&hop)).then_some(())))
    }

    /// Waits until the router has its session with a node, and uses it.
    pub(super) fn wait_told(&self, node: &str) -> Result<()> {
        let hop = hop(node)?;
        wait::until("the session is back", REST_MAX, || {
            let stands = self.router.sessions()?.iter().any(|session| session.neighbour == hop && session.established);
            Ok((stands && self.uses()?.contains(&hop)).then_some(()))
        })
    }

    /// Waits until the router does not use a node any more.
    pub(super) fn wait_unused(&self, node: &str, limit: Duration) -> Result<()> {
        wait::until(&format!("the router uses {node} no more"), limit, || Ok((!self.is_used(node)?).then_some(())))
    }

    /// Whether the router uses a node now.
    pub(super) fn is_used(&self, node: &str) -> Result<bool> {
        Ok(self.uses()?.contains(&hop(node)?))
    }

    /// The nodes that the router's kernel forwards to, or, where it tells it nothing, that it has a path by.
    fn uses(&self) -> Result<BTreeSet<IpAddr>> {
        if self.router.kind().forwards() {
            return self.router.forwards(ADDRESS);
        }
        self.paths()
    }

    /// The nodes that the router has a path by, whether it uses that or not.
    fn paths(&self) -> Result<BTreeSet<IpAddr>> {
        Ok(self.router.routes()?.into_iter().filter_map(|route| route.next_hop).collect())
    }
}

fn object(version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("ferrolb.io/{version}"), "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

fn hop(node: &str) -> Result<IpAddr> {
    Ok(Host::named(node).context("a node")?.v4().into())
}

fn server() -> SocketAddr {
    SocketAddr::new(ADDRESS, 80)
}

fn profile(interval: u16) -> String {
    format!("every-{interval}ms")
}

/// The router's own side: all nodes over IPv4.
fn peering(lab: &Lab, terms: Terms) -> Result<Peering> {
    let mut peering = Peering::with_nodes(lab, ROUTER)?;
    peering.neighbours.retain(|neighbour| neighbour.address.is_ipv4());
    Ok(Peering { hold: terms.hold_seconds(), bfd: terms.bfd, graceful: terms.graceful, ..peering })
}
