//! The interfaces of a node on which it announces an address. Pure; the speakers decide by them,
//! and the controller's conditions explain the decision.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_proto::facts::L2Advertisement;
use ferrolb_proto::range::AddressRange;

/// An interface of a node, reduced to the facts that matter here.
#[derive(Clone, Debug)]
pub struct Interface {
    /// True if the interface is up, and no other interface of the node is active on the same
    /// segment.
    pub in_use: bool,
    /// True if the interface has an IPv6 address.
    pub has_ipv6: bool,
    /// The subnets of the interface, without link-local ones.
    pub subnets: Vec<AddressRange>,
}

/// An interface of a node that L2Advertisements select for the node.
#[derive(Clone, Debug)]
pub struct SelectedInterface {
    /// True if the node announces every address there, whatever the subnets.
    ignores_subnets: bool,
    interface: Interface,
}

impl SelectedInterface {
    /// Returns the interface with this name if an advertisement selects it for a node with these
    /// labels.
    #[must_use]
    pub fn select(
        advertisements: &[&L2Advertisement],
        labels: &BTreeMap<String, String>,
        name: &str,
        interface: impl FnOnce() -> Interface,
    ) -> Option<Self> {
        let selects =
            |ad: &&&L2Advertisement| ad.selectors.select_node(labels) && ad.selects_interface(name);
        let mut selecting = advertisements.iter().filter(selects).peekable();
        selecting.peek()?;
        let ignores_subnets = selecting.any(|ad| ad.ignores_subnets_of(name));
        Some(Self { ignores_subnets, interface: interface() })
    }

    /// Returns whether the interface is in use.
    #[must_use]
    pub const fn in_use(&self) -> bool {
        self.interface.in_use
    }

    /// Returns whether the node announces an address on this interface. `all` are the node's
    /// selected interfaces, including this one. If one of several interfaces in use has a subnet
    /// with the address, hosts on the others do not request it.
    #[must_use]
    pub fn announces<'a>(&self, address: IpAddr, all: impl IntoIterator<Item = &'a Self>) -> bool {
        let has_family = address.is_ipv4() || self.interface.has_ipv6;
        let is_holder = |it: &Self| it.in_use() && it.has_subnet_with(address);
        has_family
            && (self.ignores_subnets
                || self.has_subnet_with(address)
                || !all.into_iter().any(is_holder))
    }

    fn has_subnet_with(&self, address: IpAddr) -> bool {
        self.interface.subnets.iter().any(|subnet| subnet.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the interface with this subnet, as one in use with IPv6.
    fn interface(subnet: &str) -> SelectedInterface {
        let subnets = vec![subnet.parse().expect("subnet")];
        let interface = Interface { in_use: true, has_ipv6: true, subnets };
        SelectedInterface { ignores_subnets: false, interface }
    }

    #[test]
    fn the_interface_with_the_subnet_announces_while_it_is_in_use() {
        let address: IpAddr = "10.0.0.200".parse().expect("address");
        let (lan, mut other) = (interface("192.168.1.0/24"), interface("10.0.0.0/24"));
        let announces = |it: &SelectedInterface, other: &SelectedInterface| {
            it.announces(address, [&lan, other])
        };
        assert!(!announces(&lan, &other) && announces(&other, &other));
        // A standby interface announces nothing, so another one must.
        other.interface.in_use = false;
        assert!(announces(&lan, &other));
    }

    #[test]
    fn an_address_in_no_subnet_is_announced_everywhere() {
        let address: IpAddr = "203.0.113.10".parse().expect("address");
        let all = [interface("192.168.1.0/24"), interface("10.0.0.0/24")];
        assert!(all.iter().all(|it| it.announces(address, &all)));
    }

    #[test]
    fn an_interface_without_ipv6_announces_no_ipv6_address() {
        let mut lan = interface("fd00::/64");
        lan.interface.has_ipv6 = false;
        lan.ignores_subnets = true;
        assert!(!lan.announces("fd00::1".parse().expect("address"), [&lan]));
        assert!(lan.announces("10.0.0.1".parse().expect("address"), [&lan]));
    }
}
