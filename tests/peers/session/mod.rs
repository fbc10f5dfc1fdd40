//! What a node's gobgpd announces, FRR, BIRD and GoBGP see; the drawing is in README.md.

use crate::nodes;
use anyhow::{Result, ensure};
use ferrolb_tests::routers::{Kind, Peering, Route, Router};
use ferrolb_tests::stage::{measured, play, step};
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::{NODE_AS, ROUTERS};
use ferrolb_tests::{Lab, Options, wait};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// What the node announces.
const ANNOUNCED: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(172, 30, 0, 200)), IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200))];
/// How long a session, and what is said over it, may take on a busy machine: an attempt that failed is made again after 5 s and more.
const BGP_MAX: Duration = Duration::from_secs(30);

#[test]
fn each_router_sees_what_a_node_s_gobgpd_announces_until_it_goes() {
    play(&Options { nodes: 1, proxy_mode: None, bgp: true, ..Options::named("session") }, |lab| {
        let node = Host::node(1);
        let routers = step("FRR, BIRD and GoBGP run", || start(lab))?;
        step("the node's gobgpd is told of them, and has something to announce", || announce(lab, &node))?;
        step("each router has a session by either family", || sessions(&routers, true))?;
        step("each router sees the paths, whole", || all_see(&routers, &node, true))?;
        step("what is taken back is gone at each", || {
            ANNOUNCED.iter().try_for_each(|address| nodes::withdraw(lab, &node, *address))?;
            all_see(&routers, &node, false)
        })?;
        step("a node without power has no session left", || {
            lab.power_off(&node.name)?;
            let off = wait::now();
            sessions(&routers, false)?;
            measured(&format!("a node without power: the last session ended after {:?}", wait::now() - off));
            Ok(())
        })?;
        step("with its power it has a gobgpd again, which knows nothing", || {
            lab.power_on(&node.name)?;
            wait::until("the gobgpd answers", BGP_MAX, || lab.gobgp(&node.name, &["global"]).map(Some)).map(drop)
        })?;
        step("each router ends when it is told", || routers.into_iter().try_for_each(Router::stop))
    });
}

fn start(lab: &Lab) -> Result<Vec<Router<'_>>> {
    let router =
        |(kind, host): (Kind, &str)| Router::start(lab, kind, host, &kind.config(&Peering::with_nodes(lab, host)?));
    Kind::ALL.into_iter().zip(ROUTERS).map(router).collect()
}

fn announce(lab: &Lab, own: &Host) -> Result<()> {
    nodes::meet_routers(lab, own)?;
    let attributes = ["community", "64512:100", "large-community", "64512:1:2", "med", "7"];
    ANNOUNCED.iter().try_for_each(|address| nodes::announce(lab, own, *address, &attributes))
}

/// Waits until all sessions of all routers stand, or none does.
fn sessions(routers: &[Router], established: bool) -> Result<()> {
    routers.iter().try_for_each(|router| {
        wait::until("the sessions", BGP_MAX, || {
            let sessions = router.sessions()?;
            let good =
                sessions.len() == ANNOUNCED.len() && sessions.iter().all(|session| session.established == established);
            ensure!(good, "{router} has {sessions:?}");
            Ok(Some(()))
        })
    })
}

/// Waits until every router sees what the node announces, exactly that, or nothing, and forwards accordingly.
fn all_see(routers: &[Router], own: &Host, there: bool) -> Result<()> {
    for router in routers {
        let expect: Vec<Route> = expected(router, own).into_iter().filter(|_| there).collect();
        wait::until("the paths", BGP_MAX, || {
            let routes = router.routes()?;
            ensure!(routes == expect, "{router} sees {routes:#?}, not {expect:#?}");
            Ok(Some(()))
        })?;
    }
    let forwarding = routers.iter().filter(|router| router.kind().forwards());
    forwarding.into_iter().try_for_each(|router| {
        ANNOUNCED.into_iter().zip(own.addresses()).try_for_each(|(address, hop)| {
            wait::until("the kernel's route", BGP_MAX, || {
                let hops = router.forwards(address)?;
                ensure!(hops.iter().eq([&hop].into_iter().filter(|_| there)), "{router} forwards to {hops:?}");
                Ok(Some(()))
            })
        })
    })
}

fn expected(router: &Router, own: &Host) -> Vec<Route> {
    let paths = ANNOUNCED.into_iter().zip(own.addresses()).map(|(address, hop)| Route {
        prefix: nodes::prefix(address),
        next_hop: Some(hop),
        as_path: vec![NODE_AS],
        communities: vec!["64512:100".to_owned()],
        large_communities: vec!["64512:1:2".to_owned()],
        local_pref: router.kind().local_pref_outside(),
        med: Some(7),
    });
    paths.collect()
}
