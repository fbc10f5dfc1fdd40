//! Path attributes of a BGPAdvertisement, as routers of the nodes' own AS and of another AS receive
//! them; README.md has the drawing.

use crate::expect::has_paths;
use crate::objects::{self, ADDRESSES, object, prefix};
use crate::reported::{self, VALID};
use anyhow::Result;
use ferrolb_lab::routers::{BgpRoute, Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of the second Service, in the same networks as those of the first.
const SECOND: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 11)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11)),
];
/// The pool, which is also the announced aggregate.
const POOL: [&str; 2] = ["203.0.113.0/28", "2001:db8::10/124"];
/// The Services and their pods, by name.
const SERVICES: [(&str, [IpAddr; 2]); 2] = [("first", ADDRESSES), ("second", SECOND)];
/// Port of the routers of another AS.
const OTHER_PORT: u16 = 1790;

#[test]
fn internal_and_external_routers_receive_the_attributes_of_the_advertisements() {
    run_scenario(&Options { nodes: 1, bgp: true, ..Options::named("attributes") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        step("two Services of one pool, and two advertisements", || {
            SERVICES
                .iter()
                .try_for_each(|(name, _)| lab.pod(name, &node.name, &[("app", name)]))?;
            lab.apply_objects(&objects_of_test())
        })?;
        let internal = step("FRR, BIRD and GoBGP of our own AS", || start(lab, NODE_AS))?;
        step(
            "they see each address and what holds them both, with LOCAL_PREF and the bare path",
            || wait_paths(&internal, NODE_AS, &SERVICES),
        )?;
        step("what is wider than the pool is not announced, and says so", || too_wide(lab))?;
        step("an address that goes takes its path, and the last of them the aggregate", || {
            come_and_go(lab, &internal, NODE_AS)
        })?;
        step("they end", || internal.into_iter().try_for_each(Router::stop))?;
        let external =
            step("FRR, BIRD and GoBGP of another AS, on another port", || start(lab, ROUTER_AS))?;
        step(
            "they see no LOCAL_PREF, and our AS once more for each time that is asked for",
            || wait_paths(&external, ROUTER_AS, &SERVICES),
        )?;
        step("paths come and go as before", || come_and_go(lab, &external, ROUTER_AS))
    });
}

/// Returns the pool, the Services, and two advertisements: one of each address, and one of the
/// aggregates.
fn objects_of_test() -> Vec<Value> {
    let service = |(name, addresses): (&str, [IpAddr; 2])| {
        let addresses = addresses.map(|address| address.to_string()).join(",");
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "annotations": {"ferrolb.io/loadBalancerIPs": addresses}},
            "spec": {
                "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ipFamilyPolicy": "RequireDualStack",
                "selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}],
            },
        })
    };
    let each = json!({
        "communities": ["ours", "64512:101", "large:64512:1:2"], "localPref": 200, "med": 7, "asPathPrepend": 2,
    });
    let whole = json!({
        "aggregationLength": 28, "aggregationLengthV6": 124, "communities": ["64512:200"], "localPref": 300, "med": 0,
    });
    let names = json!({"communities": [{"name": "ours", "value": "64512:100"}]});
    let mut all = vec![
        object("v1beta1", "IPAddressPool", "routed", &json!({"addresses": POOL})),
        object("v1beta1", "Community", "names", &names),
        object("v1beta1", "BGPAdvertisement", "each", &each),
        object("v1beta1", "BGPAdvertisement", "whole", &whole),
    ];
    all.extend(SERVICES.map(service));
    all
}

/// Starts the routers, all of this AS, and creates their BGPPeers.
fn start(lab: &Lab, asn: u32) -> Result<Vec<Router<'_>>> {
    let port = if asn == NODE_AS { 179 } else { OTHER_PORT };
    let start = |(kind, host): (RouterKind, &str)| {
        let peering = Peering { own_as: asn, port, ..Peering::with_nodes(lab, host)? };
        Router::with(lab, kind, host, &peering)
    };
    let routers =
        RouterKind::ALL.into_iter().zip(ROUTERS).map(start).collect::<Result<Vec<_>>>()?;
    for host in ROUTERS {
        let mut peers = objects::peers(lab, host)?;
        for peer in &mut peers {
            peer["spec"]["peerASN"] = asn.into();
            peer["spec"]["peerPort"] = port.into();
        }
        lab.apply_objects(&peers)?;
    }
    Ok(routers)
}

/// Applies a third advertisement, whose prefixes would contain addresses outside of the pool. Later
/// steps compare all paths, so they show that no router receives these.
fn too_wide(lab: &Lab) -> Result<()> {
    let wide = json!({"aggregationLength": 27, "aggregationLengthV6": 123});
    lab.apply_objects(&[object("v1beta1", "BGPAdvertisement", "wide", &wide)])?;
    reported::wait_condition(lab, ("bgpadvertisement", "wide"), VALID, ("TooWide", "routed"))
}

/// Makes the Services' pods unready one after the other, and ready again.
fn come_and_go(lab: &Lab, routers: &[Router], asn: u32) -> Result<()> {
    let [first, second] = SERVICES;
    lab.set_ready(second.0, false)?;
    wait_paths(routers, asn, &[first])?;
    let start = wait::now();
    lab.set_ready(first.0, false)?;
    wait_paths(routers, asn, &[])?;
    print_measured(&format!(
        "the last address of an aggregate: gone at three routers within {:?}",
        wait::now() - start
    ));
    lab.set_ready(second.0, true)?;
    wait_paths(routers, asn, &[second])?;
    lab.set_ready(first.0, true)?;
    wait_paths(routers, asn, &SERVICES)
}

/// Waits until the routers, all of this AS, have exactly the paths of these Services.
fn wait_paths(routers: &[Router], asn: u32, services: &[(&str, [IpAddr; 2])]) -> Result<()> {
    routers.iter().try_for_each(|router| {
        let paths = Host::node(1).addresses().into_iter().enumerate().flat_map(|(family, hop)| {
            let addresses = services.iter().map(move |(_, addresses)| prefix(addresses[family]));
            let each = addresses.map(move |prefix| each(router.kind(), asn, prefix, hop));
            each.chain((!services.is_empty()).then(|| whole(router.kind(), asn, POOL[family], hop)))
        });
        has_paths(router, paths.collect())
    })
}

fn each(kind: RouterKind, asn: u32, prefix: String, hop: IpAddr) -> BgpRoute {
    let internal = asn == NODE_AS;
    BgpRoute {
        prefix,
        next_hop: Some(hop),
        as_path: vec![NODE_AS; if internal { 0 } else { 3 }],
        communities: ["64512:100", "64512:101"].map(str::to_owned).into(),
        large_communities: vec!["64512:1:2".to_owned()],
        local_pref: if internal { Some(200) } else { kind.local_pref_outside() },
        med: Some(7),
    }
}

fn whole(kind: RouterKind, asn: u32, prefix: &str, hop: IpAddr) -> BgpRoute {
    let internal = asn == NODE_AS;
    BgpRoute {
        prefix: prefix.to_owned(),
        next_hop: Some(hop),
        as_path: vec![NODE_AS; if internal { 0 } else { 1 }],
        communities: vec!["64512:200".to_owned()],
        large_communities: vec![],
        local_pref: if internal { Some(300) } else { kind.local_pref_outside() },
        med: Some(0),
    }
}
