//! `kubectl ferrolb migrate metallb --node-by-node`: the commands of RUNBOOK.md move a cluster with
//! a running MetalLB to FerroLB, and back, while one client connects on layer 2 and another one
//! behind a router with BGP sessions. The test prints the lost connections of each stage.
//!
//! MetalLB runs in native mode. The test stops and starts its processes when a command changes its
//! workloads or labels a node, as the kubelet would.

use crate::running_metallb::{MetalLb, NAMESPACE};
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment::{self, replies_while};
use crate::services::{self, WEB, http, service};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb;
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::setup::metallb;
use ferrolb_lab::topology::routers::{NODE_AS, OUTSIDE, ROUTER_AS, ROUTERS};
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, Options, ProbeReport, wait};
use ferrolb_tests::read_page;
use ferrolb_tests::runbook::{self, Command, Stage};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

/// Variable with the number of nodes, for a run before a release.
const NODES: &str = "FERROLB_MIGRATION_NODES";
const NODES_DEFAULT: u8 = 3;
/// Directory of the plan, and the page that plans from saved files.
const DIRECTORY: &str = "node-by-node";
const REHEARSAL: &str = "docs/migrate-rehearsal.md";
/// Number of Services on layer 2 for each node.
const SERVICES_PER_NODE: u8 = 2;
const ROUTER: &str = ROUTERS[0];
/// Service that MetalLB announces by BGP, and its address.
const ROUTED: (&str, Ipv4Addr) = ("routed", Ipv4Addr::new(203, 0, 113, 10));
/// Interval of the clients' connections, and the time for which they connect after a stage.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
const PROBE_MAX: Duration = Duration::from_secs(300);
const SETTLED: Duration = Duration::from_millis(500);
/// Maximum number of connections that a client may lose when its path changes, and otherwise.
const LOST_BY_MOVE_MAX: usize = 3;
const LOST_MAX: usize = 1;
/// Maximum time until the router has the sessions and the routes.
const ROUTES_MAX: Duration = Duration::from_secs(60);

/// A cluster with MetalLB, and what its clients need.
struct Cluster<'a> {
    lab: &'a Lab,
    metallb: MetalLb<'a>,
    router: Router<'a>,
    /// Services on layer 2, with their addresses and the nodes that announce them.
    layer2: Vec<(String, Ipv4Addr, String)>,
    /// Nodes with a running speaker of MetalLB.
    speakers: RefCell<BTreeSet<String>>,
}

#[test]
fn the_runbook_moves_a_cluster_from_metallb_node_by_node_and_back() {
    // A build in the scenario would delay all others.
    metallb::build().expect("MetalLB builds");
    let options = Options { nodes: nodes(), bgp: true, ..Options::named("nodebynode") };
    run_scenario(&options, |lab| {
        lab.start_ferrolb()?;
        let cluster = step("MetalLB serves Services on layer 2 and by BGP", || set_up(lab))?;
        let stages = step("the plan keeps all addresses", || cluster.plan())?;
        step("the plan from saved files is the same", || cluster.rehearse())?;
        step("the stages move all Services and nodes to FerroLB", || {
            stages.iter().try_for_each(|stage| cluster.forward(stage))?;
            ensure!(cluster.speakers.borrow().is_empty(), "speakers of MetalLB run");
            cluster.check_owners()
        })?;
        step("the ways back return all of them to MetalLB", || {
            stages.iter().rev().try_for_each(|stage| cluster.back(stage))?;
            let on_layer2 = cluster.layer2.iter().map(|(name, ..)| name.as_str());
            let mut all = on_layer2.chain([ROUTED.0]);
            all.try_for_each(|name| cluster.metallb.wait_served(name))?;
            cluster.check_owners()
        })?;
        cluster.router.stop()
    });
}

#[expect(
    clippy::disallowed_methods,
    reason = "the variable is an option of this test, not of a component"
)]
fn nodes() -> u8 {
    std::env::var(NODES).ok().and_then(|it| it.parse().ok()).unwrap_or(NODES_DEFAULT)
}

