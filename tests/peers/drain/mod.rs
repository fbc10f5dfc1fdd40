//! Drain of a node with BGP: routers use its de-preferred paths only without other ones; README.md
//! has the drawing.

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, object};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::routers::{BgpRoute, Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::routers::{NODE_AS, ROUTERS};
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Interval between the client's connections, the time for which the client connects before and
/// after the event, and the maximum time for which the client connects.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
const PROBE_MARGIN: Duration = Duration::from_millis(500);
const PROBE_MAX: Duration = Duration::from_secs(180);
/// Maximum number of lost connections: a connection in progress is reset when its packets take
/// another path, and on a busy machine several are in progress.
const LOST_MAX: usize = 3;
/// MED of de-preferred paths to the IPv4 address at routers of another AS. The IPv6 address is in
/// another block of addresses.
const DEPREFERRED_MED_V4: u32 = 4_294_967_239;
/// Command of each router (FRR, BIRD, GoBGP) that shows a path, and the parts of the output that
/// show that the path is de-preferred.
const DEPREFERRED_OUTPUT: [(&[&str], [&str; 3]); 3] = [
    (
        &["show bgp ipv4 unicast 203.0.113.10/32 json"],
        [
            "\"string\":\"64512 64512 64512 64512\"",
            "\"metric\":4294967239",
            "\"string\":\"graceful-shutdown\"",
        ],
    ),
    (
        &["show", "route", "203.0.113.10/32", "all"],
        ["BGP.as_path: 64512 64512 64512 64512", "BGP.med: 4294967239", "BGP.community: (65535,0)"],
    ),
    (
        &["-j", "global", "rib", "203.0.113.10/32"],
        [
            "\"asns\":[64512,64512,64512,64512]",
            "\"metric\":4294967239",
            "\"communities\":[4294901760]",
        ],
    ),
];

#[test]
fn paths_of_a_draining_node_are_depreferred() {
    run_scenario(&Options { bgp: true, ..Options::named("bgpdrain") }, |lab| {
        let nodes =
            lab.nodes().iter().map(|node| objects::host(lab, node)).collect::<Result<Vec<_>>>()?;
        lab.start_ferrolb()?;
        let routers = step("FRR, BIRD and GoBGP start", || expect::start_one_of_each(lab))?;
        step("a Service has a pod on each node, and routers use the paths of all nodes", || {
            serve(lab, &nodes)?;
            wait_used(&routers, &nodes, &[])?;
            wait_announced(lab, "by BGP from node1, node2, node3 to tor1-v4, tor2-v4, tor3-v4")
        })?;
        check_cordon(lab, &routers, &nodes)?;
        check_annotation_and_taint(lab, &routers, &nodes)?;
        step("a router in the nodes' own AS receives LOCAL_PREF 0", || {
            check_own_as(lab, routers, &nodes)
        })
    });
}

/// Runs the steps in which one node is cordoned, then all nodes, then none.
fn check_cordon(lab: &Lab, routers: &[Router], nodes: &[Host]) -> Result<()> {
    let [one, two, three] = three(nodes);
    let (healthy, depreferred) = ([one.clone(), three.clone()], [two]);
    step("node2 is cordoned, and its paths are de-preferred", || {
        drain_node(lab, routers, (&healthy, &depreferred), &["cordon", "node2"])?;
        wait_announced(
            lab,
            "by BGP from node1, node3 to tor1-v4, tor2-v4, tor3-v4, and de-preferred (RFC 8326) from node2",
        )?;
        routers
            .iter()
            .zip(DEPREFERRED_OUTPUT)
            .try_for_each(|(router, (words, expect))| check_output(router, words, expect))
    })?;
    step("all nodes are cordoned, and all their paths are de-preferred and used", || {
        [&one, &three]
            .into_iter()
            .try_for_each(|node| lab.kubectl(&["cordon", &node.name]).map(drop))?;
        wait_used(routers, &[], nodes)?;
        wait_announced(lab, "de-preferred (RFC 8326)")
    })?;
    step("all nodes are uncordoned, and routers use the paths of all nodes", || {
        nodes.iter().try_for_each(|node| lab.kubectl(&["uncordon", &node.name]).map(drop))?;
        wait_used(routers, nodes, &[])
    })
}

/// Runs the steps in which a node drains: by the annotation, and by the autoscaler's taint.
fn check_annotation_and_taint(lab: &Lab, routers: &[Router], nodes: &[Host]) -> Result<()> {
    let [one, two, three] = three(nodes);
    step("node1 drains by its annotation until the drain ends", || {
        let (healthy, depreferred) = ([two.clone(), three.clone()], [one.clone()]);
        let annotate = ["annotate", "node", "node1", "ferrolb.io/drain="];
        drain_node(lab, routers, (&healthy, &depreferred), &annotate)?;
        lab.kubectl(&["annotate", "node", "node1", "ferrolb.io/drain-"])?;
        wait_used(routers, nodes, &[])
    })?;
    step("node3 drains by the autoscaler's taint", || {
        let (healthy, depreferred) = ([one.clone(), two.clone()], [three.clone()]);
        let taint = "ToBeDeletedByClusterAutoscaler=1:NoSchedule";
        drain_node(lab, routers, (&healthy, &depreferred), &["taint", "node", "node3", taint])
    })
}

/// Returns node1, node2 and node3.
fn three(nodes: &[Host]) -> [Host; 3] {
    [0, 1, 2].map(|index| nodes[index].clone())
}

/// Creates a Service with a pod on each node, and routes the client through the first router.
fn serve(lab: &Lab, nodes: &[Host]) -> Result<()> {
    nodes.iter().try_for_each(|node| {
        lab.pod(&format!("web-{}", node.name), &node.name, &[("app", "web")])
    })?;
    let mut created = objects::service().to_vec();
    created.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    for router in ROUTERS {
        created.extend(objects::peers(lab, router)?);
    }
    lab.apply_objects(&created)?;
    expect::route_client_through(lab, ADDRESSES[0], ROUTERS[0])
}

/// Waits until each router has the normal paths of the nodes `healthy` and the de-preferred paths
/// of the nodes `depreferred`, and its kernel uses the best of these paths.
fn wait_used(routers: &[Router], healthy: &[Host], depreferred: &[Host]) -> Result<()> {
    let expected = paths(healthy, false).chain(paths(depreferred, true)).collect::<BTreeSet<_>>();
    let used = if healthy.is_empty() { depreferred } else { healthy };
    for router in routers {
        wait::until("the router has the paths", BGP_MAX, || {
            let routes =
                router.routes()?.into_iter().map(|route| BgpRoute { local_pref: None, ..route });
            let routes: BTreeSet<_> = routes.collect();
            ensure!(routes == expected, "{router} has {routes:#?}, not {expected:#?}");
            Ok(Some(()))
        })?;
        expect::wait_forwards_all(router, used)?;
    }
    Ok(())
}

/// Returns the paths of these nodes, normal or de-preferred.
fn paths(nodes: &[Host], depreferred: bool) -> impl Iterator<Item = BgpRoute> {
    nodes.iter().flat_map(move |node| {
        ADDRESSES.into_iter().zip(node.addresses()).map(move |(address, hop)| BgpRoute {
            prefix: objects::prefix(address),
            next_hop: Some(hop),
            as_path: vec![NODE_AS; if depreferred { 4 } else { 1 }],
            communities: depreferred.then(|| "65535:0".to_owned()).into_iter().collect(),
            med: depreferred.then(|| if address.is_ipv4() { DEPREFERRED_MED_V4 } else { u32::MAX }),
            ..BgpRoute::default()
        })
    })
}

/// Starts the drain of a node with the kubectl command `drain` while the client connects, until
/// each router has de-preferred paths of the node and uses the others.
fn drain_node(
    lab: &Lab,
    routers: &[Router],
    (healthy, depreferred): (&[Host], &[Host]),
    drain: &[&str],
) -> Result<()> {
    run_without_loss(lab, &drain.join(" "), || {
        let start = wait::now();
        lab.kubectl(drain)?;
        wait_used(routers, healthy, depreferred)?;
        print_measured(&format!(
            "{}: de-preferred at three routers after {:?}",
            drain.join(" "),
            wait::now() - start
        ));
        Ok(())
    })
}

/// Checks that the output of the command `words` on a router contains all of `expect`.
fn check_output(router: &Router, words: &[&str], expect: [&str; 3]) -> Result<()> {
    let text = router.run_command(words)?;
    print_measured(&format!("output of {router}:\n{text}"));
    // Some routers indent their JSON.
    let output = match serde_json::from_str::<Value>(&text) {
        Ok(json) => json.to_string(),
        Err(_) => text,
    };
    let missing: Vec<_> = expect.iter().filter(|part| !output.contains(**part)).collect();
    ensure!(missing.is_empty(), "the output of {router} does not contain {missing:?}: {output}");
    Ok(())
}

/// Restarts FRR in the nodes' own AS, and checks that the paths of node3 are de-preferred by
/// LOCAL_PREF 0.
fn check_own_as(lab: &Lab, routers: Vec<Router>, nodes: &[Host]) -> Result<()> {
    let [host, ..] = ROUTERS;
    let mut peers = objects::peers(lab, host)?;
    peers.iter_mut().for_each(|peer| peer["spec"]["peerASN"] = NODE_AS.into());
    routers
        .into_iter()
        .find(|router| router.kind() == RouterKind::Frr)
        .context("no router is FRR")?
        .stop()?;
    let peering = Peering { own_as: NODE_AS, ..Peering::with_nodes(lab, host)? };
    let router = Router::start_with_peering(lab, RouterKind::Frr, host, &peering)?;
    lab.apply_objects(&peers)?;
    let internal_paths = |nodes: &[Host], depreferred: bool| -> Vec<BgpRoute> {
        let local_pref = Some(if depreferred { 0 } else { 100 });
        paths(nodes, depreferred)
            .map(|path| {
                let med = path.med.map(|_| u32::MAX);
                BgpRoute { as_path: vec![], local_pref, med, ..path }
            })
            .collect()
    };
    let (healthy, depreferred) = nodes.split_at(2);
    expect::wait_exact_paths(
        &router,
        [internal_paths(healthy, false), internal_paths(depreferred, true)].concat(),
    )?;
    print_measured(&format!(
        "output of {router}:\n{}",
        router.run_command(DEPREFERRED_OUTPUT[0].0)?
    ));
    Ok(())
}

/// Runs `event` while the client connects, and checks that at most [`LOST_MAX`] connections are
/// lost.
fn run_without_loss(lab: &Lab, what: &str, event: impl FnOnce() -> Result<()>) -> Result<()> {
    let server = SocketAddr::new(ADDRESSES[0], 80);
    wait::until("the client gets the page through the first router", BGP_MAX, || {
        Ok((lab.http_get(CLIENT, server, "/")?.status == 200).then_some(()))
    })?;
    let probing = lab.start_probe(server, PROBE_MAX, PROBE_INTERVAL);
    wait::during(PROBE_MARGIN, || Ok(()))?;
    let result = event();
    wait::during(PROBE_MARGIN, || Ok(()))?;
    let report = probing.stop()?;
    print_measured(&format!("{what}: {} of {} connections lost", report.lost, report.sent));
    result?;
    ensure!(report.lost <= LOST_MAX, "too many connections were lost: {report:?}");
    Ok(())
}

/// Waits until one of the parts of the message of the condition `Announced`, which `; ` separates,
/// ends with `text`. A part with a further node at the end does not match.
fn wait_announced(lab: &Lab, text: &str) -> Result<()> {
    wait::until(&format!("a part of the condition Announced ends with {text:?}"), BGP_MAX, || {
        let service = lab.get("/api/v1/namespaces/default/services/web")?;
        let mut conditions = service["status"]["conditions"].as_array().into_iter().flatten();
        let condition = conditions
            .find(|condition| condition["type"] == "ferrolb.io/Announced")
            .context("the Service has no condition Announced")?;
        let message = condition["message"].as_str().unwrap_or_default();
        let has_part = || message.split("; ").any(|part| part.ends_with(text));
        ensure!(condition["status"] == "True" && has_part(), "the condition is {condition}");
        Ok(Some(()))
    })
}
