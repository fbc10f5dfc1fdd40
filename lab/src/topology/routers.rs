//! Additional hosts of a lab with BGP: hosts for routers, each with an interface in the LAN and one
//! in the network behind it, and a client in that network. The first router is the gateway between
//! the nodes and the client.

use super::{Families, Host, LabName, Subnet, batch_addresses};

/// Hosts on which routers can run.
pub const ROUTERS: [&str; 3] = ["tor1", "tor2", "tor3"];
/// Client behind the routers.
pub const OUTSIDE: &str = "outside";
/// AS number of the nodes in the lab's scenarios.
pub const NODE_AS: u32 = 64512;
/// AS number of the routers in the lab's scenarios.
pub const ROUTER_AS: u32 = 64513;
/// Last octet of the first router's addresses; the other routers have the next octets.
const FIRST_ROUTER_OCTET: u8 = 101;

/// Returns the routers' hosts, and the client behind them.
pub fn hosts() -> Vec<Host> {
    let router =
        |(name, octet): (&&str, u8)| Host { name: (*name).to_owned(), octet, subnet: Subnet::Lan };
    let mut hosts: Vec<Host> = ROUTERS.iter().zip(FIRST_ROUTER_OCTET..).map(router).collect();
    hosts.push(outside());
    hosts
}

fn outside() -> Host {
    Host { name: OUTSIDE.to_owned(), octet: 100, subnet: Subnet::Outside }
}

/// Returns a router's interface in the network behind the routers, as a host; `None` for any other
/// host.
pub fn outside_host(host: &Host) -> Option<Host> {
    ROUTERS.contains(&host.name.as_str()).then(|| Host { subnet: Subnet::Outside, ..host.clone() })
}

/// Returns the router that is the gateway between the networks.
fn gateway() -> Host {
    Host { name: ROUTERS[0].to_owned(), octet: FIRST_ROUTER_OCTET, subnet: Subnet::Lan }
}

/// Returns the switch ports of a host, by its name.
pub fn ports(host: &str) -> Vec<String> {
    let outside = ROUTERS.contains(&host).then(|| outside_port(host));
    std::iter::once(host.to_owned()).chain(outside).collect()
}

fn outside_port(router: &str) -> String {
    format!("{router}-out")
}

/// Returns the `ip -batch` commands for the switch: the network behind the routers, and the links
/// into it.
pub fn batch_switch(lab: &LabName, hosts: &[Host]) -> String {
    let mut batch = "link add br1 type bridge\nlink set br1 up\n".to_owned();
    let router_interfaces =
        hosts.iter().filter_map(outside_host).map(|host| (outside_port(&host.name), "eth1", host));
    let clients = hosts
        .iter()
        .filter(|host| host.name == OUTSIDE)
        .map(|host| (host.name.clone(), "eth0", host.clone()));
    for (port, link, host) in router_interfaces.chain(clients) {
        let (mac, namespace) = (host.mac(), lab.namespace(&host.name));
        batch += &format!(
            "link add {port} type veth peer name {link} address {mac} netns {namespace}\n"
        );
        batch += &format!("link set {port} master br1 up\n");
    }
    batch
}

/// Returns the `ip -batch` commands for a router, in addition to those for every host: its second
/// interface.
pub fn batch_outside_interface(host: &Host, families: Families) -> String {
    "link set eth1 up\n".to_owned() + &batch_addresses(host.addresses(), families, "eth1")
}

/// Returns the `ip -batch` commands for the client behind the routers, in addition to those for
/// every host: a default route through the first router.
pub fn batch_outside(families: Families) -> String {
    let routes =
        outside_host(&gateway()).map(|host| families.of(host.addresses())).unwrap_or_default();
    routes.iter().map(|gateway| format!("route add default via {gateway}\n")).collect()
}

/// Returns the `ip -batch` commands for a node, in addition to its other commands: the route to the
/// client behind the routers.
pub fn batch_outside_route(families: Families) -> String {
    let routes =
        families.of(Subnet::Outside.ranges()).into_iter().zip(families.of(gateway().addresses()));
    routes.map(|(range, gateway)| format!("route add {range} via {gateway}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_has_the_same_digits_in_both_networks() {
        let router = &hosts()[1];
        assert_eq!(router.addresses().map(|a| a.to_string()), ["172.30.0.102", "fd30::102"]);
        let outside = outside_host(router).unwrap();
        assert_eq!(outside.addresses().map(|a| a.to_string()), ["172.31.0.102", "fd31::102"]);
        assert_ne!(outside.mac(), router.mac());
        assert_eq!(outside_host(&Host::node(1)), None);
    }

    #[test]
    fn nodes_and_the_outside_client_have_routes() {
        assert_eq!(batch_outside_route(Families::V4), "route add 172.31.0.0/24 via 172.30.0.101\n");
        assert_eq!(batch_outside(Families::V6), "route add default via fd31::101\n");
    }

    #[test]
    fn only_a_router_has_a_second_port() {
        for (host, expect) in
            [("tor1", &["tor1", "tor1-out"][..]), ("node1", &["node1"]), ("outside", &["outside"])]
        {
            assert_eq!(ports(host), expect);
        }
    }
}
