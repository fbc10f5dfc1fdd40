//! Drain of a node with BGP: its paths are first de-preferred, and withdrawn after a delay;
//! README.md has the drawing.

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, NAMESPACE, object};
use crate::reported;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb;
use ferrolb_lab::routers::{BgpRoute, Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::routers::{NODE_AS, ROUTERS};
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, Options, Signal, wait};
use ferrolb_proto::wire::hello;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Time for which other nodes must announce the same address before a draining node withdraws it.
/// On a busy machine long enough for all checks before the withdrawal.
const DELAY: Duration = Duration::from_secs(15);
const DELAY_FLAG: &str = "--drain-delay=15s";
/// Interval between the client's connections, their time before and after the event, and the
/// maximum length.
const STEP: Duration = Duration::from_millis(10);
const AROUND: Duration = Duration::from_millis(500);
const PROBE_MAX: Duration = Duration::from_secs(180);
/// Maximum number of lost connections: one in progress is reset when its packets take another path,
/// and a busy machine has several in progress.
const UNDER_WAY_MAX: usize = 3;
/// Commands that show a de-preferred path on each router, and parts of the output.
const DEPREFERRED_OUTPUT: [(&[&str], [&str; 3]); 3] = [
    (
        &["show bgp ipv4 unicast 203.0.113.10/32 json"],
        [
            "\"string\":\"64512 64512 64512 64512\"",
            "\"metric\":4294967295",
            "\"string\":\"graceful-shutdown\"",
        ],
    ),
    (
        &["show", "route", "203.0.113.10/32", "all"],
        ["BGP.as_path: 64512 64512 64512 64512", "BGP.med: 4294967295", "BGP.community: (65535,0)"],
    ),
    (
        &["-j", "global", "rib", "203.0.113.10/32"],
        [
            "\"asns\":[64512,64512,64512,64512]",
            "\"metric\":4294967295",
            "\"communities\":[4294901760]",
        ],
    ),
];

#[test]
fn paths_of_a_draining_node_are_depreferred_and_then_withdrawn_if_another_node_announces() {
    run_scenario(&Options { bgp: true, ..Options::named("bgpdrain") }, |lab| {
        let nodes =
            lab.nodes().iter().map(|node| objects::host(lab, node)).collect::<Result<Vec<_>>>()?;
        start(lab)?;
        let routers = step("FRR, BIRD and GoBGP run", || expect::one_of_each(lab))?;
        step("a Service has a pod on each node, and all are used", || {
            serve(lab, &nodes)?;
            all_use(&routers, &nodes, &[])?;
            announced(lab, "by BGP from node1, node2, node3 to tor1-v4, tor2-v4, tor3-v4")
        })?;
        check_cordon(lab, &routers, &nodes)?;
        check_annotation_and_taint(lab, &routers, &nodes)?;
        step("a router of the nodes' own AS sees local preference 0", || {
            own_as(lab, routers, &nodes)
        })
    });
}

/// Steps in which one node is cordoned, then all, then none.
fn check_cordon(lab: &Lab, routers: &[Router], nodes: &[Host]) -> Result<()> {
    let [one, two, three] = three(nodes);
    let (sound, last) = ([one.clone(), three.clone()], [two]);
    step("one is cordoned: it is the last resort, and then withdrawn", || {
        withdrawn(lab, routers, (&sound, &last), &["cordon", "node2"], || {
            announced(
                lab,
                "by BGP from node1, node3 to tor1-v4, tor2-v4, tor3-v4, and de-preferred (RFC 8326) from node2",
            )?;
            routers
                .iter()
                .zip(DEPREFERRED_OUTPUT)
                .try_for_each(|(router, (words, expect))| check_output(router, words, expect))
        })?;
        announced(lab, "by BGP from node1, node3 to tor1-v4, tor2-v4, tor3-v4")
    })?;
    step("all are cordoned: all are used at once, and none is withdrawn", || {
        [&one, &three]
            .into_iter()
            .try_for_each(|node| lab.kubectl(&["cordon", &node.name]).map(drop))?;
        all_use(routers, &[], nodes)?;
        announced(lab, "de-preferred (RFC 8326)")?;
        wait::during(DELAY + AROUND, || Ok(()))?;
        all_use(routers, &[], nodes)
    })?;
    step("none is any more", || {
        nodes.iter().try_for_each(|node| lab.kubectl(&["uncordon", &node.name]).map(drop))?;
        all_use(routers, nodes, &[])
    })
}

