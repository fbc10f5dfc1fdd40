//! A node that drains is used where there is no other, and after a while not at all; the drawing is in README.md.

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, NAMESPACE, object};
use crate::said;
use anyhow::{Context, Result, ensure};
use ferrolb_proto::wire::hello;
use ferrolb_tests::cluster::ferrolb;
use ferrolb_tests::routers::{Kind, Peering, Route, Router};
use ferrolb_tests::stage::{measured, play, step};
use ferrolb_tests::topology::routers::{NODE_AS, ROUTERS};
use ferrolb_tests::topology::{CLIENT, Host};
use ferrolb_tests::{Lab, Options, Signal, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// For so long others announce what a node that drains announces, too: on a busy machine long enough for all that is looked at meanwhile.
const DELAY: Duration = Duration::from_secs(15);
const DELAY_FLAG: &str = "--drain-delay=15s";
/// How often the client connects, how long before and after what happens, and at most.
const STEP: Duration = Duration::from_millis(10);
const AROUND: Duration = Duration::from_millis(500);
const PROBE_MAX: Duration = Duration::from_secs(180);
/// A connection that is under way when its packets take another way is reset, and a busy machine has more of them under way.
const UNDER_WAY_MAX: usize = 3;
/// What each router says of a path of the last resort, in words of its own, and how it is asked.
const OWN_WORDS: [(&[&str], [&str; 3]); 3] = [
    (
        &["show bgp ipv4 unicast 203.0.113.10/32 json"],
        ["\"string\":\"64512 64512 64512 64512\"", "\"metric\":4294967295", "\"string\":\"graceful-shutdown\""],
    ),
    (
        &["show", "route", "203.0.113.10/32", "all"],
        ["BGP.as_path: 64512 64512 64512 64512", "BGP.med: 4294967295", "BGP.community: (65535,0)"],
    ),
    (
        &["-j", "global", "rib", "203.0.113.10/32"],
        ["\"asns\":[64512,64512,64512,64512]", "\"metric\":4294967295", "\"communities\":[4294901760]"],
    ),
];

#[test]
fn a_node_that_drains_is_the_last_resort_and_then_withdrawn_where_another_announces() {
    play(&Options { bgp: true, ..Options::named("bgpdrain") }, |lab| {
        let nodes = lab.nodes().iter().map(|node| objects::host(lab, node)).collect::<Result<Vec<_>>>()?;
        start(lab)?;
        let routers = step("FRR, BIRD and GoBGP run", || expect::one_of_each(lab))?;
        step("a Service has a pod on each node, and all are used", || {
            serve(lab, &nodes)?;
            all_use(&routers, &nodes, &[])?;
            announced(lab, "by BGP from node1, node2, node3 to tor1-v4, tor2-v4, tor3-v4")
        })?;
        let [one, two, three] = [0, 1, 2].map(|place| nodes[place].clone());
        let (sound, last) = ([one.clone(), three.clone()], [two.clone()]);
        step("one is cordoned: it is the last resort, and then withdrawn", || {
            withdrawn(lab, &routers, (&sound, &last), &["cordon", "node2"], || {
                announced(
                    lab,
                    "by BGP from node1, node3 to tor1-v4, tor2-v4, tor3-v4, and as the last resort from node2",
                )?;
                routers.iter().zip(OWN_WORDS).try_for_each(|(router, (words, expect))| own_words(router, words, expect))
            })?;
            announced(lab, "by BGP from node1, node3 to tor1-v4, tor2-v4, tor3-v4")
        })?;
        step("all are cordoned: all are used at once, and none is withdrawn", || {
            [&one, &three].into_iter().try_for_each(|node| lab.kubectl(&["cordon", &node.name]).map(drop))?;
            all_use(&routers, &[], &nodes)?;
            announced(lab, "as the last resort")?;
            wait::during(DELAY + AROUND, || Ok(()))?;
            all_use(&routers, &[], &nodes)
        })?;
        step("none is any more", || {
            nodes.iter().try_for_each(|node| lab.kubectl(&["uncordon", &node.name]).map(drop))?;
            all_use(&routers, &nodes, &[])
        })?;
        step("one is to be drained by its annotation, and withdrawn until that is over", || {
            let (sound, last) = ([two.clone(), three.clone()], [one.clone()]);
            withdrawn(lab, &routers, (&sound, &last), &["annotate", "node", "node1", "ferrolb.io/drain="], || Ok(()))?;
            lab.kubectl(&["annotate", "node", "node1", "ferrolb.io/drain-"])?;
            all_use(&routers, &nodes, &[])
        })?;
        step("where nodes do not hear each other they ask, and who answers no more does not count", || {
            unheard(lab, &routers, &nodes)
        })?;
        step("one is to be removed by the autoscaler, and withdrawn until the last other drains", || {
            let (sound, last) = ([one.clone(), two.clone()], [three.clone()]);
            let taint = "ToBeDeletedByClusterAutoscaler=1:NoSchedule";
            withdrawn(lab, &routers, (&sound, &last), &["taint", "node", "node3", taint], || Ok(()))
        })?;
        step("a router of the nodes' own AS sees local preference 0", || own_as(lab, routers, &nodes))
    });
}

/// FerroLB, whose speakers do not wait as long as they would by themselves.
fn start(lab: &Lab) -> Result<()> {
    lab.install_ferrolb()?;
    lab.start_controller(&[])?;
    let nodes = lab.nodes();
    nodes.iter().try_for_each(|node| lab.start_speaker(node, &[DELAY_FLAG]))?;
    nodes
        .iter()
        .try_for_each(|node| lab.wait_healthy(&ferrolb::speaker_name(node), node, ferrolb::ADMIN_PORT, "/readyz"))
}

/// A pod on each node, and the way of the client by the first router.
fn serve(lab: &Lab, nodes: &[Host]) -> Result<()> {
    nodes.iter().try_for_each(|node| lab.pod(&format!("web-{}", node.name), &node.name, &[("app", "web")]))?;
    let mut all = objects::service().to_vec();
    all.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    for router in ROUTERS {
        all.extend(objects::peers(lab, router)?);
    }
    lab.apply_objects(&all)?;
    expect::lead(lab, ADDRESSES[0], ROUTERS[0])
}

/// Waits until each router has the paths of these nodes, of the others as the last resort, and its kernel uses those that are best.
fn all_use(routers: &[Router], sound: &[Host], last: &[Host]) -> Result<()> {
    let all = paths(sound, false).chain(paths(last, true)).collect::<BTreeSet<_>>();
    let used = if sound.is_empty() { last } else { sound };
    for router in routers {
        wait::until("the paths", DELAY + BGP_MAX, || {
            let routes = router.routes()?.into_iter().map(|route| Route { local_pref: None, ..route });
            let routes: BTreeSet<_> = routes.collect();
            ensure!(routes == all, "{router} sees {routes:#?}, not {all:#?}");
            Ok(Some(()))
        })?;
        expect::forwards_all(router, used)?;
    }
    Ok(())
}

fn paths(nodes: &[Host], last: bool) -> impl Iterator<Item = Route> {
    nodes.iter().flat_map(move |node| {
        ADDRESSES.into_iter().zip(node.addresses()).map(move |(address, hop)| Route {
            prefix: objects::prefix(address),
            next_hop: Some(hop),
            as_path: vec![NODE_AS; if last { 4 } else { 1 }],
            communities: last.then(|| "65535:0".to_owned()).into_iter().collect(),
            med: last.then_some(u32::MAX),
            ..Route::default()
        })
    })
}

/// A drain begins by these words to kubectl, while the client connects: each router has the node as the last resort, and then no longer, but not
/// before the delay is over. `meanwhile`: what is looked at until then.
fn withdrawn(
    lab: &Lab,
    routers: &[Router],
    (sound, last): (&[Host], &[Host]),
    drain: &[&str],
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<()> {
    unharmed(lab, &drain.join(" "), || {
        let start = wait::now();
        lab.kubectl(drain)?;
        all_use(routers, sound, last)?;
        measured(&format!("{}: the last resort of three routers after {:?}", drain.join(" "), wait::now() - start));
        meanwhile()?;
        all_use(routers, sound, &[])?;
        let after = wait::now() - start;
        measured(&format!("{}: gone from three routers after {after:?}, of {DELAY:?} at least", drain.join(" ")));
        ensure!(after >= DELAY, "that is too early");
        sound.iter().map(|node| (node, ADDRESSES.len())).chain(last.iter().map(|node| (node, 0))).try_for_each(
            |(node, announced)| {
                let (speaker, number) = (
                    format!("fspeaker/{}", node.name),
                    format!("--for=jsonpath={{.status.bgp.announced}}={announced}"),
                );
                lab.kubectl(&["wait", "-n", NAMESPACE, &speaker, &number, "--timeout=30s"]).map(drop)
            },
        )
    })
}

/// The switch loses what speakers say to each other: node2 is withdrawn all the same, until the speakers of the others are killed. Their gobgpds
/// go on, and what they said of themselves stays.
fn unheard(lab: &Lab, routers: &[Router], nodes: &[Host]) -> Result<()> {
    lab.set_drops(&[format!("ether type {:#x} drop", hello::ETHER_TYPE)])?;
    nodes.iter().try_for_each(|node| hears(lab, node, 0))?;
    let [one, two, three] = [0, 1, 2].map(|place| nodes[place].clone());
    let (sound, last) = ([one, three], [two]);
    withdrawn(lab, routers, (&sound, &last), &["cordon", "node2"], || Ok(()))?;
    let speakers = sound.each_ref().map(|node| ferrolb::speaker_name(&node.name));
    speakers.iter().try_for_each(|speaker| lab.stop(speaker, Signal::KILL))?;
    let start = wait::now();
    all_use(routers, &sound, &last)?;
    measured(&format!("speakers that are asked are dead: the last resort is back after {:?}", wait::now() - start));
    speakers.iter().try_for_each(|speaker| lab.restart(speaker))?;
    all_use(routers, &sound, &[])?;
    lab.set_drops(&[])?;
    nodes.iter().try_for_each(|node| hears(lab, node, nodes.len() - 1))?;
    lab.kubectl(&["uncordon", "node2"])?;
    all_use(routers, nodes, &[])
}

/// Waits until a node's speaker says that it hears so many others.
fn hears(lab: &Lab, node: &Host, others: usize) -> Result<()> {
    wait::until(&format!("{} hears {others}", node.name), BGP_MAX, || {
        let status = said::status(lab, "speakerstatus", &node.name)?;
        let links = status["links"].as_array().into_iter().flatten();
        let heard = links.flat_map(|link| link["heard"].as_array().into_iter().flatten());
        let heard = heard.filter_map(Value::as_str).collect::<BTreeSet<_>>();
        Ok((heard.len() == others).then_some(()))
    })
}

/// What a router says of the paths has all of this in it.
fn own_words(router: &Router, words: &[&str], expect: [&str; 3]) -> Result<()> {
    let text = router.ask(words)?;
    measured(&format!("{router} says:\n{text}"));
    // JSON is indented by some.
    let plain = match serde_json::from_str::<Value>(&text) {
        Ok(json) => json.to_string(),
        Err(_) => text,
    };
    let missing: Vec<_> = expect.iter().filter(|part| !plain.contains(**part)).collect();
    ensure!(missing.is_empty(), "{router} does not say {missing:?}: {plain}");
    Ok(())
}

/// FRR is one of the nodes' own AS: what `node3` says is of the last resort by its local preference, and withdrawn as from any other.
fn own_as(lab: &Lab, routers: Vec<Router>, nodes: &[Host]) -> Result<()> {
    let [host, ..] = ROUTERS;
    let mut peers = objects::peers(lab, host)?;
    peers.iter_mut().for_each(|peer| peer["spec"]["peerASN"] = NODE_AS.into());
    routers.into_iter().find(|router| router.kind() == Kind::Frr).context("no FRR")?.stop()?;
    let peering = Peering { own_as: NODE_AS, ..Peering::with_nodes(lab, host)? };
    let router = Router::with(lab, Kind::Frr, host, &peering)?;
    lab.apply_objects(&peers)?;
    let all = |nodes: &[Host], last: bool| -> Vec<Route> {
        let local_pref = Some(if last { 0 } else { 100 });
        paths(nodes, last).map(|path| Route { as_path: vec![], local_pref, ..path }).collect()
    };
    let (sound, last) = nodes.split_at(2);
    expect::sees(&router, [all(sound, false), all(last, true)].concat())?;
    let start = wait::now();
    measured(&format!("{router} says:\n{}", router.ask(OWN_WORDS[0].0)?));
    wait::until("the last resort is withdrawn", DELAY + BGP_MAX, || {
        Ok((router.routes()?.len() == all(sound, false).len()).then_some(()))
    })?;
    expect::sees(&router, all(sound, false))?;
    measured(&format!("{router} of our own AS: gone {:?} after it was seen", wait::now() - start));
    Ok(())
}

/// Lets `event` happen while the client connects: no connection is lost but what was under way.
fn unharmed(lab: &Lab, what: &str, event: impl FnOnce() -> Result<()>) -> Result<()> {
    let server = SocketAddr::new(ADDRESSES[0], 80);
    wait::until("a page by the first router", BGP_MAX, || {
        Ok((lab.http_get(CLIENT, server, "/")?.status == 200).then_some(()))
    })?;
    let probing = lab.start_probe(server, PROBE_MAX, STEP);
    wait::during(AROUND, || Ok(()))?;
    let happened = event();
    wait::during(AROUND, || Ok(()))?;
    let report = probing.stop()?;
    measured(&format!("{what}: {} of {} connections lost", report.lost, report.sent));
    happened?;
    ensure!(report.lost <= UNDER_WAY_MAX, "{report:?}");
    Ok(())
}

/// Waits until the Service's condition says this of the first address, and then of no further node.
fn announced(lab: &Lab, text: &str) -> Result<()> {
    wait::until(&format!("Announced: {text:?}"), BGP_MAX, || {
        let service: Value = serde_json::from_str(&lab.kubectl(&["get", "service", "web", "-o", "json"])?)?;
        let mut conditions = service["status"]["conditions"].as_array().into_iter().flatten();
        let is = conditions.find(|is| is["type"] == "ferrolb.io/Announced").context("no such condition")?;
        let message = is["message"].as_str().unwrap_or_default();
        let whole = || message.split("; ").any(|said| said.ends_with(text));
        ensure!(is["status"] == "True" && whole(), "it says {is}");
        Ok(Some(()))
    })
}
