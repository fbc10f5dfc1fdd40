//! A router that sends a hundred thousand prefixes: the node uses none of them, and its memory
//! stays bounded.

use crate::objects::{self, ADDRESSES, BGP_MAX, object};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::bgp;
use ferrolb_lab::cluster::ferrolb::speaker_name;
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::scenario::print_measured;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS};
use ferrolb_lab::{Lab, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::time::Duration;

/// Number of prefixes that the router sends: a tenth of the Internet's routes.
const PREFIXES: u32 = 100_000;
/// Maximum time until the node has received all prefixes, on a busy machine.
const FLOOD_MAX: Duration = Duration::from_secs(60);
/// Maximum growth of the speaker's memory, in kB: the speaker never requests these routes.
const SPEAKER_GROWTH_MAX: u64 = 4_000;
/// Maximum growth of gobgpd's memory, in kB. gobgpd stores rejected routes for a later change of
/// policy, and Go's garbage collector runs only when the heap has doubled. Together that is 0.8 kB
/// per route; twice as much would be a defect.
const GOBGPD_GROWTH_MAX: u64 = 160_000;
/// Time after the last prefix for which the test measures the memory. The maximum counts.
const MEASURED_TIME: Duration = Duration::from_secs(2);

/// Name of the BGPPeer for the router that sends the prefixes.
pub(super) const NAME: &str = "flood";

/// Establishes a session between `node` and BIRD on `host`. BIRD sends the prefixes of the flood.
/// Checks that the node uses none of them, and that its memory stays bounded.
pub(super) fn check(lab: &Lab, node: &str, host: &str) -> Result<()> {
    let kernel_routes = |family: &str| lab.exec(node, &["ip", family, "route"]);
    let (routes, before) = ([kernel_routes("-4")?, kernel_routes("-6")?], memory(lab, node)?);
    let router =
        Router::start(lab, RouterKind::Bird, host, &config(&Peering::with_nodes(lab, host)?)?)?;
    let address = objects::host(lab, host)?.v4();
    let spec = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": address, "holdTime": "3s", "connectTime": "1s",
        "nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": node}}]});
    let start = wait::now();
    lab.apply_objects(&[object("v1beta2", "BGPPeer", NAME, &spec)])?;
    wait::until("the node has received all prefixes", FLOOD_MAX, || {
        let received = received(lab, node, &address.to_string())?;
        ensure!(received == u64::from(PREFIXES), "{received} of {PREFIXES} prefixes were received");
        Ok(Some(()))
    })?;
    let took = wait::now() - start;
    let mut after = before;
    wait::during(MEASURED_TIME, || {
        let now = memory(lab, node)?;
        after = [0, 1].map(|index| now[index].max(after[index]));
        Ok(())
    })?;
    print_measured(&format!(
        "{PREFIXES} prefixes from a router within {took:?}: gobgpd {} kB before, {} kB after; speaker {} kB before, {} kB after",
        before[0], after[0], before[1], after[1]
    ));
    for (name, index, max) in
        [("gobgpd", 0, GOBGPD_GROWTH_MAX), ("the speaker", 1, SPEAKER_GROWTH_MAX)]
    {
        let growth = after[index].saturating_sub(before[index]);
        ensure!(growth < max, "the memory of {name} grew by {growth} kB, more than {max} kB");
    }
    let own: BTreeSet<String> = ADDRESSES.into_iter().map(objects::prefix).collect();
    let table = table(lab, node)?;
    ensure!(
        table == own,
        "the node uses {} prefixes other than {own:?}",
        table.difference(&own).count()
    );
    ensure!(
        [kernel_routes("-4")?, kernel_routes("-6")?] == routes,
        "the kernel's routes have changed"
    );
    lab.kubectl(&["delete", "bgppeer", NAME, "-n", objects::NAMESPACE])?;
    wait::until("the session has ended", BGP_MAX, || {
        let sessions = router.sessions()?;
        ensure!(
            sessions.iter().all(|session| !session.established),
            "the router has the sessions {sessions:?}"
        );
        Ok(Some(()))
    })?;
    router.stop()
}

/// Returns the lab's configuration of BIRD, with the prefixes and their export.
fn config(peering: &Peering) -> Result<String> {
    let mut config =
        RouterKind::Bird.config(peering).replace("export none", "export where source = RTS_STATIC");
    config += "protocol static flood { ipv4;\n";
    for index in 0..PREFIXES {
        let [_, b, c, d] = (index << 4).to_be_bytes();
        writeln!(config, "route 10.{b}.{c}.{d}/28 blackhole;")?;
    }
    Ok(config + "}\n")
}

/// Returns the memory of a node's gobgpd and speaker, in kB (proc(5), `VmRSS`).
fn memory(lab: &Lab, node: &str) -> Result<[u64; 2]> {
    let resident_kb = |process: &str| {
        let status = fs::read_to_string(format!("/proc/{}/status", lab.pid(process)?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .with_context(|| status.clone())
    };
    Ok([resident_kb(&bgp::process_name(node))?, resident_kb(&speaker_name(node))?])
}

/// Returns the number of prefixes that a node's gobgpd has received from a router, including
/// rejected ones.
fn received(lab: &Lab, node: &str, router: &str) -> Result<u64> {
    let neighbors: Vec<Value> = serde_json::from_str(&lab.gobgp(node, &["-j", "neighbor"])?)?;
    let found = neighbors.iter().find(|neighbor| neighbor["conf"]["neighbor_address"] == router);
    let families = found.context("gobgpd does not list the router as a neighbor")?["afi_safis"]
        .as_array()
        .context("the neighbor has no afi_safis")?;
    Ok(families.iter().filter_map(|family| family["state"]["received"].as_u64()).sum())
}

/// Returns the prefixes in the routing table of a node's gobgpd.
fn table(lab: &Lab, node: &str) -> Result<BTreeSet<String>> {
    let mut prefixes = BTreeSet::new();
    for family in ["ipv4", "ipv6"] {
        let table: Value =
            serde_json::from_str(&lab.gobgp(node, &["-j", "global", "rib", "-a", family])?)?;
        prefixes.extend(table.as_object().into_iter().flatten().map(|(prefix, _)| prefix.clone()));
    }
    Ok(prefixes)
}
