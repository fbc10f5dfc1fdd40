//! What a BGPAdvertisement says of a path, routers of the nodes' own AS and of another see as they are to; the drawing is in README.md.

use crate::expect::sees;
use crate::objects::{self, ADDRESSES, object, prefix};
use crate::said::{self, VALID};
use anyhow::Result;
use ferrolb_tests::routers::{Kind, Peering, Route, Router};
use ferrolb_tests::stage::{measured, play, step};
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_tests::{Lab, Options, wait};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of the second Service, in the networks of the first's.
const SECOND: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 11)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11))];
/// The pool, which is what is announced of it as a whole, too.
const POOL: [&str; 2] = ["203.0.113.0/28", "2001:db8::10/124"];
/// The Services and their pods, by name.
const SERVICES: [(&str, [IpAddr; 2]); 2] = [("first", ADDRESSES), ("second", SECOND)];
/// Where routers of another AS listen.
const OTHER_PORT: u16 = 1790;

#[test]
fn routers_of_our_own_as_and_of_another_see_what_advertisements_say() {
    play(&Options { nodes: 1, bgp: true, ..Options::named("attributes") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        step("two Services of one pool, and two advertisements", || {
            SERVICES.iter().try_for_each(|(name, _)| lab.pod(name, &node.name, &[("app", name)]))?;
            lab.apply_objects(&said())
        })?;
        let internal = step("FRR, BIRD and GoBGP of our own AS", || start(lab, NODE_AS))?;
        step("they see each address and what holds them both, with LOCAL_PREF and the bare path", || {
            all_see(&internal, NODE_AS, &SERVICES)
        })?;
        step("what is wider than the pool is not announced, and says so", || too_wide(lab))?;
        step("an address that goes takes its path, and the last of them the aggregate", || {
            come_and_go(lab, &internal, NODE_AS)
        })?;
        step("they end", || internal.into_iter().try_for_each(Router::stop))?;
        let external = step("FRR, BIRD and GoBGP of another AS, on another port", || start(lab, ROUTER_AS))?;
        step("they see no LOCAL_PREF, and our AS once more for each time that is asked for", || {
            all_see(&external, ROUTER_AS, &SERVICES)
        })?;
        step("paths come and go as before", || come_and_go(lab, &external, ROUTER_AS))
    });
}

/// The pool, the Services, and what is said of their paths: each by itself, and all as one.
fn said() -> Vec<Value> {
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

/// The routers, all of this AS, and BGPPeers for them.
fn start(lab: &Lab, asn: u32) -> Result<Vec<Router<'_>>> {
    let port = if asn == NODE_AS { 179 } else { OTHER_PORT };
    let start = |(kind, host): (Kind, &str)| {
        let peering = Peering { own_as: asn, port, ..Peering::with_nodes(lab, host)? };
        Router::with(lab, kind, host, &peering)
    };
    let routers = Kind::ALL.into_iter().zip(ROUTERS).map(start).collect::<Result<Vec<_>>>()?;
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

/// A third advertisement, whose prefixes would hold addresses that are not the pool's. That no router sees them, all that follows shows.
fn too_wide(lab: &Lab) -> Result<()> {
    let wide = json!({"aggregationLength": 27, "aggregationLengthV6": 123});
    lab.apply_objects(&[object("v1beta1", "BGPAdvertisement", "wide", &wide)])?;
    said::wait_condition(lab, ("bgpadvertisement", "wide"), VALID, ("TooWide", "routed"))
}

/// The Services lose their pods one after the other, and get them back.
fn come_and_go(lab: &Lab, routers: &[Router], asn: u32) -> Result<()> {
    let [first, second] = SERVICES;
    lab.set_ready(second.0, false)?;
    all_see(routers, asn, &[first])?;
    let start = wait::now();
    lab.set_ready(first.0, false)?;
    all_see(routers, asn, &[])?;
    measured(&format!("the last address of an aggregate: gone at three routers within {:?}", wait::now() - start));
    lab.set_ready(second.0, true)?;
    all_see(routers, asn, &[second])?;
    lab.set_ready(first.0, true)?;
    all_see(routers, asn, &SERVICES)
}

/// Waits until the routers, all of this AS, see exactly what these Services have announced.
fn all_see(routers: &[Router], asn: u32, services: &[(&str, [IpAddr; 2])]) -> Result<()> {
    routers.iter().try_for_each(|router| {
        let paths = Host::node(1).addresses().into_iter().enumerate().flat_map(|(family, hop)| {
            let addresses = services.iter().map(move |(_, addresses)| prefix(addresses[family]));
            let each = addresses.map(move |prefix| each(router.kind(), asn, prefix, hop));
            each.chain((!services.is_empty()).then(|| whole(router.kind(), asn, POOL[family], hop)))
        });
        sees(router, paths.collect())
    })
}

fn each(kind: Kind, asn: u32, prefix: String, hop: IpAddr) -> Route {
    let internal = asn == NODE_AS;
    Route {
        prefix,
        next_hop: Some(hop),
        as_path: vec![NODE_AS; if internal { 0 } else { 3 }],
        communities: ["64512:100", "64512:101"].map(str::to_owned).into(),
        large_communities: vec!["64512:1:2".to_owned()],
        local_pref: if internal { Some(200) } else { kind.local_pref_outside() },
        med: Some(7),
    }
}

fn whole(kind: Kind, asn: u32, prefix: &str, hop: IpAddr) -> Route {
    let internal = asn == NODE_AS;
    Route {
        prefix: prefix.to_owned(),
        next_hop: Some(hop),
        as_path: vec![NODE_AS; if internal { 0 } else { 1 }],
        communities: vec!["64512:200".to_owned()],
        large_communities: vec![],
        local_pref: if internal { Some(300) } else { kind.local_pref_outside() },
        med: Some(0),
    }
}
