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

/// Hosts of the routers. Only nodes of the rack `b` have sessions with the second router.
const ROUTERS: [&str; 2] = ["tor1", "tor2"];
/// Addresses of the Services: `RED` from the pool `red`, `GOLD` and `PLAIN` from the pool `blue`,
/// and `LAN` from the pool `lan`. The first three are from documentation prefixes (RFC 5737).
const RED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const GOLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PLAIN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const LAN: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
/// Communities of the advertisements of the pools `red` and `blue`.
const RED_COMMUNITY: &str = "64512:1";
const BLUE_COMMUNITY: &str = "64512:2";

/// The relevant fields of a path: the destination, the next hop, and the community.
type SelectedPath = (Ipv4Addr, IpAddr, Option<String>);

#[test]
fn routers_have_exactly_the_paths_that_selectors_allow() {
    run_scenario(&Options { bgp: true, ..Options::named("selectors") }, |lab| {
        lab.start_ferrolb()?;
        let routers = step("two FRR start, and all objects are created", || start_routers(lab))?;
        let before = Racks { a: &[1, 2], b: &[3] };
        step("sessions and paths are exactly those that the selectors allow", || {
            wait_paths(&routers, &before, &[])?;
            wait_session_counts(lab, ["3/3", "1/1"])
        })?;
        step("an address that is announced by ARP and BGP is reached in both ways", || {
            check_arp_and_bgp(lab, &routers[0])
        })?;
        let others = step("all sessions that must stay are established", || {
            let both = ROUTERS.map(str::to_owned);
            [("node1", &both[..1]), ("node2", &both[..1]), ("node3", &both[..])]
                .into_iter()
                .map(|(node, peers)| SessionSnapshot::take(lab, node, peers))
                .collect::<Result<Vec<_>>>()
        })?;
        let check_sessions =
            || others.iter().try_for_each(|snapshot| snapshot.check_unchanged(lab));
        step(
            "a node with a changed label gets a session and other paths, and all other sessions stay",
            || {
                let start = wait::now();
                set_rack(lab, "node2", "b")?;
                wait_paths(&routers, &Racks { a: &[1], b: &[2, 3] }, &[])?;
                print_measured(&format!(
                    "Node label changed: sessions and paths changed within {:?}",
                    wait::now() - start
                ));
                wait_session_counts(lab, ["3/3", "2/2"])?;
                check_sessions()
            },
        )?;
        step("with the former label, the node loses the session and paths again", || {
            set_rack(lab, "node2", "a")?;
            wait_paths(&routers, &before, &[])?;
            wait_session_counts(lab, ["3/3", "1/1"])?;
            check_sessions()
        })?;
        step(
            "a Service is advertised when it gets the label that the advertisement selects",
            || {
                lab.kubectl(&["label", "service", "plain", "class=gold"])?;
                wait_paths(&routers, &before, &[PLAIN])?;
                check_sessions()
            },
        )?;
        routers.into_iter().try_for_each(Router::stop)
    });
}

/// Numbers of the nodes with each value of the label `rack`.
struct Racks<'a> {
    a: &'a [u8],
    b: &'a [u8],
}

fn start_routers(lab: &Lab) -> Result<Vec<Router<'_>>> {
    for (node, label) in [("node1", "a"), ("node2", "a"), ("node3", "b")] {
        set_rack(lab, node, label)?;
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
    lab.apply_objects(&scenario_objects(lab)?)?;
    Ok(routers)
}

fn set_rack(lab: &Lab, node: &str, label: &str) -> Result<()> {
    lab.kubectl(&["label", "node", node, &format!("rack={label}"), "--overwrite"]).map(drop)
}

fn scenario_objects(lab: &Lab) -> Result<Vec<Value>> {
    let peer = |router: &str, fields: Value| -> Result<Value> {
        let mut spec = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": objects::host(lab, router)?.v4(),
            "holdTime": "3s", "connectTime": "1s"});
        spec.as_object_mut()
            .context("the spec is no object")?
            .extend(fields.as_object().cloned().unwrap_or_default());
        Ok(object("v1beta2", "BGPPeer", router, &spec))
    };
    let pool = |name: &str, addresses: &[Ipv4Addr]| {
        let addresses: Vec<_> =
            addresses.iter().map(|address| objects::prefix((*address).into())).collect();
        let mut pool = object("v1beta1", "IPAddressPool", name, &json!({"addresses": addresses}));
        pool["metadata"]["labels"] = json!({"color": name});
        pool
    };
    let ad = |name: &str, spec: &Value| object("v1beta1", "BGPAdvertisement", name, spec);
    let selector = |name: &str, value: &str| json!([{"matchLabels": {name: value}}]);
    Ok(vec![
        peer(ROUTERS[0], json!({}))?,
        peer(ROUTERS[1], json!({"nodeSelectors": selector("rack", "b")}))?,
        pool("red", &[RED]),
        pool("blue", &[GOLD, PLAIN]),
        pool("lan", &[LAN]),
        ad(
            "red",
            &json!({"ipAddressPools": ["red"], "peers": [ROUTERS[0]], "nodeSelectors": selector("rack", "a"), "communities": [RED_COMMUNITY]}),
        ),
        ad(
            "blue",
            &json!({"ipAddressPoolSelectors": selector("color", "blue"), "serviceSelectors": selector("class", "gold"), "communities": [BLUE_COMMUNITY]}),
        ),
        ad("lan", &json!({"ipAddressPools": ["lan"], "peers": [ROUTERS[0]]})),
        object("v1beta1", "L2Advertisement", "lan", &json!({"ipAddressPools": ["lan"]})),
        service("red", RED, ""),
        service("gold", GOLD, "gold"),
        service("plain", PLAIN, ""),
        service("lan", LAN, ""),
    ])
}

