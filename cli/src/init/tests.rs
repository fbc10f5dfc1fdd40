//! Proposals for clusters of several kinds, and the golden files of the output.

use std::net::IpAddr;

use ferrolb_controller_core::state::{Config, Names};
use ferrolb_proto::api;
use ferrolb_proto::facts::{AssignedAddress, Key, Node, Pool, Service, Speaker, SpeakerInterface};
use ferrolb_proto::range::AddressRange;
use serde_json::json;

use super::manifest::{command, yaml};
use super::propose::{AddressesInUse, NoProposal, Proposal, Request, propose};
use crate::check::facts::Objects;
use crate::golden::golden;
use crate::installation::Installation;

/// Returns a cluster with nodes of these InternalIPs and without speakers.
fn cluster(addresses: &[&str]) -> Objects {
    let node = |(index, address): (usize, &&str)| {
        let address: IpAddr = address.parse().unwrap();
        Node {
            name: format!("node{}", index + 1).into(),
            addresses: vec![address],
            internal_addresses: vec![address],
            ..Node::default()
        }
    };
    Objects {
        installation: Installation {
            config: Config {
                names: Names { namespace: api::NAMESPACE.into(), group: api::GROUP.into() },
                ..Config::default()
            },
            ..Installation::default()
        },
        nodes: addresses.iter().enumerate().map(node).collect(),
        ..Objects::default()
    }
}

/// Adds a speaker on the first node, with an interface in these subnets.
fn with_subnets(mut objects: Objects, subnets: &[&str]) -> Objects {
    let interface = SpeakerInterface {
        up: true,
        subnets: subnets.iter().map(|it| it.parse().unwrap()).collect(),
        ..SpeakerInterface::default()
    };
    let node = "node1".into();
    objects.speakers = vec![Speaker { node, interfaces: [interface].into(), ..Speaker::default() }];
    objects
}

fn pool(name: &str, addresses: &str) -> Pool {
    let object = json!({"metadata": {"name": name}, "spec": {"addresses": [addresses]}});
    serde_json::from_value::<api::IPAddressPoolObject>(object).unwrap().into()
}

fn service(address: &str) -> Service {
    let address = address.parse().unwrap();
    Service {
        key: Key::new("default", "web"),
        assigned: vec![AssignedAddress { address, mode: None }],
        ..Service::default()
    }
}

fn ranges(texts: &[&str]) -> Vec<AddressRange> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Returns the proposed range, or the reason why there is none.
fn proposed(objects: &Objects, service_ranges: &[&str], request: &Request) -> String {
    let in_use =
        AddressesInUse { service_ranges: ranges(service_ranges), ..AddressesInUse::default() };
    match propose(objects, &in_use, request) {
        Ok(Proposal::New(pool)) => pool.range.to_string(),
        Ok(Proposal::Exists(pools)) => format!("exists: {}", pools.join(" ")),
        Err(error) => error.to_string(),
    }
}

fn by_default(objects: &Objects) -> String {
    proposed(objects, &["10.96.0.0/12"], &Request::default())
}

#[test]
fn eleven_addresses_near_the_end_of_the_subnet() {
    let nodes = cluster(&["192.168.1.11", "192.168.1.12"]);
    assert_eq!(by_default(&nodes), "192.168.1.240-192.168.1.250");
    let known = |subnet: &str| by_default(&with_subnets(cluster(&["192.168.1.11"]), &[subnet]));
    assert_eq!(known("192.168.0.0/22"), "192.168.3.240-192.168.3.250");
    assert_eq!(known("192.168.1.0/28"), "192.168.1.2-192.168.1.10", "the largest block");
    let full = known("192.168.1.10/30");
    assert!(full.starts_with("no address is free in 192.168.1.8-192.168.1.11"), "{full}");
}

#[test]
fn addresses_in_use_are_not_proposed() {
    let mut objects = cluster(&["192.168.1.11", "192.168.1.245"]);
    assert_eq!(by_default(&objects), "192.168.1.234-192.168.1.244");
    objects.services = vec![service("192.168.1.240")];
    assert_eq!(by_default(&objects), "192.168.1.229-192.168.1.239");
    objects.nodes[0].pod_cidrs = ranges(&["192.168.1.192/26"]);
    assert_eq!(by_default(&objects), "192.168.1.181-192.168.1.191");
    let request = Request::default();
    assert_eq!(proposed(&objects, &["192.168.1.128/25"], &request), "192.168.1.117-192.168.1.127");
    objects.pools = vec![pool("old", "192.168.1.2-192.168.1.191")];
    let request = Request { pool: Some("new".to_owned()), range: None, yes: false };
    assert!(proposed(&objects, &[], &request).starts_with("no address is free in 192.168.1.0-"));
    objects.pools = vec![pool("old", "192.168.1.16-192.168.1.191")];
    assert_eq!(proposed(&objects, &[], &request), "192.168.1.2-192.168.1.10");
}

#[test]
fn an_assumed_subnet_needs_a_confirmation() {
    let nodes = cluster(&["192.168.1.11"]);
    let yes = Request { yes: true, ..Request::default() };
    let refused = proposed(&nodes, &[], &yes);
    assert!(refused.starts_with("no speaker has reported its subnets yet"), "{refused}");
    let named = Request { range: Some("192.168.1.3-192.168.1.5".to_owned()), ..yes.clone() };
    assert_eq!(proposed(&nodes, &[], &named), "192.168.1.3-192.168.1.5");
    let known = with_subnets(nodes, &["192.168.1.0/24"]);
    assert_eq!(proposed(&known, &[], &yes), "192.168.1.240-192.168.1.250");
}

