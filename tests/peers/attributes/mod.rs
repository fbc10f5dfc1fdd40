//! Path attributes of a BGPAdvertisement, as routers of the nodes' own AS and of another AS receive
//! them; README.md has the drawing.

use crate::expect::wait_exact_paths;
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

/// The addresses of the second Service, in the same pool as those of the first one.
const SECOND_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 11)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11)),
];
/// The prefixes of the pool, which are also the advertised aggregates.
const POOL_PREFIXES: [&str; 2] = ["203.0.113.0/28", "2001:db8::10/124"];
/// Name and addresses of each Service. Its pod has the same name.
const SERVICES: [(&str, [IpAddr; 2]); 2] = [("first", ADDRESSES), ("second", SECOND_ADDRESSES)];
/// BGP port of the routers in another AS.
const EXTERNAL_PORT: u16 = 1790;

#[test]
fn routers_receive_the_attributes_of_the_advertisements() {
    run_scenario(&Options { nodes: 1, bgp: true, ..Options::named("attributes") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        step("two Services and two advertisements of one pool are created", || {
            SERVICES
                .iter()
                .try_for_each(|(name, _)| lab.pod(name, &node.name, &[("app", name)]))?;
            lab.apply_objects(&scenario_objects())
        })?;
        let internal =
            step("FRR, BIRD and GoBGP start in the nodes' own AS", || start_routers(lab, NODE_AS))?;
        step(
            "internal routers receive addresses and aggregates with LOCAL_PREF and an empty AS path",
            || wait_paths(&internal, NODE_AS, &SERVICES),
        )?;
        step("an aggregate that is wider than the pool is reported and not advertised", || {
            check_too_wide(lab)
        })?;
        step(
            "the path of a removed address is withdrawn, and the aggregate with the last address",
            || withdraw_and_readvertise(lab, &internal, NODE_AS),
        )?;
        step("the internal routers stop", || internal.into_iter().try_for_each(Router::stop))?;
        let external = step("FRR, BIRD and GoBGP start in another AS, on another port", || {
            start_routers(lab, ROUTER_AS)
        })?;
        step(
            "external routers receive no LOCAL_PREF, and the AS path with the configured prepends",
            || wait_paths(&external, ROUTER_AS, &SERVICES),
        )?;
        step("external routers also see the withdrawals and new advertisements", || {
            withdraw_and_readvertise(lab, &external, ROUTER_AS)
        })
    });
}

/// Returns the pool, the Services, and two advertisements: one of the single addresses, and one of
/// the aggregates.
fn scenario_objects() -> Vec<Value> {
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
    let single = json!({
        "communities": ["own", "64512:101", "large:64512:1:2"], "localPref": 200, "med": 7, "asPathPrepend": 2,
    });
    let aggregate = json!({
        "aggregationLength": 28, "aggregationLengthV6": 124, "communities": ["64512:200"], "localPref": 300, "med": 0,
    });
    let names = json!({"communities": [{"name": "own", "value": "64512:100"}]});
    let mut objects = vec![
        object("v1beta1", "IPAddressPool", "routed", &json!({"addresses": POOL_PREFIXES})),
        object("v1beta1", "Community", "names", &names),
        object("v1beta1", "BGPAdvertisement", "each", &single),
        object("v1beta1", "BGPAdvertisement", "whole", &aggregate),
    ];
    objects.extend(SERVICES.map(service));
    objects
}

/// Starts the routers, all in this AS, and creates their BGPPeers.
fn start_routers(lab: &Lab, asn: u32) -> Result<Vec<Router<'_>>> {
    let port = if asn == NODE_AS { 179 } else { EXTERNAL_PORT };
    let start = |(kind, host): (RouterKind, &str)| {
        let peering = Peering { own_as: asn, port, ..Peering::with_nodes(lab, host)? };
        Router::start_with_peering(lab, kind, host, &peering)
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

/// Applies a third advertisement, whose aggregates would contain addresses outside of the pool.
/// Later steps compare all paths and thereby check that no router receives these aggregates.
fn check_too_wide(lab: &Lab) -> Result<()> {
    let wide = json!({"aggregationLength": 27, "aggregationLengthV6": 123});
    lab.apply_objects(&[object("v1beta1", "BGPAdvertisement", "wide", &wide)])?;
    reported::wait_condition(lab, ("bgpadvertisements", "wide"), VALID, ("TooWide", "routed"))
}

/// Makes the Services' pods unready one after the other, then ready again, and checks the paths.
fn withdraw_and_readvertise(lab: &Lab, routers: &[Router], asn: u32) -> Result<()> {
    let [first, second] = SERVICES;
    lab.set_ready(second.0, false)?;
    wait_paths(routers, asn, &[first])?;
    let start = wait::now();
    lab.set_ready(first.0, false)?;
    wait_paths(routers, asn, &[])?;
    print_measured(&format!(
        "last address of an aggregate removed: withdrawn at three routers within {:?}",
        wait::now() - start
    ));
    lab.set_ready(second.0, true)?;
    wait_paths(routers, asn, &[second])?;
    lab.set_ready(first.0, true)?;
    wait_paths(routers, asn, &SERVICES)
}

/// Waits until the routers, all in this AS, have exactly the paths of these Services.
fn wait_paths(routers: &[Router], asn: u32, services: &[(&str, [IpAddr; 2])]) -> Result<()> {
    routers.iter().try_for_each(|router| {
        let paths = Host::node(1).addresses().into_iter().enumerate().flat_map(|(family, hop)| {
            let addresses = services.iter().map(move |(_, addresses)| prefix(addresses[family]));
            let singles = addresses.map(move |prefix| single_path(router.kind(), asn, prefix, hop));
            singles.chain(
                (!services.is_empty())
                    .then(|| aggregate_path(router.kind(), asn, POOL_PREFIXES[family], hop)),
            )
        });
        wait_exact_paths(router, paths.collect())
    })
}

/// Returns the expected path of a single address.
fn single_path(kind: RouterKind, asn: u32, prefix: String, hop: IpAddr) -> BgpRoute {
    let internal = asn == NODE_AS;
    BgpRoute {
        prefix,
        next_hop: Some(hop),
        as_path: vec![NODE_AS; if internal { 0 } else { 3 }],
        communities: ["64512:100", "64512:101"].map(str::to_owned).into(),
        large_communities: vec!["64512:1:2".to_owned()],
        local_pref: if internal { Some(200) } else { kind.default_local_pref() },
        med: Some(7),
    }
}

/// Returns the expected path of an aggregate.
fn aggregate_path(kind: RouterKind, asn: u32, prefix: &str, hop: IpAddr) -> BgpRoute {
    let internal = asn == NODE_AS;
    BgpRoute {
        prefix: prefix.to_owned(),
        next_hop: Some(hop),
        as_path: vec![NODE_AS; if internal { 0 } else { 1 }],
        communities: vec!["64512:200".to_owned()],
        large_communities: vec![],
        local_pref: if internal { Some(300) } else { kind.default_local_pref() },
        med: Some(0),
    }
}