/// Returns a Service with policy Cluster that requests an address, with the label `class` unless
/// `class` is empty.
fn service(name: &str, address: Ipv4Addr, class: &str) -> Value {
    let annotations = json!({"ferrolb.io/loadBalancerIPs": address.to_string()});
    let mut metadata = json!({"name": name, "annotations": annotations});
    if !class.is_empty() {
        metadata["labels"] = json!({"class": class});
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}})
}

/// Waits until each router has exactly the selected paths. `additional` are the addresses of the
/// pool `blue` that are advertised besides [`GOLD`].
fn wait_paths(routers: &[Router], racks: &Racks, additional: &[Ipv4Addr]) -> Result<()> {
    let all: Vec<u8> = racks.a.iter().chain(racks.b).copied().collect();
    let paths_to =
        |address: Ipv4Addr, nodes: &[u8], community: Option<&str>| -> Vec<SelectedPath> {
            nodes
                .iter()
                .map(|node| (address, Host::node(*node).v4().into(), community.map(str::to_owned)))
                .collect()
        };
    let blue_paths = |nodes: &[u8]| -> Vec<SelectedPath> {
        [GOLD]
            .iter()
            .chain(additional)
            .flat_map(|address| paths_to(*address, nodes, Some(BLUE_COMMUNITY)))
            .collect()
    };
    let first =
        [paths_to(RED, racks.a, Some(RED_COMMUNITY)), blue_paths(&all), paths_to(LAN, &all, None)]
            .concat();
    for (router, expect) in routers.iter().zip([first, blue_paths(racks.b)]) {
        let expect: BTreeSet<SelectedPath> = expect.into_iter().collect();
        wait::until("the router has the paths", BGP_MAX, || {
            let paths = paths(router)?;
            ensure!(paths == expect, "{router} has the paths {paths:#?}, not {expect:#?}");
            Ok(Some(()))
        })?;
    }
    Ok(())
}

fn paths(router: &Router) -> Result<BTreeSet<SelectedPath>> {
    let path = |route: ferrolb_lab::routers::BgpRoute| {
        let address =
            route.prefix.strip_suffix("/32").context("the prefix is no single address")?.parse()?;
        let next_hop = route.next_hop.context("the path has no next hop")?;
        ensure!(route.communities.len() <= 1, "the path has several communities: {route:?}");
        Ok((address, next_hop, route.communities.into_iter().next()))
    };
    router.routes()?.into_iter().map(path).collect()
}

/// Waits until the statuses of the BGPPeers have these numbers of sessions.
fn wait_session_counts(lab: &Lab, expect: [&str; 2]) -> Result<()> {
    ROUTERS
        .into_iter()
        .zip(expect)
        .try_for_each(|(peer, count)| reported::wait_count(lab, peer, count))
}

/// Checks that one node announces [`LAN`] by ARP, that the router forwards to all nodes, and that
/// all advertisements are valid.
fn check_arp_and_bgp(lab: &Lab, router: &Router) -> Result<()> {
    let check_page = |from: &str| {
        let pod = lab.http_get(from, SocketAddr::new(LAN.into(), 80), "/")?.pod();
        ensure!(pod.as_deref() == Some("web"), "{from} got the page of {pod:?}");
        Ok(())
    };
    wait::until("clients reach the address by ARP and by BGP", BGP_MAX, || {
        let owner = lab.owner_of(LAN.into())?;
        ensure!(
            owner.is_some_and(|owner| lab.nodes().contains(&owner)),
            "no node owns the address"
        );
        check_page(CLIENT)?;
        let hops = router.forwards(LAN.into())?;
        ensure!(hops.len() == lab.nodes().len(), "{router} forwards to {hops:?}");
        check_page(OUTSIDE)?;
        Ok(Some(()))
    })?;
    let list =
        lab.kubectl(&["get", "bgpadvertisement,l2advertisement", "-n", NAMESPACE, "-o", "json"])?;
    let list: Value = serde_json::from_str(&list)?;
    for object in list["items"].as_array().context("the output of kubectl is no list")? {
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        ensure!(
            conditions
                .any(|condition| condition["type"] == reported::VALID
                    && condition["status"] == "True"),
            "the advertisement is not valid: {object:#}"
        );
    }
    Ok(())
}
