//! Comparison with Debian's keepalived on the same nodes, measured in the same run by the same
//! client, IPv4 only.
//!
//! keepalived has an address of its own in front of the same pods: an `externalIPs` entry of the
//! Service, for which kube-proxy forwards. It runs VRRP version 3 with adverts every 100 ms
//! (`advert_int 0.1`) and the highest possible priorities, so that it detects a failed owner as
//! fast as possible.

use super::runs::RowResults;
use super::setup::{FailoverSetup, WEB};
use crate::bench::report::Findings;
use crate::bench::settle;
use crate::bench::targets;
use crate::process::{self, Launch};
use crate::topology::node_index;
use crate::{Lab, Signal};
use anyhow::{Context, Result};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const PROGRAM: &str = "/usr/sbin/keepalived";
/// Address that keepalived announces, outside the pool.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 250);
/// Priority of the first node; each further node has one less. The value is the maximum: the wait
/// for a failed owner is three advert intervals and a fraction of a fourth that grows with the
/// distance of the priority from 256 (RFC 9568 section 6.1).
const PRIORITY_MAX: u8 = 254;

pub(super) fn run(setup: &FailoverSetup<'_>, runs: usize, findings: &mut Findings) -> Result<()> {
    let lab = setup.lab;
    // kube-proxy forwards traffic for an external IP like traffic for FerroLB's address.
    let external = format!("{{\"spec\":{{\"externalIPs\":[\"{ADDRESS}\"]}}}}");
    lab.kubectl(&["patch", "service", "failover", "--patch", &external])?;
    lab.nodes().iter().try_for_each(|node| start(lab, node))?;
    let setup =
        FailoverSetup::of_other_product(lab, SocketAddr::new(IpAddr::V4(ADDRESS), WEB.port));
    let all = RowResults::of(runs, || {
        let owner = setup.settle()?;
        let results = setup.watch(|| lab.power_off(&owner))?;
        // A machine that loses power loses its addresses. A lab node is only a namespace, and may
        // keep the address.
        remove_address(lab, &owner)?;
        settle::power_on_and_wait(lab, &owner)?;
        Ok(results)
    })?;
    for node in lab.nodes() {
        lab.stop(&process_name(&node), Signal::TERM)?;
        process::remove_record(lab.state(), &process_name(&node));
    }
    lab.kubectl(&["patch", "service", "failover", "--patch", "{\"spec\":{\"externalIPs\":null}}"])?;
    all.require_losses()?.conclude(findings, &targets::FAILOVER_KEEPALIVED)
}

fn start(lab: &Lab, node: &str) -> Result<()> {
    let index = node_index(node).with_context(|| format!("{node} is not a node of the lab"))?;
    let name = process_name(node);
    let file = |ending: &str| lab.state().file(&format!("{name}.{ending}")).display().to_string();
    fs::write(file("conf"), config_file(PRIORITY_MAX.saturating_sub(index - 1)))?;
    let launch = Launch {
        name: name.clone(),
        host: node.to_owned(),
        node: Some(node.to_owned()),
        program: PROGRAM.into(),
        args: vec![
            "--dont-fork".to_owned(),
            "--log-console".to_owned(),
            "--vrrp".to_owned(),
            format!("--use-file={}", file("conf")),
            format!("--pid={}", file("pid")),
            format!("--vrrp_pid={}", file("vrrp.pid")),
        ],
        env: [].into(),
        low_priority: false,
    };
    process::start(lab.state(), launch).map(drop)
}

/// Returns the settings of one virtual router; the priority alone selects its owner.
fn config_file(priority: u8) -> String {
    format!(
        "global_defs {{\n  vrrp_version 3\n}}\nvrrp_instance yardstick {{\n  state BACKUP\n  interface eth0\n  \
         virtual_router_id 51\n  priority {priority}\n  advert_int 0.1\n  virtual_ipaddress {{\n    {ADDRESS}/32\n  }}\n}}\n"
    )
}

fn remove_address(lab: &Lab, node: &str) -> Result<()> {
    lab.exec(node, &["ip", "address", "flush", "dev", "eth0", "to", &format!("{ADDRESS}/32")])
        .map(drop)
}

fn process_name(node: &str) -> String {
    format!("keepalived-{node}")
}
