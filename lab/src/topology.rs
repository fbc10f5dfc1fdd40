//! Topology of a lab: its names, addresses and interfaces, and the commands for `ip -batch` that
//! create them. Pure functions; used by the lab's builder and the tests.

pub mod routers;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Maximum number of nodes: the addresses of nodes must stay below the client's address.
pub const NODES_MAX: u8 = 20;
/// Maximum number of pods, which is limited by the last octet of a pod's addresses.
pub const PODS_MAX: u8 = 250;
/// Maximum length of a lab name in characters: the names of namespaces contain the lab name.
const LAB_NAME_MAX: usize = 16;

/// Namespace of the network switch.
pub const SWITCH: &str = "switch";
/// Host of etcd, the API server and the controllers.
pub const CONTROL_PLANE: &str = "cp";
/// Host on the LAN that is not part of the cluster.
pub const CLIENT: &str = "client";
/// Pod ranges of kube-proxy and the controller manager, IPv4 and IPv6.
pub const POD_RANGES: [&str; 2] = ["10.244.0.0/16", "fd44::/16"];
/// Pod ranges of a cluster with a network plugin. The controller manager allocates the range of
/// each node, and allows 65,536 of them.
pub const PLUGIN_POD_RANGES: [&str; 2] = ["10.244.0.0/16", "fd44::/48"];
/// Ranges of cluster IPs of the API server, IPv4 and IPv6.
pub const SERVICE_RANGES: [&str; 2] = ["10.96.0.0/16", "fd96::/108"];
/// First address of [`SERVICE_RANGES`], which the API server uses itself.
pub const API_SERVICE: [&str; 2] = ["10.96.0.1", "fd96::1"];
/// HTTP port of every pod of the lab.
pub const POD_PORT: u16 = 8080;

/// Name of a lab: a letter, then letters and digits, so that `flb-NAME-` is not a prefix of any
/// other lab's names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabName(String);

impl FromStr for LabName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let valid_characters = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let begins_with_letter = text.starts_with(|c: char| c.is_ascii_lowercase());
        ensure!(
            valid_characters && begins_with_letter && text.len() <= LAB_NAME_MAX,
            "\"{text}\" is not a valid lab name: use a lowercase letter, then lowercase letters and digits, at most {LAB_NAME_MAX}"
        );
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl LabName {
    /// Returns the prefix of the names of this lab's namespaces.
    pub fn prefix(&self) -> String {
        format!("flb-{}-", self.0)
    }

    /// Returns the network namespace of `host`: a host of the LAN, [`SWITCH`], or a pod's name.
    pub fn namespace(&self, host: &str) -> String {
        format!("flb-{}-{host}", self.0)
    }
}

/// IP families of a lab's cluster. Values for both families are pairs: IPv4, then IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum Families {
    /// IPv4 first, and IPv6.
    #[default]
    Dual,
    /// No host has IPv6, not even on its loopback interface.
    V4,
    /// No host has IPv4, except on its loopback interface.
    V6,
}

impl Families {
    /// Returns the values of a pair for the lab's families, in the cluster's order.
    pub fn of<T>(self, [v4, v6]: [T; 2]) -> Vec<T> {
        match self {
            Self::Dual => vec![v4, v6],
            Self::V4 => vec![v4],
            Self::V6 => vec![v6],
        }
    }

    /// Returns the value of a pair for the cluster's first family.
    pub fn first<T>(self, [v4, v6]: [T; 2]) -> T {
        match self {
            Self::Dual | Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dual => "dual stack",
            Self::V4 => "IPv4 only",
            Self::V6 => "IPv6 only",
        })
    }
}

/// Networks of a lab: the LAN, 172.30.0.0/24 and fd30::/64, and the network behind its routers,
/// 172.31.0.0/24 and fd31::/64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subnet {
    Lan,
    Outside,
}

impl Subnet {
    const fn number(self) -> u8 {
        match self {
            Self::Lan => 30,
            Self::Outside => 31,
        }
    }

    /// Returns the ranges of the network, IPv4 and IPv6.
    pub fn ranges(self) -> [String; 2] {
        let number = self.number();
        [format!("172.{number}.0.0/24"), format!("fd{number}::/64")]
    }
}

/// A machine on one of the lab's networks. Its IPv4, IPv6 and MAC addresses end in `octet`; the
/// IPv4 and IPv6 addresses have the same digits (172.30.0.112 and fd30::112).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub octet: u8,
    pub subnet: Subnet,
}

impl Host {
    pub fn control_plane() -> Self {
        Self { name: CONTROL_PLANE.to_owned(), octet: 2, subnet: Subnet::Lan }
    }

    pub fn client() -> Self {
        Self { name: CLIENT.to_owned(), octet: 100, subnet: Subnet::Lan }
    }

