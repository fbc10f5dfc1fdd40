//! Builds the lab's wire: a namespace that is the switch, one for each host, links between them. Power is a switch port.

use crate::state::Facts;
use crate::topology::{self, Families, Host, LabName, SWITCH};
use crate::{netns, run};
use anyhow::{Context, Result};
use std::fs;
use std::process::Command;

/// What makes a node forward its pods' traffic. Strict reverse-path checks would drop what comes in by one node and leaves by another.
const NODE_SETTINGS: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/eth0/rp_filter", "0"),
];

/// Builds the wire of a lab: after this every host reaches every other.
///
/// # Errors
/// When the kernel refuses a namespace or a link.
pub fn build(lab: &LabName, facts: &Facts) -> Result<()> {
    let hosts = topology::hosts(facts.nodes);
    run::ip_batch(None, &topology::batch_namespaces(lab, &hosts))?;
    set_families(&lab.namespace(SWITCH), facts.families)?;
    run::ip_batch(Some(&lab.namespace(SWITCH)), &topology::batch_switch(lab, &hosts))?;
    std::thread::scope(|scope| {
        let hosts: Vec<_> = hosts.iter().map(|host| scope.spawn(move || set_up_host(lab, host, facts))).collect();
        hosts.into_iter().try_for_each(|host| host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn set_up_host(lab: &LabName, host: &Host, facts: &Facts) -> Result<()> {
    let (namespace, families) = (lab.namespace(&host.name), facts.families);
    set_families(&namespace, families)?;
    let Some(index) = topology::node_index(&host.name) else {
        return run::ip_batch(Some(&namespace), &topology::batch_host(host, families));
    };
    set(&namespace, &NODE_SETTINGS)?;
    let batch = topology::batch_host(host, families) + &topology::batch_node(index, facts.nodes, families);
    run::ip_batch(Some(&namespace), &batch)
}

/// Takes IPv6 off all links of a namespace, present and to come, where the lab has none. IPv4 is not there until an address is.
///
/// # Errors
/// When there is no such namespace.
pub fn set_families(namespace: &str, families: Families) -> Result<()> {
    match families {
        Families::V4 => set(namespace, &[("ipv6/conf/all/disable_ipv6", "1")]),
        Families::Dual | Families::V6 => Ok(()),
    }
}

fn set(namespace: &str, settings: &[(&str, &str)]) -> Result<()> {
    netns::within(namespace, || {
        settings.iter().try_for_each(|(setting, value)| {
            fs::write(format!("/proc/sys/net/{setting}"), value).with_context(|| format!("cannot set net/{setting}"))
        })
    })?
}

/// Switches the port of `host` on or off.
///
/// # Errors
/// When there is no such host.
pub fn set_port(lab: &LabName, host: &str, on: bool) -> Result<()> {
    let state = if on { "up" } else { "down" };
    run::run(Command::new("ip").args(["-n", &lab.namespace(SWITCH), "link", "set", host, state]))?;
    Ok(())
}