/// Starts MetalLB with a pool for layer 2 and one for BGP, a router, and the Services.
fn set_up(lab: &Lab) -> Result<Cluster<'_>> {
    let metallb = MetalLb::install(lab)?;
    let nodes = lab.nodes();
    lab.pod("web", nodes.last().context("the lab has no node")?, &WEB)?;
    let object = |version: &str, kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": format!("metallb.io/{version}"), "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
    };
    let router_address = lab.address(ROUTER)?;
    let peer = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": router_address,
        "holdTime": "3s"});
    let routed = json!({"addresses": [format!("{}/32", ROUTED.1)], "autoAssign": false});
    let mut objects = vec![
        object(
            "v1beta1",
            "IPAddressPool",
            "lan",
            json!({"addresses": ["172.30.0.200-172.30.0.249"]}),
        ),
        object("v1beta1", "IPAddressPool", ROUTED.0, routed),
        object("v1beta1", "L2Advertisement", "lan", json!({"ipAddressPools": ["lan"]})),
        object("v1beta1", "BGPAdvertisement", ROUTED.0, json!({"ipAddressPools": [ROUTED.0]})),
        object("v1beta2", "BGPPeer", ROUTER, peer),
    ];
    objects.extend(ferrolb::migration_permissions()?);
    lab.apply_objects(&objects)?;
    let mut peering = Peering::with_nodes(lab, ROUTER)?;
    peering.neighbors.retain(|neighbor| neighbor.address.is_ipv4());
    let router = Router::start_with_peering(lab, RouterKind::Frr, ROUTER, &peering)?;
    metallb.start_controller()?;
    metallb.start_speakers()?;
    let count = SERVICES_PER_NODE * nodes.len() as u8;
    let names: Vec<_> = (1..=count).map(|number| format!("web{number}")).collect();
    let mut created: Vec<_> = names.iter().map(|name| service(name, json!({}))).collect();
    let mut by_bgp = service(ROUTED.0, json!({}));
    by_bgp["metadata"]["annotations"] = json!({"metallb.io/address-pool": ROUTED.0});
    created.push(by_bgp);
    lab.apply_objects(&created)?;
    let mut layer2 = Vec::new();
    for name in names {
        metallb.wait_served(&name)?;
        let address = services::address(lab, &name)?;
        let owner = metallb.wait_announced(address)?;
        layer2.push((name, address, owner));
    }
    let speakers = RefCell::new(nodes.into_iter().collect());
    let cluster = Cluster { lab, metallb, router, layer2, speakers };
    cluster.wait_routes()?;
    Ok(cluster)
}

