//! Selectors of sessions and advertisements: by node, router, pool and Service; README.md has the
//! drawing.

use crate::objects::{self, BGP_MAX, NAMESPACE, object};
use crate::reported::{self, SessionSnapshot};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::routers::{NODE_AS, OUTSIDE, ROUTER_AS};
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The routers. The second is for one rack only.
const ROUTERS: [&str; 2] = ["tor1", "tor2"];
/// Addresses of Services: one of each pool, and two of the pool `blue`. They are from ranges for
/// documentation (RFC 5737), except one of the LAN.
const RED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const GOLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PLAIN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const LAN: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
/// Communities of the advertisements of the pools `red` and `blue`.
const OF_RED: &str = "64512:1";
const OF_BLUE: &str = "64512:2";

/// The relevant fields of a path: the destination, the next hop, and the community.
type SelectedPath = (Ipv4Addr, IpAddr, Option<String>);

#[test]
fn each_router_has_exactly_the_paths_that_selectors_allow() {
    run_scenario(&Options { bgp: true, ..Options::named("selectors") }, |lab| {
        lab.start_ferrolb()?;
        let routers = step("two FRR run, and all is said", || start(lab))?;
        let before = Racks { a: &[1, 2], b: &[3] };
        step(
            "each node has the sessions that select it, and announces there what selects node, router, pool and Service",
            || {
                wait_paths(&routers, &before, &[])?;
                counts(lab, ["3/3", "1/1"])
            },
        )?;
        step("an address of the LAN that is announced both ways is reached both ways", || {
            both_ways(lab, &routers[0])
        })?;
        let others = step("who is not to notice anything", || {
            let both = ROUTERS.map(str::to_owned);
            [("node1", &both[..1]), ("node2", &both[..1]), ("node3", &both[..])]
                .into_iter()
                .map(|(node, peers)| SessionSnapshot::take(lab, node, peers))
                .collect::<Result<Vec<_>>>()
        })?;
        let unmoved = || others.iter().try_for_each(|witness| witness.check_unchanged(lab));
        step(
            "a node that is labelled anew gets a session and other paths, and its other session goes on, as all others do",
            || {
                let start = wait::now();
                rack(lab, "node2", "b")?;
                wait_paths(&routers, &Racks { a: &[1], b: &[2, 3] }, &[])?;
                print_measured(&format!(
                    "a Node's label is changed: sessions and paths have moved within {:?}",
                    wait::now() - start
                ));
                counts(lab, ["3/3", "2/2"])?;
                unmoved()
            },
        )?;
        step("labelled as before it has lost them again", || {
            rack(lab, "node2", "a")?;
            wait_paths(&routers, &before, &[])?;
            counts(lab, ["3/3", "1/1"])?;
            unmoved()
        })?;
        step("a Service that is labelled is announced, too", || {
            lab.kubectl(&["label", "service", "plain", "class=gold"])?;
            wait_paths(&routers, &before, &[PLAIN])?;
            unmoved()
        })?;
        routers.into_iter().try_for_each(Router::stop)
    });
}

/// The nodes by their label `rack`.
struct Racks<'a> {
    a: &'a [u8],
    b: &'a [u8],
}

fn start(lab: &Lab) -> Result<Vec<Router<'_>>> {
    for (node, label) in [("node1", "a"), ("node2", "a"), ("node3", "b")] {
        rack(lab, node, label)?;
    }
    let router = |host: &str| {
        Router::start(
            lab,
            RouterKind::Frr,
            host,
            &RouterKind::Frr.config(&Peering::with_nodes(lab, host)?),
        )
    };
    let routers = ROUTERS.into_iter().map(router).collect::<Result<Vec<_>>>()?;
    lab.pod("web", "node1", &[("app", "web")])?;
    lab.apply_objects(&objects_of_test(lab)?)?;
    Ok(routers)
}

fn rack(lab: &Lab, node: &str, label: &str) -> Result<()> {
    lab.kubectl(&["label", "node", node, &format!("rack={label}"), "--overwrite"]).map(drop)
}

