//! docs/migrate-bgp-from-metallb.md on the cluster of the scenario [`crate::migration`]: its
//! commands move the nodes from MetalLB's stand-ins to FerroLB, whose sessions with FRR are real.

use crate::metallb::{self, LAN, ROUTED};
use crate::scenario::{print_measured, step};
use crate::web;
use anyhow::{Result, ensure};
use ferrolb_lab::routers::Router;
use ferrolb_lab::topology::routers::OUTSIDE;
use ferrolb_lab::topology::{Host, node_name};
use ferrolb_lab::{Lab, wait};
use ferrolb_tests::run::Runner;
use ferrolb_tests::{Block, Page, Topology, read_page};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

pub(crate) const PAGE: &str = "docs/migrate-bgp-from-metallb.md";
/// Address of the page's Service for the first node.
const CANARY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 250);
/// Time in which a session would end after the completion: the hold time, and a reserve.
const HOLD: Duration = Duration::from_secs(5);

/// Parts of the page's blocks, in the order in which the scenario runs them.
const MOVE_PEERS: &str = "peers-moved.json";
const MOVE_DAEMON_SETS: &str = "OnDelete";
const CREATE_CANARY: &str = "kind: Service";
const MOVE_CANARY: &str = "kubectl label node node1 ferrolb.io/migration=bgp";
const SHOW_CANARY: &str = "--field-selector spec.nodeName=node1";
const STOP_CONTROLLER: &str = "scale deployment controller --replicas=0";
const DELETE_L2: &str = "delete l2advertisements.metallb.io lan";
const REMOVE_ANNOTATION: &str = "POOL=routed";
const COMPARE: &str = "diff before.txt";
const MOVE_RACK: &str = "-l rack=a ferrolb.io/migration=bgp";
const SHOW_SESSIONS: &str = "get fpeer";
const RETURN_RACK: &str = "-l rack=a ferrolb.io/migration-";
const COMPLETE: &str = "kubectl label nodes --all ferrolb.io/migration-";
const PARTS: [&str; 13] = [
    MOVE_PEERS,
    MOVE_DAEMON_SETS,
    CREATE_CANARY,
    MOVE_CANARY,
    SHOW_CANARY,
    STOP_CONTROLLER,
    DELETE_L2,
    REMOVE_ANNOTATION,
    COMPARE,
    MOVE_RACK,
    SHOW_SESSIONS,
    RETURN_RACK,
    COMPLETE,
];

/// Label of the page for moved nodes, and its value.
const LABEL: (&str, &str) = ("ferrolb.io/migration", "bgp");
/// Node of the page's canary, node with the label `rack=a`, and a node in no rack.
const CANARY_NODE: u8 = 1;
const RACK_NODE: u8 = 2;
const OTHER_NODE: u8 = 3;

/// The page, and the cluster on which its blocks run.
struct Migration<'a> {
    page: Page,
    runner: &'a Runner<'a>,
    lab: &'a Lab,
    routers: &'a [Router<'a>],
}

/// Returns the blocks of the page that the scenario runs.
pub(crate) fn blocks(page: &Page) -> Result<Vec<&Block>> {
    PARTS.iter().map(|part| page.block_with(Topology::Kubeadm, part)).collect()
}

/// Moves a cluster, on which MetalLB and FerroLB are side by side, by the commands of the page.
pub(crate) fn run(lab: &Lab, runner: &Runner<'_>, routers: &[Router<'_>]) -> Result<()> {
    let (migration, start) =
        (Migration { page: read_page(PAGE)?, runner, lab, routers }, wait::now());
    lab.kubectl(&["label", "node", &node_name(RACK_NODE), "rack=a"])?;
    step("the preparation restarts no pod, and the canary node leaves MetalLB", || {
        migration.move_canary()
    })?;
    step("a pool for layer 2 moves, and MetalLB's speakers stay", || migration.move_layer_2())?;
    step("the canary node advertises the Services of a pool, and no address changes", || {
        migration.run(REMOVE_ANNOTATION)?;
        migration.wait_served(ROUTED.1, &[CANARY_NODE])?;
        migration.run(COMPARE)
    })?;
    step("a rack moves to FerroLB, back to MetalLB, and to FerroLB", || migration.move_rack())?;
    step("the completion ends no session", || migration.complete())?;
    let took = start.elapsed().as_secs_f64();
    print_measured(&format!("{PAGE}: {} blocks in {took:.1} s", PARTS.len()));
    Ok(())
}

