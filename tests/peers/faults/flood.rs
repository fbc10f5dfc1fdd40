//! A router that sends a hundred thousand prefixes: none is used, and what that costs.

use crate::objects::{self, ADDRESSES, BGP_MAX, object};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::cluster::bgp;
use ferrolb_tests::cluster::ferrolb::speaker_name;
use ferrolb_tests::routers::{Kind, Peering, Router};
use ferrolb_tests::stage::measured;
use ferrolb_tests::topology::routers::{NODE_AS, ROUTER_AS};
use ferrolb_tests::{Lab, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::time::Duration;

/// So many: a tenth of the routes of the Internet.
const PREFIXES: u32 = 100_000;
/// How long they may take on a busy machine.
const FLOOD_MAX: Duration = Duration::from_secs(60);
/// What a speaker may grow by meanwhile, in kB: it never asks for them.
const SPEAKER_GROWTH_MAX: u64 = 4_000;
/// What gobgpd may grow by, in kB: it keeps what it rejects, for a policy that may come to take it, and Go's collector lets garbage be as much again
/// before it runs. That is 0.8 kB for each; twice of it would be something else.
const DAEMON_GROWTH_MAX: u64 = 160_000;
/// How long memory is looked at when all is there: the most counts.
const LOOK: Duration = Duration::from_secs(2);

/// The BGPPeer for it.
pub(super) const NAME: &str = "flood";

/// A session of `node` with BIRD on `host`, which sends all of them.
pub(super) fn endure(lab: &Lab, node: &str, host: &str) -> Result<()> {
    let way = |family: &str| lab.exec(node, &["ip", family, "route"]);
    let (ways, before) = ([way("-4")?, way("-6")?], held(lab, node)?);
    let router = Router::start(lab, Kind::Bird, host, &config(&Peering::with_nodes(lab, host)?)?)?;
    let address = objects::host(lab, host)?.v4();
    let spec = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": address, "holdTime": "3s", "connectTime": "1s",
        "nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": node}}]});
    let start = wait::now();
    lab.apply_objects(&[object("v1beta2", "BGPPeer", NAME, &spec)])?;
    wait::until("all prefixes are sent", FLOOD_MAX, || {
        let received = received(lab, node, &address.to_string())?;
        ensure!(received == u64::from(PREFIXES), "{received} of {PREFIXES} have come");
        Ok(Some(()))
    })?;
    let took = wait::now() - start;
    let mut after = before;
    wait::during(LOOK, || {
        let now = held(lab, node)?;
        after = [0, 1].map(|at| now[at].max(after[at]));
        Ok(())
    })?;
    measured(&format!(
        "{PREFIXES} prefixes from a router within {took:?}: gobgpd {} kB before, {} kB after; speaker {} kB before, {} kB after",
        before[0], after[0], before[1], after[1]
    ));
    for (name, at, max) in [("gobgpd", 0, DAEMON_GROWTH_MAX), ("the speaker", 1, SPEAKER_GROWTH_MAX)] {
        let grown = after[at].saturating_sub(before[at]);
        ensure!(grown < max, "{name} grew by {grown} kB, more than {max}");
    }
    let own: BTreeSet<String> = ADDRESSES.into_iter().map(objects::prefix).collect();
    let table = table(lab, node)?;
    ensure!(table == own, "{} prefixes are used that are not {own:?}", table.difference(&own).count());
    ensure!([way("-4")?, way("-6")?] == ways, "the kernel's routes are others than before");
    lab.kubectl(&["delete", "bgppeer", NAME, "-n", objects::NAMESPACE])?;
    wait::until("the session's end", BGP_MAX, || {
        let sessions = router.sessions()?;
        ensure!(sessions.iter().all(|session| !session.established), "it has {sessions:?}");
        Ok(Some(()))
    })?;
    router.stop()
}

/// BIRD's usual configuration, and the prefixes: all that it exports.
fn config(peering: &Peering) -> Result<String> {
    let mut config = Kind::Bird.config(peering).replace("export none", "export where source = RTS_STATIC");
    config += "protocol static flood { ipv4;\n";
    for at in 0..PREFIXES {
        let [_, b, c, d] = (at << 4).to_be_bytes();
        writeln!(config, "route 10.{b}.{c}.{d}/28 blackhole;")?;
    }
    Ok(config + "}\n")
}

/// What gobgpd of a node and its speaker hold, in kB (proc(5), `VmRSS`).
fn held(lab: &Lab, node: &str) -> Result<[u64; 2]> {
    let held = |process: &str| {
        let status = fs::read_to_string(format!("/proc/{}/status", lab.pid(process)?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).with_context(|| status.clone())
    };
    Ok([held(&bgp::process_name(node))?, held(&speaker_name(node))?])
}

/// How many prefixes a node's gobgpd has from a router, used or not.
fn received(lab: &Lab, node: &str, router: &str) -> Result<u64> {
    let neighbours: Vec<Value> = serde_json::from_str(&lab.gobgp(node, &["-j", "neighbor"])?)?;
    let its = neighbours.iter().find(|neighbour| neighbour["conf"]["neighbor_address"] == router);
    let families = its.context("no such neighbour")?["afi_safis"].as_array().context("families")?;
    Ok(families.iter().filter_map(|family| family["state"]["received"].as_u64()).sum())
}

/// The prefixes that a node's gobgpd uses.
fn table(lab: &Lab, node: &str) -> Result<BTreeSet<String>> {
    let mut prefixes = BTreeSet::new();
    for family in ["ipv4", "ipv6"] {
        let table: Value = serde_json::from_str(&lab.gobgp(node, &["-j", "global", "rib", "-a", family])?)?;
        prefixes.extend(table.as_object().into_iter().flatten().map(|(prefix, _)| prefix.clone()));
    }
    Ok(prefixes)
}