impl Cluster<'_> {
    /// Writes the runbook, and returns its stages up to the point of no return.
    fn plan(&self) -> Result<Vec<Stage>> {
        let directory = self.lab.state().file(DIRECTORY);
        let command =
            format!("kubectl ferrolb migrate metallb --node-by-node --to {}", directory.display());
        self.lab.shell(&command)?;
        let stages = runbook::read(&directory)?.stages;
        let moves = stages.iter().filter(|it| it.title.contains("BGP sessions of")).count();
        ensure!(moves == self.lab.nodes().len(), "{moves} nodes move: {stages:?}");
        Ok(stages)
    }

    fn forward(&self, stage: &Stage) -> Result<()> {
        let commands = [stage.checks.as_slice(), &stage.commands].concat();
        self.measure("forward", stage, &commands)
    }

    fn back(&self, stage: &Stage) -> Result<()> {
        if stage.way_back.is_empty() {
            return Ok(());
        }
        self.measure("back", stage, &stage.way_back)
    }

    /// Plans from the files that the page about a rehearsal saves, and compares the runbook with
    /// that of the plan from the cluster.
    fn rehearse(&self) -> Result<()> {
        let page = read_page(REHEARSAL)?;
        let mut blocks = page.blocks.iter();
        let block = blocks.find(|it| it.text.contains("mkdir dump")).context("no such block")?;
        let folder = self.lab.state().file("rehearsal-page");
        let commands = format!("mkdir {0}\ncd {0}\n{1}", folder.display(), block.text);
        self.lab.shell(&commands)?;
        let read = |directory: &Path| fs::read_to_string(directory.join("RUNBOOK.md"));
        let directory = self.lab.state().file(DIRECTORY);
        let from_cluster = read(&directory)?.replace(&directory.display().to_string(), "rehearsal");
        let from_files = read(&folder.join("rehearsal"))?;
        ensure!(from_files == from_cluster, "the plan from the files is:\n{from_files}");
        Ok(())
    }

    /// Runs commands of a stage while both clients connect, and checks the lost connections and the
    /// owner of the address on layer 2.
    fn measure(&self, way: &str, stage: &Stage, commands: &[Command]) -> Result<()> {
        let (_, address, owner) = self.probed(stage);
        let (layer2, routed) = (http(*address), http(ROUTED.1));
        let probes = [(CLIENT, layer2), (OUTSIDE, routed)].map(|(from, server)| {
            self.lab.start_probe_from(from, server, PROBE_MAX, PROBE_INTERVAL)
        });
        let (replies, ()) = replies_while(self.lab, &[(*address).into()], || {
            commands.iter().try_for_each(|command| self.run(&command.text))?;
            wait::during(SETTLED, || Ok(()))
        })
        .with_context(|| format!("{way}, stage {}", stage.title))?;
        let [layer2, routed] = probes.map(|probe| probe.stop());
        let (layer2, routed) = (layer2?, routed?);
        let text = |it: &ProbeReport| format!("{} of {} lost", it.lost, it.sent);
        let title = &stage.title;
        print_measured(&format!(
            "{way}, {title}: layer 2 {}, BGP {}",
            text(&layer2),
            text(&routed)
        ));
        let expected = segment::mac_of(owner)?;
        let macs = replies.macs.get(&IpAddr::from(*address)).into_iter().flatten();
        let found: Vec<_> = macs.map(ToString::to_string).collect();
        ensure!(found == [expected], "{way}, {title}: {found:?} reply for {address} of {owner}");
        ensure!(layer2.lost <= LOST_MAX, "{way}, {title}, layer 2: {layer2:?}");
        ensure!(routed.lost <= LOST_BY_MOVE_MAX, "{way}, {title}, BGP: {routed:?}");
        Ok(())
    }

    /// Returns the first Service on layer 2 that the commands of a stage name, or any.
    fn probed(&self, stage: &Stage) -> &(String, Ipv4Addr, String) {
        let is_named = |name: &str| {
            stage.commands.iter().any(|command| command.text.split(' ').any(|word| word == name))
        };
        let mut services = self.layer2.iter();
        services.find(|(name, ..)| is_named(name)).unwrap_or(&self.layer2[0])
    }

    /// Runs a command, and does what the kubelet and the controllers of Kubernetes would do then.
    fn run(&self, command: &str) -> Result<()> {
        if !command.starts_with("helm ") && !command.contains(" rollout status ") {
            self.lab.shell(command)?;
        }
        if command.contains(" scale deployment/controller --replicas=0") {
            self.metallb.stop_controller()?;
        } else if command.contains(" scale deployment/controller ") {
            self.metallb.start_controller()?;
        }
        if command.contains(" patch daemonset/speaker ") && command.contains("stopped") {
            self.metallb.stop_speakers_on(&self.speakers.take())?;
        }
        if command.starts_with("kubectl label ") {
            self.follow_labels()?;
        }
        // The page and the runbook tell to check the router then.
        if command.contains(" get pods ") { self.wait_routes() } else { Ok(()) }
    }

    /// Stops MetalLB's speakers on nodes with the label, and starts them on the others, unless the
    /// DaemonSet selects no node.
    fn follow_labels(&self) -> Result<()> {
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/speaker");
        let set = self.lab.get(&path)?;
        if !set["spec"]["template"]["spec"]["nodeSelector"]["metallb"].is_null() {
            return Ok(());
        }
        let labeled =
            self.lab.kubectl(&["get", "nodes", "-l", "ferrolb.io/migration=bgp", "-o", "name"])?;
        let labeled: BTreeSet<&str> =
            labeled.lines().filter_map(|line| line.strip_prefix("node/")).collect();
        for node in self.lab.nodes() {
            let is_labeled = labeled.contains(node.as_str());
            let mut speakers = self.speakers.borrow_mut();
            if is_labeled && speakers.remove(&node) {
                self.metallb.stop_speakers_on([&node])?;
            } else if !is_labeled && speakers.insert(node.clone()) {
                self.metallb.start_speaker(&node)?;
            }
        }
        Ok(())
    }

    /// Waits until the router has a route to the Service through each node.
    fn wait_routes(&self) -> Result<()> {
        let nodes = self.lab.nodes().iter().filter_map(|it| Host::named(it)).collect::<Vec<_>>();
        let expect: BTreeSet<IpAddr> = nodes.iter().map(|it| it.v4().into()).collect();
        wait::until("the router uses all nodes", ROUTES_MAX, || {
            let routes = self.router.routes()?.into_iter();
            let to_service = routes.filter(|it| it.prefix == format!("{}/32", ROUTED.1));
            let found: BTreeSet<IpAddr> = to_service.filter_map(|it| it.next_hop).collect();
            ensure!(found == expect, "the router uses {found:?}");
            Ok(Some(()))
        })
    }

    /// Checks that each address on layer 2 is on the same node as before the migration.
    fn check_owners(&self) -> Result<()> {
        let mut found = BTreeMap::new();
        for (name, address, _) in &self.layer2 {
            services::wait_addresses(self.lab, name, &[&address.to_string()])?;
            found.insert(*address, segment::owner(self.lab, *address)?);
        }
        let before: BTreeMap<_, _> =
            self.layer2.iter().map(|(_, address, owner)| (*address, owner.clone())).collect();
        ensure!(found == before, "the owners are {found:?}, not {before:?}");
        Ok(())
    }
}
