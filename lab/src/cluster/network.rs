//! Builds the lab's network: one namespace that is the switch, one for each host, and veth links
//! between them. A switch port that is down stands for lost power.

use crate::state::LabFacts;
use crate::topology::routers::{self, OUTSIDE};
use crate::topology::{self, Families, Host, LabName, SWITCH};
use crate::{netns, run};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::process::Command;

/// Settings with which a node forwards its pods' traffic. Strict reverse-path checks would drop
/// packets whose replies leave through another node.
const NODE_SETTINGS: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/eth0/rp_filter", "0"),
];

/// Settings with which a router forwards. Addresses and ports of a connection select one of several
/// paths, like in hardware routers.
const ROUTER_SETTINGS: [(&str, &str); 6] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/eth0/rp_filter", "0"),
    ("ipv4/fib_multipath_hash_policy", "1"),
    ("ipv6/fib_multipath_hash_policy", "1"),
];

/// Settings that revert changes by Docker in a container, so that later interfaces also have IPv6.
const CONTAINER_SETTINGS: [(&str, &str); 2] =
    [("ipv6/conf/all/disable_ipv6", "0"), ("ipv6/conf/default/disable_ipv6", "0")];

/// Builds the network of a lab. Afterwards every host reaches every other, except those that are
/// containers: Docker connects them.
///
/// # Errors
/// If the kernel rejects a namespace or a link.
pub fn build(lab: &LabName, facts: &LabFacts) -> Result<()> {
    let hosts: Vec<Host> =
        facts.hosts().into_iter().filter(|host| !facts.is_container(host)).collect();
    run::ip_batch(None, &topology::batch_namespaces(lab, &hosts))?;
    set_families(&lab.namespace(SWITCH), facts.families)?;
    let outside =
        facts.gobgp.as_ref().map(|_| routers::batch_switch(lab, &hosts)).unwrap_or_default();
    run::ip_batch(Some(&lab.namespace(SWITCH)), &(topology::batch_switch(lab, &hosts) + &outside))?;
    std::thread::scope(|scope| {
        let hosts: Vec<_> =
            hosts.iter().map(|host| scope.spawn(move || set_up_host(lab, host, facts))).collect();
        hosts.into_iter().try_for_each(|host| {
            host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

fn set_up_host(lab: &LabName, host: &Host, facts: &LabFacts) -> Result<()> {
    let (namespace, families) = (lab.namespace(&host.name), facts.families);
    set_families(&namespace, families)?;
    let mut batch = topology::batch_host(host, families);
    if let Some(index) = topology::node_index(&host.name) {
        set(&namespace, &NODE_SETTINGS)?;
        if facts.network_plugin.is_none() {
            batch += &topology::batch_node(index, facts.nodes, families);
        }
        batch +=
            &if facts.kubeadm { topology::batch_default_route(families) } else { String::new() };
        batch += &facts
            .gobgp
            .as_ref()
            .map(|_| routers::batch_outside_route(families))
            .unwrap_or_default();
    } else if let Some(outside) = routers::outside_host(host) {
        set(&namespace, &ROUTER_SETTINGS)?;
        batch += &routers::batch_outside_interface(&outside, families);
    } else if host.name == OUTSIDE {
        batch += &routers::batch_outside(families);
    }
    run::ip_batch(Some(&namespace), &batch)
}

/// Adapts a container, which Docker has connected to the switch, to the lab's other hosts: the
/// switch ports get the container's name, its default routes are the lab's, and a router forwards
/// packets.
///
/// # Errors
/// If the kernel rejects a setting.
pub fn set_up_container(lab: &LabName, host: &Host) -> Result<()> {
    let (namespace, switch) = (lab.namespace(&host.name), lab.namespace(SWITCH));
    set(&namespace, &CONTAINER_SETTINGS)?;
    for (link, port) in ["eth0", "eth1"].into_iter().zip(routers::ports(&host.name)) {
        let interface = links(&namespace)?.into_iter().find(|entry| entry["ifname"] == link);
        let index = interface
            .map(|interface| interface["link_index"].clone())
            .with_context(|| format!("Docker created no {link} in {}", host.name))?;
        let port_link = links(&switch)?.into_iter().find(|entry| entry["ifindex"] == index);
        let name = port_link
            .as_ref()
            .and_then(|entry| entry["ifname"].as_str())
            .with_context(|| format!("the switch has no peer of {link} of {}", host.name))?;
        run::ip_batch(
            Some(&switch),
            &format!("link set {name} down\nlink set {name} name {port}\nlink set {port} up\n"),
        )?;
    }
    for family in ["-4", "-6"] {
        run::run(
            Command::new("ip")
                .args(["-n", &namespace, family, "route", "flush", "exact", "default"]),
        )?;
    }
    match routers::outside_host(host) {
        Some(_) => set(&namespace, &ROUTER_SETTINGS),
        None => run::ip_batch(Some(&namespace), &routers::batch_outside(Families::Dual)),
    }
}

fn links(namespace: &str) -> Result<Vec<Value>> {
    let output = run::run(Command::new("ip").args(["-n", namespace, "-json", "link", "show"]))?;
    serde_json::from_str(&output).context("`ip -json link` did not print JSON")
}

/// Disables IPv6 on all present and future interfaces of a namespace if the lab has no IPv6. IPv4
/// needs no setting: it is inactive without an address.
///
/// # Errors
/// If there is no such namespace.
pub fn set_families(namespace: &str, families: Families) -> Result<()> {
    match families {
        Families::V4 => set(namespace, &[("ipv6/conf/all/disable_ipv6", "1")]),
        Families::Dual | Families::V6 => Ok(()),
    }
}

fn set(namespace: &str, settings: &[(&str, &str)]) -> Result<()> {
    netns::within(namespace, || {
        settings.iter().try_for_each(|(setting, value)| {
            fs::write(format!("/proc/sys/net/{setting}"), value)
                .with_context(|| format!("cannot set net/{setting}"))
        })
    })?
}

/// Switches the ports of `host` on or off.
///
/// # Errors
/// If there is no such host.
pub fn set_port(lab: &LabName, host: &str, on: bool) -> Result<()> {
    let state = if on { "up" } else { "down" };
    let switch = lab.namespace(SWITCH);
    routers::ports(host).iter().try_for_each(|port| {
        run::run(Command::new("ip").args(["-n", &switch, "link", "set", port, state])).map(drop)
    })
}