    /// Returns node `index`, counted from 1.
    pub fn node(index: u8) -> Self {
        Self { name: node_name(index), octet: 10 + index, subnet: Subnet::Lan }
    }

    /// Returns the node of that name, if the name is valid.
    pub fn named(node: &str) -> Option<Self> {
        node_index(node).map(Self::node)
    }

    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, self.subnet.number(), 0, self.octet)
    }

    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(
            0xfd00 | decimal_digits_as_hex(self.subnet.number()),
            0,
            0,
            0,
            0,
            0,
            0,
            decimal_digits_as_hex(self.octet),
        )
    }

    /// Returns the IPv4 and the IPv6 address; the lab's families determine which of them the host
    /// has.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4().into(), self.v6().into()]
    }

    /// Returns the hardware address of the host's interface in its network, locally administered.
    pub fn mac(&self) -> String {
        let subnet = self.subnet.number() - Subnet::Lan.number();
        format!("02:fb:00:00:{subnet:02x}:{:02x}", self.octet)
    }
}

/// Returns the name of node `index`, counted from 1, in the lab and in Kubernetes.
pub fn node_name(index: u8) -> String {
    format!("node{index}")
}

/// Returns the index of a node by its name: the reverse of [`node_name`].
pub fn node_index(name: &str) -> Option<u8> {
    name.strip_prefix("node")?.parse().ok().filter(|index| (1..=NODES_MAX).contains(index))
}

/// Returns every host of a lab with `nodes` nodes; with BGP also the routers and the client behind
/// them.
pub fn hosts(nodes: u8, bgp: bool) -> Vec<Host> {
    let mut hosts = vec![Host::control_plane(), Host::client()];
    hosts.extend((1..=nodes).map(Host::node));
    if bgp {
        hosts.extend(routers::hosts());
    }
    hosts
}

/// Returns the pod ranges of node `index`, IPv4 and IPv6.
pub fn pod_ranges(index: u8) -> [String; 2] {
    [format!("10.244.{index}.0/24"), format!("fd44:{index}::/64")]
}

/// Returns the addresses of pod number `pod` on node `index`; pod 1 is the node's own bridge, the
/// pods' gateway.
pub fn pod_addresses(index: u8, pod: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(
        0xfd44,
        decimal_digits_as_hex(index),
        0,
        0,
        0,
        0,
        0,
        decimal_digits_as_hex(pod),
    );
    [IpAddr::V4(Ipv4Addr::new(10, 244, index, pod)), IpAddr::V6(v6)]
}

/// Reads decimal digits as hexadecimal ones, so that .112 and ::112 visibly belong together.
fn decimal_digits_as_hex(octet: u8) -> u16 {
    let octet = u16::from(octet);
    (octet / 100) << 8 | (octet / 10 % 10) << 4 | (octet % 10)
}

/// Returns the `ip -batch` commands for the root namespace: a namespace for the switch and for each
/// host.
pub fn batch_namespaces(lab: &LabName, hosts: &[Host]) -> String {
    let names = std::iter::once(SWITCH).chain(hosts.iter().map(|host| host.name.as_str()));
    names.map(|host| format!("netns add {}\n", lab.namespace(host))).collect()
}

/// Returns the `ip -batch` commands for the switch: the bridge of the LAN, and a veth link into
/// each host's namespace, named after the host.
pub fn batch_switch(lab: &LabName, hosts: &[Host]) -> String {
    let mut batch = "link set lo up\nlink add br0 type bridge\nlink set br0 up\n".to_owned();
    for host in hosts.iter().filter(|host| host.subnet == Subnet::Lan) {
        let (name, mac, namespace) = (&host.name, host.mac(), lab.namespace(&host.name));
        batch +=
            &format!("link add {name} type veth peer name eth0 address {mac} netns {namespace}\n");
        batch += &format!("link set {name} master br0 up\n");
    }
    batch
}

/// Returns the `ip -batch` commands for a host: its addresses.
pub fn batch_host(host: &Host, families: Families) -> String {
    "link set lo up\nlink set eth0 up\n".to_owned()
        + &batch_addresses(host.addresses(), families, "eth0")
}

fn batch_addresses([v4, v6]: [IpAddr; 2], families: Families, link: &str) -> String {
    let both =
        [format!("addr add {v4}/24 dev {link}\n"), format!("addr add {v6}/64 dev {link} nodad\n")];
    families.of(both).concat()
}

