//! A speaker that has failed or stalled while its gobgpd continues; README.md has the drawing.

mod kubelet;

use crate::expect;
use crate::objects::{self, object};
use anyhow::{Result, ensure};
use ferrolb_lab::cluster::bgp;
use ferrolb_lab::cluster::ferrolb::speaker_name;
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::ROUTERS;
use ferrolb_lab::{Lab, Options, Signal, setup, wait};
use kubelet::Kubelet;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

const ROUTER: &str = ROUTERS[0];
/// Time that the probe itself and the machine may add.
const SLACK: Duration = Duration::from_secs(15);
/// Longer than a gobgpd in the lab waits for its socket before it starts.
const STARTS: Duration = Duration::from_secs(8);

#[test]
fn routes_without_a_speaker_are_withdrawn_within_the_bound_of_the_liveness_probe() {
    run_scenario(&Options { bgp: true, ..Options::named("liveness") }, |lab| {
        let [killed, frozen, well] = [1, 2, 3].map(Host::node);
        lab.start_ferrolb()?;
        step("the API server takes what a user applies for BGP, with its workloads", || {
            accepted(lab)
        })?;
        let router =
            step("FRR has routes by three nodes", || start(lab, &[&killed, &frozen, &well]))?;
        let mut kubelet = Kubelet::new(lab)?;
        let bound = kubelet.bound();
        step(
            "one speaker is killed, one is frozen: their routes stay for as long as an upgrade may take",
            || {
                lab.stop(&speaker_name(&killed.name), Signal::KILL)?;
                lab.signal(&speaker_name(&frozen.name), Signal::STOP)?;
                ensure!(
                    expect::next_hops(&router)? == addresses(&[&killed, &frozen, &well]),
                    "the paths are gone already"
                );
                Ok(())
            },
        )?;
        step("and are gone when the probe has failed for too long", || {
            let start = wait::now();
            let rest = addresses(&[&well]);
            wait::until("the other node alone", bound + SLACK, || {
                kubelet.turn()?;
                let now = expect::next_hops(&router)?;
                ensure!(
                    addresses(&[&well]).is_subset(&now),
                    "the router lost the paths of the healthy node: {now:?}"
                );
                Ok((now == rest).then_some(()))
            })?;
            let took = wait::now() - start;
            print_measured(&format!(
                "speaker dead, and frozen: its routes are gone after {took:?}; the bound is {bound:?}"
            ));
            ensure!(took >= bound / 2, "too early: an upgrade needs this time");
            Ok(())
        })?;
        step("the speakers are back, and so are the routes", || {
            lab.restart(&speaker_name(&killed.name))?;
            lab.signal(&speaker_name(&frozen.name), Signal::CONT)?;
            expect::paths_by(&router, &[&killed, &frozen, &well])
        })?;
        step(
            "a gobgpd that starts on the socket of one that was killed is started again, and has one",
            || {
                lab.stop(&speaker_name(&killed.name), Signal::KILL)?;
                lab.stop(&bgp::process_name(&killed.name), Signal::KILL)?;
                lab.restart(&bgp::process_name(&killed.name))?;
                wait::during(STARTS, || Ok(()))?;
                lab.restart(&speaker_name(&killed.name))?;
                let start = wait::now();
                // The routes are present all the time, so the sessions are checked.
                wait::until("all sessions", bound + SLACK, || {
                    kubelet.turn()?;
                    Ok(router.sessions()?.iter().all(|session| session.established).then_some(()))
                })?;
                let took = wait::now() - start;
                print_measured(&format!(
                    "gobgpd without a socket: its sessions are back {took:?} after the speaker's start"
                ));
                ensure!(took >= bound / 2, "gobgpd had a socket: it was not restarted");
                Ok(())
            },
        )?;
        router.stop()
    });
}

fn start<'a>(lab: &'a Lab, nodes: &[&Host]) -> Result<Router<'a>> {
    let router = Router::with(
        lab,
        RouterKind::Frr,
        ROUTER,
        &Peering { graceful: true, ..Peering::with_nodes(lab, ROUTER)? },
    )?;
    nodes.iter().try_for_each(|node| {
        lab.pod(&format!("web-{}", node.name), &node.name, &[("app", "web")])
    })?;
    let mut all = objects::service().to_vec();
    all.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    // Routers keep the routes of a peer that restarts. This one stays away.
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

/// Applies the install file as a dry run. The lab has no kubelet that would run its workloads.
fn accepted(lab: &Lab) -> Result<()> {
    let file = setup::repository().join("deploy/install-bgp.yaml");
    lab.kubectl(&["apply", "--dry-run=server", "-f", &file.display().to_string()])?;
    Ok(())
}