#[test]
fn the_address_of_the_api_server_is_not_proposed() {
    let address = "192.168.1.245".parse().unwrap();
    let api_servers = vec![("the kubeconfig file", address)];
    let in_use = AddressesInUse { api_servers, ..AddressesInUse::default() };
    let nodes = cluster(&["192.168.1.11"]);
    let Proposal::New(pool) = propose(&nodes, &in_use, &Request::default()).unwrap() else {
        panic!("no pool");
    };
    assert_eq!(pool.range.to_string(), "192.168.1.234-192.168.1.244");
    let named = Request { range: Some("192.168.1.240/28".to_owned()), ..Request::default() };
    assert_eq!(
        propose(&nodes, &in_use, &named).unwrap_err().to_string(),
        "--range: 192.168.1.240-192.168.1.255 overlaps 192.168.1.245, the address of the API server in the \
         kubeconfig file: name other addresses"
    );
}

#[test]
fn the_subnet_has_most_nodes() {
    let nodes = cluster(&["10.0.2.1", "10.0.1.1", "10.0.1.2"]);
    assert_eq!(by_default(&nodes), "10.0.1.240-10.0.1.250");
    // Other subnets of the interfaces contain no node.
    let known = with_subnets(nodes, &["172.16.0.0/16", "10.0.2.0/24", "fd00::/64"]);
    assert_eq!(by_default(&known), "10.0.2.240-10.0.2.250");
    assert_eq!(
        propose(&cluster(&["fd00::1"]), &AddressesInUse::default(), &Request::default()),
        Err(NoProposal::NoSubnet)
    );
}

#[test]
fn a_requested_range_is_compared_with_the_subnet_of_its_family() {
    let mut objects = cluster(&["192.168.1.11"]);
    objects.nodes[0].internal_addresses.push("fd00::11".parse().unwrap());
    let objects = with_subnets(objects, &["192.168.1.0/24", "fd00::/64"]);
    let explained = |range: &str| {
        let request = Request { range: Some(range.to_owned()), ..Request::default() };
        propose(&objects, &AddressesInUse::default(), &request).unwrap().to_string()
    };
    for (range, is_routed) in
        [("fd00::c8-fd00::d0", false), ("fd01::1", true), ("192.168.1.240", false)]
    {
        assert_eq!(explained(range).contains("spec.routed"), is_routed, "{range}");
    }
}

#[test]
fn a_requested_range_must_be_free() {
    let mut objects = cluster(&["192.168.1.11"]);
    objects.services = vec![service("192.168.1.40")];
    objects.nodes[0].pod_cidrs = ranges(&["10.244.0.0/24"]);
    objects.pools = vec![pool("old", "192.168.1.60")];
    let cases = [
        ("192.168.1.20-192.168.1.30", "192.168.1.20-192.168.1.30"),
        ("x", "is not an address"),
        ("192.168.1.0/27", "overlaps 192.168.1.11, an address of Node node1"),
        ("192.168.1.40", "an address of Service default/web"),
        ("192.168.1.60", "in IPAddressPool old"),
        ("10.244.0.1", "a pod range"),
        ("10.96.0.9", "the Service range"),
    ];
    for (range, expected) in cases {
        let request =
            Request { pool: Some("new".to_owned()), range: Some(range.to_owned()), yes: false };
        let found = proposed(&objects, &["10.96.0.0/12"], &request);
        assert!(found.contains(expected), "{range}: {found}");
    }
}

#[test]
fn an_existing_pool_stays() {
    let mut objects = cluster(&["192.168.1.11"]);
    objects.pools = vec![pool("old", "192.168.1.60")];
    assert_eq!(by_default(&objects), "exists: old");
    let named = |name: &str| Request { pool: Some(name.to_owned()), range: None, yes: false };
    assert_eq!(proposed(&objects, &[], &named("old")), "exists: old");
    assert_eq!(proposed(&objects, &[], &named("new")), "192.168.1.240-192.168.1.250");
}

#[test]
fn explanations_and_yaml() {
    let nodes = cluster(&["192.168.1.11", "10.0.0.1"]);
    let known = with_subnets(cluster(&["192.168.1.11"]), &["192.168.1.0/24"]);
    let routed = Request { pool: None, range: Some("203.0.113.0/28".to_owned()), yes: false };
    let mut old = cluster(&["192.168.1.11"]);
    old.pools = vec![pool("old", "192.168.1.60")];
    let cases = [
        (&known, Request::default()),
        (&nodes, Request::default()),
        (&known, routed),
        (&old, Request::default()),
    ];
    let mut text = String::new();
    for (objects, request) in cases {
        let proposal = propose(objects, &AddressesInUse::default(), &request).unwrap();
        text.push_str(&format!("{proposal}"));
        if let Proposal::New(pool) = proposal {
            text.push_str(&yaml(&pool, &objects.installation.config.names).unwrap());
        }
        text.push('\n');
    }
    golden("init/golden/proposals.txt", &text);
}

#[test]
fn the_command_applies_exactly_the_proposed_pool() {
    let of = |request: Request, installation: &str| {
        let objects = cluster(&["192.168.1.11"]);
        match propose(&objects, &AddressesInUse::default(), &request).unwrap() {
            Proposal::New(pool) => command(&pool, installation),
            Proposal::Exists(_) => panic!("no pool exists"),
        }
    };
    assert_eq!(
        of(Request::default(), api::NAMESPACE),
        "kubectl ferrolb init --range 192.168.1.240-192.168.1.250 --yes"
    );
    let range = Some("192.168.1.7".to_owned());
    let named = Request { pool: Some("lan".to_owned()), range, yes: false };
    assert_eq!(
        of(named, "lb"),
        "kubectl ferrolb init --installation lb --pool lan --range 192.168.1.7 --yes"
    );
}