/// Returns the `ip -batch` commands for node `index`, in addition to those of [`batch_host`]: the
/// pods' bridge and the routes to the other nodes' pods.
///
/// The bridge has a hardware address of its own. A bridge without one takes the lowest of its
/// ports' addresses. When the pod of that port ends, other pods send their IPv6 replies to the old
/// address for up to 30 s: a neighbor solicitation from the bridge's link-local address does not
/// correct them.
pub fn batch_node(index: u8, nodes: u8, families: Families) -> String {
    let mut batch =
        format!("link add cni0 address 02:fb:00:01:00:{index:02x} type bridge\nlink set cni0 up\n");
    batch += &batch_addresses(pod_addresses(index, 1), families, "cni0");
    for other in (1..=nodes).filter(|other| *other != index) {
        let routes = families
            .of(pod_ranges(other))
            .into_iter()
            .zip(families.of(Host::node(other).addresses()));
        batch.extend(routes.map(|(range, host)| format!("route add {range} via {host}\n")));
    }
    batch
}

/// Returns the `ip -batch` commands for a node whose own programs connect to Services' addresses: a
/// default route. A kernel without a route to an address sends nothing, and kube-proxy's rules
/// never apply. The gateway of the default route does not forward.
pub fn batch_default_route(families: Families) -> String {
    let routes = families.of(Host::client().addresses()).into_iter();
    routes.map(|client| format!("route add default via {client}\n")).collect()
}

/// Returns the `ip -batch` commands for the node of a new pod: its veth link into the pods' bridge.
/// The interface is named by number, because a pod's name is too long.
pub fn batch_pod_link(lab: &LabName, name: &str, pod: u8) -> String {
    let namespace = lab.namespace(name);
    format!(
        "link add pod{pod} type veth peer name eth0 netns {namespace}\nlink set pod{pod} master cni0 up\n"
    )
}

/// Returns the `ip -batch` commands for a pod's own namespace.
pub fn batch_pod(index: u8, pod: u8, families: Families) -> String {
    let mut batch = "link set lo up\nlink set eth0 up\n".to_owned();
    batch += &batch_addresses(pod_addresses(index, pod), families, "eth0");
    let gateways = families.of(pod_addresses(index, 1)).into_iter();
    batch.extend(gateways.map(|gateway| format!("route add default via {gateway}\n")));
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_name_has_lowercase_letters_and_digits() {
        for valid in ["lab", "demo", "a", "test12"] {
            assert_eq!(valid.parse::<LabName>().unwrap().to_string(), valid);
        }
        for invalid in ["", "a-b", "1a", "Lab", "a/b", "abcdefghijklmnopq", "ä"] {
            assert!(invalid.parse::<LabName>().is_err(), "{invalid} was accepted");
        }
    }

    #[test]
    fn a_lab_prefix_matches_only_namespaces_of_the_lab() {
        let (short, long) = ("a".parse::<LabName>().unwrap(), "ab".parse::<LabName>().unwrap());
        assert!(!long.namespace("node1").starts_with(&short.prefix()));
        assert!(short.namespace("b-node1").starts_with(&short.prefix()));
    }

    #[test]
    fn ipv4_and_ipv6_addresses_have_the_same_digits() {
        let cases = [
            (2, "172.30.0.2", "fd30::2"),
            (11, "172.30.0.11", "fd30::11"),
            (100, "172.30.0.100", "fd30::100"),
        ];
        for (octet, v4, v6) in cases {
            let host = Host { name: String::new(), octet, subnet: Subnet::Lan };
            assert_eq!(
                (host.v4().to_string(), host.v6().to_string()),
                (v4.to_owned(), v6.to_owned())
            );
        }
        assert_eq!(pod_addresses(12, 34).map(|a| a.to_string()), ["10.244.12.34", "fd44:12::34"]);
    }

    #[test]
    fn a_node_index_is_parsed_from_its_name() {
        assert_eq!(node_index(&node_name(7)), Some(7));
        for other in ["node0", "node21", "cp", "node", "nodex"] {
            assert_eq!(node_index(other), None, "{other}");
        }
    }

    #[test]
    fn each_node_routes_to_the_others_and_not_to_itself() {
        let batch = batch_node(2, 3, Families::Dual);
        assert!(batch.contains(
            "route add 10.244.1.0/24 via 172.30.0.11\nroute add fd44:1::/64 via fd30::11\n"
        ));
        assert!(batch.contains("10.244.3.0/24") && !batch.contains("10.244.2.0/24"));
        assert!(
            batch.starts_with("link add cni0 address 02:"),
            "the bridge has no MAC address of its own: {batch}"
        );
    }

    #[test]
    fn a_single_stack_lab_has_no_address_of_the_other_family() {
        for (families, own, other) in [(Families::V4, '.', "::"), (Families::V6, ':', ".")] {
            let host = Host::node(1);
            let batches = [
                batch_host(&host, families),
                batch_node(1, 2, families),
                batch_pod(1, 2, families),
            ];
            for batch in batches {
                assert!(batch.contains(own) && !batch.contains(other), "{families}: {batch}");
            }
            assert!(
                families.of(host.addresses()) == [families.first(host.addresses())],
                "{families}"
            );
        }
    }
}
