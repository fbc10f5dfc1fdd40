//! A node that is cordoned is used where there is no other; the drawing is in README.md.

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, object};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::routers::{Route, Router};
use ferrolb_tests::stage::{measured, play, step};
use ferrolb_tests::topology::routers::{NODE_AS, ROUTERS};
use ferrolb_tests::topology::{CLIENT, Host};
use ferrolb_tests::{Lab, Options, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// The node that is cordoned first.
const FIRST: &str = "node2";
/// How often the client connects, how long before and after what happens, and at most.
const STEP: Duration = Duration::from_millis(10);
const AROUND: Duration = Duration::from_millis(500);
const PROBE_MAX: Duration = Duration::from_secs(60);
/// A connection that is under way when its packets take another way is reset, and a busy machine has more of them under way.
const UNDER_WAY_MAX: usize = 3;

#[test]
fn a_node_that_is_cordoned_is_the_last_resort_of_every_router() {
    play(&Options { bgp: true, ..Options::named("bgpdrain") }, |lab| {
        let nodes = lab.nodes().iter().map(|node| objects::host(lab, node)).collect::<Result<Vec<_>>>()?;
        lab.start_ferrolb()?;
        let routers = step("FRR, BIRD and GoBGP run", || expect::one_of_each(lab))?;
        step("a Service has a pod on each node, and all are used", || {
            serve(lab, &nodes)?;
            all_use(&routers, &nodes, &[])?;
            announced(lab, "by BGP from node1, node2, node3 to tor1-v4, tor2-v4, tor3-v4")
        })?;
        let (last, others): (Vec<Host>, Vec<Host>) = nodes.iter().cloned().partition(|node| node.name == FIRST);
        step("one is cordoned, and the others are used", || {
            unharmed(lab, "one of three nodes is cordoned", || {
                lab.kubectl(&["cordon", FIRST])?;
                all_use(&routers, &others, &last)
            })?;
            announced(lab, "by BGP from node1, node3 to tor1-v4, tor2-v4, tor3-v4, and as the last resort from node2")
        })?;
        step("all are cordoned, and all are used", || {
            others.iter().try_for_each(|node| lab.kubectl(&["cordon", &node.name]).map(drop))?;
            all_use(&routers, &[], &nodes)?;
            announced(lab, "as the last resort")
        })?;
        step("none is any more", || {
            nodes.iter().try_for_each(|node| lab.kubectl(&["uncordon", &node.name]).map(drop))?;
            all_use(&routers, &nodes, &[])
        })
    });
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
    let [address, _] = ADDRESSES;
    let way = objects::host(lab, ROUTERS[0])?.v4().to_string();
    lab.exec(CLIENT, &["ip", "route", "replace", &objects::prefix(address), "via", &way])?;
    Ok(())
}

/// Waits until each router has the paths of these nodes, of the others as the last resort, and its kernel uses those that are best.
fn all_use(routers: &[Router], sound: &[Host], last: &[Host]) -> Result<()> {
    let all = paths(sound, false).chain(paths(last, true)).collect::<BTreeSet<_>>();
    let used = if sound.is_empty() { last } else { sound };
    for router in routers {
        wait::until("the paths", BGP_MAX, || {
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

/// Waits until the Service's condition says this of the first address.
fn announced(lab: &Lab, text: &str) -> Result<()> {
    wait::until(&format!("Announced: {text:?}"), BGP_MAX, || {
        let service: Value = serde_json::from_str(&lab.kubectl(&["get", "service", "web", "-o", "json"])?)?;
        let mut conditions = service["status"]["conditions"].as_array().into_iter().flatten();
        let is = conditions.find(|is| is["type"] == "ferrolb.io/Announced").context("no such condition")?;
        let message = is["message"].as_str().unwrap_or_default();
        ensure!(is["status"] == "True" && message.contains(text), "it says {is}");
        Ok(Some(()))
    })
}