/// Steps with drains by the annotation, without hello frames, and by the taint of the autoscaler.
fn check_annotation_and_taint(lab: &Lab, routers: &[Router], nodes: &[Host]) -> Result<()> {
    let [one, two, three] = three(nodes);
    step("one is to be drained by its annotation, and withdrawn until that is over", || {
        let (sound, last) = ([two.clone(), three.clone()], [one.clone()]);
        withdrawn(
            lab,
            routers,
            (&sound, &last),
            &["annotate", "node", "node1", "ferrolb.io/drain="],
            || Ok(()),
        )?;
        lab.kubectl(&["annotate", "node", "node1", "ferrolb.io/drain-"])?;
        all_use(routers, nodes, &[])
    })?;
    step(
        "where nodes do not hear each other they ask, and who answers no more does not count",
        || without_hellos(lab, routers, nodes),
    )?;
    step(
        "one is to be removed by the autoscaler, and withdrawn until the last other drains",
        || {
            let (sound, last) = ([one.clone(), two.clone()], [three.clone()]);
            let taint = "ToBeDeletedByClusterAutoscaler=1:NoSchedule";
            withdrawn(lab, routers, (&sound, &last), &["taint", "node", "node3", taint], || Ok(()))
        },
    )
}

/// Returns the three nodes, which are node1, node2 and node3.
fn three(nodes: &[Host]) -> [Host; 3] {
    [0, 1, 2].map(|place| nodes[place].clone())
}

/// Starts FerroLB with a shorter drain delay.
fn start(lab: &Lab) -> Result<()> {
    lab.install_ferrolb()?;
    lab.start_controller(&[])?;
    let nodes = lab.nodes();
    nodes.iter().try_for_each(|node| lab.start_speaker(node, &[DELAY_FLAG]))?;
    nodes.iter().try_for_each(|node| {
        lab.wait_healthy(&ferrolb::speaker_name(node), node, ferrolb::ADMIN_PORT, "/readyz")
    })
}

/// Starts a pod on each node, and routes the client through the first router.
fn serve(lab: &Lab, nodes: &[Host]) -> Result<()> {
    nodes.iter().try_for_each(|node| {
        lab.pod(&format!("web-{}", node.name), &node.name, &[("app", "web")])
    })?;
    let mut all = objects::service().to_vec();
    all.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    for router in ROUTERS {
        all.extend(objects::peers(lab, router)?);
    }
    lab.apply_objects(&all)?;
    expect::route_client_through(lab, ADDRESSES[0], ROUTERS[0])
}

/// Waits until each router has the paths of the healthy nodes and the de-preferred paths of `last`,
/// and its kernel uses the best ones.
fn all_use(routers: &[Router], sound: &[Host], last: &[Host]) -> Result<()> {
    let all = paths(sound, false).chain(paths(last, true)).collect::<BTreeSet<_>>();
    let used = if sound.is_empty() { last } else { sound };
    for router in routers {
        wait::until("the paths", DELAY + BGP_MAX, || {
            let routes =
                router.routes()?.into_iter().map(|route| BgpRoute { local_pref: None, ..route });
            let routes: BTreeSet<_> = routes.collect();
            ensure!(routes == all, "{router} sees {routes:#?}, not {all:#?}");
            Ok(Some(()))
        })?;
        expect::forwards_all(router, used)?;
    }
    Ok(())
}