impl Migration<'_> {
    fn run(&self, part: &str) -> Result<()> {
        self.runner.block(&self.page, self.page.block_with(Topology::Kubeadm, part)?)
    }

    fn move_layer_2(&self) -> Result<()> {
        let daemons = metallb::daemons(self.lab)?;
        self.run(STOP_CONTROLLER)?;
        let block = self.page.block_with(Topology::Kubeadm, REMOVE_ANNOTATION)?.clone();
        let text = block.text.replace(REMOVE_ANNOTATION, &format!("POOL={}", LAN.0));
        self.runner.block(&self.page, &Block { text, ..block })?;
        self.run(DELETE_L2)?;
        metallb::wait_served(self.lab, LAN)?;
        ensure!(metallb::daemons(self.lab)? == daemons, "MetalLB's speakers were replaced");
        metallb::wait_routes(self.routers, ROUTED.1, &[])
    }

    fn move_canary(&self) -> Result<()> {
        let mut daemons = metallb::daemons(self.lab)?;
        self.run(MOVE_PEERS)?;
        self.run(MOVE_DAEMON_SETS)?;
        self.run(CREATE_CANARY)?;
        self.run(MOVE_CANARY)?;
        self.run(SHOW_CANARY)?;
        self.wait_moved(&[CANARY_NODE])?;
        self.wait_served(CANARY, &[CANARY_NODE])?;
        metallb::wait_routes(self.routers, ROUTED.1, &[])?;
        daemons.retain(|(node, _)| *node != node_name(CANARY_NODE));
        let now = metallb::daemons(self.lab)?;
        ensure!(now == daemons, "MetalLB's pods are {now:?}, not {daemons:?}");
        Ok(())
    }

    fn move_rack(&self) -> Result<()> {
        let (moved, returned) = ([CANARY_NODE, RACK_NODE], [CANARY_NODE]);
        for (commands, nodes) in
            [(MOVE_RACK, &moved[..]), (RETURN_RACK, &returned), (MOVE_RACK, &moved)]
        {
            self.run(commands)?;
            self.wait_moved(nodes)?;
            self.wait_served(ROUTED.1, nodes)?;
        }
        self.run(SHOW_SESSIONS)
    }

    fn complete(&self) -> Result<()> {
        let all = [CANARY_NODE, RACK_NODE, OTHER_NODE];
        let (key, value) = LABEL;
        self.lab.kubectl(&["label", "node", &node_name(OTHER_NODE), &format!("{key}={value}")])?;
        self.wait_moved(&all)?;
        self.wait_served(ROUTED.1, &all)?;
        let before = self.session_counts()?;
        self.run(COMPLETE)?;
        wait::during(HOLD, || {
            let now = self.session_counts()?;
            ensure!(now == before, "the counts of sessions are {now:?}, not {before:?}");
            let daemons = metallb::daemons(self.lab)?;
            ensure!(daemons.is_empty(), "MetalLB's pods run: {daemons:?}");
            Ok(())
        })?;
        let labeled = self.lab.kubectl(&["get", "nodes", "-l", key, "-o", "name"])?;
        ensure!(labeled.is_empty(), "these nodes have the label: {labeled}");
        self.wait_served(ROUTED.1, &all)
    }

    /// Waits until exactly these nodes have sessions, and exactly the others pods of MetalLB.
    fn wait_moved(&self, nodes: &[u8]) -> Result<()> {
        let moved: BTreeSet<IpAddr> =
            nodes.iter().map(|node| IpAddr::V4(Host::node(*node).v4())).collect();
        let others: BTreeSet<String> =
            (1..=OTHER_NODE).filter(|node| !nodes.contains(node)).map(node_name).collect();
        wait::until("the nodes have moved", web::PAGE_MAX, || {
            for router in self.routers {
                let sessions = router.sessions()?.into_iter().filter(|it| it.established);
                let found: BTreeSet<IpAddr> = sessions.map(|it| it.neighbor).collect();
                ensure!(found == moved, "{router} has sessions with {found:?}, not {moved:?}");
            }
            let daemons = metallb::daemons(self.lab)?.into_iter();
            let found: BTreeSet<String> = daemons.map(|(node, _)| node).collect();
            ensure!(found == others, "MetalLB runs on {found:?}, not {others:?}");
            Ok(Some(()))
        })
    }

    /// Waits until the routers have exactly the routes of these nodes to an address, and a client
    /// beyond the routers gets a page.
    fn wait_served(&self, address: Ipv4Addr, nodes: &[u8]) -> Result<()> {
        metallb::wait_routes(self.routers, address, nodes)?;
        wait::until("the client gets the page", web::PAGE_MAX, || {
            let page = self.lab.http_get(OUTSIDE, SocketAddr::new(address.into(), 80), "/")?;
            ensure!(page.status == 200, "{address} returns status {}", page.status);
            Ok(Some(()))
        })
    }

    /// Returns how often the sessions of each router were established and have ended.
    fn session_counts(&self) -> Result<BTreeMap<String, [Option<u64>; 2]>> {
        let mut counts = BTreeMap::new();
        for router in self.routers {
            let text = router.run_command(&["show bgp neighbors json"])?;
            let neighbors: Map<String, Value> = serde_json::from_str(&text)?;
            counts.extend(neighbors.iter().map(|(name, neighbor)| {
                let fields = ["connectionsEstablished", "connectionsDropped"];
                (format!("{router}: {name}"), fields.map(|field| neighbor[field].as_u64()))
            }));
        }
        let known = |fields: &[Option<u64>; 2]| fields.iter().all(Option::is_some);
        ensure!(counts.values().all(known), "FRR printed no counts: {counts:?}");
        Ok(counts)
    }
}