fn objects_of_test(lab: &Lab) -> Result<Vec<Value>> {
    let peer = |router: &str, fields: Value| -> Result<Value> {
        let mut spec = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": objects::host(lab, router)?.v4(),
            "holdTime": "3s", "connectTime": "1s"});
        spec.as_object_mut()
            .context("fields")?
            .extend(fields.as_object().cloned().unwrap_or_default());
        Ok(object("v1beta2", "BGPPeer", router, &spec))
    };
    let pool = |name: &str, addresses: &[Ipv4Addr]| {
        let addresses: Vec<_> =
            addresses.iter().map(|address| objects::prefix((*address).into())).collect();
        let mut pool = object("v1beta1", "IPAddressPool", name, &json!({"addresses": addresses}));
        pool["metadata"]["labels"] = json!({"colour": name});
        pool
    };
    let ad = |name: &str, spec: &Value| object("v1beta1", "BGPAdvertisement", name, spec);
    let of = |name: &str, value: &str| json!([{"matchLabels": {name: value}}]);
    Ok(vec![
        peer(ROUTERS[0], json!({}))?,
        peer(ROUTERS[1], json!({"nodeSelectors": of("rack", "b")}))?,
        pool("red", &[RED]),
        pool("blue", &[GOLD, PLAIN]),
        pool("lan", &[LAN]),
        ad(
            "red",
            &json!({"ipAddressPools": ["red"], "peers": [ROUTERS[0]], "nodeSelectors": of("rack", "a"), "communities": [OF_RED]}),
        ),
        ad(
            "blue",
            &json!({"ipAddressPoolSelectors": of("colour", "blue"), "serviceSelectors": of("class", "gold"), "communities": [OF_BLUE]}),
        ),
        ad("lan", &json!({"ipAddressPools": ["lan"], "peers": [ROUTERS[0]]})),
        object("v1beta1", "L2Advertisement", "lan", &json!({"ipAddressPools": ["lan"]})),
        service("red", RED, ""),
        service("gold", GOLD, "gold"),
        service("plain", PLAIN, ""),
        service("lan", LAN, ""),
    ])
}

/// Returns a Service of policy Cluster, with an address of its own and a label.
fn service(name: &str, address: Ipv4Addr, class: &str) -> Value {
    let annotations = json!({"ferrolb.io/loadBalancerIPs": address.to_string()});
    let mut metadata = json!({"name": name, "annotations": annotations});
    if !class.is_empty() {
        metadata["labels"] = json!({"class": class});
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}})
}

/// Waits until each router has exactly the selected paths. `more`: addresses of the pool `blue`
/// that are announced in addition to [`GOLD`].
fn wait_paths(routers: &[Router], racks: &Racks, more: &[Ipv4Addr]) -> Result<()> {
    let all: Vec<u8> = racks.a.iter().chain(racks.b).copied().collect();
    let by = |address: Ipv4Addr, nodes: &[u8], community: Option<&str>| -> Vec<SelectedPath> {
        nodes
            .iter()
            .map(|node| (address, Host::node(*node).v4().into(), community.map(str::to_owned)))
            .collect()
    };
    let blue = |nodes: &[u8]| -> Vec<SelectedPath> {
        [GOLD].iter().chain(more).flat_map(|address| by(*address, nodes, Some(OF_BLUE))).collect()
    };
    let first = [by(RED, racks.a, Some(OF_RED)), blue(&all), by(LAN, &all, None)].concat();
    for (router, expect) in routers.iter().zip([first, blue(racks.b)]) {
        let expect: BTreeSet<SelectedPath> = expect.into_iter().collect();
        wait::until("the paths", BGP_MAX, || {
            let paths = paths(router)?;
            ensure!(paths == expect, "{router} sees {paths:#?}, not {expect:#?}");
            Ok(Some(()))
        })?;
    }
    Ok(())
}

fn paths(router: &Router) -> Result<BTreeSet<SelectedPath>> {
    let path = |route: ferrolb_lab::routers::BgpRoute| {
        let address =
            route.prefix.strip_suffix("/32").context("no prefix of one address")?.parse()?;
        let next_hop = route.next_hop.context("no next hop")?;
        ensure!(route.communities.len() <= 1, "{route:?}");
        Ok((address, next_hop, route.communities.into_iter().next()))
    };
    router.routes()?.into_iter().map(path).collect()
}

/// Waits until the BGPPeers have these counts of sessions.
fn counts(lab: &Lab, expect: [&str; 2]) -> Result<()> {
    ROUTERS
        .into_iter()
        .zip(expect)
        .try_for_each(|(peer, count)| reported::wait_count(lab, peer, count))
}

/// Checks that one node announces the address on the LAN by ARP, and that the router forwards to
/// all nodes.
fn both_ways(lab: &Lab, router: &Router) -> Result<()> {
    let serves = |from: &str| {
        let pod = lab.http_get(from, SocketAddr::new(LAN.into(), 80), "/")?.pod();
        ensure!(pod.as_deref() == Some("web"), "{pod:?} serves {from}");
        Ok(())
    };
    wait::until("both ways", BGP_MAX, || {
        let owner = lab.owner_of(LAN.into())?;
        ensure!(
            owner.is_some_and(|owner| lab.nodes().contains(&owner)),
            "no node owns the address"
        );
        serves(CLIENT)?;
        let hops = router.forwards(LAN.into())?;
        ensure!(hops.len() == lab.nodes().len(), "{router} forwards to {hops:?}");
        serves(OUTSIDE)?;
        Ok(Some(()))
    })?;
    let all =
        lab.kubectl(&["get", "bgpadvertisement,l2advertisement", "-n", NAMESPACE, "-o", "json"])?;
    let all: Value = serde_json::from_str(&all)?;
    for object in all["items"].as_array().context("objects")? {
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        ensure!(
            conditions.any(|is| is["type"] == reported::VALID && is["status"] == "True"),
            "{object:#}"
        );
    }
    Ok(())
}
