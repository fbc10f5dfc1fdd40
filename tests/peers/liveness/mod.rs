//! A speaker that is dead, or stuck, while its gobgpd goes on; the drawing is in README.md.

mod kubelet;

use crate::expect;
use crate::objects::{self, object};
use anyhow::{Result, ensure};
use ferrolb_tests::cluster::bgp;
use ferrolb_tests::cluster::ferrolb::speaker_name;
use ferrolb_tests::routers::{Kind, Peering, Router};
use ferrolb_tests::stage::{measured, play, step};
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::ROUTERS;
use ferrolb_tests::{Lab, Options, Signal, setup, wait};
use kubelet::Kubelet;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

const ROUTER: &str = ROUTERS[0];
/// What the probe's own time, and the machine, may add.
const SLACK: Duration = Duration::from_secs(15);
/// Longer than a gobgpd waits in the lab until it starts, socket or not.
const STARTS: Duration = Duration::from_secs(8);

#[test]
fn routes_that_nobody_looks_after_are_gone_within_the_bound_of_the_liveness_probe() {
    play(&Options { bgp: true, ..Options::named("liveness") }, |lab| {
        let [killed, frozen, well] = [1, 2, 3].map(Host::node);
        lab.start_ferrolb()?;
        step("the API server takes what a user applies for BGP, with its workloads", || taken(lab))?;
        let router = step("FRR has routes by three nodes", || start(lab, &[&killed, &frozen, &well]))?;
        let mut kubelet = Kubelet::new(lab)?;
        let bound = kubelet.bound();
        step("one speaker is killed, one is frozen: their routes stay for as long as an upgrade may take", || {
            lab.stop(&speaker_name(&killed.name), Signal::KILL)?;
            lab.signal(&speaker_name(&frozen.name), Signal::STOP)?;
            ensure!(expect::next_hops(&router)? == addresses(&[&killed, &frozen, &well]), "they are gone already");
            Ok(())
        })?;
        step("and are gone when the probe has failed for too long", || {
            let start = wait::now();
            let rest = addresses(&[&well]);
            wait::until("the other node alone", bound + SLACK, || {
                kubelet.turn()?;
                let now = expect::next_hops(&router)?;
                ensure!(addresses(&[&well]).is_subset(&now), "it has lost the node that is well: {now:?}");
                Ok((now == rest).then_some(()))
            })?;
            let took = wait::now() - start;
            measured(&format!("speaker dead, and frozen: its routes are gone after {took:?}; the bound is {bound:?}"));
            ensure!(took >= bound / 2, "an upgrade would not have been given the time");
            Ok(())
        })?;
        step("the speakers are back, and so are the routes", || {
            lab.restart(&speaker_name(&killed.name))?;
            lab.signal(&speaker_name(&frozen.name), Signal::CONT)?;
            expect::paths_by(&router, &[&killed, &frozen, &well])
        })?;
        step("a gobgpd that starts on the socket of one that was killed is started again, and has one", || {
            lab.stop(&speaker_name(&killed.name), Signal::KILL)?;
            lab.stop(&bgp::process_name(&killed.name), Signal::KILL)?;
            lab.restart(&bgp::process_name(&killed.name))?;
            wait::during(STARTS, || Ok(()))?;
            lab.restart(&speaker_name(&killed.name))?;
            let start = wait::now();
            // Its routes are there all the while.
            wait::until("all sessions", bound + SLACK, || {
                kubelet.turn()?;
                Ok(router.sessions()?.iter().all(|session| session.established).then_some(()))
            })?;
            let took = wait::now() - start;
            measured(&format!("gobgpd without a socket: its sessions are back {took:?} after the speaker's start"));
            ensure!(took >= bound / 2, "it had one: nobody has started it again");
            Ok(())
        })?;
        router.stop()
    });
}

fn start<'a>(lab: &'a Lab, nodes: &[&Host]) -> Result<Router<'a>> {
    let router =
        Router::with(lab, Kind::Frr, ROUTER, &Peering { graceful: true, ..Peering::with_nodes(lab, ROUTER)? })?;
    nodes.iter().try_for_each(|node| lab.pod(&format!("web-{}", node.name), &node.name, &[("app", "web")]))?;
    let mut all = objects::service().to_vec();
    all.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    // Routers keep the routes of one that is to come back: this one is not.
    let mut peers = objects::peers(lab, ROUTER)?;
    peers.iter_mut().for_each(|peer| peer["spec"]["enableGracefulRestart"] = true.into());
    all.extend(peers);
    lab.apply_objects(&all)?;
    expect::paths_by(&router, nodes)?;
    Ok(router)
}

fn addresses(nodes: &[&Host]) -> BTreeSet<IpAddr> {
    nodes.iter().flat_map(|node| node.addresses()).collect()
}

/// What a user applies for BGP; the lab has no use for its workloads, as no kubelet would run them.
fn taken(lab: &Lab) -> Result<()> {
    let file = setup::repository().join("deploy/install-bgp.yaml");
    lab.kubectl(&["apply", "--dry-run=server", "-f", &file.display().to_string()])?;
    Ok(())
}