fn paths(nodes: &[Host], last: bool) -> impl Iterator<Item = BgpRoute> {
    nodes.iter().flat_map(move |node| {
        ADDRESSES.into_iter().zip(node.addresses()).map(move |(address, hop)| BgpRoute {
            prefix: objects::prefix(address),
            next_hop: Some(hop),
            as_path: vec![NODE_AS; if last { 4 } else { 1 }],
            communities: last.then(|| "65535:0".to_owned()).into_iter().collect(),
            med: last.then_some(u32::MAX),
            ..BgpRoute::default()
        })
    })
}

/// Starts a drain with this kubectl command while the client connects. Each router first has the
/// node's paths as de-preferred, and then none, but not before the delay is over. `meanwhile` runs
/// between the two.
fn withdrawn(
    lab: &Lab,
    routers: &[Router],
    (sound, last): (&[Host], &[Host]),
    drain: &[&str],
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<()> {
    without_loss(lab, &drain.join(" "), || {
        let start = wait::now();
        lab.kubectl(drain)?;
        all_use(routers, sound, last)?;
        print_measured(&format!(
            "{}: the last resort of three routers after {:?}",
            drain.join(" "),
            wait::now() - start
        ));
        meanwhile()?;
        all_use(routers, sound, &[])?;
        let after = wait::now() - start;
        print_measured(&format!(
            "{}: gone from three routers after {after:?}, of {DELAY:?} at least",
            drain.join(" ")
        ));
        ensure!(after >= DELAY, "the paths were withdrawn before the delay was over");
        sound
            .iter()
            .map(|node| (node, ADDRESSES.len()))
            .chain(last.iter().map(|node| (node, 0)))
            .try_for_each(|(node, announced)| {
                let (speaker, number) = (
                    format!("fspeaker/{}", node.name),
                    format!("--for=jsonpath={{.status.bgp.announced}}={announced}"),
                );
                lab.kubectl(&["wait", "-n", NAMESPACE, &speaker, &number, "--timeout=30s"])
                    .map(drop)
            })
    })
}

/// Drops the speakers' hello frames. A drained node2 is still withdrawn, until the speakers of the
/// other nodes are killed. Their gobgpds continue, with the state that the speakers advertised.
fn without_hellos(lab: &Lab, routers: &[Router], nodes: &[Host]) -> Result<()> {
    lab.set_drops(&[format!("ether type {:#x} drop", hello::ETHER_TYPE)])?;
    nodes.iter().try_for_each(|node| wait_receives_from(lab, node, 0))?;
    let [one, two, three] = three(nodes);
    let (sound, last) = ([one, three], [two]);
    withdrawn(lab, routers, (&sound, &last), &["cordon", "node2"], || Ok(()))?;
    let speakers = sound.each_ref().map(|node| ferrolb::speaker_name(&node.name));
    speakers.iter().try_for_each(|speaker| lab.stop(speaker, Signal::KILL))?;
    let start = wait::now();
    all_use(routers, &sound, &last)?;
    print_measured(&format!(
        "speakers that are asked are dead: the last resort is back after {:?}",
        wait::now() - start
    ));
    speakers.iter().try_for_each(|speaker| lab.restart(speaker))?;
    all_use(routers, &sound, &[])?;
    lab.set_drops(&[])?;
    nodes.iter().try_for_each(|node| wait_receives_from(lab, node, nodes.len() - 1))?;
    lab.kubectl(&["uncordon", "node2"])?;
    all_use(routers, nodes, &[])
}

/// Waits until a node's speaker reports that it receives hello frames from this number of others.
fn wait_receives_from(lab: &Lab, node: &Host, others: usize) -> Result<()> {
    wait::until(&format!("{} hears {others}", node.name), BGP_MAX, || {
        let status = reported::status(lab, "speakerstatus", &node.name)?;
        let links = status["interfaces"].as_array().into_iter().flatten();
        let heard = links.flat_map(|link| link["heard"].as_array().into_iter().flatten());
        let heard = heard.filter_map(Value::as_str).collect::<BTreeSet<_>>();
        Ok((heard.len() == others).then_some(()))
    })
}

/// Checks that a router's output about the paths contains all of `expect`.
fn check_output(router: &Router, words: &[&str], expect: [&str; 3]) -> Result<()> {
    let text = router.run_command(words)?;
    print_measured(&format!("{router} says:\n{text}"));
    // Some routers indent their JSON.
    let plain = match serde_json::from_str::<Value>(&text) {
        Ok(json) => json.to_string(),
        Err(_) => text,
    };
    let missing: Vec<_> = expect.iter().filter(|part| !plain.contains(**part)).collect();
    ensure!(missing.is_empty(), "the output of {router} does not contain {missing:?}: {plain}");
    Ok(())
}

/// Restarts FRR in the nodes' own AS: paths of `node3` are de-preferred by their local preference,
/// and then withdrawn as from other routers.
fn own_as(lab: &Lab, routers: Vec<Router>, nodes: &[Host]) -> Result<()> {
    let [host, ..] = ROUTERS;
    let mut peers = objects::peers(lab, host)?;
    peers.iter_mut().for_each(|peer| peer["spec"]["peerASN"] = NODE_AS.into());
    routers
        .into_iter()
        .find(|router| router.kind() == RouterKind::Frr)
        .context("no FRR")?
        .stop()?;
    let peering = Peering { own_as: NODE_AS, ..Peering::with_nodes(lab, host)? };
    let router = Router::with(lab, RouterKind::Frr, host, &peering)?;
    lab.apply_objects(&peers)?;
    let all = |nodes: &[Host], last: bool| -> Vec<BgpRoute> {
        let local_pref = Some(if last { 0 } else { 100 });
        paths(nodes, last).map(|path| BgpRoute { as_path: vec![], local_pref, ..path }).collect()
    };
    let (sound, last) = nodes.split_at(2);
    expect::has_paths(&router, [all(sound, false), all(last, true)].concat())?;
    let start = wait::now();
    print_measured(&format!("{router} says:\n{}", router.run_command(DEPREFERRED_OUTPUT[0].0)?));
    wait::until("the last resort is withdrawn", DELAY + BGP_MAX, || {
        Ok((router.routes()?.len() == all(sound, false).len()).then_some(()))
    })?;
    expect::has_paths(&router, all(sound, false))?;
    print_measured(&format!(
        "{router} of our own AS: gone {:?} after it was seen",
        wait::now() - start
    ));
    Ok(())
}

/// Runs `event` while the client connects. Checks that only connections in progress are lost.
fn without_loss(lab: &Lab, what: &str, event: impl FnOnce() -> Result<()>) -> Result<()> {
    let server = SocketAddr::new(ADDRESSES[0], 80);
    wait::until("a page by the first router", BGP_MAX, || {
        Ok((lab.http_get(CLIENT, server, "/")?.status == 200).then_some(()))
    })?;
    let probing = lab.start_probe(server, PROBE_MAX, STEP);
    wait::during(AROUND, || Ok(()))?;
    let happened = event();
    wait::during(AROUND, || Ok(()))?;
    let report = probing.stop()?;
    print_measured(&format!("{what}: {} of {} connections lost", report.lost, report.sent));
    happened?;
    ensure!(report.lost <= UNDER_WAY_MAX, "{report:?}");
    Ok(())
}

/// Waits until the Service's condition has a part that ends with this text, so that no further node
/// follows.
fn announced(lab: &Lab, text: &str) -> Result<()> {
    wait::until(&format!("Announced: {text:?}"), BGP_MAX, || {
        let service: Value =
            serde_json::from_str(&lab.kubectl(&["get", "service", "web", "-o", "json"])?)?;
        let mut conditions = service["status"]["conditions"].as_array().into_iter().flatten();
        let is = conditions
            .find(|is| is["type"] == "ferrolb.io/Announced")
            .context("no such condition")?;
        let message = is["message"].as_str().unwrap_or_default();
        let whole = || message.split("; ").any(|said| said.ends_with(text));
        ensure!(is["status"] == "True" && whole(), "the condition is {is}");
        Ok(Some(()))
    })
}
